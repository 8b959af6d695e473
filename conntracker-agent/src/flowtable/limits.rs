//! What happens where memory ends: the flows that nothing told of for the longest time are summed up.
//!
//! A flow that was summed up may go on. What its packets do from then on is a line of its own; what is counted of its
//! entry elsewhere (in a dump, when it ends, in the kernel's map) must not be counted twice.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::{FlowTable, line::Line, members::Member, store::Keyed};
use crate::model::{
    FlowKey,
    counters::Counters,
    flow::{Counted, Counting},
    other::OtherFlows,
};

/// Summed up flows of which the kernel goes on counting are remembered up to this number: twice what its map holds.
const MOST_REMEMBERED: usize = 262_144;

/// How often the kernel had counted flows when they were summed up, by the hash of their keys.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    counts: HashMap<u64, Counted>,
    hasher: RandomState,
}

impl Remembered {
    fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Returns how many were forgotten for it.
    fn remember(&mut self, key: &FlowKey, counted: Counted) -> u64 {
        let mut forgotten = 0;
        if self.counts.len() >= MOST_REMEMBERED
            && let Some(any) = self.counts.keys().next().copied()
        {
            self.counts.remove(&any);
            forgotten = 1;
        }
        self.counts.insert(self.hash(key), counted);
        forgotten
    }

    /// The flow is back.
    pub fn take(&mut self, key: &FlowKey) -> Option<Counted> {
        if self.counts.is_empty() {
            return None;
        }
        self.counts.remove(&self.hash(key))
    }

    /// How many more the kernel has counted by now of a flow that was summed up; `None` if it was not.
    pub fn more(&mut self, key: &FlowKey, now: Counted) -> Option<u64> {
        if self.counts.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        let before = self.counts.get_mut(&hash)?;
        let more = Counting::resumed(*before).update(now);
        // An older count may come late.
        if more > 0 {
            *before = now;
        }
        Some(more)
    }
}

impl FlowTable {
    /// From now on there is room for this many flows: the rest is summed up.
    pub fn set_max_flows(&mut self, max_flows: usize) {
        self.max_flows = max_flows.max(1);
        while self.flows.len() > self.max_flows {
            self.sum_up_oldest();
        }
    }

    /// Bytes of the table that are free for new flows.
    #[must_use]
    pub fn unused_bytes(&self) -> u64 {
        self.flows.unused_bytes() + self.members.unused_bytes()
    }

    /// Flows that were summed up because there was no room for them.
    #[must_use]
    pub fn flows_evicted(&self) -> u64 {
        self.flows_evicted
    }

    /// Entries that are not known any more although they may be there, because there was no room for them.
    #[must_use]
    pub fn entries_forgotten(&self) -> u64 {
        self.entries_forgotten
    }

    /// Paths of dropped packets for which there was no room: the rule that drops the packets on them is not told.
    #[must_use]
    pub fn drop_paths_forgotten(&self) -> u64 {
        self.drop_paths_forgotten
    }

    /// The sums of flows that are not listed.
    #[must_use]
    pub fn others(&self) -> &OtherFlows {
        &self.others
    }

    /// Flows whose lines are written by now and that will tell nothing more: all their entries have ended, and nothing
    /// told of them since `at_ns`. They are summed up.
    pub fn leave_written(&mut self, at_ns: u64) {
        let over = |line: &Line| line.ended > 0 && line.members == 0 && line.last_ns <= at_ns;
        for line in self.flows.extract(|line| !over(line)) {
            self.sum_up(line);
        }
    }

    /// There is room for this many entries: where flows do not fold, one of each flow, and as many of flows that were
    /// summed up and still count packets.
    pub(super) fn max_members(&self) -> usize {
        self.max_flows.saturating_mul(2)
    }

    /// Makes room for one more flow.
    pub(super) fn make_room(&mut self) {
        while self.flows.len() >= self.max_flows {
            self.sum_up_oldest();
        }
    }

    /// Whether entries may be told that are of flows which were summed up, or which were known before.
    pub(super) fn is_incomplete(&self) -> bool {
        self.entries_forgotten > 0 || !self.others.is_empty()
    }

    /// An entry of a flow that was summed up has counted this much by now. Where there is no room for the entry, it is
    /// told when it ends.
    pub(super) fn others_count(&mut self, member: FlowKey, counters: [Option<Counters>; 2]) {
        let room = self.members.contains(&member) || self.members.len() < self.max_members();
        if room && counters != [None; 2] {
            let dump = self.dumps.under_way(member.netns);
            let known = self.members.get_or_insert(member, 0).0;
            known.dump = known.dump.max(dump);
            let grown = known.grown(counters);
            self.add_to_others(member, grown);
        }
    }

    /// An entry of a flow that was summed up has ended, and had counted this much.
    pub(super) fn others_end(&mut self, key: FlowKey, counters: [Option<Counters>; 2]) {
        let member = self.members.remove(&key);
        let grown = member.unwrap_or_else(|| Member::new(key, 0)).grown(counters);
        self.add_to_others(key, grown);
    }

    fn add_to_others(&mut self, member: FlowKey, grown: Option<[Counters; 2]>) {
        let sums = self.others.of(member.orig.proto);
        for Counters { packets, bytes } in grown.into_iter().flatten() {
            sums.packets += packets;
            sums.bytes += bytes;
        }
    }

    fn sum_up_oldest(&mut self) {
        if let Some(line) = self.flows.pop_oldest() {
            self.flows_evicted += 1;
            self.sum_up(line);
        }
    }

    fn sum_up(&mut self, line: Line) {
        let key = line.key();
        if let Some(counted) = line.flows.life() {
            self.entries_forgotten += self.remembered.remember(&key, counted);
        }
        // Where flows do not fold, the flow's entry has its key. What it had counted is in the sums now; what it
        // counts until it ends is told then.
        if !self.fold && self.members.get(&key).is_some_and(|member| !member.has_counters()) {
            self.members.remove(&key);
        }
        *self.others.of(key.orig.proto) += line.sums();
    }
}
