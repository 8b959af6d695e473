//! Which of the packets that the kernel counts have been told of already, by a record of the first of them. Pure.

use std::collections::HashMap;

use crate::model::{DropPoint, NetnsId, Tuple, Zone, event::DroppedPackets};

/// Keys that are kept at most: the kernel's maps of drops have fewer.
const MOST: usize = 1 << 20;

/// What the kernel counts by, with the tuple folded: it folds from some time on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    netns: NetnsId,
    zone: Zone,
    folded: Tuple,
    has_entry: bool,
    point: DropPoint,
    path_hash: u64,
}

/// First packets whose count was not taken yet.
#[derive(Default)]
pub(super) struct Firsts {
    /// Their tuples. Where the kernel folds there is one for a key.
    told: HashMap<Key, Vec<Tuple>>,
}

impl Firsts {
    /// How many packets of an event nothing has told of yet.
    pub fn untold(&mut self, netns: NetnsId, drops: &DroppedPackets) -> u64 {
        let &DroppedPackets { zone, orig, point, path_hash, packets, .. } = drops;
        let has_entry = drops.has_entry();
        let folded = if has_entry { orig.folded() } else { orig };
        let key = Key { netns, zone, folded, has_entry, point, path_hash };
        if packets == 0 {
            if self.told.len() >= MOST {
                // Counts that could not be taken leave their keys here.
                self.told.clear();
            }
            self.told.entry(key).or_default().push(orig);
            return 1;
        }
        packets - u64::from(self.was_told(key, orig))
    }

    /// Whether a record told of the first packet of a count; it tells of one count alone.
    fn was_told(&mut self, key: Key, orig: Tuple) -> bool {
        let Some(tuples) = self.told.get_mut(&key) else { return false };
        // A count by a folded tuple is of packets with any tuple.
        let exact = tuples.iter().position(|tuple| *tuple == orig);
        let Some(at) = exact.or((orig == key.folded).then_some(0)) else { return false };
        tuples.swap_remove(at);
        if tuples.is_empty() {
            self.told.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        L4,
        event::{DroppedEntry, DroppedEntry::Tuple as Entry},
    };

    fn drops(sport: u16, packets: u64, entry: DroppedEntry) -> DroppedPackets {
        let [src, dst] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        DroppedPackets {
            zone: Zone::DEFAULT,
            orig: Tuple { src, dst, proto: 6, l4: L4::Ports { src: sport, dst: 80 } },
            entry,
            point: DropPoint::default(),
            path_hash: 7,
            packets,
            first_ns: 1,
        }
    }

    #[test]
    fn the_first_packet_of_a_folded_count_is_told_once() {
        let mut firsts = Firsts::default();
        let mut untold = |drops| firsts.untold(NetnsId(0), &drops);
        assert_eq!(untold(drops(40_000, 0, Entry)), 1);
        assert_eq!(untold(drops(1024, 5, Entry)), 4);
        // The record of the next first packet may come before the count of the last ones.
        assert_eq!(untold(drops(40_001, 0, Entry)), 1);
        assert_eq!(untold(drops(40_002, 0, Entry)), 1);
        assert_eq!((untold(drops(1024, 3, Entry)), untold(drops(1024, 1, Entry))), (2, 0));
        // Its record was lost.
        assert_eq!(untold(drops(1024, 3, Entry)), 3);
        assert!(firsts.told.is_empty());
    }

    #[test]
    fn counts_that_are_not_folded_are_of_their_tuple_and_headers_never_fold() {
        let mut firsts = Firsts::default();
        let mut untold = |drops| firsts.untold(NetnsId(0), &drops);
        let none = || DroppedEntry::None { quotes: None };
        for sport in [40_000, 40_001] {
            assert_eq!(untold(drops(sport, 0, Entry)), 1);
            assert_eq!(untold(drops(sport, 0, none())), 1);
        }
        assert_eq!(untold(drops(40_001, 9, Entry)), 8);
        assert_eq!(untold(drops(40_002, 9, Entry)), 9);
        assert_eq!(untold(drops(40_000, 9, Entry)), 8);
        assert_eq!(untold(drops(1024, 9, none())), 9);
        assert_eq!(untold(drops(40_001, 9, none())), 8);
        assert_eq!(untold(drops(40_000, 1, none())), 0);
        assert!(firsts.told.is_empty());
    }
}
