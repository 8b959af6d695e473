//! Events to columns.

use hashbrown::HashMap;

use super::{SOURCES, ZONE_DIRS, cause, dropped, entry, kind, process, state};
use crate::{
    model::{
        Cause, ConntrackCause, Mark, Status, Tuple, Zone, ZoneDir,
        counters::Counters,
        event::{
            CountedFlows, DroppedEntry, DroppedPackets, Entry, EntryEnd, EntryPacket, EntrySource,
            EntryState, EventKind, FlowEvent, PacketPath,
        },
        flow::Counted,
        path::Direction,
        process::Process,
        state::ProtoState,
    },
    recording::{
        body::Columns,
        columns::{WriteColumns, column},
        dictionary::Dictionaries,
        tuples::TupleWriter,
    },
};

/// Events of one block.
#[derive(Debug)]
pub(in crate::recording) struct EventWriter {
    columns: WriteColumns,
    tuples: TupleWriter,
    hashes: HashMap<u64, u64>,
    records: usize,
    /// Times of the earliest and the latest event.
    times: (u64, u64),
}

impl EventWriter {
    pub fn new() -> Self {
        Self {
            columns: WriteColumns::new(),
            tuples: TupleWriter::default(),
            hashes: HashMap::new(),
            records: 0,
            times: (u64::MAX, 0),
        }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Times of the earliest and the latest event, nanoseconds since boot.
    pub fn times(&self) -> (u64, u64) {
        (self.times.0.min(self.times.1), self.times.1)
    }

    /// The columns; the next event begins a new block.
    pub fn take(&mut self) -> Columns {
        self.tuples.clear();
        self.hashes.clear();
        self.records = 0;
        self.times = (u64::MAX, 0);
        self.columns.take()
    }

    /// Adds an event. Strings and paths that it refers to are in the dictionaries afterwards.
    pub fn add(&mut self, event: &FlowEvent, known: &mut Dictionaries) {
        let FlowEvent { netns, at_ns, kind: what } = event;
        self.records += 1;
        self.times = (self.times.0.min(*at_ns), self.times.1.max(*at_ns));
        self.columns.to(column::NETNS).number(netns.0.into());
        self.columns.to(column::TIME).delta(*at_ns);
        let number = match what {
            EventKind::New(packet) => {
                self.entry_packet(packet, column::NEW_STATUS, known);
                kind::NEW
            }
            EventKind::Replied(packet) => {
                self.entry_packet(packet, column::REPLIED_STATUS, known);
                kind::REPLIED
            }
            EventKind::Related { zone, orig, parent } => {
                self.entry_tuple(*zone, orig);
                self.tuple(parent, None);
                kind::RELATED
            }
            EventKind::Dropped(packets) => {
                self.dropped(packets, *at_ns, known);
                kind::DROPPED
            }
            EventKind::DropCountsTaken => kind::DROP_COUNTS_TAKEN,
            EventKind::Counted(CountedFlows { zone, orig, counted, replied }) => {
                self.entry_tuple(*zone, orig);
                self.counted(counted);
                self.columns.to(column::COUNT_REPLIED).byte(u8::from(*replied));
                kind::COUNTED
            }
            EventKind::Ended(end) => {
                self.ended(end, *at_ns);
                kind::ENDED
            }
            EventKind::Entry(source, entry) => {
                self.entry(*source, entry, known);
                kind::ENTRY
            }
            EventKind::DumpBegan => kind::DUMP_BEGAN,
            EventKind::DumpEnded { whole } => {
                self.columns.to(column::WHOLE).byte(u8::from(*whole));
                kind::DUMP_ENDED
            }
            EventKind::Path(path) => {
                self.path(path, known);
                kind::PATH
            }
            EventKind::KernelCounts => kind::KERNEL_COUNTS,
            EventKind::PacketsSeen(seen) => {
                self.columns.to(column::SEEN).byte(u8::from(*seen));
                kind::PACKETS_SEEN
            }
            EventKind::Clock(time_of_day) => {
                let (boot, epoch) = time_of_day.pair();
                self.columns.to(column::CLOCK_BOOT).number(boot);
                self.columns.to(column::CLOCK_EPOCH).number(epoch);
                kind::CLOCK
            }
            EventKind::Reported => kind::REPORTED,
        };
        self.columns.to(column::KIND).byte(number);
    }

    fn tuple(&mut self, tuple: &Tuple, like: Option<&Tuple>) {
        self.tuples.write(&mut self.columns, tuple, like);
    }

    fn entry_tuple(&mut self, zone: Zone, orig: &Tuple) {
        self.columns.to(column::ZONE).number(zone.into());
        self.tuple(orig, None);
    }

    fn zone_dir(&mut self, dir: ZoneDir) {
        let number = ZONE_DIRS.iter().position(|of| *of == dir).unwrap_or_default();
        self.columns.to(column::ZONE_DIR).byte(number as u8);
    }

    fn status(&mut self, column: u16, Status(bits): Status) {
        self.columns.to(column).number(bits.into());
    }

    fn entry_packet(&mut self, packet: &EntryPacket, status: u16, known: &mut Dictionaries) {
        let EntryPacket { zone, orig, entry, packet_mark, interfaces, counted } = packet;
        self.entry_tuple(*zone, orig);
        self.entry_state(entry, orig, status, known);
        self.columns.to(column::PACKET_MARK).number((*packet_mark).into());
        self.columns.to(column::INTERFACES).byte(u8::from(interfaces.is_some()));
        if let Some(interfaces) = interfaces {
            self.interfaces(*interfaces);
        }
        self.columns.to(column::COUNTED).byte(u8::from(counted.is_some()));
        if let Some(counted) = counted {
            self.counted(counted);
        }
    }

    fn interfaces(&mut self, (iif, oif): (u32, u32)) {
        self.columns.to(column::IIF).number(iif.into());
        self.columns.to(column::OIF).number(oif.into());
    }

    fn counted(&mut self, Counted { since_ns, count }: &Counted) {
        self.columns.to(column::COUNTED_SINCE).delta(*since_ns);
        self.columns.to(column::COUNT).number(*count);
    }

    fn entry_state(
        &mut self,
        entry: &EntryState,
        orig: &Tuple,
        status_column: u16,
        known: &mut Dictionaries,
    ) {
        let EntryState { reply, zone_dir, status, mark, process } = entry;
        self.tuple(reply, Some(orig));
        self.zone_dir(*zone_dir);
        self.status(status_column, *status);
        self.columns.option(column::MARK, mark.map(u64::from));
        self.process(process.as_deref(), known);
    }

    fn process(&mut self, process: Option<&Process>, known: &mut Dictionaries) {
        let Some(process) = process else { return self.columns.to(column::PROCESS).number(0) };
        let Process { direction, uid, user, pid, comm, cgroup_id, cgroup, inode } = process;
        let bit = |there: bool, bit: u64| if there { bit } else { 0 };
        self.columns.to(column::PROCESS).number(
            process::THERE
                | bit(*direction == Direction::Reply, process::REPLY)
                | bit(user.is_some(), process::USER)
                | bit(pid.is_some(), process::PID)
                | bit(comm.is_some(), process::COMM)
                | bit(cgroup_id.is_some(), process::CGROUP_ID)
                | bit(cgroup.is_some(), process::CGROUP)
                | bit(inode.is_some(), process::INODE),
        );
        self.columns.to(column::UID).number((*uid).into());
        for (column, text) in [(column::USER, user), (column::COMM, comm), (column::CGROUP, cgroup)]
        {
            if let Some(text) = text {
                self.columns.to(column).number(known.string(text));
            }
        }
        for (column, number) in [
            (column::PID, pid.map(u64::from)),
            (column::CGROUP_ID, *cgroup_id),
            (column::INODE, *inode),
        ] {
            if let Some(number) = number {
                self.columns.to(column).number(number);
            }
        }
    }

    fn dropped(&mut self, packets: &DroppedPackets, at_ns: u64, known: &mut Dictionaries) {
        let DroppedPackets { zone, orig, entry, point, path_hash, packets, first_ns } = packets;
        self.columns.to(column::PACKET_ZONE).number((*zone).into());
        self.tuple(orig, None);
        let dropped = match entry {
            DroppedEntry::None { quotes: None } => dropped::NONE,
            DroppedEntry::None { quotes: Some(quoted) } => {
                self.tuple(quoted, None);
                dropped::QUOTES
            }
            DroppedEntry::Tuple => dropped::TUPLE,
            DroppedEntry::State(state) => {
                self.entry_state(state, orig, column::DROPPED_STATUS, known);
                dropped::STATE
            }
        };
        self.columns.to(column::DROPPED_ENTRY).byte(dropped);
        let cause = match point.cause {
            Cause::Netfilter => cause::NETFILTER,
            Cause::Conntrack(ConntrackCause::Full) => cause::CONNTRACK_FULL,
            Cause::Conntrack(ConntrackCause::InsertFailed) => cause::CONNTRACK_INSERT_FAILED,
            Cause::Conntrack(ConntrackCause::ChainTooLong) => cause::CONNTRACK_CHAIN_TOO_LONG,
            Cause::Conntrack(ConntrackCause::Other) => cause::CONNTRACK_OTHER,
            Cause::Reason(_) => cause::REASON,
            Cause::Function(_) => cause::FUNCTION,
        };
        self.columns.to(column::CAUSE).byte(cause);
        if let Some(name) = point.cause.elsewhere() {
            self.columns.to(column::CAUSE_NAME).number(known.string(name));
        }
        self.columns.option(column::HOOK, point.hook.map(u64::from));
        self.interfaces((point.iif, point.oif));
        self.path_hash(*path_hash);
        self.columns.to(column::PACKETS).number(*packets);
        self.columns.to(column::FIRST_BEFORE).number(at_ns.wrapping_sub(*first_ns));
    }

    fn path_hash(&mut self, hash: u64) {
        let count = self.hashes.len() as u64;
        let number = *self.hashes.entry(hash).or_insert(count);
        self.columns.to(column::PATH_HASH).number(count - number);
        if number == count {
            self.columns.to(column::NEW_HASH).bytes(&hash.to_le_bytes());
        }
    }

    fn counters(&mut self, direction: usize, Counters { packets, bytes }: Counters) {
        let column = column::COUNTERS + 2 * direction as u16;
        self.columns.to(column).number(packets);
        self.columns.to(column + 1).number(bytes);
    }

    fn ended(&mut self, end: &EntryEnd, at_ns: u64) {
        let &EntryEnd {
            zone,
            orig,
            reply,
            zone_dir,
            status,
            mark,
            confirmed,
            counters,
            start_ns,
            stop_ns,
            state,
        } = end;
        let bit = |there: bool, bit: u64| if there { bit } else { 0 };
        self.columns.to(column::ENDED).number(
            bit(confirmed, entry::CONFIRMED)
                | bit(counters.is_some(), entry::COUNTERS[0])
                | bit(start_ns.is_some(), entry::START)
                | bit(state.is_some(), entry::STATE),
        );
        self.entry_tuple(zone, &orig);
        self.tuple(&reply, Some(&orig));
        self.zone_dir(zone_dir);
        self.status(column::ENDED_STATUS, status);
        self.columns.option(column::MARK, Some(mark.into()));
        for (direction, counters) in counters.into_iter().flatten().enumerate() {
            self.counters(direction, counters);
        }
        if let Some(start_ns) = start_ns {
            self.columns.to(column::START).delta(start_ns);
        }
        self.columns.to(column::STOP_BEFORE).number(at_ns.wrapping_sub(stop_ns));
        if let Some(state) = state {
            self.state(state);
        }
    }

    fn state(&mut self, state: ProtoState) {
        let (kind, values): (u8, [Option<u64>; 4]) = match state {
            ProtoState::Tcp { state: _, wscale: [a, b], flags: [c, d] } => {
                (state::TCP, [a, b, c, d].map(|value| value.map(u64::from)))
            }
            ProtoState::Sctp { state: _, vtag: [a, b] } => {
                (state::SCTP, [a.map(u64::from), b.map(u64::from), None, None])
            }
            ProtoState::Dccp { state: _, role, handshake_seq } => {
                (state::DCCP, [role.map(u64::from), handshake_seq, None, None])
            }
        };
        self.columns.to(column::STATE_KIND).byte(kind);
        self.columns.to(column::STATE).byte(state.number());
        let there = values.iter().enumerate().map(|(n, value)| u8::from(value.is_some()) << n);
        self.columns.to(column::STATE_FIELDS).byte(there.sum());
        for value in values.into_iter().flatten() {
            self.columns.to(column::STATE_VALUE).number(value);
        }
    }

    fn entry(&mut self, source: EntrySource, entry: &Entry, known: &mut Dictionaries) {
        let Entry {
            zone,
            orig,
            reply,
            parent,
            zone_dir,
            status,
            state,
            mark,
            timeout,
            counters,
            id,
            use_count,
            helper,
            labels,
            secctx,
            start_ns,
            stop_ns,
        } = entry;
        let source = SOURCES.iter().position(|of| *of == source).unwrap_or_default();
        self.columns.to(column::ENTRY_SOURCE).byte(source as u8);
        let bit = |there: bool, bit: u64| if there { bit } else { 0 };
        self.columns.to(column::ENTRY).number(
            bit(reply.is_some(), entry::REPLY)
                | bit(parent.is_some(), entry::PARENT)
                | bit(state.is_some(), entry::STATE)
                | bit(counters[0].is_some(), entry::COUNTERS[0])
                | bit(counters[1].is_some(), entry::COUNTERS[1])
                | bit(start_ns.is_some(), entry::START)
                | bit(stop_ns.is_some(), entry::STOP)
                | bit(timeout.is_some(), entry::TIMEOUT)
                | bit(id.is_some(), entry::ID)
                | bit(use_count.is_some(), entry::USE_COUNT)
                | bit(helper.is_some(), entry::HELPER)
                | bit(secctx.is_some(), entry::SECCTX),
        );
        self.entry_tuple(*zone, orig);
        if let Some(reply) = reply {
            self.tuple(reply, Some(orig));
        }
        if let Some(parent) = parent {
            self.tuple(parent, None);
        }
        self.zone_dir(*zone_dir);
        self.status(column::ENTRY_STATUS, *status);
        if let Some(state) = state {
            self.state(*state);
        }
        self.columns.option(column::MARK, mark.map(|Mark(mark)| mark.into()));
        for (direction, counters) in counters.iter().enumerate() {
            if let Some(counters) = counters {
                self.counters(direction, *counters);
            }
        }
        for (column, number) in [(column::TIMEOUT, timeout), (column::USE_COUNT, use_count)] {
            if let Some(number) = number {
                self.columns.to(column).number((*number).into());
            }
        }
        if let Some(id) = id {
            self.columns.to(column::ID).delta((*id).into());
        }
        for (column, text) in [(column::HELPER, helper), (column::SECCTX, secctx)] {
            if let Some(text) = text {
                self.columns.to(column).number(known.string(text));
            }
        }
        for (column, time) in [(column::START, start_ns), (column::STOP, stop_ns)] {
            if let Some(time) = time {
                self.columns.to(column).delta(*time);
            }
        }
        self.columns.to(column::LABELS).number(labels.len() as u64);
        for label in labels {
            self.columns.to(column::LABEL).number((*label).into());
        }
    }

    fn path(&mut self, path: &PacketPath, known: &mut Dictionaries) {
        let PacketPath { zone, orig, has_entry, interfaces, path_hash, traversal } = path;
        self.columns.to(column::PACKET_ZONE).number((*zone).into());
        self.tuple(orig, None);
        self.columns.to(column::HAS_ENTRY).byte(u8::from(*has_entry));
        self.interfaces(*interfaces);
        self.path_hash(*path_hash);
        self.columns.to(column::PATH).number(known.path(traversal));
        self.columns.to(column::NAT).byte(u8::from(traversal.nat.is_some()));
        if let Some((before, after)) = &traversal.nat {
            self.tuple(before, Some(orig));
            self.tuple(after, Some(orig));
        }
    }
}
