//! The one table in which all sources meet: ring records, dumps, events, and the kernel's own
//! counts. Sources may tell of a flow in any order and more than once: there is one flow in the end.
//!
//! Two things are kept apart. A *flow* is a line of the report: what the key says (folded or not).
//! A *member* is one conntrack entry, by its unfolded tuple: it is what must be counted once although
//! a record, an event and several dumps may all tell of it, and what packets without an entry are compared
//! with (`table/headers.rs`).
//!
//! Times are nanoseconds since boot, of one clock that nobody can set.

mod drops;
mod ends;
mod headers;
mod paths;

pub use self::paths::PacketPath;

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry as Slot},
    sync::Arc,
};

use conntracker_common::hook::POST_ROUTING;

use crate::{
    bpf::{
        counts::Seen,
        owner::Owner,
        record::{Kind as RecordKind, Record},
    },
    model::{
        Cause, ConntrackCause, Flow, FlowKey, NetnsId, Status, TimeOfDay, Tuple, ZoneDir,
        counters::Counters,
        flow::Details,
        path::{Direction, Traversal},
        process::Process,
    },
    netlink::ctnetlink::{ConntrackEntry, events::Kind as EventKind},
};

/// One conntrack entry.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// CTA_ID, once a dump or event told it.
    id: Option<u32>,
    /// Last accounting.
    counters: [Counters; 2],
    /// When it was first heard of (nanoseconds since boot).
    since_ns: u64,
    /// The last dump that showed it, 0 for none.
    dump: u32,
    /// Reply direction, if it is not the original one turned round; in [`FlowTable::replies`] as well.
    reply: Option<Tuple>,
}

/// A dump under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpId {
    number: u32,
    netns: NetnsId,
    start_ns: u64,
}

/// The merged flow table.
#[derive(Debug)]
pub struct FlowTable {
    /// Flows are merged by their folded key.
    fold: bool,
    flows: HashMap<FlowKey, Flow>,
    members: HashMap<FlowKey, Member>,
    /// Reply direction → original direction of members with address translation, unfolded.
    replies: HashMap<FlowKey, Tuple>,
    /// The same of members whose reply direction another one was about to take: conntrack may refuse that.
    replies_taken: HashMap<FlowKey, Tuple>,
    /// Members whose entries conntrack did not insert the last time, because another one has one of their tuples.
    refused: HashSet<FlowKey>,
    /// Original tuple, folded as flows are, that a reply would have → the flows that it may be a reply to; only
    /// for flows with address translation, where it is not their own.
    translated: HashMap<FlowKey, Vec<FlowKey>>,
    /// Zones other than 0 that flows have.
    zones: HashMap<NetnsId, BTreeSet<u16>>,
    dumps: u32,
    /// New flows that the kernel's counts account for: those since it folds.
    counted_by_kernel: u64,
    /// The kernel counts new flows by their folded key: see [`Self::kernel_counts_from_now_on`].
    kernel_counts: bool,
    /// Namespaces whose flows it does not see yet: see [`Self::count_each`].
    unseen: HashSet<NetnsId>,
    /// Packets without an entry of which it is not known yet which flow they are of.
    waiting: HashMap<FlowKey, headers::Waiting>,
    /// Headers of which the kernel counts dropped packets, and the flow that these are of.
    counting: HashMap<FlowKey, (FlowKey, Direction)>,
    /// See [`Self::wants_dump`].
    wants_dump: bool,
    /// Paths of dropped packets, by the flow or headers and their hash.
    dropping: HashMap<(FlowKey, u64), Arc<Traversal>>,
    /// Packets that were merged: dropped by netfilter, and lost elsewhere.
    drops_counted: u64,
    lost_counted: u64,
    /// Entries that have ended while a dump is under way.
    ended: ends::Ended,
    /// What the time stamps that conntrack keeps are related to.
    time_of_day: TimeOfDay,
}

impl FlowTable {
    /// An empty table; with `fold`, flows are merged by their folded key.
    #[must_use]
    pub fn new(fold: bool) -> Self {
        Self {
            fold,
            flows: HashMap::new(),
            members: HashMap::new(),
            replies: HashMap::new(),
            replies_taken: HashMap::new(),
            refused: HashSet::new(),
            translated: HashMap::new(),
            zones: HashMap::new(),
            dumps: 0,
            counted_by_kernel: 0,
            kernel_counts: false,
            unseen: HashSet::new(),
            waiting: HashMap::new(),
            counting: HashMap::new(),
            wants_dump: false,
            dropping: HashMap::new(),
            drops_counted: 0,
            lost_counted: 0,
            ended: ends::Ended::default(),
            time_of_day: TimeOfDay::default(),
        }
    }

