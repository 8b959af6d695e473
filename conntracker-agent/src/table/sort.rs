//! Entries in an order of the user's.

use std::{cmp::Ordering, net::IpAddr};

use crate::{
    conntrack::Entry,
    flow::{L4, Tuple},
};

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Source port.
    Sport,
    /// Destination port.
    Dport,
    /// Source address, reply direction.
    ReplySrc,
    /// Destination address, reply direction.
    ReplyDst,
    /// Protocol, by number.
    Proto,
    /// State of the protocol, by number.
    State,
    /// Seconds until the end.
    Timeout,
    /// Packets of both directions.
    Packets,
    /// Bytes of both directions.
    Bytes,
    /// Connmark.
    Mark,
    /// Zone.
    Zone,
    /// When it began.
    Start,
    /// Identifier.
    Id,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// The largest first.
    pub descending: bool,
}

impl Sort {
    fn compare(self, a: u128, b: u128) -> Ordering {
        if self.descending { b.cmp(&a) } else { a.cmp(&b) }
    }
}

/// The value of a column as a number; 0 where an entry has none. Addresses of IPv4 are those that IPv6 maps
/// them to.
fn key(column: Column, entry: &Entry<'_>) -> u128 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let ports = |tuple: &Tuple| match tuple.l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src, dst),
        L4::Icmp { .. } | L4::None => (0, 0),
    };
    let reply =
        |of: fn(&Tuple) -> IpAddr| entry.reply.as_ref().map_or(0, |reply| address(of(reply)));
    let counters = || entry.counters.iter().flatten();
    match column {
        Column::Src => address(entry.orig.src),
        Column::Dst => address(entry.orig.dst),
        Column::Sport => ports(&entry.orig).0.into(),
        Column::Dport => ports(&entry.orig).1.into(),
        Column::ReplySrc => reply(|tuple| tuple.src),
        Column::ReplyDst => reply(|tuple| tuple.dst),
        Column::Proto => entry.orig.proto.into(),
        Column::State => entry.state.map_or(0, |state| state.number().into()),
        Column::Timeout => entry.timeout.unwrap_or_default().into(),
        Column::Packets => counters().map(|of| u128::from(of.packets)).sum(),
        Column::Bytes => counters().map(|of| u128::from(of.bytes)).sum(),
        Column::Mark => entry.mark.unwrap_or_default().into(),
        Column::Zone => entry.zone.into(),
        Column::Start => entry.start.unwrap_or_default().into(),
        Column::Id => entry.id.unwrap_or_default().into(),
    }
}

/// An entry that waits to be printed.
struct Kept {
    key: u128,
    /// Its namespace, by number.
    netns: usize,
    family: u8,
    /// Its attributes.
    raw: Box<[u8]>,
}

/// Entries to be printed in order.
pub struct Sorted {
    sort: Sort,
    /// Only so many.
    top: usize,
    kept: Vec<Kept>,
}

/// Entries that may pile up beyond those that are wanted.
const SPARE: usize = 1024;

impl Sorted {
    /// None yet; of those to come only the first `top`.
    #[must_use]
    pub fn new(sort: Sort, top: Option<usize>) -> Self {
        Self { sort, top: top.unwrap_or(usize::MAX), kept: Vec::new() }
    }

    /// Adds an entry of a namespace.
    pub fn add(&mut self, netns: usize, entry: &Entry<'_>) {
        let key = key(self.sort.column, entry);
        self.kept.push(Kept { key, netns, family: entry.family, raw: entry.raw.into() });
        if self.kept.len() > self.top.saturating_add(self.top.max(SPARE)) {
            self.settle();
        }
    }

    /// Sorts, and gives up those that are not wanted. Equal ones stay in the kernel's order.
    fn settle(&mut self) {
        let Self { sort, top, kept } = self;
        kept.sort_by(|a, b| sort.compare(a.key, b.key));
        kept.truncate(*top);
    }

    /// The entries in order, with their namespaces.
    pub fn entries(&mut self) -> impl Iterator<Item = (usize, Entry<'_>)> {
        self.settle();
        // What was decoded once can be decoded again.
        self.kept.iter().filter_map(|kept| {
            Some((kept.netns, Entry::of_attributes(kept.family, &kept.raw).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::wire::Messages;

    fn sorted(column: Column, descending: bool, top: Option<usize>) -> Vec<u128> {
        let mut sorted = Sorted::new(Sort { column, descending }, top);
        let dump = include_bytes!("../kernel/netlink/ctnetlink/fixtures/dump.bin");
        for message in Messages::new(dump).flatten() {
            if let Ok(entry) = Entry::decode(message.payload) {
                sorted.add(0, &entry);
            }
        }
        sorted.entries().map(|(_, entry)| key(column, &entry)).collect()
    }

    #[test]
    fn entries_come_in_order_and_only_so_many() {
        for column in [
            Column::Src,
            Column::Dst,
            Column::Sport,
            Column::Dport,
            Column::ReplySrc,
            Column::ReplyDst,
            Column::Proto,
            Column::State,
            Column::Timeout,
            Column::Packets,
            Column::Bytes,
            Column::Mark,
            Column::Zone,
            Column::Start,
            Column::Id,
        ] {
            let all = sorted(column, false, None);
            assert!(all.len() == 17 && all.is_sorted(), "{column:?}: {all:?}");
            let mut top = sorted(column, true, Some(3));
            top.reverse();
            assert_eq!(top, all[14..], "{column:?}");
        }
        let bytes = sorted(Column::Bytes, true, None);
        assert!(bytes[0] > bytes[16], "{bytes:?}");
    }

    #[test]
    fn what_piles_up_is_given_up() {
        let dump = include_bytes!("../kernel/netlink/ctnetlink/fixtures/dump.bin");
        let mut sorted = Sorted::new(Sort { column: Column::Bytes, descending: true }, Some(2));
        let message = Messages::new(dump).flatten().next().unwrap();
        let entry = Entry::decode(message.payload).unwrap();
        for netns in 0..5000 {
            sorted.add(netns, &entry);
            assert!(sorted.kept.len() <= 2 + SPARE);
        }
        let first: Vec<usize> = sorted.entries().map(|(netns, _)| netns).collect();
        assert_eq!(first, [0, 1]);
    }
}
