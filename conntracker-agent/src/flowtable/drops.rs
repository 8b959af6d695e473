//! Dropped packets, merged into the flows they belong to.

use std::sync::Arc;

use super::{
    FlowTable,
    line::Line,
    members::{MOST_CLASHES, Member},
};
use crate::model::{
    Cause, Clash, ConntrackCause, DropPoint, Flow, FlowKey, NetnsId, Tuple,
    event::{DroppedEntry, DroppedPackets},
    path::Traversal,
    process::Process,
};

/// Paths of dropped packets that are remembered.
const MOST_PATHS: usize = 262_144;

impl FlowTable {
    /// Packets that netfilter dropped and that were merged.
    #[must_use]
    pub fn drops_counted(&self) -> u64 {
        self.drops_counted
    }

    /// Packets that got lost elsewhere and that were merged.
    #[must_use]
    pub fn lost_counted(&self) -> u64 {
        self.lost_counted
    }

    /// Remembers the path that dropped packets took. Rules without counters can depend on the addresses, so
    /// that the hash alone does not tell it.
    pub(super) fn drops_take(&mut self, key: FlowKey, path_hash: u64, path: &Arc<Traversal>) {
        if self.dropping.len() < MOST_PATHS.min(self.max_flows)
            || self.dropping.contains_key(&(key, path_hash))
        {
            self.dropping.insert((key, path_hash), Arc::clone(path));
        } else {
            self.drop_paths_forgotten += 1;
        }
    }

    /// Merges dropped packets.
    pub(super) fn dropped(&mut self, netns: NetnsId, drops: DroppedPackets, at_ns: u64) {
        let key = self.key_of_dropped(netns, &drops);
        let DroppedPackets { zone, orig, entry, point, path_hash, packets, first_ns } = drops;
        let has_entry = key.entry;
        let (mut reply, mut quoted) = (None, None);
        match entry {
            DroppedEntry::None { quotes } => quoted = quotes,
            DroppedEntry::Tuple => {}
            DroppedEntry::State(state) => {
                reply = Some(state.reply);
                self.describe_by_packet(key, state, at_ns);
                self.flow(key, at_ns).origins.drops = true;
            }
        }
        if packets > 0 {
            self.add_drops(key, path_hash, point, packets, (first_ns, at_ns));
        } else if !has_entry {
            self.expect_drops(key, point.iif, at_ns);
        }
        if let Some(quoted) = quoted {
            self.quotes(key, quoted);
        }
        if let Some(reply) = reply {
            if point.cause == Cause::Conntrack(ConntrackCause::InsertFailed) {
                self.clashed(key, FlowKey { netns, zone, orig, entry: true }, reply);
            }
            self.set_reply(key, reply, false);
        }
    }

    /// The key of the flow of dropped packets, or their headers.
    fn key_of_dropped(&self, netns: NetnsId, drops: &DroppedPackets) -> FlowKey {
        let &DroppedPackets { zone, orig, .. } = drops;
        if drops.has_entry() {
            self.key(netns, zone, orig)
        } else {
            FlowKey { netns, zone, orig, entry: false }
        }
    }

    /// The path on which packets were dropped, if it is known by now.
    #[must_use]
    pub fn path_of_dropped(
        &self,
        netns: NetnsId,
        drops: &DroppedPackets,
    ) -> Option<&Arc<Traversal>> {
        self.dropping.get(&(self.key_of_dropped(netns, drops), drops.path_hash))
    }

    /// The flow of dropped packets as far as it is known by now, or the line that they have if they are of none.
    #[must_use]
    pub fn flow_or_line_of_dropped(&self, netns: NetnsId, drops: &DroppedPackets) -> Flow {
        let mut key = self.key_of_dropped(netns, drops);
        if !key.entry {
            let found = self.flow_of_headers(key, drops.point.iif);
            key = found.unwrap_or_else(|| self.line_of(key));
        }
        let known = self.flows.in_memory(&key).cloned();
        known.unwrap_or_else(|| Line::new(key, drops.first_ns)).flow()
    }

    /// The process at an end of the flow of dropped packets, if it is known by now.
    #[must_use]
    pub fn process_of_dropped(&self, netns: NetnsId, drops: &DroppedPackets) -> Option<&Process> {
        let key = self.key_of_dropped(netns, drops);
        self.flows.in_memory(&key).and_then(|flow| flow.process.as_deref())
    }

    /// Conntrack did not insert the entry of a dropped packet: remembers which tuple it could not have, and who
    /// has it.
    pub(super) fn clashed(&mut self, key: FlowKey, member: FlowKey, reply: Tuple) {
        let by_reply = FlowKey { orig: reply, ..member };
        let holder = match self.replies_taken.remove(&by_reply) {
            Some(holder) => Some(holder),
            None => self.holder(member, reply).or_else(|| self.holder(member, member.orig)),
        };
        // There is no such member.
        self.forget_member(&member);
        if self.refused.len() < MOST_CLASHES {
            self.refused.insert(member);
        } else {
            self.entries_forgotten += 1;
        }
        if let Some(holder) = holder.map(|orig| FlowKey { orig, ..member })
            && self.members.get(&holder).and_then(Member::reply) == Some(reply)
        {
            self.members.point_reply_to(by_reply, holder);
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.drops.get_or_insert_default().clash.get_or_insert(Clash { reply, holder });
        }
    }

    /// Original tuple of another entry than `member` that has a tuple in one of its directions.
    fn holder(&self, member: FlowKey, tuple: Tuple) -> Option<Tuple> {
        let entry = |orig| FlowKey { orig, ..member };
        let plain =
            |orig: &Tuple| self.members.get(&entry(*orig)).is_some_and(|m| m.reply().is_none());
        let candidates = [
            Some(tuple).filter(|orig| self.members.contains(&entry(*orig))),
            self.members.replying(&entry(tuple)),
            tuple.inverted().filter(plain),
        ];
        candidates.into_iter().flatten().find(|orig| *orig != member.orig)
    }

    /// Adds dropped packets to the flow of a key, or to the one that their headers fit.
    fn add_drops(
        &mut self,
        key: FlowKey,
        path_hash: u64,
        place: DropPoint,
        packets: u64,
        (first_ns, last_ns): (u64, u64),
    ) {
        if place.cause.is_elsewhere() {
            self.lost_counted += packets;
        } else {
            self.drops_counted += packets;
        }
        let path = self.dropping.get(&(key, path_hash)).cloned();
        let gathered = if key.entry {
            self.gathered(key, None, first_ns, last_ns)
        } else {
            self.by_headers(key, place.iif, first_ns, last_ns)
        };
        gathered.dropped(place, path.as_ref(), packets);
    }
}
