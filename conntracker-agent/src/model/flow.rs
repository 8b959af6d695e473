//! A flow: what all sources together know of it.

use serde::{Deserialize, Serialize};

use super::{
    Drops, Paths, Status, Tuple,
    path::{CtState, Invalidity},
    process::Process,
};
use crate::model::{Mark, Zone, counters::Counters, state::ProtoState};

/// How often a key was counted in the kernel's map, in one life of the map's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// When this life began (nanoseconds since boot).
    pub since_ns: u64,
    /// Flows or packets since then, this one included.
    pub count: u64,
}

/// Index of a network namespace in the list of those observed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct NetnsId(pub u32);

/// When two observations are of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// Network namespace.
    pub netns: NetnsId,
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction, folded unless `--no-fold`.
    pub orig: Tuple,
    /// Conntrack has, or had, an entry for it. Otherwise its packets are known by their headers alone:
    /// conntrack is not active, was told not to track them, found them invalid, or had not seen them yet.
    pub entry: bool,
}

/// Which direction a conntrack zone is for (`nf_conntrack_zone.dir`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ZoneDir {
    /// Both.
    #[default]
    Both,
    /// The original direction only (`ct original zone set`).
    Original,
    /// The reply direction only (`ct reply zone set`).
    Reply,
}

impl ZoneDir {
    /// From the zones that ctnetlink tells of single directions; it tells of none where a zone is for both.
    #[must_use]
    pub fn of_zones(orig: Option<Zone>, reply: Option<Zone>) -> Self {
        match (orig, reply) {
            (Some(_), None) => Self::Original,
            (None, Some(_)) => Self::Reply,
            _ => Self::Both,
        }
    }

    /// From the kernel's number.
    #[must_use]
    pub fn from_kernel(dir: u8) -> Self {
        match dir {
            1 => Self::Original,
            2 => Self::Reply,
            _ => Self::Both,
        }
    }
}

/// Which sources told of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origins {
    /// A netfilter link's record.
    pub packets: bool,
    /// A conntrack dump.
    pub dump: bool,
    /// A conntrack event.
    pub events: bool,
    /// The drop tracepoint.
    pub drops: bool,
    /// A probe where conntrack's entry ended.
    pub ends: bool,
}

impl Origins {
    /// Whether anything but dropped packets, and ends before the flow was confirmed, told of it.
    #[must_use]
    pub fn of_conntrack(self) -> bool {
        self.packets || self.dump || self.events
    }
}

/// A count that the kernel keeps in a map entry, and that starts again from nothing when the entry
/// was evicted and made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counting {
    /// Of lives that are over, and of records that stand for themselves; less what is counted elsewhere, as
    /// [`Self::total`] adds both.
    settled: u64,
    /// The current life: when it began, and its highest count so far.
    since_ns: u64,
    current: u64,
}

impl Counting {
    /// Everything counted so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.settled.wrapping_add(self.current)
    }

    /// Counts one more, of which the kernel keeps no count.
    pub fn add(&mut self, n: u64) {
        self.settled = self.settled.wrapping_add(n);
    }

    /// Takes over the kernel's count and returns what that added. Records of one life may arrive
    /// out of order.
    pub fn update(&mut self, counted: Counted) -> u64 {
        let before = self.total();
        if counted.since_ns == self.since_ns {
            self.current = self.current.max(counted.count);
        } else if counted.since_ns > self.since_ns {
            self.settled = self.total();
            self.since_ns = counted.since_ns;
            self.current = counted.count;
        }
        self.total() - before
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.add(other.total());
    }

    /// The current life of the kernel's count, if the kernel counts.
    #[must_use]
    pub fn life(&self) -> Option<Counted> {
        let &Self { since_ns, current: count, .. } = self;
        (since_ns != 0).then_some(Counted { since_ns, count })
    }

    /// Counts from nothing on what the kernel counts after this: what it had counted by then is counted elsewhere.
    #[must_use]
    pub fn resumed(Counted { since_ns, count }: Counted) -> Self {
        Self { settled: count.wrapping_neg(), since_ns, current: count }
    }
}

