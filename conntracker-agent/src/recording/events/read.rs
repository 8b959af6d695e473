//! Columns to events.

use std::sync::Arc;

use super::{SOURCES, ZONE_DIRS, cause, dropped, entry, kind, process, state};
use crate::{
    model::{
        Cause, ConntrackCause, DropPoint, Mark, NetnsId, Status, TimeOfDay, Tuple, Zone, ZoneDir,
        counters::Counters,
        event::{
            CountedFlows, DroppedEntry, DroppedPackets, Entry, EntryEnd, EntryPacket, EntryState,
            EventKind, FlowEvent, PacketPath,
        },
        flow::Counted,
        path::{Direction, Traversal},
        process::Process,
        state::ProtoState,
    },
    recording::{
        body::Columns,
        column::Malformed,
        columns::{ReadColumns, column},
        dictionary::Stated,
        tuples::TupleReader,
    },
};

type Result<T> = std::result::Result<T, Malformed>;

/// Labels that conntrack has room for: more are no labels.
const MOST_LABELS: usize = 65_536;

/// What reading a block of events left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::recording) struct LeftOut {
    /// Events of kinds that a later version writes.
    pub kinds: u64,
    /// Paths whose statement is lost.
    pub paths: u64,
}

/// Events of one block.
pub(in crate::recording) struct EventReader<'a> {
    columns: ReadColumns,
    tuples: TupleReader,
    hashes: Vec<u64>,
    known: &'a Stated,
    left: u64,
    pub left_out: LeftOut,
}

impl<'a> EventReader<'a> {
    /// `records`: how many events the block's head says that there are.
    pub fn new(columns: Columns, records: u32, known: &'a Stated) -> Self {
        Self {
            columns: ReadColumns::new(columns),
            tuples: TupleReader::default(),
            hashes: Vec::new(),
            known,
            left: records.into(),
            left_out: LeftOut::default(),
        }
    }

    /// The next event; `None` behind the last one.
    pub fn next(&mut self) -> Result<Option<FlowEvent>> {
        while self.left > 0 {
            self.left -= 1;
            let number = self.columns.of(column::KIND).byte()?;
            let netns = NetnsId(self.columns.of(column::NETNS).small()?);
            let at_ns = self.columns.of(column::TIME).delta()?;
            if let Some(kind) = self.kind(number, at_ns)? {
                return Ok(Some(FlowEvent { netns, at_ns, kind }));
            }
        }
        Ok(None)
    }

    fn kind(&mut self, number: u8, at_ns: u64) -> Result<Option<EventKind>> {
        Ok(Some(match number {
            kind::NEW => EventKind::New(self.entry_packet(column::NEW_STATUS)?),
            kind::REPLIED => EventKind::Replied(self.entry_packet(column::REPLIED_STATUS)?),
            kind::RELATED => {
                let (zone, orig) = self.entry_tuple()?;
                EventKind::Related { zone, orig, parent: self.tuple(None)? }
            }
            kind::DROPPED => EventKind::Dropped(self.dropped(at_ns)?),
            kind::DROP_COUNTS_TAKEN => EventKind::DropCountsTaken,
            kind::COUNTED => {
                let (zone, orig) = self.entry_tuple()?;
                let counted = self.counted()?;
                let replied = self.columns.flag(column::COUNT_REPLIED)?;
                EventKind::Counted(CountedFlows { zone, orig, counted, replied })
            }
            kind::ENDED => EventKind::Ended(self.ended(at_ns)?),
            kind::ENTRY => {
                let source = self.columns.of(column::ENTRY_SOURCE).byte()?;
                let source = *SOURCES.get(usize::from(source)).ok_or(Malformed)?;
                EventKind::Entry(source, Box::new(self.entry()?))
            }
            kind::DUMP_BEGAN => EventKind::DumpBegan,
            kind::DUMP_ENDED => EventKind::DumpEnded { whole: self.columns.flag(column::WHOLE)? },
            kind::PATH => {
                let Some(path) = self.path()? else {
                    self.left_out.paths += 1;
                    return Ok(None);
                };
                EventKind::Path(path)
            }
            kind::KERNEL_COUNTS => EventKind::KernelCounts,
            kind::PACKETS_SEEN => EventKind::PacketsSeen(self.columns.flag(column::SEEN)?),
            kind::CLOCK => {
                let boot = self.columns.of(column::CLOCK_BOOT).number()?;
                let epoch = self.columns.of(column::CLOCK_EPOCH).number()?;
                EventKind::Clock(TimeOfDay::at(boot, epoch))
            }
            kind::REPORTED => EventKind::Reported,
            _ => {
                self.left_out.kinds += 1;
                return Ok(None);
            }
        }))
    }

