//! Counters of the BPF programs, one `u64` per CPU each in map `COUNTERS`.
//!
//! `NewFlows == NewRecords + NewFolded + NewLost` always holds, and so do the same sums for replies,
//! drops, lost packets and ends: every packet that was worth a record is in one of the three. So is every traced packet:
//! `TracedPackets == PathRecords + PathFolded + PathLost + PathRaces + FramesLost`, but for those under
//! way and those that found the ruleset changed before their counters were read.

/// Index into map `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// New conntrack entries seen (packets that were about to confirm one).
    NewFlows = 0,
    /// Records of new flows that reached the ring.
    NewRecords,
    /// New flows that were only counted, in the entry of their folded key.
    NewFolded,
    /// Records of new flows that found the ring full.
    NewLost,
    /// First replies seen.
    Replies,
    /// Records of first replies that reached the ring.
    ReplyRecords,
    /// Records of first replies that found the ring full.
    ReplyLost,
    /// IP packets dropped by netfilter in the traced namespaces.
    DropPackets,
    /// Records of drops that reached the ring.
    DropRecords,
    /// Dropped packets that were only counted, in the entry of their key.
    DropFolded,
    /// Entries made in the maps of drops.
    DropKeys,
    /// Records of drops that found the ring full.
    DropLost,
    /// A key could not be stored in a deduplication map (the record was sent all the same).
    MapFull,
    /// Kernel memory could not be read; the packet was skipped.
    ReadFailed,
    /// Packets that passed without any conntrack entry, and were not exempted by `notrack`.
    NoConntrack,
    /// Dropped packets whose namespace or network header could not be told; not reported.
    DropUnknown,
    /// Packets whose counters were read before and after a hook.
    TracedPackets,
    /// Records of ways through a hook that reached the ring.
    PathRecords,
    /// Traced packets that took a way which was reported for their folded key.
    PathFolded,
    /// Packets of new flows that were not traced: many of their folded key had gone the same way.
    PathTrusted,
    /// Records of ways that found the ring full.
    PathLost,
    /// Traced packets during which the ruleset or the hook's functions changed, or while the agent
    /// had not looked at the new ones yet: not attributed.
    PathRaces,
    /// Traced packets that left their hook unseen: given to a program, taken by a rule, or on
    /// another CPU.
    FramesLost,
    /// Packets that were not traced because too many others were under way on their CPU, or because
    /// they interrupted a probe.
    FramesFull,
    /// Calls of functions whose beginning or end kprobes missed: packets under way on that CPU are known by
    /// their chains only.
    CallsMissed,
    /// Ends of flows seen: entries that left the table, or were never in it.
    Ends,
    /// Records of ends that reached the ring.
    EndRecords,
    /// Records of ends that found the ring full.
    EndLost,
    /// IP packets of the traced namespaces that the kernel dropped elsewhere than in netfilter.
    LostPackets,
    /// Records of them that reached the ring.
    LostRecords,
    /// Those of them that were only counted, in the entry of their key.
    LostFolded,
    /// Records of them that found the ring full.
    LostUnsent,
    /// IP packets dropped elsewhere than in netfilter whose namespace or headers could not be told any more: not
    /// reported.
    LostUnknown,
}

/// Number of counters.
pub const COUNTERS: u32 = Counter::LostUnknown as u32 + 1;
