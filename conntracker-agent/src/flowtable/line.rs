//! A flow as the table keeps it: what many flows have takes no memory but their own, what few have is apart.

use super::{
    packed::{PackedKey, PackedTuple},
    store::Keyed,
};
use crate::model::{
    Details, Drops, Flow, FlowKey, Mark, Origins, Paths, Status, TimeOfDay, Tuple, ZoneDir,
    counters::Counters, flow::Counting, other::FlowSums, path::Direction, process::Process,
    state::ProtoState,
};

/// A flow. Its fields are those of [`Flow`].
#[derive(Clone, Debug)]
pub(super) struct Line {
    key: PackedKey,
    pub reply: Option<PackedTuple>,
    pub status: Status,
    pub mark: Option<Mark>,
    pub packet_mark: Option<Mark>,
    pub interfaces: Option<(u32, u32)>,
    /// Entries of it that are known, and may still be there.
    pub members: u32,
    pub zone_dir: ZoneDir,
    pub origins: Origins,
    pub fits_several: bool,
    pub resumed: bool,
    pub flows: Counting,
    pub ended: u64,
    pub unconfirmed: u64,
    pub first_ns: u64,
    pub last_ns: u64,
    pub drops: Option<Box<Drops>>,
    pub paths: Option<Box<Paths>>,
    pub process: Option<Box<Process>>,
    facts: Option<Box<EntryFacts>>,
}

/// What conntrack's own entries and ICMP errors tell.
#[derive(Clone, Debug, Default)]
pub(super) struct EntryFacts {
    pub parent: Option<Tuple>,
    pub quotes: Option<Tuple>,
    pub state: Option<ProtoState>,
    pub timeout: Option<u32>,
    pub counters: Option<[Counters; 2]>,
    pub details: Option<Box<Details>>,
}

impl EntryFacts {
    fn is_empty(&self) -> bool {
        let Self { parent, quotes, state, timeout, counters, details } = self;
        parent.is_none()
            && quotes.is_none()
            && state.is_none()
            && timeout.is_none()
            && counters.is_none()
            && details.is_none()
    }
}

impl Keyed for Line {
    fn key(&self) -> FlowKey {
        self.key.key()
    }
}

impl Line {
    /// A flow of which nothing but its key is known.
    pub fn new(key: FlowKey, at_ns: u64) -> Self {
        Self {
            key: PackedKey::new(key),
            reply: None,
            status: Status::default(),
            mark: None,
            packet_mark: None,
            interfaces: None,
            members: 0,
            zone_dir: ZoneDir::Both,
            origins: Origins::default(),
            fits_several: false,
            resumed: false,
            flows: Counting::default(),
            ended: 0,
            unconfirmed: 0,
            first_ns: at_ns,
            last_ns: at_ns,
            drops: None,
            paths: None,
            process: None,
            facts: None,
        }
    }

    /// As reports have it.
    pub fn flow(self) -> Flow {
        let facts = self.facts.map(|facts| *facts).unwrap_or_default();
        let EntryFacts { parent, quotes, state, timeout, counters, details } = facts;
        Flow {
            key: self.key.key(),
            reply: self.reply.map(|reply| reply.tuple()),
            parent: parent.map(Box::new),
            quotes: quotes.map(Box::new),
            zone_dir: self.zone_dir,
            status: self.status,
            state,
            mark: self.mark,
            packet_mark: self.packet_mark,
            interfaces: self.interfaces,
            fits_several: self.fits_several,
            resumed: self.resumed,
            timeout,
            flows: self.flows,
            ended: self.ended,
            unconfirmed: self.unconfirmed,
            counters,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            drops: self.drops,
            paths: self.paths.map(|paths| *paths).unwrap_or_default(),
            origins: self.origins,
            process: self.process,
            details,
        }
    }

