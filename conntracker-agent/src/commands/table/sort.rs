//! Entries in an order of the user's.

use std::{cmp::Ordering, net::IpAddr};

use super::kept::Kept;
use crate::{
    conntrack::Entry,
    model::{L4, Tuple},
    netlink::wire::DecodeError,
};

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Source port, or source key of GRE.
    Sport,
    /// Destination port, or destination key of GRE.
    Dport,
    /// Source address, reply direction.
    ReplySrc,
    /// Destination address, reply direction.
    ReplyDst,
    /// Source port, reply direction.
    ReplySport,
    /// Destination port, reply direction.
    ReplyDport,
    /// Type of ICMP.
    IcmpType,
    /// Code of ICMP.
    IcmpCode,
    /// Identifier of ICMP.
    IcmpId,
    /// Network namespace, in the order in which they were given.
    Netns,
    /// Address family.
    Family,
    /// Protocol, by number.
    Proto,
    /// State of the protocol, by number.
    State,
    /// Status bits, as a number.
    Status,
    /// Seconds until the end.
    Timeout,
    /// Packets of both directions.
    Packets,
    /// Bytes of both directions.
    Bytes,
    /// Packets, original direction.
    OrigPackets,
    /// Bytes, original direction.
    OrigBytes,
    /// Packets, reply direction.
    ReplyPackets,
    /// Bytes, reply direction.
    ReplyBytes,
    /// Connmark.
    Mark,
    /// Labels, the highest first.
    Labels,
    /// Zone.
    Zone,
    /// Name of the helper.
    Helper,
    /// When it began.
    Start,
    /// When it ended.
    Stop,
    /// Identifier.
    Id,
}

impl Column {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 30] = [
        ("src", Self::Src),
        ("dst", Self::Dst),
        ("sport", Self::Sport),
        ("dport", Self::Dport),
        ("reply-src", Self::ReplySrc),
        ("reply-dst", Self::ReplyDst),
        ("reply-sport", Self::ReplySport),
        ("reply-dport", Self::ReplyDport),
        ("icmp-type", Self::IcmpType),
        ("icmp-code", Self::IcmpCode),
        ("icmp-id", Self::IcmpId),
        ("netns", Self::Netns),
        ("family", Self::Family),
        ("proto", Self::Proto),
        ("state", Self::State),
        ("status", Self::Status),
        ("timeout", Self::Timeout),
        ("packets", Self::Packets),
        ("bytes", Self::Bytes),
        ("orig-packets", Self::OrigPackets),
        ("orig-bytes", Self::OrigBytes),
        ("reply-packets", Self::ReplyPackets),
        ("reply-bytes", Self::ReplyBytes),
        ("mark", Self::Mark),
        ("labels", Self::Labels),
        ("zone", Self::Zone),
        ("helper", Self::Helper),
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("id", Self::Id),
    ];
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

/// The value of a column as a number; 0 where an entry has none. IPv4 addresses are mapped to IPv6, and of text the
/// first 16 bytes count.
fn key(column: Column, netns: usize, entry: &Entry<'_>) -> u128 {
    let Entry { orig, reply, counters: [orig_count, reply_count], .. } = entry;
    let reply = reply.as_ref();
    let counters = || [orig_count, reply_count].into_iter().flatten();
    let icmp = match orig.l4 {
        L4::Icmp { kind, code, id } => (kind, code, id),
        _ => (0, 0, 0),
    };
    match column {
        Column::Src => address(orig.src),
        Column::Dst => address(orig.dst),
        Column::Sport => ports(orig).0.into(),
        Column::Dport => ports(orig).1.into(),
        Column::ReplySrc => reply.map_or(0, |reply| address(reply.src)),
        Column::ReplyDst => reply.map_or(0, |reply| address(reply.dst)),
        Column::ReplySport => reply.map_or(0, |reply| ports(reply).0.into()),
        Column::ReplyDport => reply.map_or(0, |reply| ports(reply).1.into()),
        Column::IcmpType => icmp.0.into(),
        Column::IcmpCode => icmp.1.into(),
        Column::IcmpId => icmp.2.into(),
        Column::Netns => netns as u128,
        Column::Family => entry.family.into(),
        Column::Proto => orig.proto.into(),
        Column::State => entry.state.map_or(0, |state| state.number().into()),
        Column::Status => entry.status.0.into(),
        Column::Timeout => entry.timeout.unwrap_or_default().into(),
        Column::Packets => counters().map(|of| u128::from(of.packets)).sum(),
        Column::Bytes => counters().map(|of| u128::from(of.bytes)).sum(),
        Column::OrigPackets => orig_count.map_or(0, |of| of.packets.into()),
        Column::OrigBytes => orig_count.map_or(0, |of| of.bytes.into()),
        Column::ReplyPackets => reply_count.map_or(0, |of| of.packets.into()),
        Column::ReplyBytes => reply_count.map_or(0, |of| of.bytes.into()),
        Column::Mark => entry.mark.unwrap_or_default().0.into(),
        Column::Labels => {
            entry.label_numbers().fold(0, |all, n| all | 1_u128.checked_shl(n.into()).unwrap_or(0))
        }
        Column::Zone => entry.zone.0.into(),
        Column::Helper => {
            let mut first = [0; 16];
            first
                .iter_mut()
                .zip(entry.helper.unwrap_or_default())
                .for_each(|(to, from)| *to = *from);
            u128::from_be_bytes(first)
        }
        Column::Start => entry.start.unwrap_or_default().into(),
        Column::Stop => entry.stop.unwrap_or_default().into(),
        Column::Id => entry.id.unwrap_or_default().into(),
    }
}

