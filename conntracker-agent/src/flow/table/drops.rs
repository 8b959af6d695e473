//! Dropped packets, merged into the flows they belong to.

use super::{FlowKey, FlowTable, NetnsId, Record};
use crate::{
    flow::{DropPlace, path::Step},
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

    /// Remembers what dropped the packets that took a path.
    pub(super) fn drops_by(&mut self, netns: NetnsId, path_hash: u64, by: Option<&Step>) {
        if self.dropping.len() < MOST_PATHS {
            self.dropping.insert((netns, path_hash), by.cloned());
        }
    }

    /// What dropped the packets that took a path.
    fn dropped_by(&self, netns: NetnsId, path_hash: u64) -> Option<Step> {
        self.dropping.get(&(netns, path_hash)).cloned().flatten()
    }

    /// Merges dropped packets that the kernel counted. The first was seen at `first_ns`, the last at
    /// `last_ns` (nanoseconds since the epoch).
    pub fn dropped(&mut self, netns: NetnsId, drops: &DropCount, first_ns: u64, last_ns: u64) {
        let by = self.dropped_by(netns, drops.path_hash);
        let (iif, oif) = drops.interfaces;
        let place = DropPlace { hook: drops.hook, iif, oif };
        self.drops_counted += drops.packets;
        if !drops.from_headers {
            let key = self.key(netns, drops.zone, drops.orig);
            let flow = self.flow(key, first_ns);
            flow.origins.drops = true;
            flow.seen_at(first_ns);
            flow.seen_at(last_ns);
            flow.drops.get_or_insert_default().add(place, by.as_ref(), drops.packets);
            return;
        }
        let headers = FlowKey { netns, zone: drops.zone, orig: drops.orig, entry: false };
        self.by_headers(headers, iif, first_ns, last_ns).dropped(place, by.as_ref(), drops.packets);
    }

    /// Merges the record of a dropped packet without an entry.
    pub(super) fn dropped_by_headers(&mut self, netns: NetnsId, record: &Record, at_ns: u64) {
        let Some(dropped) = record.dropped else { return };
        let headers = FlowKey { netns, zone: record.zone, orig: record.orig, entry: false };
        let (iif, oif) = record.interfaces.unwrap_or_default();
        if dropped.counted {
            return self.expect_drops(headers, iif, at_ns);
        }
        let by = self.dropped_by(netns, dropped.path_hash);
        let place = DropPlace { hook: record.hook, iif, oif };
        self.drops_counted += 1;
        self.by_headers(headers, iif, at_ns, at_ns).dropped(place, by.as_ref(), 1);
    }

    /// Adds a dropped packet to the flow of its entry, unless the kernel counts it.
    pub(super) fn dropped_once(&mut self, key: FlowKey, record: &Record) {
        let Some(dropped) = record.dropped.filter(|dropped| !dropped.counted) else { return };
        let by = self.dropped_by(key.netns, dropped.path_hash);
        let (iif, oif) = record.interfaces.unwrap_or_default();
        let place = DropPlace { hook: record.hook, iif, oif };
        self.drops_counted += 1;
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.drops.get_or_insert_default().add(place, by.as_ref(), 1);
        }
    }
}