    fn tuple(&mut self, like: Option<&Tuple>) -> Result<Tuple> {
        self.tuples.read(&mut self.columns, like)
    }

    fn zone(&mut self, column: u16) -> Result<Zone> {
        Ok(Zone(self.columns.of(column).small()?))
    }

    fn entry_tuple(&mut self) -> Result<(Zone, Tuple)> {
        Ok((self.zone(column::ZONE)?, self.tuple(None)?))
    }

    fn zone_dir(&mut self) -> Result<ZoneDir> {
        let number = self.columns.of(column::ZONE_DIR).byte()?;
        ZONE_DIRS.get(usize::from(number)).copied().ok_or(Malformed)
    }

    fn status(&mut self, column: u16) -> Result<Status> {
        Ok(Status(self.columns.of(column).small()?))
    }

    fn mark(&mut self) -> Result<Option<Mark>> {
        let mark = self.columns.option(column::MARK)?;
        Ok(small(mark)?.map(Mark))
    }

    fn string(&mut self, column: u16) -> Result<String> {
        let number = self.columns.of(column).number()?;
        Ok(self.known.string(number).to_owned())
    }

    fn entry_packet(&mut self, status: u16) -> Result<EntryPacket> {
        let (zone, orig) = self.entry_tuple()?;
        Ok(EntryPacket {
            zone,
            orig,
            entry: self.entry_state(&orig, status)?,
            packet_mark: Mark(self.columns.of(column::PACKET_MARK).small()?),
            interfaces: if self.columns.flag(column::INTERFACES)? {
                Some(self.interfaces()?)
            } else {
                None
            },
            counted: if self.columns.flag(column::COUNTED)? { Some(self.counted()?) } else { None },
        })
    }

    fn interfaces(&mut self) -> Result<(u32, u32)> {
        Ok((self.columns.of(column::IIF).small()?, self.columns.of(column::OIF).small()?))
    }

    fn counted(&mut self) -> Result<Counted> {
        Ok(Counted {
            since_ns: self.columns.of(column::COUNTED_SINCE).delta()?,
            count: self.columns.of(column::COUNT).number()?,
        })
    }

    fn entry_state(&mut self, orig: &Tuple, status: u16) -> Result<EntryState> {
        Ok(EntryState {
            reply: self.tuple(Some(orig))?,
            zone_dir: self.zone_dir()?,
            status: self.status(status)?,
            mark: self.mark()?,
            process: self.process()?,
        })
    }

    fn process(&mut self) -> Result<Option<Box<Process>>> {
        let there = self.columns.of(column::PROCESS).number()?;
        if there & process::THERE == 0 {
            return Ok(None);
        }
        let has = |bit: u64| there & bit != 0;
        let uid = self.columns.of(column::UID).small()?;
        let mut text = |bit, column| has(bit).then(|| self.string(column)).transpose();
        let user = text(process::USER, column::USER)?;
        let comm = text(process::COMM, column::COMM)?;
        let cgroup = text(process::CGROUP, column::CGROUP)?;
        let mut number =
            |bit, column| has(bit).then(|| self.columns.of(column).number()).transpose();
        let pid = number(process::PID, column::PID)?;
        Ok(Some(Box::new(Process {
            direction: if has(process::REPLY) { Direction::Reply } else { Direction::Original },
            uid,
            user,
            pid: small(pid)?,
            comm,
            cgroup_id: number(process::CGROUP_ID, column::CGROUP_ID)?,
            cgroup,
            inode: number(process::INODE, column::INODE)?,
        })))
    }