    /// Time stamps of entries are the time of day when they were made: from now on they are related to it by
    /// this.
    pub fn set_time_of_day(&mut self, time_of_day: TimeOfDay) {
        self.time_of_day = time_of_day;
    }

    /// Number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether no flow was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The flows, in no order.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// New flows that the kernel's counts account for: those since it folds.
    #[must_use]
    pub fn counted_by_kernel(&self) -> u64 {
        self.counted_by_kernel
    }

    /// The key of the flow that an entry is of.
    fn key(&self, netns: NetnsId, zone: u16, orig: Tuple) -> FlowKey {
        let orig = if self.fold { orig.folded() } else { orig };
        FlowKey { netns, zone, orig, entry: true }
    }

    /// The flow of a key, made if need be.
    fn flow(&mut self, key: FlowKey, at_ns: u64) -> &mut Flow {
        if key.zone != 0 && !self.flows.contains_key(&key) {
            self.zones.entry(key.netns).or_default().insert(key.zone);
        }
        self.flows.entry(key).or_insert_with(|| Flow::new(key, at_ns))
    }

    /// Merges one ring record, made at `at_ns`. If it is of a dropped packet, `cause` says who did it.
    pub fn record(&mut self, netns: NetnsId, record: &Record, cause: Cause, at_ns: u64) {
        let Some(reply) = record.reply else {
            let entry = record.kind == RecordKind::Parent;
            let key = FlowKey { netns, zone: record.zone, orig: record.orig, entry };
            if entry {
                let flow = self.flow(self.key(netns, key.zone, key.orig), at_ns);
                flow.parent = flow.parent.or(record.other);
                return;
            }
            self.dropped_once(key, record, cause, at_ns);
            return self.quotes(key, record.other);
        };
        let member_key = FlowKey { netns, zone: record.zone, orig: record.orig, entry: true };
        let key = self.key(netns, record.zone, record.orig);
        let news = match record.kind {
            RecordKind::New => self.is_new_member(member_key, at_ns),
            RecordKind::Replied | RecordKind::Drop | RecordKind::Parent => false,
        };
        let refused = record.kind == RecordKind::New && self.refused.contains(&member_key);
        if record.kind != RecordKind::Drop && !refused {
            self.translates(member_key, reply);
        }
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.status = flow.status.union(record.status);
        if let Some(mark) = record.ct_mark {
            flow.mark = Some(mark);
            flow.zone_dir = ZoneDir::from_kernel(record.zone_dir);
        }
        let replace = !flow.origins.of_conntrack() && record.kind != RecordKind::Drop;
        let mut counted_by_kernel = 0;
        if record.kind == RecordKind::New {
            flow.packet_mark.get_or_insert(record.packet_mark);
            if flow.interfaces.is_none() || !flow.origins.packets {
                flow.interfaces = record.interfaces;
            }
            match record.counted {
                Some(counted) => counted_by_kernel = flow.flows.update(counted),
                None => flow.flows.add(u64::from(news)),
            }
        }
        match record.kind {
            RecordKind::New | RecordKind::Replied => flow.origins.packets = true,
            RecordKind::Drop => flow.origins.drops = true,
            RecordKind::Parent => {}
        }
        if let Some(owner) = &record.owner {
            flow.owned_by(process(record, owner));
        }
        self.counted_by_kernel += counted_by_kernel;
        if record.kind == RecordKind::Drop {
            self.dropped_once(key, record, cause, at_ns);
            if cause == Cause::Conntrack(ConntrackCause::InsertFailed) {
                self.clashed(key, member_key, reply);
            }
        }
        self.set_reply(key, reply, replace);
    }

    /// Whether a record of a new entry tells of one that nothing told of before.
    fn is_new_member(&mut self, key: FlowKey, at_ns: u64) -> bool {
        // A dump may be faster than the record. Otherwise the tuple was used again: an entry of its own.
        let known = self.members.get(&key);
        if known.is_some_and(|member| member.dump > 0 && at_ns <= member.since_ns) {
            return false;
        }
        self.forget_member(&key);
        self.members.insert(key, Member::new(at_ns));
        true
    }

