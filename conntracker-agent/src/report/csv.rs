//! Entries of conntrack's table as comma-separated values (RFC 4180, but with line feeds alone): a line of
//! names, then a line for each entry. What an entry does not have is empty.

use std::io::{self, Write};

use crate::{
    conntrack::Entry,
    flow::{L4, Tuple, protocol},
};

/// The columns.
pub const COLUMNS: &str = "netns,family,protocol,state,timeout,src,dst,sport,dport,icmp_type,icmp_code,\
icmp_id,reply_src,reply_dst,reply_sport,reply_dport,packets,bytes,reply_packets,reply_bytes,status,mark,\
zone,helper,labels,id,start_ns,stop_ns";

/// Writes the names of the columns.
pub fn header(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{COLUMNS}")
}

/// Writes an entry of the namespace of this name.
pub fn entry(out: &mut dyn Write, netns: &str, entry: &Entry<'_>) -> io::Result<()> {
    let Entry { family, orig, reply, status, state, timeout, mark, zone, id, counters, .. } = entry;
    text(out, netns)?;
    let family = if i32::from(*family) == libc::AF_INET { "ipv4" } else { "ipv6" };
    write!(out, ",{family},")?;
    match protocol::name(orig.proto) {
        Some(name) => out.write_all(name.as_bytes())?,
        None => write!(out, "{}", orig.proto)?,
    }
    out.write_all(b",")?;
    if let Some(state) = state {
        match state.name() {
            Some(name) => out.write_all(name.as_bytes())?,
            None => write!(out, "{}", state.number())?,
        }
    }
    number(out, *timeout)?;
    write!(out, ",{},{}", orig.src, orig.dst)?;
    ports(out, Some(orig))?;
    let icmp = match orig.l4 {
        L4::Icmp { kind, code, id } => Some((kind, code, id)),
        _ => None,
    };
    number(out, icmp.map(|(kind, ..)| kind))?;
    number(out, icmp.map(|(_, code, _)| code))?;
    number(out, icmp.map(|(.., id)| id))?;
    match reply {
        Some(reply) => write!(out, ",{},{}", reply.src, reply.dst)?,
        None => out.write_all(b",,")?,
    }
    ports(out, reply.as_ref())?;
    for direction in counters {
        number(out, direction.map(|counters| counters.packets))?;
        number(out, direction.map(|counters| counters.bytes))?;
    }
    let mut first = true;
    out.write_all(b",")?;
    for name in status.names() {
        write!(out, "{}{name}", if first { "" } else { " " })?;
        first = false;
    }
    number(out, *mark)?;
    write!(out, ",{zone},")?;
    text(out, &String::from_utf8_lossy(entry.helper.unwrap_or_default()))?;
    out.write_all(b",")?;
    for (at, label) in entry.label_numbers().enumerate() {
        write!(out, "{}{label}", if at == 0 { "" } else { " " })?;
    }
    number(out, *id)?;
    number(out, entry.start)?;
    number(out, entry.stop)?;
    out.write_all(b"\n")
}

/// A comma, and the number if there is one.
fn number(out: &mut dyn Write, number: Option<impl std::fmt::Display>) -> io::Result<()> {
    match number {
        Some(number) => write!(out, ",{number}"),
        None => out.write_all(b","),
    }
}

/// Two columns: ports, or the keys of GRE.
fn ports(out: &mut dyn Write, tuple: Option<&Tuple>) -> io::Result<()> {
    let ports = match tuple.map(|tuple| tuple.l4) {
        Some(L4::Ports { src, dst } | L4::Gre { src, dst }) => Some((src, dst)),
        _ => None,
    };
    number(out, ports.map(|(src, _)| src))?;
    number(out, ports.map(|(_, dst)| dst))
}

/// Text, quoted where it must be.
fn text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.contains([',', '"', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_value_for_each_column_and_text_is_quoted_where_it_must_be() {
        let message = include_bytes!("../kernel/netlink/ctnetlink/fixtures/dump.bin");
        let mut lines = Vec::new();
        for message in crate::kernel::netlink::wire::Messages::new(message).flatten() {
            if let Ok(found) = Entry::decode(message.payload) {
                let mut line = Vec::new();
                entry(&mut line, "plain", &found).unwrap();
                lines.push(String::from_utf8(line).unwrap());
            }
        }
        assert!(!lines.is_empty());
        let columns = COLUMNS.split(',').count();
        for line in &lines {
            assert_eq!(line.trim_end().split(',').count(), columns, "{line}");
        }
        let mut line = Vec::new();
        text(&mut line, "a \"b\", c").unwrap();
        assert_eq!(line, br#""a ""b"", c""#);
    }
}
