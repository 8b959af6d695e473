//! An entry of conntrack's table as the JSON object of a flow, written as it is read: byte for byte what
//! [`flow`](super::flow) makes of the flow that it becomes, in a fifth of the time. Tables have millions of
//! entries.

use std::io::Write as _;

use super::values::{LONGEST, lower_case};
use crate::{
    conntrack::Entry,
    model::{L4, Status, Tuple, ZoneDir, harmless, protocol},
    report::{
        conntrack::digits::{canonical_address, decimal},
        names,
    },
};

/// When entries were read, or what happened to one was told.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Nanoseconds since the epoch.
    ns: u64,
    text: String,
}

impl Stamp {
    /// A time in nanoseconds since the epoch.
    #[must_use]
    pub fn new(ns: u64) -> Self {
        Self { ns, text: names::time(ns).to_string() }
    }
}

/// Appends the object. `event`: it was told of, rather than found in the table.
pub(super) fn object(out: &mut Vec<u8>, entry: &Entry<'_>, netns: &str, at: &Stamp, event: bool) {
    let Entry { orig, reply, zone, zone_orig, zone_reply, status, state, .. } = entry;
    let Entry { mark, timeout, counters, start, stop, id, use_count, .. } = entry;
    out.extend_from_slice(br#"{"type":"flow","netns":"#);
    text(out, netns);
    number(out, r#","zone":"#, *zone);
    match ZoneDir::of_zones(*zone_orig, *zone_reply) {
        ZoneDir::Both => {}
        ZoneDir::Original => out.extend_from_slice(br#","zone_direction":"original""#),
        ZoneDir::Reply => out.extend_from_slice(br#","zone_direction":"reply""#),
    }
    let family = if orig.is_ipv4() { "ipv4" } else { "ipv6" };
    word(out, r#","family":"#, family);
    out.push(b',');
    protocol(out, orig.proto);
    out.extend_from_slice(br#","original":"#);
    tuple(out, orig);
    if let Some(reply) = reply {
        out.extend_from_slice(br#","reply":"#);
        tuple(out, reply);
    }
    if let Some(master) = &entry.master {
        out.extend_from_slice(br#","parent":{"#);
        protocol(out, master.proto);
        out.push(b',');
        members(out, master);
    }
    nat(out, *status);
    out.extend_from_slice(if status.contains(Status::SEEN_REPLY) {
        br#","confirmed":true,"status":["#
    } else {
        br#","confirmed":false,"status":["#
    });
    for (nth, name) in status.names().enumerate() {
        word(out, if nth == 0 { "" } else { "," }, name);
    }
    number(out, r#"],"status_bits":"#, status.0);
    if let Some(state) = state {
        match lower_case(*state, &mut [0; LONGEST]) {
            Some(name) => word(out, r#","state":"#, name),
            None => number(out, r#","state":"#, state.number()),
        }
    }
    optional(out, r#","mark":"#, mark.map(|mark| mark.0));
    optional(out, r#","timeout_seconds":"#, *timeout);
    out.extend_from_slice(br#","flows":1"#);
    if counters.iter().any(Option::is_some) {
        for (counters, direction) in counters
            .iter()
            .zip([r#","counters":{"original":{"packets":"#, r#","reply":{"packets":"#])
        {
            let counters = counters.unwrap_or_default();
            number(out, direction, counters.packets);
            number(out, r#","bytes":"#, counters.bytes);
            out.push(b'}');
        }
        out.push(b'}');
    }
    match start.filter(|start| *start < at.ns) {
        Some(start) => time(out, r#","first_seen":"#, start),
        None => word(out, r#","first_seen":"#, &at.text),
    }
    word(out, r#","last_seen":"#, &at.text);
    word(out, r#","sources":["#, if event { "events" } else { "dump" });
    out.push(b']');
    optional(out, r#","id":"#, *id);
    optional(out, r#","use":"#, *use_count);
    if let Some(helper) = entry.helper {
        out.extend_from_slice(br#","helper":"#);
        text(out, &String::from_utf8_lossy(helper));
    }
    labels(out, entry);
    if let Some(secctx) = entry.secctx {
        out.extend_from_slice(br#","secctx":"#);
        text(out, &String::from_utf8_lossy(secctx));
    }
    if let Some(start) = start {
        time(out, r#","start":"#, *start);
    }
    if let Some(stop) = stop {
        time(out, r#","stop":"#, *stop);
    }
    out.push(b'}');
}

fn protocol(out: &mut Vec<u8>, proto: u8) {
    number(out, r#""protocol":{"number":"#, proto);
    if let Some(name) = protocol::name(proto) {
        word(out, r#","name":"#, name);
    }
    out.push(b'}');
}

fn tuple(out: &mut Vec<u8>, tuple: &Tuple) {
    out.push(b'{');
    members(out, tuple);
}

/// What is in a tuple's braces, and the brace behind it.
fn members(out: &mut Vec<u8>, Tuple { src, dst, proto: _, l4 }: &Tuple) {
    for (name, ip) in [(r#""src":""#, src), (r#"","dst":""#, dst)] {
        out.extend_from_slice(name.as_bytes());
        canonical_address(out, *ip);
    }
    out.push(b'"');
    match l4 {
        L4::Ports { src, dst } => {
            number(out, r#","sport":"#, *src);
            number(out, r#","dport":"#, *dst);
        }
        L4::Icmp { kind, code, id } => {
            number(out, r#","type":"#, *kind);
            number(out, r#","code":"#, *code);
            number(out, r#","id":"#, *id);
        }
        L4::Gre { src, dst } => {
            number(out, r#","srckey":"#, *src);
            number(out, r#","dstkey":"#, *dst);
        }
        L4::None => {}
    }
    out.push(b'}');
}

fn nat(out: &mut Vec<u8>, status: Status) {
    let nat = match (status.contains(Status::SRC_NAT), status.contains(Status::DST_NAT)) {
        (false, false) => return,
        (true, false) => r#","nat":["src"]"#,
        (false, true) => r#","nat":["dst"]"#,
        (true, true) => r#","nat":["src","dst"]"#,
    };
    out.extend_from_slice(nat.as_bytes());
}

fn labels(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let before = out.len();
    for label in entry.label_numbers() {
        number(out, if out.len() == before { r#","labels":["# } else { "," }, label);
    }
    if out.len() > before {
        out.push(b']');
    }
}

/// What comes before a number, and the number.
fn number(out: &mut Vec<u8>, before: &str, number: impl Into<u64>) {
    out.extend_from_slice(before.as_bytes());
    decimal(out, number);
}

fn optional(out: &mut Vec<u8>, before: &str, wanted: Option<u32>) {
    if let Some(wanted) = wanted {
        number(out, before, wanted);
    }
}

/// What comes before a word of our own, and the word.
fn word(out: &mut Vec<u8>, before: &str, word: &str) {
    out.extend_from_slice(before.as_bytes());
    out.push(b'"');
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

fn time(out: &mut Vec<u8>, before: &str, ns: u64) {
    // Writing to memory does not fail.
    drop(write!(out, r#"{before}"{}""#, names::time(ns)));
}

/// Text of others, escaped.
fn text(out: &mut Vec<u8>, text: &str) {
    // Neither does this.
    drop(harmless::json(out, &text));
}
