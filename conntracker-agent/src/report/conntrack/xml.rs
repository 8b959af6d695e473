//! `conntrack -o xml`: one element `<flow>` a line.
//!
//! Unlike conntrack(8) it has type, code and identifier of ICMP, the names of SCTP's and DCCP's states (not those of
//! TCP with the same numbers), and escaped text.

use super::digits::{address, decimal, hexadecimal};
use super::names;
use super::options::{Options, SECOND, Timestamp};
use super::plain::zone_of_both;
use crate::conntrack::{Counters, Entry, Kind};
use crate::model::{L4, Status, Tuple, Zone};

/// First line of a document, and the start tag of its root element.
pub(super) const HEADER: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
/// Last line.
pub(super) const FOOTER: &[u8] = b"</conntrack>\n";

/// Appends an entry or an event, without a line feed. `now` is in seconds since the epoch; `at` is the time of the
/// event, if it is to be printed.
pub fn entry(
    out: &mut Vec<u8>,
    kind: Option<Kind>,
    at: Option<Timestamp>,
    entry: &Entry<'_>,
    options: &Options<'_>,
    now: u64,
) {
    begin(out, kind);
    let [orig_counters, reply_counters] = entry.counters;
    direction(out, b"original", &entry.orig, entry.zone_orig, orig_counters);
    if let Some(reply) = &entry.reply {
        direction(out, b"reply", reply, entry.zone_reply, reply_counters);
    }
    out.extend_from_slice(b"<meta direction=\"independent\">");
    independent(out, entry, options, now);
    out.extend_from_slice(b"</meta>");
    if let Some(at) = at {
        options.calendar.write_xml(out, at.seconds);
    }
    if let Some(helper) = entry.helper {
        text(out, "helper", helper);
    }
    out.extend_from_slice(b"</flow>");
}

/// Appends the tag that a flow begins with.
pub(super) fn begin(out: &mut Vec<u8>, kind: Option<Kind>) {
    out.extend_from_slice(match kind {
        None => b"<flow>",
        Some(Kind::New) => b"<flow type=\"new\">",
        Some(Kind::Update) => b"<flow type=\"update\">",
        Some(Kind::Destroy) => b"<flow type=\"destroy\">",
    });
}

fn direction(
    out: &mut Vec<u8>,
    name: &[u8],
    tuple: &Tuple,
    zone: Option<Zone>,
    counters: Option<Counters>,
) {
    out.extend_from_slice(b"<meta direction=\"");
    out.extend_from_slice(name);
    out.extend_from_slice(b"\">");
    layer3(out, tuple);
    addresses(out, tuple);
    out.extend_from_slice(b"</layer3>");
    layer4(out, tuple.proto);
    ports(out, tuple.l4);
    out.extend_from_slice(b"</layer4>");
    if let Some(zone) = zone {
        number(out, "zone", zone);
    }
    if let Some(Counters { packets, bytes }) = counters {
        out.extend_from_slice(b"<counters>");
        number(out, "packets", packets);
        number(out, "bytes", bytes);
        out.extend_from_slice(b"</counters>");
    }
    out.extend_from_slice(b"</meta>");
}

