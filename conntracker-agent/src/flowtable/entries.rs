//! Conntrack entries as netlink tells them: in dumps, and in events.

use super::{FlowTable, line::Line};
use crate::model::{
    FlowKey, NetnsId, TimeOfDay, ZoneDir,
    event::{Entry, EntrySource},
    flow::Details,
};

impl FlowTable {
    pub(super) fn entry(&mut self, netns: NetnsId, source: EntrySource, entry: Entry, at_ns: u64) {
        let member_key = FlowKey { netns, zone: entry.zone, orig: entry.orig, entry: true };
        let of_dump = source == EntrySource::Dump;
        if of_dump && !self.members.contains(&member_key) && self.dumps.ended(&member_key) {
            return;
        }
        // Once the kernel counts, its count alone says how many new flows there were, also of those whose
        // record was lost.
        let counts = self.unseen.contains(&netns) || !self.kernel_counts && !self.is_incomplete();
        let reused = self.members.get(&member_key).is_some_and(|member| {
            member.id.is_some() && entry.id.is_some() && member.id != entry.id
        });
        if reused {
            self.forget_member(&member_key);
        }
        let key = self.key(netns, entry.zone, entry.orig);
        if self.was_summed_up(&key) {
            match source {
                EntrySource::NewEvent => {}
                EntrySource::EndEvent => return self.others_end(member_key, entry.counters),
                EntrySource::Dump | EntrySource::UpdateEvent => {
                    return self.others_count(member_key, entry.counters);
                }
            }
        }
        let new = self.member(member_key, at_ns).1;
        let Self { members, flows, dumps, time_of_day, .. } = self;
        let (Some(member), Some(flow)) = (members.get_mut(&member_key), flows.get_mut(&key)) else {
            return;
        };
        flow.flows.add(u64::from(new && counts));
        self.new_flows += u64::from(new && counts && source == EntrySource::NewEvent);
        let replace = !flow.origins.of_conntrack();
        member.id = entry.id.or(member.id);
        if of_dump {
            member.dump = member.dump.max(dumps.under_way(netns));
            flow.origins.dump = true;
        } else {
            flow.origins.events = true;
        }
        member.account(flow, entry.counters);
        let reply = entry.reply;
        describe(flow, entry, *time_of_day, at_ns);
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
fn describe(flow: &mut Line, entry: Entry, time_of_day: TimeOfDay, at_ns: u64) {
    flow.seen_at(at_ns);
    flow.status = flow.status.union(entry.status);
    flow.mark = entry.mark.or(flow.mark);
    if entry.zone_dir != ZoneDir::Both {
        flow.zone_dir = entry.zone_dir;
    }
    flow.started(entry.start_ns, time_of_day);
    let facts = flow.facts();
    facts.state = entry.state.or(facts.state);
    facts.parent = entry.parent.or(facts.parent);
    facts.timeout = entry.timeout.or(facts.timeout);
    let details = facts.details.get_or_insert_default();
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
