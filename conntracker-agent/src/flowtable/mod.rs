//! The one table in which all sources meet: each [`FlowEvent`] of ring records, dumps, conntrack events and the
//! kernel's own counts is merged here. Sources may tell of a flow in any order and more than once: there is one flow in
//! the end.
//!
//! Two things are kept apart. A *flow* is a line of the report: what the key says (folded or not).
//! A *member* is one conntrack entry, by its unfolded tuple: it is what must be counted once although
//! a record, an event and several dumps may all tell of it, and what packets without an entry are compared
//! with (`headers.rs`).

mod cold;
mod drops;
mod dumps;
mod ends;
mod entries;
mod headers;
mod limits;
mod line;
mod lines;
mod members;
mod packed;
mod paths;
mod replies;
mod snapshot;
mod store;
mod window;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

pub use self::snapshot::FlowSnapshot;
use self::{
    dumps::Dumps, limits::Remembered, line::Line, lines::Lines, members::Members,
    packed::PackedTuple, store::Keyed,
};
use crate::model::{
    FlowKey, NetnsId, Origins, Status, TimeOfDay, Tuple, Zone,
    event::{CountedFlows, EntryPacket, EntryState, EventKind, FlowEvent},
    flow::Counting,
    other::OtherFlows,
    path::{Direction, Traversal},
};

/// The merged flow table.
#[derive(Debug)]
pub struct FlowTable {
    /// Flows are merged by their folded key.
    fold: bool,
    /// Room for flows.
    max_flows: usize,
    flows: Lines,
    members: Members,
    /// Reply direction → original direction of members whose reply direction another one was about to take: conntrack may refuse that.
    replies_taken: HashMap<FlowKey, Tuple>,
    /// Members whose entries conntrack did not insert the last time, because another one has one of their tuples.
    refused: HashSet<FlowKey>,
    /// Zones other than 0 that flows have.
    zones: HashMap<NetnsId, BTreeSet<Zone>>,
    /// Dumps under way, and what has ended meanwhile.
    dumps: Dumps,
    /// New flows that the kernel's counts account for: those since it folds.
    counted_by_kernel: u64,
    /// See [`Self::new_flows`].
    new_flows: u64,
    /// See [`EventKind::KernelCounts`].
    kernel_counts: bool,
    /// Namespaces whose packets no program sees yet: see [`EventKind::PacketsSeen`].
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
    /// Flows that are not listed: see `limits.rs`.
    others: OtherFlows,
    remembered: Remembered,
    flows_evicted: u64,
    entries_forgotten: u64,
    drop_paths_forgotten: u64,
    /// What the time stamps that conntrack keeps are related to.
    time_of_day: TimeOfDay,
}

impl FlowTable {
    /// An empty table with room for so many flows; with `fold`, flows are merged by their folded key.
    #[must_use]
    pub fn new(fold: bool, max_flows: usize) -> Self {
        Self {
            fold,
            max_flows: max_flows.max(1),
            flows: Lines::new(fold),
            members: Members::new(),
            replies_taken: HashMap::new(),
            refused: HashSet::new(),
            zones: HashMap::new(),
            dumps: Dumps::default(),
            counted_by_kernel: 0,
            new_flows: 0,
            kernel_counts: false,
            unseen: HashSet::new(),
            waiting: HashMap::new(),
            counting: HashMap::new(),
            wants_dump: false,
            dropping: HashMap::new(),
            drops_counted: 0,
            lost_counted: 0,
            others: OtherFlows::default(),
            remembered: Remembered::default(),
            flows_evicted: 0,
            entries_forgotten: 0,
            drop_paths_forgotten: 0,
            time_of_day: TimeOfDay::default(),
        }
    }

