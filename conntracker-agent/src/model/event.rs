//! What sources tell of flows: ring records, netlink messages and dumps decode to it, and the flow table takes nothing
//! else.
//!
//! Times are nanoseconds since boot, of one clock that nobody can set, unless a field says otherwise.

use std::sync::Arc;

use super::{
    DropPoint, Mark, NetnsId, Status, TimeOfDay, Tuple, Zone, ZoneDir, counters::Counters,
    flow::Counted, path::Traversal, process::Process, state::ProtoState,
};

/// Something that a source saw, in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Network namespace.
    pub netns: NetnsId,
    /// When it happened.
    pub at_ns: u64,
    /// What it was.
    pub kind: EventKind,
}

/// What a source saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The first packet of a new conntrack entry.
    New(EntryPacket),
    /// The first packet of an entry's reply direction.
    Replied(EntryPacket),
    /// A helper's expectation made an entry: its parent is the entry of the control connection.
    Related {
        /// Conntrack zone.
        zone: Zone,
        /// Original direction of the new entry.
        orig: Tuple,
        /// Original direction of its parent.
        parent: Tuple,
    },
    /// Packets were dropped.
    Dropped(DroppedPackets),
    /// The kernel's counts of dropped packets were taken, and begin anew.
    DropCountsTaken,
    /// How many flows of a folded key the kernel has counted.
    Counted(CountedFlows),
    /// A conntrack entry ended.
    Ended(EntryEnd),
    /// A netlink message tells a conntrack entry.
    Entry(EntrySource, Box<Entry>),
    /// A dump of the namespace's conntrack table began.
    DumpBegan,
    /// It ended. A `whole` dump has shown each entry that was there all the time.
    DumpEnded {
        /// Nothing of it was lost.
        whole: bool,
    },
    /// A packet traversed a netfilter hook.
    Path(PacketPath),
    /// From now on the kernel counts the new flows of each folded key, in all namespaces: entries of which no record
    /// tells are in its counts.
    KernelCounts,
    /// Whether the BPF programs see the packets of the namespace. While they do not, each entry that a dump shows for
    /// the first time is a new flow.
    PacketsSeen(bool),
    /// How the time of day, which entries carry, is related to the time since boot from now on.
    Clock(TimeOfDay),
    /// A report was made. It shows packets without an entry with the flows that are known by then, and from then on
    /// they belong to these.
    Reported,
}

/// A packet of a conntrack entry, and what the entry said then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPacket {
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction of the entry.
    pub orig: Tuple,
    /// The entry.
    pub entry: EntryState,
    /// Packet mark.
    pub packet_mark: Mark,
    /// Numbers of the input and the output interface, 0 for none; `None` if they are not known.
    pub interfaces: Option<(u32, u32)>,
    /// How many flows the kernel has counted for the folded key, this one included; `None` if it does not count.
    pub counted: Option<Counted>,
}

/// What a conntrack entry says when a packet meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Reply direction, address translation included.
    pub reply: Tuple,
    /// Which direction the zone is for.
    pub zone_dir: ZoneDir,
    /// Status bits.
    pub status: Status,
    /// Connmark; `None` if it was not read.
    pub mark: Option<Mark>,
    /// Who has the socket at this machine's end.
    pub process: Option<Box<Process>>,
}

/// Dropped packets: one, or those that the kernel has counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPackets {
    /// Conntrack zone; 0 if it is not known.
    pub zone: Zone,
    /// Original direction of their conntrack entry, or their headers.
    pub orig: Tuple,
    /// Whether they had an entry.
    pub entry: DroppedEntry,
    /// Who dropped them, and where.
    pub point: DropPoint,
    /// Hash of the path on which they were dropped; 0: it was not traced.
    pub path_hash: u64,
    /// How many; 0 for the first one of those that the kernel counts: the count follows when it is taken.
    pub packets: u64,
    /// When the first one was dropped. The last one: [`FlowEvent::at_ns`].
    pub first_ns: u64,
}

impl DroppedPackets {
    /// Whether they had a conntrack entry.
    #[must_use]
    pub fn has_entry(&self) -> bool {
        !matches!(self.entry, DroppedEntry::None { .. })
    }
}

/// What is known of the conntrack entry of dropped packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DroppedEntry {
    /// They had none.
    None {
        /// Of ICMP errors: the flow that they quote, in the direction of the quoted packet.
        quotes: Option<Tuple>,
    },
    /// They had one, of which the tuple alone is known.
    Tuple,
    /// They had this one.
    State(EntryState),
}

/// How many flows of a folded key the kernel has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedFlows {
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction, folded.
    pub orig: Tuple,
    /// How many.
    pub counted: Counted,
    /// A reply was seen.
    pub replied: bool,
}

/// The end of a conntrack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryEnd {
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction.
    pub reply: Tuple,
    /// Which direction the zone is for.
    pub zone_dir: ZoneDir,
    /// Status bits.
    pub status: Status,
    /// Connmark.
    pub mark: Mark,
    /// The entry was in conntrack's table; otherwise its first packet was lost before it could be.
    pub confirmed: bool,
    /// Packets and bytes of the original and the reply direction, where accounting is on.
    pub counters: Option<[Counters; 2]>,
    /// When the entry was confirmed, by the time of day (nanoseconds since the epoch), where time stamps are on.
    pub start_ns: Option<u64>,
    /// When the entry timed out or was deleted: it may be seen later.
    pub stop_ns: u64,
    /// State that the tracker of the protocol kept.
    pub state: Option<ProtoState>,
}

/// Which message tells an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntrySource {
    /// One of the dump of the namespace that is under way.
    Dump,
    /// An event: the entry was made.
    NewEvent,
    /// An event: the entry changed.
    UpdateEvent,
    /// An event: the entry ended.
    EndEvent,
}

/// A conntrack entry, as far as flows are described by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction, address translation included.
    pub reply: Option<Tuple>,
    /// Original direction of the entry whose helper expected this one.
    pub parent: Option<Tuple>,
    /// Which direction the zone is for.
    pub zone_dir: ZoneDir,
    /// Status bits.
    pub status: Status,
    /// State that the tracker of the protocol keeps.
    pub state: Option<ProtoState>,
    /// Connmark.
    pub mark: Option<Mark>,
    /// Seconds until the entry times out.
    pub timeout: Option<u32>,
    /// Packets and bytes of the original and the reply direction, where accounting is on.
    pub counters: [Option<Counters>; 2],
    /// Conntrack's identifier of the entry.
    pub id: Option<u32>,
    /// Reference count.
    pub use_count: Option<u32>,
    /// Name of the helper.
    pub helper: Option<String>,
    /// Numbers of the labels that are set.
    pub labels: Vec<u16>,
    /// Security context.
    pub secctx: Option<String>,
    /// When the entry was confirmed, by the time of day (nanoseconds since the epoch).
    pub start_ns: Option<u64>,
    /// When it ended, likewise.
    pub stop_ns: Option<u64>,
}

/// A packet's path through a netfilter hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketPath {
    /// Conntrack zone; 0 if it is not known.
    pub zone: Zone,
    /// Original direction of the packet's conntrack entry, or its headers.
    pub orig: Tuple,
    /// The packet had an entry.
    pub has_entry: bool,
    /// Numbers of the input and the output interface, 0 for none.
    pub interfaces: (u32, u32),
    /// Hash of the path, by which the kernel counts dropped packets.
    pub path_hash: u64,
    /// The path.
    pub traversal: Arc<Traversal>,
}