    fn dropped(&mut self, at_ns: u64) -> Result<DroppedPackets> {
        let zone = self.zone(column::PACKET_ZONE)?;
        let orig = self.tuple(None)?;
        let entry = match self.columns.of(column::DROPPED_ENTRY).byte()? {
            dropped::NONE => DroppedEntry::None { quotes: None },
            dropped::QUOTES => DroppedEntry::None { quotes: Some(self.tuple(None)?) },
            dropped::TUPLE => DroppedEntry::Tuple,
            dropped::STATE => DroppedEntry::State(self.entry_state(&orig, column::DROPPED_STATUS)?),
            _ => return Err(Malformed),
        };
        let cause = match self.columns.of(column::CAUSE).byte()? {
            cause::NETFILTER => Cause::Netfilter,
            cause::CONNTRACK_FULL => Cause::Conntrack(ConntrackCause::Full),
            cause::CONNTRACK_INSERT_FAILED => Cause::Conntrack(ConntrackCause::InsertFailed),
            cause::CONNTRACK_CHAIN_TOO_LONG => Cause::Conntrack(ConntrackCause::ChainTooLong),
            cause::CONNTRACK_OTHER => Cause::Conntrack(ConntrackCause::Other),
            cause::REASON => Cause::Reason(self.cause_name()?),
            cause::FUNCTION => Cause::Function(self.cause_name()?),
            _ => return Err(Malformed),
        };
        let hook = self.columns.option(column::HOOK)?;
        let hook = small(hook)?;
        let (iif, oif) = self.interfaces()?;
        Ok(DroppedPackets {
            zone,
            orig,
            entry,
            point: DropPoint { cause, hook, iif, oif },
            path_hash: self.path_hash()?,
            packets: self.columns.of(column::PACKETS).number()?,
            first_ns: at_ns.wrapping_sub(self.columns.of(column::FIRST_BEFORE).number()?),
        })
    }

