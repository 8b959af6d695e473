//! Ends of conntrack entries as probes see them, and of namespaces.

use std::collections::HashSet;

use super::{FlowTable, Keyed, members::Member};
use crate::model::{FlowKey, NetnsId, event::EntryEnd};

impl FlowTable {
    /// Namespaces are gone, and their entries with them. Returns those of which no flow tells.
    pub fn forget_gone(&mut self, gone: &HashSet<NetnsId>) -> HashSet<NetnsId> {
        // While the entries are known that packets may be of.
        self.settle_waiting();
        self.forget_members(|member| !gone.contains(&member.key().netns));
        self.flows.forget_replies(|netns| gone.contains(netns));
        self.replies_taken.retain(|key, _| !gone.contains(&key.netns));
        self.refused.retain(|key| !gone.contains(&key.netns));
        self.counting.retain(|key, _| !gone.contains(&key.netns));
        self.dropping.retain(|(key, _), _| !gone.contains(&key.netns));
        let mut unused = gone.clone();
        for netns in self.flows.iter().map(|line| line.key().netns) {
            unused.remove(&netns);
        }
        for key in self.waiting.keys() {
            unused.remove(&key.netns);
        }
        self.zones.retain(|netns, _| !unused.contains(netns));
        unused
    }

    /// The end of an entry, seen at `at_ns`.
    pub(super) fn ended(&mut self, netns: NetnsId, end: &EntryEnd, at_ns: u64) {
        let member_key = FlowKey { netns, zone: end.zone, orig: end.orig, entry: true };
        let key = self.key(netns, end.zone, end.orig);
        if end.confirmed && self.was_summed_up(&key) {
            let counters = end.counters.map_or([None; 2], |counters| counters.map(Some));
            return self.others_end(member_key, counters);
        }
        let known = end.confirmed.then(|| self.forget_member(&member_key)).flatten();
        // Who counts new flows: see `entry`.
        let counts = known.is_none() && !self.kernel_counts && !self.is_incomplete();
        let time_of_day = self.time_of_day;
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.status = flow.status.union(end.status);
        flow.zone_dir = end.zone_dir;
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
        flow.ended += 1;
        flow.flows.add(u64::from(counts));
        let mut member = known.unwrap_or_else(|| Member::new(member_key, at_ns));
        if let Some(counters) = end.counters {
            member.account(flow, counters.map(Some));
        }
        flow.started(end.start_ns, time_of_day);
        let facts = flow.facts();
        facts.state = end.state.or(facts.state);
        let details = facts.details.get_or_insert_default();
        details.id = member.id.or(details.id);
        details.start_ns = end.start_ns.or(details.start_ns);
        details.stop_ns = Some(time_of_day.of(end.stop_ns));
        self.dumps.remember_end(member_key, at_ns);
        self.set_reply(key, end.reply, replace);
    }
}
