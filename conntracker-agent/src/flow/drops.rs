//! What is known of a flow's dropped packets.

use super::path::Step;

/// Distinct places and rules kept per flow; what is dropped elsewhere is counted together.
const MOST: usize = 32;

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

/// Packets that were dropped at one place by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedAt {
    /// Where.
    pub place: DropPlace,
    /// The rule, policy or chain; `None` if the packets were not traced, or if their path does not tell.
    pub by: Option<Step>,
    /// How many.
    pub packets: u64,
}

/// Dropped packets of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    at: Vec<DroppedAt>,
    /// Packets that were dropped at more places than are kept.
    elsewhere: u64,
}

impl Drops {
    /// Packets dropped.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.at.iter().map(|at| at.packets).sum::<u64>() + self.elsewhere
    }

    /// Where and by what, in the order in which that was seen first; at most 32 are kept.
    #[must_use]
    pub fn at(&self) -> &[DroppedAt] {
        &self.at
    }

    /// Packets that were dropped at other places, or by other rules, than [`Self::at`] tells.
    #[must_use]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere
    }

    pub(super) fn add(&mut self, place: DropPlace, by: Option<&Step>, packets: u64) {
        let same = |at: &&mut DroppedAt| at.place == place && at.by.as_ref() == by;
        if let Some(known) = self.at.iter_mut().find(same) {
            known.packets += packets;
        } else if self.at.len() < MOST {
            self.at.push(DroppedAt { place, by: by.cloned(), packets });
        } else {
            self.elsewhere += packets;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for DroppedAt { place, by, packets } in &other.at {
            self.add(*place, by.as_ref(), *packets);
        }
        self.elsewhere += other.elsewhere;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_packet_is_lost_where_there_are_more_places_than_are_kept() {
        let mut drops = Drops::default();
        for iif in 0..100 {
            drops.add(DropPlace { hook: Some(1), iif, oif: 0 }, None, 2);
        }
        let mut all = Drops::default();
        all.merge(&drops);
        all.merge(&drops);
        assert_eq!(
            (all.packets(), all.at().len(), all.elsewhere()),
            (400, MOST, 400 - 2 * 2 * MOST as u64)
        );
    }
}
