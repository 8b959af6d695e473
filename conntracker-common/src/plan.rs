//! What the agent tells the programs about the rules of a namespace, and how a traced packet's
//! counters are numbered: the n-th counter of a plan is *slot* n.

use crate::hook::HOOKS;

/// The hooks' main part: everything after conntrack's own function.
pub const SEGMENT_MAIN: u8 = 0;
/// The part of PREROUTING and OUTPUT before conntrack's own function (raw tables), where no packet
/// has a conntrack entry yet.
pub const SEGMENT_EARLY: u8 = 1;

/// Hook points that a packet can be at: [`hook_point`] of each family, segment and hook.
pub const HOOK_POINTS: usize = 4 * HOOKS as usize;

/// Number of a hook point, below [`HOOK_POINTS`].
#[must_use]
pub const fn hook_point(v6: bool, segment: u8, hook: u8) -> u32 {
    (v6 as u32 * 2 + segment as u32) * HOOKS as u32 + hook as u32
}

/// Hook of a [`hook_point`].
#[must_use]
pub const fn hook(hook_point: u32) -> u8 {
    (hook_point % HOOKS as u32) as u8
}

/// Segment of a [`hook_point`].
#[must_use]
pub const fn segment(hook_point: u32) -> u8 {
    (hook_point / HOOKS as u32 % 2) as u8
}

/// Bytes of one counter: nf_tables' `struct nft_counter` and ip_tables' `struct xt_counters` are both
/// two u64.
pub const COUNTER_BYTES: u32 = 16;

/// Counters in one [`Range`] at most.
pub const RANGE_COUNTERS: u32 = 64;

/// Slots of one plan at most.
pub const MAX_SLOTS: u32 = 8192;

/// Ranges of all plans together.
pub const MAX_RANGES: u32 = 1 << 16;

/// ip_tables' tables that one plan can watch.
pub const LEGACY_TABLES: usize = 5;

/// Links between base chains that one plan can have.
pub const MAX_GAPS: usize = 7;

const _: () = assert!((MAX_GAPS + 1).is_power_of_two());

/// Network namespaces whose rules can be traced at the same time.
pub const MAX_NAMESPACES: u32 = 256;

/// Index into map `PLANS` of a hook point of the n-th namespace.
#[must_use]
pub const fn plan_index(namespace: u32, hook_point: u32) -> u32 {
    namespace * HOOK_POINTS as u32 + hook_point
}

/// Packets of one CPU that can be between the links of a hook at the same time: the outermost, one
/// that it sent (a reject), one whose interrupt came in between, and one that this one sent.
pub const FRAMES: u32 = 4;

/// A word of kernel memory that must not have changed since the plan was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Address, 0 for none.
    pub address: u64,
    /// What stood there.
    pub value: u64,
}

/// How to trace packets at one hook point: value of map `PLANS`. All zero: not at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of the ruleset's epoch, from 1.
    pub epoch: u32,
    /// `base_seq` of nf_tables in the epoch: each commit changes it.
    pub base_seq: u32,
    /// Address of `base_seq`, 0 if nf_tables has no chain here.
    pub base_seq_at: u64,
    /// Where the hook's array of functions stands: registering any function replaces it.
    pub hook: Guard,
    /// `xt_table.private` of the tables of ip_tables: replacing a table changes it.
    pub legacy: [Guard; LEGACY_TABLES],
    /// First of its ranges in map `RANGES`.
    pub first_range: u32,
    /// Number of its ranges.
    pub ranges: u32,
    /// Bit n: the chains at hook point n have counters in common with those at this hook point.
    pub shares: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of map `CHAINS`: a base chain where a packet can meet it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainKey {
    /// Address of the `struct nft_chain` or `struct xt_table`.
    pub chain: u64,
    /// AF_INET or AF_INET6: chains of family inet are met by both.
    pub family: u32,
    /// Hook: tables of ip_tables hang at several.
    pub hook: u32,
}

/// Value of map `CHAINS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookedChain {
    /// Index into map `PLANS`.
    pub plan: u32,
    /// Place of the chain.
    pub hook_point: u32,
    /// Its number among the chains of the hook point.
    pub number: u32,
    /// 1: every packet that comes to the hook point comes to this chain, or to one with this flag, first.
    pub first: u32,
}

/// Entries of map `CHAINS`.
pub const MAX_CHAINS: u32 = 16_384;

/// Consecutive counters in per-CPU memory: value of map `RANGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Per-CPU pointer to the first; each CPU's counter is at this plus the CPU's offset.
    pub address: u64,
    /// Slot of the first.
    pub slot: u32,
    /// How many, at most [`RANGE_COUNTERS`].
    pub counters: u16,
    /// Which of a counter's two words counts packets, and [`RANGE_SHARED`].
    pub word: u16,
}

/// In [`Range::word`]: the address is no per-CPU pointer. ip_tables counts in the entries themselves
/// where there can be but one CPU (`xt_get_this_cpu_counter` of linux/netfilter/x_tables.h).
pub const RANGE_SHARED: u16 = 2;

/// The one value of map `TRACING`: what the agent may change while the programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Changes whenever plans change, so that known paths are looked at again.
    pub generation: u32,
    /// Trace also one packet in so many, by chance, whose path is known; 0: none.
    pub sample: u32,
    /// Cookie of namespace 0, which most have alone.
    pub first_netns: u64,
    /// 1: flows whose folded key took one path many times are not all traced.
    pub sampling: u32,
    /// Zero.
    pub reserved: u32,
}

/// New flows of one folded key that took the same way one after the other before the next ones are
/// taken to do so, too.
pub const TRUSTED_AFTER: u32 = 16;

/// Of the flows of a trusted key one in so many, by a random number, is traced all the same, so that a
/// change is found. A power of two.
pub const SAMPLED_ONE_IN: u32 = 8;

const _: () = {
    assert!(size_of::<Tracing>() == 24);
    assert!(size_of::<Plan>() == 16 + 16 + 16 * LEGACY_TABLES + 16);
    assert!(size_of::<Range>() == 16);
    assert!(size_of::<ChainKey>() == 16);
    assert!(size_of::<HookedChain>() == 16);
    assert!(HOOK_POINTS <= 32);
};