    /// Merges an event.
    pub fn take(&mut self, event: FlowEvent) {
        let FlowEvent { netns, at_ns, kind } = event;
        match kind {
            EventKind::New(packet) => self.new_entry(netns, packet, at_ns),
            EventKind::Replied(packet) => self.replied(netns, packet, at_ns),
            EventKind::Related { zone, orig, parent } => {
                let flow = self.flow(self.key(netns, zone, orig), at_ns);
                flow.facts().parent.get_or_insert(parent);
            }
            EventKind::Dropped(packets) => self.dropped(netns, packets, at_ns),
            EventKind::DropCountsTaken => self.drop_counts_taken(),
            EventKind::Counted(counted) => self.counted(netns, counted, at_ns),
            EventKind::Ended(end) => self.ended(netns, &end, at_ns),
            EventKind::Entry(source, entry) => self.entry(netns, source, *entry, at_ns),
            EventKind::DumpBegan => self.dump_began(netns, at_ns),
            EventKind::DumpEnded { whole } => self.dump_ended(netns, whole),
            EventKind::Path(path) => self.path(netns, &path, at_ns),
            EventKind::KernelCounts => self.kernel_counts = true,
            EventKind::PacketsSeen(true) => {
                self.unseen.remove(&netns);
            }
            EventKind::PacketsSeen(false) => {
                self.unseen.insert(netns);
            }
            EventKind::Clock(time_of_day) => self.time_of_day = time_of_day,
            EventKind::Reported => self.settle_waiting(),
        }
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

    /// New flows that the kernel's counts account for: those since it folds.
    #[must_use]
    pub fn counted_by_kernel(&self) -> u64 {
        self.counted_by_kernel
    }

    /// Flows whose beginning was seen: those that dumps alone have shown are not among them.
    #[must_use]
    pub fn new_flows(&self) -> u64 {
        self.new_flows
    }

    /// The key of the flow that an entry is of.
    fn key(&self, netns: NetnsId, zone: Zone, orig: Tuple) -> FlowKey {
        let orig = if self.fold { orig.folded() } else { orig };
        FlowKey { netns, zone, orig, entry: true }
    }

    /// The flow of a key, made if need be.
    fn flow(&mut self, key: FlowKey, at_ns: u64) -> &mut Line {
        if !self.flows.contains(&key) {
            self.make_room();
            if key.zone != Zone::DEFAULT {
                self.zones.entry(key.netns).or_default().insert(key.zone);
            }
        }
        let resumed = self.is_incomplete();
        let Self { flows, remembered, .. } = self;
        let (line, new) = flows.get_or_insert_with(&key, || Line::new(key, at_ns));
        if new {
            line.resumed = resumed;
            if let Some(counted) = remembered.take(&key) {
                line.flows = Counting::resumed(counted);
            }
        }
        line
    }

    /// Whether an entry is of a flow that was summed up, as far as that is known: nothing else tells of it.
    fn was_summed_up(&self, key: &FlowKey) -> bool {
        self.is_incomplete() && !self.unseen.contains(&key.netns) && !self.flows.contains(key)
    }

    /// The first packet of a new entry.
    fn new_entry(&mut self, netns: NetnsId, packet: EntryPacket, at_ns: u64) {
        let EntryPacket { zone, orig, packet_mark, interfaces, counted, .. } = packet;
        let member = FlowKey { netns, zone, orig, entry: true };
        let is_new = self.is_new_member(member, at_ns);
        if !self.refused.contains(&member) {
            self.translates(member, packet.entry.reply);
        }
        let key = self.key(netns, zone, orig);
        let before = self.packet_of(key, packet.entry, at_ns);
        let flow = self.flow(key, at_ns);
        flow.packet_mark.get_or_insert(packet_mark);
        if flow.interfaces.is_none() || !before.packets {
            flow.interfaces = interfaces;
        }
        if let Some(counted) = counted {
            let more = flow.flows.update(counted);
            self.counted_by_kernel += more;
            self.new_flows += more;
        } else {
            flow.flows.add(u64::from(is_new));
            self.new_flows += u64::from(is_new);
        }
    }

    /// The first packet of a reply.
    fn replied(&mut self, netns: NetnsId, packet: EntryPacket, at_ns: u64) {
        let EntryPacket { zone, orig, entry, .. } = packet;
        if self.was_summed_up(&self.key(netns, zone, orig)) {
            return;
        }
        self.translates(FlowKey { netns, zone, orig, entry: true }, entry.reply);
        self.packet_of(self.key(netns, zone, orig), entry, at_ns);
    }

    /// A packet of a flow that netfilter let pass, and what its entry said. Returns what had told of the flow before.
    fn packet_of(&mut self, key: FlowKey, entry: EntryState, at_ns: u64) -> Origins {
        let reply = entry.reply;
        let before = self.describe_by_packet(key, entry, at_ns);
        self.flow(key, at_ns).origins.packets = true;
        self.set_reply(key, reply, !before.of_conntrack());
        before
    }

    /// Takes over what an entry said when a packet met it. Returns what had told of the flow before.
    fn describe_by_packet(&mut self, key: FlowKey, entry: EntryState, at_ns: u64) -> Origins {
        let EntryState { reply: _, zone_dir, status, mark, process } = entry;
        let flow = self.flow(key, at_ns);
        flow.seen_at(at_ns);
        flow.status = flow.status.union(status);
        if mark.is_some() {
            flow.mark = mark;
            flow.zone_dir = zone_dir;
        }
        if let Some(process) = process {
            flow.owned_by(process);
        }
        flow.origins
    }

    /// Whether the kernel's count of a folded key is known already.
    #[must_use]
    pub fn has_count(&self, netns: NetnsId, counted: &CountedFlows) -> bool {
        let CountedFlows { zone, orig, counted, replied } = *counted;
        let line = self.flows.get(&self.key(netns, zone, orig));
        line.is_some_and(|line| {
            line.flows.life() == Some(counted)
                && (!replied || line.status.contains(Status::SEEN_REPLY))
        })
    }

    /// How many flows the kernel has counted: it counts those whose record was lost, too.
    fn counted(&mut self, netns: NetnsId, counted: CountedFlows, at_ns: u64) {
        let CountedFlows { zone, orig, counted, replied } = counted;
        if counted.count == 0 {
            return;
        }
        let key = self.key(netns, zone, orig);
        if !self.flows.contains(&key)
            && let Some(more) = self.remembered.more(&key, counted)
        {
            self.others.of(orig.proto).conntrack_flows += more;
            self.counted_by_kernel += more;
            self.new_flows += more;
            return;
        }
        let flow = self.flow(key, at_ns);
        flow.origins.packets = true;
        let more = flow.flows.update(counted);
        flow.seen_at(at_ns);
        if replied {
            flow.status = flow.status.union(Status::SEEN_REPLY);
        }
        self.counted_by_kernel += more;
        self.new_flows += more;
    }

    /// Remembers the reply direction of the first flow seen. A flow that so far was known by dropped
    /// packets alone may have been dropped before its address was translated: with `replace`, this is
    /// the reply of one that was not.
    fn set_reply(&mut self, key: FlowKey, reply: Tuple, replace: bool) {
        if let Some(orig) = reply.inverted() {
            let seen_as = self.key(key.netns, key.zone, orig);
            if seen_as != key {
                self.flows.add_reply(seen_as, key, self.max_flows);
            }
        }
        if let Some(flow) = self.flows.peek_mut(&key)
            && (replace || flow.reply.is_none())
        {
            flow.reply = Some(PackedTuple::new(reply));
        }
    }
}

#[cfg(test)]
mod tests;