    /// Remembers the reply direction of a member.
    fn translates(&mut self, key: FlowKey, reply: Tuple) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let translated = Some(reply).filter(|reply| reply.inverted() != Some(key.orig));
        if member.reply == translated {
            return;
        }
        if let Some(before) = std::mem::replace(&mut member.reply, translated) {
            self.replies.remove(&FlowKey { orig: before, ..key });
        }
        if let Some(reply) = translated {
            let by_reply = FlowKey { orig: reply, ..key };
            let before = self.replies.insert(by_reply, key.orig);
            if let Some(before) = before.filter(|before| *before != key.orig) {
                self.replies_taken.insert(by_reply, before);
            }
        }
    }

    /// An entry is gone.
    fn forget_member(&mut self, key: &FlowKey) -> Option<Member> {
        self.settle_member(key);
        let member = self.members.remove(key)?;
        if let Some(reply) = member.reply {
            self.replies.remove(&FlowKey { orig: reply, ..*key });
        }
        Some(member)
    }

    /// Remembers the reply direction of the first flow seen. A flow that so far was known by dropped
    /// packets alone may have been dropped before its address was translated: with `replace`, this is
    /// the reply of one that was not.
    fn set_reply(&mut self, key: FlowKey, reply: Tuple, replace: bool) {
        if let Some(orig) = reply.inverted() {
            let seen_as = self.key(key.netns, key.zone, orig);
            if seen_as != key {
                let flows = self.translated.entry(seen_as).or_default();
                if !flows.contains(&key) {
                    flows.push(key);
                }
            }
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            if replace {
                flow.reply = Some(reply);
            } else {
                flow.reply.get_or_insert(reply);
            }
        }
    }

    /// Until now each new flow had a record of its own, and what dumps showed besides was new as well.
    /// From now on the kernel counts the flows of a key that had a record: entries that no record told
    /// of are in its count.
    pub fn kernel_counts_from_now_on(&mut self) {
        self.kernel_counts = true;
    }

    /// The kernel does not see the flows of this namespace: what dumps show is new.
    pub fn count_each(&mut self, netns: NetnsId) {
        self.unseen.insert(netns);
    }

    /// From now on it does.
    pub fn count_with_others(&mut self, netns: NetnsId) {
        self.unseen.remove(&netns);
    }

    /// Starts a dump of a namespace.
    pub fn begin_dump(&mut self, netns: NetnsId, at_ns: u64) -> DumpId {
        self.dumps += 1;
        let dump = DumpId { number: self.dumps, netns, start_ns: at_ns };
        self.ended.begin(dump);
        self.wants_dump = false;
        dump
    }

    /// Merges one entry of a dump.
    pub fn dumped(&mut self, dump: DumpId, entry: &ConntrackEntry, at_ns: u64) {
        self.entry(dump.netns, entry, dump.number, None, at_ns);
    }

    /// Ends a dump that was complete: entries it did not show are gone.
    pub fn end_dump(&mut self, dump: DumpId) {
        // While the entries are known that packets may be of.
        self.settle_waiting();
        self.ended.end(dump.netns);
        self.replies_taken.retain(|key, _| key.netns != dump.netns);
        self.refused.retain(|key| key.netns != dump.netns);
        // An entry made after the dump began may have been missed by it.
        let Self { members, replies, .. } = self;
        members.retain(|key, member| {
            let there = key.netns != dump.netns
                || member.dump == dump.number
                || member.since_ns >= dump.start_ns;
            if let Some(reply) = member.reply.filter(|_| !there) {
                replies.remove(&FlowKey { orig: reply, ..*key });
            }
            there
        });
    }

    /// Merges one conntrack event.
    pub fn event(&mut self, netns: NetnsId, kind: EventKind, entry: &ConntrackEntry, at_ns: u64) {
        self.entry(netns, entry, 0, Some(kind), at_ns);
    }

    fn entry(
        &mut self,
        netns: NetnsId,
        entry: &ConntrackEntry,
        dump: u32,
        event: Option<EventKind>,
        at_ns: u64,
    ) {
        let member_key = FlowKey { netns, zone: entry.zone, orig: entry.orig, entry: true };
        if event.is_none()
            && !self.members.contains_key(&member_key)
            && self.ended.contains(&member_key)
        {
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
        let member = match slot {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                flow.flows.add(u64::from(counts));
                slot.insert(Member::new(at_ns))
            }
        };
        member.id = entry.id.or(member.id);
        member.dump = member.dump.max(dump);
        let replace = !flow.origins.of_conntrack();
        account(flow, member, entry.counters);
        describe(flow, entry, self.time_of_day, at_ns);
        match event {
            Some(_) => flow.origins.events = true,
            None => flow.origins.dump = true,
        }
        if let Some(reply) = entry.reply {
            self.translates(member_key, reply);
            self.set_reply(key, reply, replace);
        }
        if event == Some(EventKind::Destroy) {
            self.flow(key, at_ns).ended += 1;
            self.forget_member(&member_key);
            self.ended.remember(member_key, at_ns);
        }
    }

    /// Merges an entry of the kernel's map of flows: counts, and flows whose record was lost.
    pub fn seen_flow(&mut self, netns: NetnsId, seen: &Seen, at_ns: u64) {
        if seen.counted.count == 0 {
            return;
        }
        let key = self.key(netns, seen.zone, seen.orig);
        let flow = self.flow(key, at_ns);
        flow.origins.packets = true;
        let counted = flow.flows.update(seen.counted);
        flow.seen_at(at_ns);
        if seen.replied {
            flow.status = flow.status.union(Status::SEEN_REPLY);
        }
        self.counted_by_kernel += counted;
    }
}

