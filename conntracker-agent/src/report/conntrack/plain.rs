//! The line of `conntrack -L`.

use super::digits::{address, decimal, hexadecimal, left_aligned};
use super::names;
use super::options::{Options, SECOND};
use crate::conntrack::{Counters, Entry, Kind};
use crate::model::harmless;
use crate::model::{L4, Status, Tuple, Zone};

/// Appends the tag that events begin with.
pub fn tag(out: &mut Vec<u8>, kind: Kind) {
    out.extend_from_slice(match kind {
        Kind::New => b"    [NEW] ",
        Kind::Update => b" [UPDATE] ",
        Kind::Destroy => b"[DESTROY] ",
    });
}

/// Appends an entry, without a line feed. `now` is in seconds since the epoch.
pub fn entry(out: &mut Vec<u8>, entry: &Entry<'_>, options: &Options<'_>, now: u64) {
    if options.extended {
        left_aligned(out, names::family(entry.family), 8);
        field(out, b" ", entry.family);
    }
    left_aligned(out, names::protocol(entry.orig.proto), 8);
    field(out, b" ", entry.orig.proto);
    if let Some(timeout) = entry.timeout {
        field(out, b"", timeout);
    }
    if let Some(state) = entry.state {
        match state.name() {
            Some(name) => word(out, b"", name.as_bytes()),
            None => field(out, b"", state.number()),
        }
    }
    let [orig_counters, reply_counters] = entry.counters;
    tuple(out, &entry.orig);
    if let Some(zone) = entry.zone_orig {
        field(out, b"zone-orig=", zone);
    }
    counters(out, orig_counters);
    if !entry.status.contains(Status::SEEN_REPLY) {
        out.extend_from_slice(b"[UNREPLIED] ");
    }
    if let Some(reply) = &entry.reply {
        tuple(out, reply);
    }
    if let Some(zone) = entry.zone_reply {
        field(out, b"zone-reply=", zone);
    }
    counters(out, reply_counters);
    if entry.status.contains(Status::HW_OFFLOAD) {
        out.extend_from_slice(b"[HW_OFFLOAD] ");
    } else if entry.status.contains(Status::OFFLOAD) {
        out.extend_from_slice(b"[OFFLOAD] ");
    } else if entry.status.contains(Status::ASSURED) {
        out.extend_from_slice(b"[ASSURED] ");
    }
    independent(out, entry, options, now);
    if out.last() == Some(&b' ') {
        out.pop();
    }
}

/// What belongs to neither direction.
fn independent(out: &mut Vec<u8>, entry: &Entry<'_>, options: &Options<'_>, now: u64) {
    if let Some(mark) = entry.mark {
        field(out, b"mark=", mark);
    }
    if let Some(secmark) = entry.secmark {
        field(out, b"secmark=", secmark);
    }
    if let Some(secctx) = entry.secctx {
        word(out, b"secctx=", secctx);
    }
    if let Some(zone) = zone_of_both(entry) {
        field(out, b"zone=", zone);
    }
    if let Some(start) = entry.start {
        // Both times are cut to whole seconds before the subtraction, as in conntrack(8).
        let end = entry.stop.map_or(now, |stop| stop / SECOND);
        field(out, b"delta-time=", end.saturating_sub(start / SECOND));
    }
    if options.ktimestamp {
        for (name, time) in [(&b"[start="[..], entry.start), (b"[stop=", entry.stop)] {
            if let Some(time) = time {
                out.extend_from_slice(name);
                options.calendar.write(out, time / SECOND);
                out.extend_from_slice(b"] ");
            }
        }
    }
    if let Some(helper) = entry.helper {
        word(out, b"helper=", helper);
    }
    if let Some(use_count) = entry.use_count {
        field(out, b"use=", use_count);
    }
    if let Some(id) = entry.id.filter(|_| options.id) {
        field(out, b"id=", id);
    }
    if let Some(names) = options.labels {
        let mut separator = &b"labels="[..];
        for label in entry.label_numbers() {
            out.extend_from_slice(separator);
            match names.name(label) {
                Some(name) => harmless::bytes(out, name.as_bytes()),
                None => decimal(out, label),
            }
            separator = b",";
        }
    }
}

/// The zone, if it applies to both directions.
pub(super) fn zone_of_both(entry: &Entry<'_>) -> Option<Zone> {
    let both = entry.zone_orig.is_none() && entry.zone_reply.is_none();
    Some(entry.zone).filter(|&zone| both && zone != Zone::DEFAULT)
}

/// Appends addresses, and the ports or their counterpart.
fn tuple(out: &mut Vec<u8>, tuple: &Tuple) {
    out.extend_from_slice(b"src=");
    address(out, tuple.src);
    out.extend_from_slice(b" dst=");
    address(out, tuple.dst);
    out.push(b' ');
    ports(out, tuple.l4);
}

/// Appends what the protocol has for ports.
pub(super) fn ports(out: &mut Vec<u8>, l4: L4) {
    match l4 {
        L4::Ports { src, dst } => {
            field(out, b"sport=", src);
            field(out, b"dport=", dst);
        }
        L4::Icmp { kind, code, id } => {
            field(out, b"type=", kind);
            field(out, b"code=", code);
            field(out, b"id=", id);
        }
        L4::Gre { src, dst } => {
            out.extend_from_slice(b"srckey=");
            hexadecimal(out, src);
            out.extend_from_slice(b" dstkey=");
            hexadecimal(out, dst);
            out.push(b' ');
        }
        L4::None => {}
    }
}

fn counters(out: &mut Vec<u8>, counters: Option<Counters>) {
    if let Some(Counters { packets, bytes }) = counters {
        field(out, b"packets=", packets);
        field(out, b"bytes=", bytes);
    }
}

/// Appends a number after its name, and a space.
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], number: impl Into<u64>) {
    out.extend_from_slice(name);
    decimal(out, number);
    out.push(b' ');
}

/// Appends text after its name, and a space.
pub(super) fn word(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    out.extend_from_slice(name);
    harmless::bytes(out, text);
    out.push(b' ');
}
