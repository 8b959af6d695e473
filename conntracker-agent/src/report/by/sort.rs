//! The order of groups.

use std::cmp::Reverse;

use super::{Key, group::Group};

/// What groups are sorted by: counts with the highest first, names in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Conntrack flows, then lines.
    Flows,
    /// Packets of both directions.
    Packets,
    /// Bytes of both directions.
    Bytes,
    /// Packets that netfilter dropped, then those that got lost elsewhere.
    Drops,
    /// Packets that got lost elsewhere in the kernel.
    Lost,
    /// The key.
    Name,
}

impl Sort {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Drops => "drops",
            Self::Lost => "lost",
            Self::Name => "name",
        }
    }

    /// That of a key: drops where packets are dropped for it, otherwise bytes, and flows where no bytes are known
    /// (accounting is off).
    pub(super) fn of(key: Key, groups: &[Group<'_>]) -> Self {
        match key {
            Key::Rule | Key::Reason => Self::Drops,
            _ if groups.iter().any(|group| group.sums.counters.is_some()) => Self::Bytes,
            _ => Self::Flows,
        }
    }

    /// Sorts groups. Those with equal counts are in the order of their keys.
    pub(super) fn sort(self, groups: &mut [Group<'_>]) {
        groups.sort_by(|a, b| a.key.cmp(&b.key));
        let both = |group: &Group<'_>| group.sums.counters.unwrap_or_default();
        match self {
            Self::Flows => {
                groups.sort_by_key(|group| Reverse((group.sums.conntrack_flows, group.sums.flows)));
            }
            Self::Packets => groups.sort_by_key(|group| {
                Reverse(both(group).iter().map(|counters| counters.packets).sum::<u64>())
            }),
            Self::Bytes => groups.sort_by_key(|group| {
                Reverse(both(group).iter().map(|counters| counters.bytes).sum::<u64>())
            }),
            Self::Drops => {
                groups.sort_by_key(|group| Reverse((group.sums.dropped, group.sums.lost)));
            }
            Self::Lost => groups.sort_by_key(|group| Reverse(group.sums.lost)),
            Self::Name => {}
        }
    }
}