/// What only conntrack dumps and events tell, and few flows have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Details {
    /// Conntrack's identifier of the entry.
    pub id: Option<u32>,
    /// Reference count.
    pub use_count: Option<u32>,
    /// Name of the connection tracking helper.
    pub helper: Option<String>,
    /// Label numbers that are set.
    pub labels: Vec<u16>,
    /// Security context.
    pub secctx: Option<String>,
    /// When the entry was confirmed (nanoseconds since the epoch).
    pub start_ns: Option<u64>,
    /// When it ended (nanoseconds since the epoch).
    pub stop_ns: Option<u64>,
}

/// A flow, or several that fold into one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// Identity.
    pub key: FlowKey,
    /// Reply direction of the first flow seen, address translation included.
    pub reply: Option<Tuple>,
    /// Original direction of the flow whose helper expected this one (control connections of FTP, SIP).
    pub parent: Option<Box<Tuple>>,
    /// Of ICMP errors without an entry: the flow that the first one quotes, in the direction of its packet.
    pub quotes: Option<Box<Tuple>>,
    /// Direction of the zone.
    pub zone_dir: ZoneDir,
    /// All status bits that any of the merged flows had.
    pub status: Status,
    /// Protocol state when last seen.
    pub state: Option<ProtoState>,
    /// Connmark when last seen.
    pub mark: Option<Mark>,
    /// Packet mark of the first packet when it left.
    pub packet_mark: Option<Mark>,
    /// (input, output) interface index of the first packet, 0 for none; of a flow older than the trace, those
    /// of the first packet of the original direction that was traced.
    pub interfaces: Option<(u32, u32)>,
    /// Packets without an entry that may belong to several flows, and were added to none.
    pub fits_several: bool,
    /// Something of the flow was summed up before (`model::other`): its conntrack flows are counted there.
    pub resumed: bool,
    /// Seconds to live when last seen in a dump.
    pub timeout: Option<u32>,
    /// Conntrack flows merged.
    pub flows: Counting,
    /// Those of them whose end was seen.
    pub ended: u64,
    /// Entries that ended before they were confirmed.
    pub unconfirmed: u64,
    /// Packets and bytes, original and reply direction, where accounting is on.
    pub counters: Option<[Counters; 2]>,
    /// First seen (nanoseconds: since boot in the table, since the epoch in a report).
    pub first_ns: u64,
    /// Last heard of (likewise).
    pub last_ns: u64,
    /// Dropped and lost packets.
    pub drops: Option<Box<Drops>>,
    /// Where traced packets went.
    pub paths: Paths,
    /// Sources.
    pub origins: Origins,
    /// Who has the socket of the first flow at this machine's end.
    pub process: Option<Box<Process>>,
    /// Rarely present.
    pub details: Option<Box<Details>>,
}

impl Flow {
    /// Why packets of this flow were [`CtState::Invalid`], as far as it can be known.
    #[must_use]
    pub fn invalidity(&self, state: CtState) -> Option<Invalidity> {
        if state != CtState::Invalid || self.fits_several {
            return None;
        }
        // What was never confirmed has never been in the table.
        if !self.key.entry || !self.status.contains(Status::CONFIRMED) {
            return Some(Invalidity::NoEntry);
        }
        // Of several flows in one line it is not known which of them had the packet's tuple, or whether one had.
        (!self.key.orig.may_be_folded()).then_some(Invalidity::NotAccepted)
    }

    /// A flow of which nothing but its key is known.
    #[must_use]
    pub fn new(key: FlowKey, at_ns: u64) -> Self {
        Self {
            key,
            reply: None,
            parent: None,
            quotes: None,
            zone_dir: ZoneDir::Both,
            status: Status::default(),
            state: None,
            mark: None,
            packet_mark: None,
            interfaces: None,
            fits_several: false,
            resumed: false,
            timeout: None,
            flows: Counting::default(),
            ended: 0,
            unconfirmed: 0,
            counters: None,
            first_ns: at_ns,
            last_ns: at_ns,
            drops: None,
            paths: Paths::default(),
            origins: Origins::default(),
            process: None,
            details: None,
        }
    }