    fn cause_name(&mut self) -> Result<&'static str> {
        let number = self.columns.of(column::CAUSE_NAME).number()?;
        Ok(self.known.static_string(number))
    }

    fn path_hash(&mut self) -> Result<u64> {
        let ago: usize = self.columns.of(column::PATH_HASH).small()?;
        if ago > 0 {
            let number = self.hashes.len().checked_sub(ago).ok_or(Malformed)?;
            return Ok(self.hashes[number]);
        }
        let hash = u64::from_le_bytes(self.columns.of(column::NEW_HASH).bytes()?);
        self.hashes.push(hash);
        Ok(hash)
    }

    fn counters(&mut self, direction: usize) -> Result<Counters> {
        let column = column::COUNTERS + 2 * direction as u16;
        Ok(Counters {
            packets: self.columns.of(column).number()?,
            bytes: self.columns.of(column + 1).number()?,
        })
    }

    fn ended(&mut self, at_ns: u64) -> Result<EntryEnd> {
        let there = self.columns.of(column::ENDED).number()?;
        let has = |bit: u64| there & bit != 0;
        let (zone, orig) = self.entry_tuple()?;
        Ok(EntryEnd {
            zone,
            orig,
            reply: self.tuple(Some(&orig))?,
            zone_dir: self.zone_dir()?,
            status: self.status(column::ENDED_STATUS)?,
            mark: self.mark()?.unwrap_or_default(),
            confirmed: has(entry::CONFIRMED),
            counters: if has(entry::COUNTERS[0]) {
                Some([self.counters(0)?, self.counters(1)?])
            } else {
                None
            },
            start_ns: if has(entry::START) {
                Some(self.columns.of(column::START).delta()?)
            } else {
                None
            },
            stop_ns: at_ns.wrapping_sub(self.columns.of(column::STOP_BEFORE).number()?),
            state: if has(entry::STATE) { Some(self.state()?) } else { None },
        })
    }

    fn state(&mut self) -> Result<ProtoState> {
        let kind = self.columns.of(column::STATE_KIND).byte()?;
        let state = self.columns.of(column::STATE).byte()?;
        let there = self.columns.of(column::STATE_FIELDS).byte()?;
        let mut values = [None; 4];
        for (n, value) in values.iter_mut().enumerate() {
            if there >> n & 1 == 1 {
                *value = Some(self.columns.of(column::STATE_VALUE).number()?);
            }
        }
        let [a, b, c, d] = values;
        Ok(match kind {
            state::TCP => ProtoState::Tcp {
                state,
                wscale: [small(a)?, small(b)?],
                flags: [small(c)?, small(d)?],
            },
            state::SCTP => ProtoState::Sctp { state, vtag: [small(a)?, small(b)?] },
            state::DCCP => ProtoState::Dccp { state, role: small(a)?, handshake_seq: b },
            _ => return Err(Malformed),
        })
    }

    fn entry(&mut self) -> Result<Entry> {
        let there = self.columns.of(column::ENTRY).number()?;
        let has = |bit: u64| there & bit != 0;
        let (zone, orig) = self.entry_tuple()?;
        let reply = has(entry::REPLY).then(|| self.tuple(Some(&orig))).transpose()?;
        let parent = has(entry::PARENT).then(|| self.tuple(None)).transpose()?;
        let zone_dir = self.zone_dir()?;
        let status = self.status(column::ENTRY_STATUS)?;
        let state = has(entry::STATE).then(|| self.state()).transpose()?;
        let mark = self.mark()?;
        let mut counters = [None; 2];
        for (direction, counters) in counters.iter_mut().enumerate() {
            if has(entry::COUNTERS[direction]) {
                *counters = Some(self.counters(direction)?);
            }
        }
        let mut number =
            |bit, column| has(bit).then(|| self.columns.of(column).small()).transpose();
        let timeout = number(entry::TIMEOUT, column::TIMEOUT)?;
        let use_count = number(entry::USE_COUNT, column::USE_COUNT)?;
        let id = has(entry::ID).then(|| self.columns.of(column::ID).delta()).transpose()?;
        let helper = has(entry::HELPER).then(|| self.string(column::HELPER)).transpose()?;
        let secctx = has(entry::SECCTX).then(|| self.string(column::SECCTX)).transpose()?;
        let mut time = |bit, column| has(bit).then(|| self.columns.of(column).delta()).transpose();
        let start_ns = time(entry::START, column::START)?;
        let stop_ns = time(entry::STOP, column::STOP)?;
        let count: usize = self.columns.of(column::LABELS).small()?;
        if count > MOST_LABELS {
            return Err(Malformed);
        }
        let labels =
            (0..count).map(|_| self.columns.of(column::LABEL).small()).collect::<Result<_>>()?;
        Ok(Entry {
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
            id: small(id)?,
            use_count,
            helper,
            labels,
            secctx,
            start_ns,
            stop_ns,
        })
    }

    /// `None` if the statement of the path is lost.
    fn path(&mut self) -> Result<Option<PacketPath>> {
        let zone = self.zone(column::PACKET_ZONE)?;
        let orig = self.tuple(None)?;
        let has_entry = self.columns.flag(column::HAS_ENTRY)?;
        let interfaces = self.interfaces()?;
        let path_hash = self.path_hash()?;
        let number = self.columns.of(column::PATH).number()?;
        let nat = if self.columns.flag(column::NAT)? {
            Some((self.tuple(Some(&orig))?, self.tuple(Some(&orig))?))
        } else {
            None
        };
        let Some(stated) = self.known.path(number) else { return Ok(None) };
        let traversal = match nat {
            None => Arc::clone(stated),
            Some(_) => Arc::new(Traversal { nat, ..Traversal::clone(stated) }),
        };
        Ok(Some(PacketPath { zone, orig, has_entry, interfaces, path_hash, traversal }))
    }
}

/// A number that fits into a smaller type, if it is there.
fn small<T: TryFrom<u64>>(value: Option<u64>) -> Result<Option<T>> {
    value.map(|value| value.try_into().map_err(|_| Malformed)).transpose()
}
