//! `conntrack -o save`: each entry as arguments from which `conntrack -R` makes it again.
//!
//! Unlike conntrack(8) it has the mark, the labels and the helper, and NAT of a port alone; it leaves out the status
//! bit EXPECTED, which the kernel refuses; and it has the arguments that `-R` requires for DCCP and for entries in a
//! flowtable.

use std::net::IpAddr;

use conntracker_common::{IPPROTO_DCCP, IPPROTO_ICMPV6};

use super::digits::{address, decimal};
use super::labels::LabelMap;
use super::names;
use super::plain::zone_of_both;
use crate::conntrack::{Entry, Kind, ProtoState};
use crate::model::harmless::is_harmful;
use crate::model::{L4, Mark, Status};

/// Bits that `-u` can set, and their names.
const STATUS: [(Status, &[u8]); 3] = [
    (Status::SEEN_REPLY, b"SEEN_REPLY"),
    (Status::ASSURED, b"ASSURED"),
    (Status::FIXED_TIMEOUT, b"FIXED_TIMEOUT"),
];

/// Timeout, in seconds, for entries without one. Entries in a flowtable have none, but `-A` requires it: this is the
/// kernel's default timeout of a flowtable (net.netfilter.nf_flowtable_tcp_timeout and _udp_timeout).
const IN_FLOWTABLE: u32 = 30;

/// Appends the arguments that make an entry or repeat an event, without a line feed. Labels are named where `names`
/// has a name that needs no quotes.
pub fn entry(out: &mut Vec<u8>, kind: Kind, entry: &Entry<'_>, names: Option<&LabelMap>) {
    out.extend_from_slice(match kind {
        Kind::New => b"-A ",
        Kind::Update => b"-U ",
        Kind::Destroy => b"-D ",
    });
    if let Some(timeout) = entry.timeout.or((kind == Kind::New).then_some(IN_FLOWTABLE)) {
        option(out, b"-t", timeout);
    }
    status(out, entry.status);
    if let Some(zone) = zone_of_both(entry) {
        option(out, b"-w", zone);
    }
    if let Some(zone) = entry.zone_orig {
        option(out, b"--orig-zone", zone);
    }
    if let Some(zone) = entry.zone_reply {
        option(out, b"--reply-zone", zone);
    }
    end(out, *b"-s ", entry.orig.src, None);
    end(out, *b"-d ", entry.orig.dst, None);
    let [src_port, dst_port] = translated_ports(entry);
    if let Some(reply) = &entry.reply {
        // -g and -n instead of -r and -q make the kernel translate too.
        let src = if entry.status.contains(Status::DST_NAT) { *b"-g " } else { *b"-r " };
        let dst = if entry.status.contains(Status::SRC_NAT) { *b"-n " } else { *b"-q " };
        end(out, src, reply.src, dst_port);
        end(out, dst, reply.dst, src_port);
    }
    protocol(out, entry);
    if let Some(mark) = entry.mark.filter(|&mark| mark != Mark::NONE) {
        option(out, b"-m", mark);
    }
    labels(out, kind, entry, names);
    if let Some(helper) = entry.helper.filter(|_| kind == Kind::New) {
        self::helper(out, helper);
    }
    out.pop();
}

/// The helper, for which conntrack(8) has no option. A name that cannot be quoted is left out.
fn helper(out: &mut Vec<u8>, name: &[u8]) {
    let Some(name) = str::from_utf8(name).ok().filter(|name| !name.contains('"')) else { return };
    if name.contains(is_harmful) {
        return;
    }
    out.extend_from_slice(b"--helper ");
    let quotes: &[u8] = if is_plain(name) { b"" } else { b"\"" };
    for part in [quotes, name.as_bytes(), quotes, b" "] {
        out.extend_from_slice(part);
    }
}

fn status(out: &mut Vec<u8>, status: Status) {
    let mut separator = &b"-u "[..];
    for (bit, name) in STATUS {
        if status.contains(bit) {
            out.extend_from_slice(separator);
            out.extend_from_slice(name);
            separator = b",";
        }
    }
    if separator != b"," {
        out.extend_from_slice(b"-u UNSET");
    }
    out.push(b' ');
}

/// The ports that source and destination are translated to, where the address is not. The kernel would not recognise
/// NAT in a reply tuple with the same address and another port, so it must be requested.
fn translated_ports(entry: &Entry<'_>) -> [Option<u16>; 2] {
    let Some(reply) = entry.reply else { return [None; 2] };
    let (L4::Ports { src, dst }, L4::Ports { src: reply_src, dst: reply_dst }) =
        (entry.orig.l4, reply.l4)
    else {
        return [None; 2];
    };
    let only =
        |bit, same, from, to| (entry.status.contains(bit) && same && from != to).then_some(to);
    [
        only(Status::SRC_NAT, entry.orig.src == reply.dst, src, reply_dst),
        only(Status::DST_NAT, entry.orig.dst == reply.src, dst, reply_src),
    ]
}

