//! Entries of conntrack's table as comma-separated values (RFC 4180, but with line feeds alone): a line of names,
//! then a line for each entry. Absent values are empty.

use super::conntrack::digits::{canonical_address, decimal};
use crate::{
    conntrack::Entry,
    model::{L4, Tuple, harmless::OneLine, protocol},
};

/// The columns.
pub const COLUMNS: &str = "netns,family,protocol,state,timeout,src,dst,sport,dport,icmp_type,icmp_code,\
icmp_id,reply_src,reply_dst,reply_sport,reply_dport,packets,bytes,reply_packets,reply_bytes,status,mark,\
zone,helper,labels,id,start_ns,stop_ns";

/// Appends the names of the columns.
pub fn header(out: &mut Vec<u8>) {
    out.extend_from_slice(COLUMNS.as_bytes());
    out.push(b'\n');
}

/// Appends an entry of the namespace of this name.
pub fn entry(out: &mut Vec<u8>, netns: &str, entry: &Entry<'_>) {
    let Entry { family, orig, reply, status, state, timeout, mark, zone, id, counters, .. } = entry;
    text(out, netns);
    let ipv4 = i32::from(*family) == libc::AF_INET;
    out.extend_from_slice(if ipv4 { b",ipv4," } else { b",ipv6," });
    named(out, protocol::name(orig.proto), orig.proto);
    out.push(b',');
    if let Some(state) = state {
        named(out, state.name(), state.number());
    }
    number(out, *timeout);
    addresses(out, Some(orig));
    ports(out, Some(orig));
    let icmp = match orig.l4 {
        L4::Icmp { kind, code, id } => Some((kind, code, id)),
        _ => None,
    };
    number(out, icmp.map(|(kind, ..)| kind));
    number(out, icmp.map(|(_, code, _)| code));
    number(out, icmp.map(|(.., id)| id));
    addresses(out, reply.as_ref());
    ports(out, reply.as_ref());
    for direction in counters {
        number(out, direction.map(|counters| counters.packets));
        number(out, direction.map(|counters| counters.bytes));
    }
    out.push(b',');
    for (nth, name) in status.names().enumerate() {
        if nth > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
    }
    number(out, *mark);
    number(out, Some(*zone));
    out.push(b',');
    text(out, &String::from_utf8_lossy(entry.helper.unwrap_or_default()));
    out.push(b',');
    for (nth, label) in entry.label_numbers().enumerate() {
        if nth > 0 {
            out.push(b' ');
        }
        decimal(out, label);
    }
    number(out, *id);
    number(out, entry.start);
    number(out, entry.stop);
    out.push(b'\n');
}

/// A name, or the number of what has none.
fn named(out: &mut Vec<u8>, name: Option<&str>, number: u8) {
    match name {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => decimal(out, number),
    }
}

/// A comma, and the number if there is one.
fn number(out: &mut Vec<u8>, number: Option<impl Into<u64>>) {
    out.push(b',');
    if let Some(number) = number {
        decimal(out, number);
    }
}

/// Two columns: source and destination.
fn addresses(out: &mut Vec<u8>, tuple: Option<&Tuple>) {
    for address in [tuple.map(|tuple| tuple.src), tuple.map(|tuple| tuple.dst)] {
        out.push(b',');
        if let Some(address) = address {
            canonical_address(out, address);
        }
    }
}

/// Two columns: ports, or the keys of GRE.
fn ports(out: &mut Vec<u8>, tuple: Option<&Tuple>) {
    let ports = match tuple.map(|tuple| tuple.l4) {
        Some(L4::Ports { src, dst } | L4::Gre { src, dst }) => Some((src, dst)),
        _ => None,
    };
    number(out, ports.map(|(src, _)| src));
    number(out, ports.map(|(_, dst)| dst));
}

/// Text in one line, quoted where it must be.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    let text = &OneLine(text).to_string();
    if !text.contains([',', '"']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_value_for_each_column_and_text_is_quoted_where_it_must_be() {
        let message = include_bytes!("../netlink/ctnetlink/fixtures/dump.bin");
        let mut lines = Vec::new();
        for message in crate::netlink::wire::Messages::new(message).flatten() {
            if let Ok(found) = Entry::decode(message.payload) {
                let mut line = Vec::new();
                entry(&mut line, "plain", &found);
                lines.push(String::from_utf8(line).unwrap());
            }
        }
        assert!(!lines.is_empty());
        let columns = COLUMNS.split(',').count();
        for line in &lines {
            assert_eq!(line.trim_end().split(',').count(), columns, "{line}");
        }
        let mut line = Vec::new();
        text(&mut line, "a \"b\", c");
        assert_eq!(line, br#""a ""b"", c""#);
        line.clear();
        text(&mut line, "a\n\u{1b}b");
        assert_eq!(line, br"a\n\u{1b}b");
    }
}
