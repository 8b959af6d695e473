//! Conntrack entries as netlink tells them: in dumps, and in events.

use std::collections::hash_map::Entry as Slot;

use super::{FlowTable, Member};
use crate::model::{
    Flow, FlowKey, NetnsId, TimeOfDay, ZoneDir,
    event::{Entry, EntrySource},
    flow::Details,
};

impl FlowTable {
    pub(super) fn entry(&mut self, netns: NetnsId, source: EntrySource, entry: Entry, at_ns: u64) {
        let member_key = FlowKey { netns, zone: entry.zone, orig: entry.orig, entry: true };
        let of_dump = source == EntrySource::Dump;
        if of_dump && !self.members.contains_key(&member_key) && self.dumps.ended(&member_key) {
            return;
        }
        // Once the kernel counts, its count alone says how many new flows there were, also of those whose
        // record was lost.
        let counts = !self.kernel_counts || self.unseen.contains(&netns);
        let reused = self.members.get(&member_key).is_some_and(|member| {
            member.id.is_some() && entry.id.is_some() && member.id != entry.id
        });
        if reused {
            self.forget_member(&member_key);
        }
        let key = self.key(netns, entry.zone, entry.orig);
        self.flow(key, at_ns);
        let (Some(flow), slot) = (self.flows.get_mut(&key), self.members.entry(member_key)) else {
            return;
        };
        let origins = flow.origins;
        let member = match slot {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                flow.flows.add(u64::from(counts));
                slot.insert(Member::new(at_ns))
            }
        };
        member.id = entry.id.or(member.id);
        if of_dump {
            member.dump = member.dump.max(self.dumps.under_way(netns));
            flow.origins.dump = true;
        } else {
            flow.origins.events = true;
        }
        let replace = !origins.of_conntrack();
        member.account(flow, entry.counters);
        let reply = entry.reply;
        describe(flow, entry, self.time_of_day, at_ns);
        if let Some(reply) = reply {
            self.translates(member_key, reply);
            self.set_reply(key, reply, replace);
        }
        if source == EntrySource::EndEvent {
            self.flow(key, at_ns).ended += 1;
            self.forget_member(&member_key);
            self.dumps.remember_end(member_key, at_ns);
        }
    }
}

/// Takes over what the entry says of the flow.
fn describe(flow: &mut Flow, entry: Entry, time_of_day: TimeOfDay, at_ns: u64) {
    flow.seen_at(at_ns);
    flow.status = flow.status.union(entry.status);
    flow.state = entry.state.or(flow.state);
    flow.parent = entry.parent.or(flow.parent);
    flow.mark = entry.mark.or(flow.mark);
    flow.timeout = entry.timeout.or(flow.timeout);
    if entry.zone_dir != ZoneDir::Both {
        flow.zone_dir = entry.zone_dir;
    }
    flow.started(entry.start_ns, time_of_day);
    let details = flow.details.get_or_insert_default();
    let Details { id, use_count, helper, labels, secctx, start_ns, stop_ns } = &mut **details;
    *id = entry.id.or(*id);
    *use_count = entry.use_count.or(*use_count);
    *start_ns = entry.start_ns.or(*start_ns);
    *stop_ns = entry.stop_ns.or(*stop_ns);
    if entry.helper.is_some() {
        *helper = entry.helper;
    }
    if entry.secctx.is_some() {
        *secctx = entry.secctx;
    }
    if !entry.labels.is_empty() {
        *labels = entry.labels;
    }
}