/// An address and perhaps a port.
fn end(out: &mut Vec<u8>, name: [u8; 3], of: IpAddr, port: Option<u16>) {
    out.extend_from_slice(&name);
    match port {
        Some(port) if of.is_ipv6() => {
            out.push(b'[');
            address(out, of);
            out.extend_from_slice(b"]:");
            decimal(out, port);
        }
        Some(port) => {
            address(out, of);
            out.push(b':');
            decimal(out, port);
        }
        None => address(out, of),
    }
    out.push(b' ');
}

fn protocol(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let proto = entry.orig.proto;
    out.extend_from_slice(b"-p ");
    if names::is_known(proto) {
        out.extend_from_slice(names::protocol(proto).as_bytes());
    } else {
        decimal(out, proto);
    }
    out.push(b' ');
    match entry.orig.l4 {
        L4::Ports { src, dst } => {
            option(out, b"--sport", src);
            option(out, b"--dport", dst);
        }
        L4::Gre { src, dst } => {
            option(out, b"--srckey", src);
            option(out, b"--dstkey", dst);
        }
        L4::Icmp { kind, code, id } => {
            let [kind_of, code_of, id_of]: [&[u8]; 3] = if proto == IPPROTO_ICMPV6 {
                [b"--icmpv6-type", b"--icmpv6-code", b"--icmpv6-id"]
            } else {
                [b"--icmp-type", b"--icmp-code", b"--icmp-id"]
            };
            option(out, kind_of, kind);
            option(out, code_of, code);
            option(out, id_of, id);
        }
        L4::None => {}
    }
    match entry.reply.map(|reply| reply.l4) {
        Some(L4::Ports { mut src, mut dst }) => {
            if let (L4::Ports { src: sport, dst: dport }, [src_port, dst_port]) =
                (entry.orig.l4, translated_ports(entry))
            {
                // As they are before the translation.
                dst = src_port.map_or(dst, |_| sport);
                src = dst_port.map_or(src, |_| dport);
            }
            option(out, b"--reply-port-src", src);
            option(out, b"--reply-port-dst", dst);
        }
        Some(L4::Gre { src, dst }) => {
            option(out, b"--reply-key-src", src);
            option(out, b"--reply-key-dst", dst);
        }
        // The ICMP type of one direction follows from that of the other.
        Some(L4::Icmp { .. } | L4::None) | None => {}
    }
    state(out, entry);
}

fn state(out: &mut Vec<u8>, entry: &Entry<'_>) {
    if let Some(name) = entry.state.and_then(|state| state.name()) {
        out.extend_from_slice(b"--state ");
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
    }
    match entry.state {
        Some(ProtoState::Sctp { vtag: [orig, reply], .. }) => {
            // conntrack(8) reads and writes the bytes of a tag in the packet as a number in the machine's byte order.
            // Both programs must read each other's files alike.
            for (name, tag) in [(&b"--orig-vtag"[..], orig), (b"--reply-vtag", reply)] {
                if let Some(tag) = tag {
                    option(out, name, tag.to_be());
                }
            }
        }
        Some(ProtoState::Dccp { role, .. }) => {
            out.extend_from_slice(match role {
                Some(1) => b"--role server ",
                Some(_) => b"--role client ",
                // DESTROY events have the state alone.
                None => b"",
            });
        }
        // A kernel without a tracker for it.
        None if entry.orig.proto == IPPROTO_DCCP => {
            out.extend_from_slice(b"--state NONE --role client ");
        }
        _ => {}
    }
}

fn labels(out: &mut Vec<u8>, kind: Kind, entry: &Entry<'_>, names: Option<&LabelMap>) {
    let mut separator: &[u8] = if kind == Kind::Destroy { b"-l " } else { b"--label-add " };
    let first = separator;
    for label in entry.label_numbers() {
        out.extend_from_slice(separator);
        match names.and_then(|n| n.name(label)).filter(|name| is_plain(name)) {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => decimal(out, label),
        }
        separator = b",";
    }
    if separator != first {
        out.push(b' ');
    }
}

/// Whether a name needs no quotes in a line of arguments.
fn is_plain(name: &str) -> bool {
    !name.contains(|c: char| {
        is_harmful(c) || c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '\\')
    })
}

fn option(out: &mut Vec<u8>, name: &[u8], number: impl Into<u64>) {
    out.extend_from_slice(name);
    out.push(b' ');
    decimal(out, number);
    out.push(b' ');
}