    /// Of [`Self::flow`], with so many entries that are known.
    pub fn of_flow(flow: Flow, members: u32) -> Self {
        let Flow {
            key,
            reply,
            parent,
            quotes,
            zone_dir,
            status,
            state,
            mark,
            packet_mark,
            interfaces,
            fits_several,
            resumed,
            timeout,
            flows,
            ended,
            unconfirmed,
            counters,
            first_ns,
            last_ns,
            drops,
            paths,
            origins,
            process,
            details,
        } = flow;
        let (parent, quotes) = (parent.map(|of| *of), quotes.map(|of| *of));
        let facts = EntryFacts { parent, quotes, state, timeout, counters, details };
        Self {
            key: PackedKey::new(key),
            reply: reply.map(PackedTuple::new),
            status,
            mark,
            packet_mark,
            interfaces,
            members,
            zone_dir,
            origins,
            fits_several,
            resumed,
            flows,
            ended,
            unconfirmed,
            first_ns,
            last_ns,
            drops,
            paths: (!paths.is_empty()).then(|| Box::new(paths)),
            process,
            facts: (!facts.is_empty()).then(|| Box::new(facts)),
        }
    }

    /// The original direction, folded as flows are, that its reply would have; `None` if that is its own.
    pub fn seen_as(&self, fold: bool) -> Option<FlowKey> {
        let key = self.key();
        let orig = self.reply.as_ref().map(PackedTuple::tuple)?.inverted()?;
        let seen_as = FlowKey { orig: if fold { orig.folded() } else { orig }, entry: true, ..key };
        (seen_as != key).then_some(seen_as)
    }

    /// What is left of it where it is summed up.
    pub fn sums(self) -> FlowSums {
        let flow = self.flow();
        let both = |count: fn(&Counters) -> u64| flow.counters.iter().flatten().map(count).sum();
        let dropped = |count: fn(&Drops) -> u64| flow.drops.as_deref().map_or(0, count);
        FlowSums {
            flows: 1,
            conntrack_flows: flow.merged(),
            packets: both(|counters| counters.packets),
            bytes: both(|counters| counters.bytes),
            dropped_packets: dropped(Drops::packets),
            lost_packets: dropped(Drops::lost_packets),
        }
    }

    /// What entries and ICMP errors tell, to be added to.
    pub fn facts(&mut self) -> &mut EntryFacts {
        self.facts.get_or_insert_default()
    }

    /// Forgets packets and bytes.
    pub fn no_counters(&mut self) {
        if let Some(facts) = &mut self.facts {
            facts.counters = None;
        }
    }

    pub fn seen_at(&mut self, at_ns: u64) {
        self.first_ns = self.first_ns.min(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// Its entry was made at this time of day, if conntrack tells it. If that was before boot, or is still to
    /// come, the clock was set since.
    pub fn started(&mut self, start_ns: Option<u64>, time_of_day: TimeOfDay) {
        if let Some(start) = start_ns.and_then(|start| time_of_day.since_boot(start)) {
            self.first_ns = self.first_ns.min(start);
        }
    }

    /// Takes over a process. If both ends are here, the one that began is facts.
    pub fn owned_by(&mut self, process: Box<Process>) {
        let better = self.process.as_ref().is_none_or(|known| {
            known.direction == Direction::Reply && process.direction == Direction::Original
        });
        if better {
            self.process = Some(process);
        }
    }

    /// Takes over a line of packets without an entry.
    pub fn merge_without_entry(&mut self, other: Self) {
        self.seen_at(other.first_ns);
        self.seen_at(other.last_ns);
        self.fits_several |= other.fits_several;
        self.interfaces = self.interfaces.or(other.interfaces);
        self.origins.drops |= other.origins.drops;
        if let Some(quoted) = other.facts.and_then(|facts| facts.quotes) {
            self.facts().quotes.get_or_insert(quoted);
        }
        if let Some(paths) = other.paths {
            self.paths.get_or_insert_default().merge(&paths);
        }
        if let Some(drops) = other.drops {
            self.drops.get_or_insert_default().merge(&drops);
        }
    }
}