impl Member {
    fn new(at_ns: u64) -> Self {
        Self { id: None, counters: [Counters::default(); 2], since_ns: at_ns, dump: 0, reply: None }
    }
}

/// The process that a record tells of. Of packets that go out it is the one that sends them.
fn process(record: &Record, owner: &Owner) -> Process {
    let out = record.hook == Some(POST_ROUTING);
    let original = (record.kind == RecordKind::New) == out;
    let comm = |comm: &[u8]| {
        let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
        String::from_utf8_lossy(&comm[..end]).into_owned()
    };
    Process {
        direction: if original { Direction::Original } else { Direction::Reply },
        uid: owner.uid,
        user: None,
        pid: owner.sender.map(|(pid, _)| pid),
        comm: owner.sender.map(|(_, name)| comm(&name)),
        cgroup_id: owner.cgroup,
        cgroup: None,
        inode: owner.inode,
    }
}

/// Adds what the entry's counters grew by since they were last seen.
fn account(flow: &mut Flow, member: &mut Member, counters: [Option<Counters>; 2]) {
    for (direction, now) in counters.iter().enumerate() {
        let Some(now) = now else { continue };
        let before = &mut member.counters[direction];
        let sum = &mut flow.counters.get_or_insert_default()[direction];
        sum.packets += now.packets.saturating_sub(before.packets);
        sum.bytes += now.bytes.saturating_sub(before.bytes);
        *before = *now;
    }
}

/// Takes over what the entry says of the flow.
fn describe(flow: &mut Flow, entry: &ConntrackEntry, time_of_day: TimeOfDay, at_ns: u64) {
    flow.seen_at(at_ns);
    flow.status = flow.status.union(entry.status);
    flow.state = entry.state.or(flow.state);
    flow.parent = entry.master.or(flow.parent);
    flow.mark = entry.mark.or(flow.mark);
    flow.timeout = entry.timeout.or(flow.timeout);
    match ZoneDir::of_zones(entry.zone_orig, entry.zone_reply) {
        ZoneDir::Both => {}
        one => flow.zone_dir = one,
    }
    flow.started(entry.start, time_of_day);
    let details = flow.details.get_or_insert_default();
    let Details { id, use_count, helper, labels, secctx, start_ns, stop_ns } = &mut **details;
    *id = entry.id.or(*id);
    *use_count = entry.use_count.or(*use_count);
    *start_ns = entry.start.or(*start_ns);
    *stop_ns = entry.stop.or(*stop_ns);
    if entry.helper.is_some() {
        helper.clone_from(&entry.helper);
    }
    if entry.secctx.is_some() {
        secctx.clone_from(&entry.secctx);
    }
    if !entry.labels.is_empty() {
        labels.clone_from(&entry.labels);
    }
}

#[cfg(test)]
mod tests;
