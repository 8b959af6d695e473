//! Counters of the BPF programs, one `u64` per CPU each in map `COUNTERS`.
//!
//! `NewFlows == NewRecords + NewFolded + NewLost` always holds, and so do the same sums for replies
//! and drops: every packet that was worth a record is in one of the three.

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
    /// Packets dropped by netfilter in the traced namespaces.
    DropPackets,
    /// Records of drops that reached the ring.
    DropRecords,
    /// Dropped packets that were only counted, in the entry of their key.
    DropFolded,
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
}

/// Number of counters.
pub const COUNTERS: u32 = Counter::DropUnknown as u32 + 1;
