//! Ends of flows, as probes see them and as events tell.
//!
//! A dump that is under way may still show an entry whose end is merged already: it is remembered
//! until the dump is through.

use std::collections::{HashMap, HashSet};

use super::{DumpId, FlowKey, FlowTable, Member, NetnsId, ZoneDir, account};
use crate::bpf::end::End;

/// What has ended since dumps began.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Dumps under way, at most one of a namespace, and when they began.
    dumps: HashMap<NetnsId, u64>,
    entries: HashMap<FlowKey, u64>,
}

impl Ended {
    /// A dump begins.
    pub fn begin(&mut self, DumpId { netns, start_ns, .. }: DumpId) {
        self.dumps.insert(netns, start_ns);
    }

    /// A dump is through.
    pub fn end(&mut self, netns: NetnsId) {
        self.dumps.remove(&netns);
        self.entries.retain(|key, _| key.netns != netns);
    }

    /// An entry has ended.
    pub fn remember(&mut self, key: FlowKey, at_ns: u64) {
        if self.dumps.contains_key(&key.netns) {
            self.entries.insert(key, at_ns);
        }
    }

    /// Whether an entry that nothing else knows of has ended after the dump began that shows it.
    pub fn contains(&self, key: &FlowKey) -> bool {
        let (Some(ended), Some(began)) = (self.entries.get(key), self.dumps.get(&key.netns)) else {
            return false;
        };
        ended >= began
    }
}

impl FlowTable {
    /// A dump has failed.
    pub fn give_up_dump(&mut self, dump: DumpId) {
        self.ended.end(dump.netns);
    }

    /// Namespaces are gone, and their entries with them. Returns those of which no flow tells.
    pub fn forget_gone(&mut self, gone: &HashSet<NetnsId>) -> HashSet<NetnsId> {
        // While the entries are known that packets may be of.
        self.settle_waiting();
        let Self {
            members, replies, translated, counting, dropping, waiting, flows, zones, ..
        } = self;
        members.retain(|key, _| !gone.contains(&key.netns));
        replies.retain(|key, _| !gone.contains(&key.netns));
        translated.retain(|key, _| !gone.contains(&key.netns));
        counting.retain(|key, _| !gone.contains(&key.netns));
        dropping.retain(|(key, _), _| !gone.contains(&key.netns));
        let mut unused = gone.clone();
        for key in flows.keys().chain(waiting.keys()) {
            unused.remove(&key.netns);
        }
        zones.retain(|netns, _| !unused.contains(netns));
        unused
    }

    /// Merges the end of an entry, seen at `at_ns`; its time was over at `stop_ns`.
    pub fn end(&mut self, netns: NetnsId, end: &End, at_ns: u64, stop_ns: u64) {
        let member_key = FlowKey { netns, zone: end.zone, orig: end.orig, entry: true };
        let key = self.key(netns, end.zone, end.orig);
        let known = end.confirmed.then(|| self.forget_member(&member_key)).flatten();
        let counts = known.is_none() && !self.kernel_counts;
        let time_of_day = self.time_of_day;
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.status = flow.status.union(end.status);
        flow.zone_dir = ZoneDir::from_kernel(end.zone_dir);
        let replace = !flow.origins.of_conntrack();
        flow.origins.ends = true;
        if !end.confirmed {
            // Or one that another entry of the same tuple was faster than: that one is known.
            flow.unconfirmed += 1;
            flow.mark.get_or_insert(end.mark);
            self.set_reply(key, end.reply, false);
            return;
        }
        flow.origins.packets = true;
        flow.mark = Some(end.mark);
        flow.state = end.state.or(flow.state);
        flow.ended += 1;
        // See `entry`: who counts.
        flow.flows.add(u64::from(counts));
        let mut member = known.unwrap_or_else(|| Member::new(at_ns));
        if let Some(counters) = end.counters {
            account(flow, &mut member, counters.map(Some));
        }
        flow.started(end.start_ns, time_of_day);
        let details = flow.details.get_or_insert_default();
        details.id = member.id.or(details.id);
        details.start_ns = end.start_ns.or(details.start_ns);
        details.stop_ns = Some(time_of_day.of(stop_ns));
        self.ended.remember(member_key, at_ns);
        self.set_reply(key, end.reply, replace);
    }
}
