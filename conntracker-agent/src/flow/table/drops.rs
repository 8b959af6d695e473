//! Dropped packets, merged into the flows they belong to.

use std::sync::Arc;

use super::{FlowKey, FlowTable, NetnsId, Record};
use crate::{
    flow::{DropPlace, path::Traversal},
    kernel::bpf::counts::DropCount,
};

/// Paths of dropped packets that are remembered; what took others is dropped by a rule that is not told.
const MOST_PATHS: usize = 262_144;

impl FlowTable {
    /// Dropped packets that were merged.
    #[must_use]
    pub fn drops_counted(&self) -> u64 {
        self.drops_counted
    }

    /// Remembers the path that dropped packets took. Rules without counters can depend on the addresses, so
    /// that the hash alone does not tell it.
    pub(super) fn drops_take(&mut self, key: FlowKey, path_hash: u64, path: &Arc<Traversal>) {
        if self.dropping.len() < MOST_PATHS {
            self.dropping.insert((key, path_hash), Arc::clone(path));
        }
    }

    /// Merges dropped packets that the kernel counted. The first was seen at `first_ns`, the last at
    /// `last_ns`.
    pub fn dropped(&mut self, netns: NetnsId, drops: &DropCount, first_ns: u64, last_ns: u64) {
        let (iif, oif) = drops.interfaces;
        let place = DropPlace { hook: drops.hook, iif, oif };
        let key = if drops.from_headers {
            FlowKey { netns, zone: drops.zone, orig: drops.orig, entry: false }
        } else {
            self.key(netns, drops.zone, drops.orig)
        };
        self.add_drops(key, drops.path_hash, place, drops.packets, (first_ns, last_ns));
    }

    /// Merges the record of a dropped packet. If the kernel counts it, that is merged when the counts are taken.
    pub(super) fn dropped_once(&mut self, key: FlowKey, record: &Record, at_ns: u64) {
        let Some(dropped) = record.dropped else { return };
        let (iif, oif) = record.interfaces.unwrap_or_default();
        if !dropped.counted {
            let place = DropPlace { hook: record.hook, iif, oif };
            self.add_drops(key, dropped.path_hash, place, 1, (at_ns, at_ns));
        } else if !key.entry {
            self.expect_drops(key, iif, at_ns);
        }
    }

    /// Adds dropped packets to the flow of a key, or to the one that their headers fit.
    fn add_drops(
        &mut self,
        key: FlowKey,
        path_hash: u64,
        place: DropPlace,
        packets: u64,
        (first_ns, last_ns): (u64, u64),
    ) {
        self.drops_counted += packets;
        let path = self.dropping.get(&(key, path_hash)).cloned();
        let gathered = if key.entry {
            self.gathered(key, None, first_ns, last_ns)
        } else {
            self.by_headers(key, place.iif, first_ns, last_ns)
        };
        gathered.dropped(place, path.as_ref(), packets);
    }
}
