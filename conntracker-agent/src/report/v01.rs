//! `--compat v0.1`: byte for byte what version 0.1 of the C tool printed, oddities included, so that
//! its reports and ours can be compared with diff(1).
//!
//! It sorted IPv4 addresses and ports in network byte order as little-endian integers, IPv6 addresses by their text,
//! and destination ports before source ports. It printed ICMP types and codes as 0, and had no other source than
//! conntrack. Of rules it had table, chain, type and position.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    FlowList, Report,
    line::{Ends, Numbering},
    names::OneLine,
};
use crate::model::{
    Flow, L4, Tuple, order,
    path::{Site, SiteKind},
};

/// Tables that version 0.1 had names for; it treated all others as one.
const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// Blocks of other protocols come after those of version 0.1.
const BLOCKS: u16 = 6;

/// Writes the flows. `out` should be buffered.
pub fn render<F: FlowList>(report: &Report<F>, out: &mut dyn Write) -> io::Result<()> {
    let flows = report.flows.whole()?;
    let mut lines: BTreeMap<Key, Line<'_>> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| known_to_conntrack(flow)) {
        let orig = flow.key.orig.folded();
        if order::block(&orig) < BLOCKS {
            let tuple = printed(orig);
            let line = lines.entry(Key::of(&orig)).or_insert_with(|| Line {
                tuple,
                confirmed: false,
                traces: BTreeSet::new(),
            });
            line.confirmed |= flow.confirmed();
            let steps = flow.paths.iter().flat_map(|(traversal, _)| &*traversal.steps);
            line.traces.extend(steps.filter_map(|step| Trace::of(&step.site)));
        }
    }
    let mut numbering = Numbering::default();
    for (Key { src, dst, .. }, Line { tuple, confirmed, traces }) in &lines {
        let confirmed = if *confirmed { " (confirmed)" } else { "" };
        let ends = Ends { src, dst, l4: tuple.l4 };
        writeln!(out, "{} {ends}{confirmed}", numbering.next(tuple))?;
        traces.iter().try_for_each(|trace| writeln!(out, "\t\t\t\t{trace}"))?;
    }
    Ok(())
}

/// Flows without an entry were unknown to version 0.1.
fn known_to_conntrack(flow: &Flow) -> bool {
    flow.merged() > 0
}

/// A folded tuple as version 0.1 printed it. It keyed ICMP flows by type and code, but swapped the bytes of a value
/// of one byte, so it always printed 0.
fn printed(folded: Tuple) -> Tuple {
    let l4 = match folded.l4 {
        L4::Icmp { .. } => L4::Icmp { kind: 0, code: 0, id: 0 },
        other => other,
    };
    Tuple { l4, ..folded }
}

/// A line, except for its addresses, and the lines below it.
struct Line<'a> {
    tuple: Tuple,
    confirmed: bool,
    traces: BTreeSet<Trace<'a>>,
}

/// A site, in the order of version 0.1.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Trace<'a> {
    rank: usize,
    chain: &'a str,
    kind: SiteKind,
    position: u32,
    table: &'a str,
}

impl<'a> Trace<'a> {
    /// `None` for a base chain without a position, which version 0.1 could not print.
    fn of(site: &'a Site) -> Option<Self> {
        let Site { table, chain, kind, position, .. } = site;
        let rank = TABLES.iter().position(|name| name == table).unwrap_or(TABLES.len());
        Some(Self { rank, chain, kind: *kind, position: (*position)?, table })
    }
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank: _, chain, kind, position, table } = self;
        let (table, chain) = (OneLine(table), OneLine(chain));
        write!(f, "table: {table}, chain: {chain}, type: {}, position: {position}", kind.name())
    }
}

/// Position of a line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    block: u16,
    src: Address,
    dst: Address,
    /// Destination port, or ICMP type.
    first: u16,
    /// Source port, or ICMP code.
    second: u16,
}

impl Key {
    fn of(tuple: &Tuple) -> Self {
        let little_endian = |port: u16| u16::from_le_bytes(port.to_be_bytes());
        let (first, second) = match tuple.l4 {
            L4::Ports { src, dst } => (little_endian(dst), little_endian(src)),
            L4::Icmp { kind, code, .. } => (kind.into(), code.into()),
            L4::Gre { .. } | L4::None => (0, 0),
        };
        Self {
            block: order::block(tuple),
            src: tuple.src.into(),
            dst: tuple.dst.into(),
            first,
            second,
        }
    }
}

/// An address in the order of version 0.1.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    /// Octets read as a little-endian integer.
    V4(u32),
    /// Text as inet_ntop(3) writes it.
    V6(String),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(u32::from_le_bytes(v4.octets())),
            IpAddr::V6(v6) => Self::V6(inet_ntop(v6)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(little_endian) => Ipv4Addr::from(little_endian.to_le_bytes()).fmt(f),
            Self::V6(text) => f.write_str(text),
        }
    }
}

/// IPv6 as glibc writes it, which differs from std in one case: behind twelve zero bytes glibc writes the last four
/// as an IPv4 address, unless they begin with two zeros.
fn inet_ntop(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            format!("::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