fn independent(out: &mut Vec<u8>, entry: &Entry<'_>, options: &Options<'_>, now: u64) {
    if let Some(state) = entry.state {
        match state.name() {
            Some(name) => text(out, "state", name.as_bytes()),
            None => number(out, "state", state.number()),
        }
    }
    if let Some(timeout) = entry.timeout {
        number(out, "timeout", timeout);
    }
    if let Some(mark) = entry.mark {
        number(out, "mark", mark);
    }
    labels(out, entry, options);
    if let Some(secmark) = entry.secmark {
        number(out, "secmark", secmark);
    }
    if let Some(secctx) = entry.secctx {
        text(out, "secctx", secctx);
    }
    if let Some(zone) = zone_of_both(entry) {
        number(out, "zone", zone);
    }
    if let Some(use_count) = entry.use_count {
        number(out, "use", use_count);
    }
    if let Some(id) = entry.id {
        number(out, "id", id);
    }
    if entry.status.contains(Status::ASSURED) {
        out.extend_from_slice(b"<assured/>");
    }
    if !entry.status.contains(Status::SEEN_REPLY) {
        out.extend_from_slice(b"<unreplied/>");
    }
    if options.ktimestamp && (entry.start.is_some() || entry.stop.is_some()) {
        out.extend_from_slice(b"<timestamp>");
        for (name, time) in [("start", entry.start), ("stop", entry.stop)] {
            if let Some(time) = time {
                number(out, name, time);
            }
        }
        out.extend_from_slice(b"</timestamp>");
    }
    if let Some(start) = entry.start {
        // The difference is cut to whole seconds; the plain line has the difference of whole seconds.
        let delta = match entry.stop {
            Some(stop) => stop.saturating_sub(start) / SECOND,
            None => now.saturating_sub(start / SECOND),
        };
        number(out, "deltatime", delta);
    }
}

fn labels(out: &mut Vec<u8>, entry: &Entry<'_>, options: &Options<'_>) {
    let Some(names) = options.labels else { return };
    let mut numbers = entry.label_numbers().peekable();
    if numbers.peek().is_none() {
        return;
    }
    out.extend_from_slice(b"<labels>");
    for label in numbers {
        match names.name(label) {
            Some(name) => text(out, "label", name.as_bytes()),
            None => number(out, "label", label),
        }
    }
    out.extend_from_slice(b"</labels>");
}

/// Appends the tag with the family of a tuple.
pub(super) fn layer3(out: &mut Vec<u8>, tuple: &Tuple) {
    use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
    let family = if tuple.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    layer(out, b"<layer3", family, names::family(family));
}

/// Appends the tag with a protocol.
pub(super) fn layer4(out: &mut Vec<u8>, proto: u8) {
    layer(out, b"<layer4", proto, names::protocol(proto));
}

fn layer(out: &mut Vec<u8>, tag: &[u8], number: u8, name: &str) {
    out.extend_from_slice(tag);
    out.extend_from_slice(b" protonum=\"");
    decimal(out, number);
    out.extend_from_slice(b"\" protoname=\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\">");
}

/// Appends source and destination.
pub(super) fn addresses(out: &mut Vec<u8>, tuple: &Tuple) {
    out.extend_from_slice(b"<src>");
    address(out, tuple.src);
    out.extend_from_slice(b"</src><dst>");
    address(out, tuple.dst);
    out.extend_from_slice(b"</dst>");
}

/// Appends what the protocol has for ports.
pub(super) fn ports(out: &mut Vec<u8>, l4: L4) {
    match l4 {
        L4::Ports { src, dst } => {
            number(out, "sport", src);
            number(out, "dport", dst);
        }
        L4::Icmp { kind, code, id } => {
            number(out, "type", kind);
            number(out, "code", code);
            number(out, "id", id);
        }
        L4::Gre { src, dst } => {
            out.extend_from_slice(b"<srckey>");
            hexadecimal(out, src);
            out.extend_from_slice(b"</srckey><dstkey>");
            hexadecimal(out, dst);
            out.extend_from_slice(b"</dstkey>");
        }
        L4::None => {}
    }
}

/// Appends an element with a number.
pub(super) fn number(out: &mut Vec<u8>, name: &str, number: impl Into<u64>) {
    open(out, name);
    decimal(out, number);
    close(out, name);
}

/// Appends an element with text. Bytes that XML cannot have even escaped become `?`.
pub(super) fn text(out: &mut Vec<u8>, name: &str, text: &[u8]) {
    open(out, name);
    for &byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            0..b' ' | 0x7f.. => out.push(b'?'),
            _ => out.push(byte),
        }
    }
    close(out, name);
}

fn open(out: &mut Vec<u8>, name: &str) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

fn close(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}
