//! Dumps of conntrack's table, at most one of a namespace at a time.
//!
//! A dump that is under way may still show an entry whose end is merged already: it is remembered
//! until the dump is through.

use std::collections::HashMap;

use super::{FlowTable, Keyed};
use crate::model::{FlowKey, NetnsId};

/// A dump under way.
#[derive(Clone, Copy, Debug)]
struct Dump {
    number: u32,
    start_ns: u64,
}

/// Dumps under way, and what has ended since they began.
#[derive(Debug, Default)]
pub(super) struct Dumps {
    /// How many there were.
    begun: u32,
    under_way: HashMap<NetnsId, Dump>,
    /// Entries that ended, and when.
    ended: HashMap<FlowKey, u64>,
}

impl Dumps {
    /// Number of the dump of a namespace, 0 if there is none.
    pub fn under_way(&self, netns: NetnsId) -> u32 {
        self.under_way.get(&netns).map_or(0, |dump| dump.number)
    }

    /// An entry has ended.
    pub fn remember_end(&mut self, key: FlowKey, at_ns: u64) {
        if self.under_way.contains_key(&key.netns) {
            self.ended.insert(key, at_ns);
        }
    }

    /// Whether an entry that nothing else knows of has ended after the dump began that shows it.
    pub fn ended(&self, key: &FlowKey) -> bool {
        let (Some(ended), Some(dump)) = (self.ended.get(key), self.under_way.get(&key.netns))
        else {
            return false;
        };
        *ended >= dump.start_ns
    }

    fn begin(&mut self, netns: NetnsId, start_ns: u64) {
        self.begun += 1;
        self.under_way.insert(netns, Dump { number: self.begun, start_ns });
    }

    fn end(&mut self, netns: NetnsId) -> Option<Dump> {
        self.ended.retain(|key, _| key.netns != netns);
        self.under_way.remove(&netns)
    }
}

impl FlowTable {
    pub(super) fn dump_began(&mut self, netns: NetnsId, at_ns: u64) {
        self.dumps.begin(netns, at_ns);
        self.wants_dump = false;
    }

    /// Entries that a whole dump did not show are gone.
    pub(super) fn dump_ended(&mut self, netns: NetnsId, whole: bool) {
        if whole {
            // While the entries are known that packets may be of.
            self.settle_waiting();
        }
        let Some(dump) = self.dumps.end(netns).filter(|_| whole) else { return };
        self.replies_taken.retain(|key, _| key.netns != netns);
        self.refused.retain(|key| key.netns != netns);
        // An entry made after the dump began may have been missed by it.
        self.forget_members(|member| {
            member.key().netns != netns
                || member.dump == dump.number
                || member.since_ns >= dump.start_ns
        });
    }
}