fn address(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn ports(tuple: &Tuple) -> (u16, u16) {
    match tuple.l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src, dst),
        L4::Icmp { .. } | L4::None => (0, 0),
    }
}

/// An entry that waits for its turn.
struct Waiting {
    key: u128,
    /// Its namespace, by number.
    netns: usize,
    entry: Kept,
}

/// Entries to be printed in order.
pub struct Sorted {
    sort: Sort,
    /// Only so many.
    top: usize,
    waiting: Vec<Waiting>,
}

/// Entries beyond `top` that are kept before the next sort.
const SPARE: usize = 1024;

impl Sorted {
    /// An empty list that keeps only the first `top` entries.
    #[must_use]
    pub fn new(sort: Sort, top: Option<usize>) -> Self {
        Self { sort, top: top.unwrap_or(usize::MAX), waiting: Vec::new() }
    }

    /// Adds an entry of a namespace.
    pub fn add(&mut self, netns: usize, entry: &Entry<'_>) {
        let key = key(self.sort.column, netns, entry);
        self.waiting.push(Waiting { key, netns, entry: Kept::new(entry) });
        if self.waiting.len() > self.top.saturating_add(self.top.max(SPARE)) {
            self.settle();
        }
    }

    /// Sorts, and drops entries beyond `top`. Equal ones stay in the kernel's order.
    fn settle(&mut self) {
        let Self { sort, top, waiting } = self;
        waiting.sort_by(|a, b| sort.compare(a.key, b.key));
        waiting.truncate(*top);
    }

    /// The entries in order, with their namespaces.
    pub fn entries(&mut self) -> impl Iterator<Item = Result<(usize, Entry<'_>), DecodeError>> {
        self.settle();
        self.waiting.iter().map(|one| Ok((one.netns, one.entry.entry()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::Messages;

    fn sorted(column: Column, descending: bool, top: Option<usize>) -> Vec<u128> {
        let mut sorted = Sorted::new(Sort { column, descending }, top);
        let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
        for message in Messages::new(dump).flatten() {
            if let Ok(entry) = Entry::decode(message.payload) {
                sorted.add(0, &entry);
            }
        }
        sorted.entries().map(|entry| key(column, 0, &entry.unwrap().1)).collect()
    }

    #[test]
    fn entries_come_in_order_and_only_so_many() {
        for (_, column) in Column::ALL {
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
        let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
        let mut sorted = Sorted::new(Sort { column: Column::Bytes, descending: true }, Some(2));
        let message = Messages::new(dump).flatten().next().unwrap();
        let entry = Entry::decode(message.payload).unwrap();
        for netns in 0..5000 {
            sorted.add(netns, &entry);
            assert!(sorted.waiting.len() <= 2 + SPARE);
        }
        let first: Vec<usize> = sorted.entries().map(|entry| entry.unwrap().0).collect();
        assert_eq!(first, [0, 1]);
    }
}
