//! What is known of a flow's dropped packets.

use super::Counting;

/// Distinct places kept per flow; a flow that is dropped in more is told so by its count.
const MAX_PLACES: usize = 8;

/// Where packets of a flow were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropPlace {
    /// Netfilter hook number (`enum nf_inet_hooks`); `None` if it could not be told.
    pub hook: Option<u8>,
    /// Input interface index, 0 for none.
    pub iif: u32,
    /// Output interface index, 0 for none.
    pub oif: u32,
}

/// Dropped packets of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Packets that had a conntrack entry.
    pub(super) tracked: Counting,
    /// Packets that had none (dropped before conntrack saw them, untracked or invalid).
    pub(super) untracked: Counting,
    places: Vec<DropPlace>,
}

impl Drops {
    /// Packets dropped.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.tracked.total() + self.untracked.total()
    }

    /// Distinct places, in the order in which they were seen; at most eight are kept.
    #[must_use]
    pub fn places(&self) -> &[DropPlace] {
        &self.places
    }

    pub(super) fn add_place(&mut self, place: DropPlace) {
        if self.places.len() < MAX_PLACES && !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let Self { tracked, untracked, places } = other;
        self.tracked.merge(tracked);
        self.untracked.merge(untracked);
        for place in places {
            self.add_place(*place);
        }
    }
}