    /// Packets were seen in both directions. Never goes back.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.status.contains(Status::SEEN_REPLY)
    }

    /// Netfilter dropped packets of it.
    #[must_use]
    pub fn dropped(&self) -> bool {
        self.drops.as_ref().is_some_and(|drops| drops.packets() > 0)
    }

    /// Packets of it got lost elsewhere in the kernel.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.drops.as_ref().is_some_and(|drops| drops.lost_packets() > 0)
    }

    /// Entries that ended before they were confirmed, if nothing else is known of the flow: packets of
    /// which nobody says that they were dropped, and that did not arrive.
    #[must_use]
    pub fn never_confirmed(&self) -> Option<u64> {
        let alone = !self.origins.of_conntrack() && self.drops.is_none();
        (alone && self.unconfirmed > 0).then_some(self.unconfirmed)
    }

    /// Conntrack flows merged into this one; 0 if it was only ever dropped, or never confirmed.
    #[must_use]
    pub fn merged(&self) -> u64 {
        // Flows are counted just before conntrack inserts their entries.
        let not_inserted = self.drops.as_deref().map_or(0, Drops::not_inserted);
        let merged = self.flows.total().saturating_sub(not_inserted);
        // A flow known by its reply alone, or by a record whose count was lost, is still one flow.
        let known = self.origins.of_conntrack() && (not_inserted == 0 || self.confirmed());
        merged.max(u64::from(known && !self.resumed))
    }

    pub(crate) fn seen_at(&mut self, at_ns: u64) {
        self.first_ns = self.first_ns.min(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// Merges a flow that folds into this one.
    pub fn merge(&mut self, other: Self) {
        let Self {
            key: _,
            reply,
            parent,
            quotes,
            zone_dir: _,
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
        } = other;
        self.paths.merge(&paths);
        // Of values that only one flow can have, those of the flow seen first stand, except for
        // what changes over time: there the flow last heard of is right.
        let other_is_earlier = first_ns < self.first_ns;
        let other_is_later = last_ns > self.last_ns;
        pick(&mut self.reply, reply, other_is_earlier);
        pick(&mut self.parent, parent, other_is_earlier);
        pick(&mut self.quotes, quotes, other_is_earlier);
        pick(&mut self.packet_mark, packet_mark, other_is_earlier);
        pick(&mut self.interfaces, interfaces, other_is_earlier);
        pick(&mut self.process, process, other_is_earlier);
        pick(&mut self.state, state, other_is_later);
        pick(&mut self.mark, mark, other_is_later);
        pick(&mut self.timeout, timeout, other_is_later);
        pick(&mut self.details, details, other_is_later);
        self.status = self.status.union(status);
        self.flows.merge(&flows);
        self.ended += ended;
        self.unconfirmed += unconfirmed;
        self.fits_several |= fits_several;
        self.resumed |= resumed;
        if let Some(theirs) = counters {
            let mine = self.counters.get_or_insert_default();
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                mine.packets += theirs.packets;
                mine.bytes += theirs.bytes;
            }
        }
        if let Some(theirs) = drops {
            self.drops.get_or_insert_default().merge(&theirs);
        }
        self.origins = Origins {
            packets: self.origins.packets || origins.packets,
            dump: self.origins.dump || origins.dump,
            events: self.origins.events || origins.events,
            drops: self.origins.drops || origins.drops,
            ends: self.origins.ends || origins.ends,
        };
        self.seen_at(first_ns);
        self.seen_at(last_ns);
    }
}

/// Takes over the other flow's value where it has the better one, or the only one.
fn pick<T>(mine: &mut Option<T>, theirs: Option<T>, prefer_theirs: bool) {
    if theirs.is_some() && (mine.is_none() || prefer_theirs) {
        *mine = theirs;
    }
}

/// What the flow table and reports do with flows.
#[cfg(feature = "cli")]
impl Flow {
    /// Its times by the clock on the wall, for a report.
    pub(crate) fn by_time_of_day(&mut self, time_of_day: super::TimeOfDay) {
        self.first_ns = time_of_day.of(self.first_ns);
        self.last_ns = time_of_day.of(self.last_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_survives_eviction_and_records_out_of_order() {
        let mut c = Counting::default();
        let life = |since_ns, count| Counted { since_ns, count };
        c.update(life(10, 1));
        c.update(life(10, 4));
        c.update(life(10, 2));
        assert_eq!(c.total(), 4);
        c.update(life(20, 1));
        assert_eq!(c.total(), 5);
        c.update(life(10, 4));
        assert_eq!(c.total(), 5, "a straggler of a life that is over changes nothing");
        c.add(2);
        assert_eq!(c.total(), 7);
        let mut later = Counting::resumed(c.life().unwrap());
        assert_eq!(later.total(), 0);
        assert_eq!(
            (later.update(life(20, 3)), later.update(life(30, 4)), later.total()),
            (2, 4, 6)
        );
    }
}
