//! The path cache: for each flow, at which hooks and in which conntrack states a packet was traced. Every packet looks
//! here, so that it must take a few nanoseconds: sets of four entries, a cache line each, without locks. A flow whose
//! entry was replaced is traced again.

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, macros::map, maps::Array};
use conntracker_common::{hook::HOOKS, plan::Tracing};

use crate::base::globals::path_cache_sets;

/// Entries of a set.
const WAYS: usize = 4;

/// (tag, bits) of each entry.
type Set = [[u64; 2]; WAYS];

/// The number of sets, a power of two, is the agent's to choose.
#[map]
static PATH_CACHE: Array<Set> = Array::with_max_entries(1, 0);
#[map]
static TRACING: Array<Tracing> = Array::with_max_entries(1, 0);

/// The agent's settings of now.
#[inline(always)]
pub fn tracing() -> Tracing {
    match TRACING.get(0) {
        Some(tracing) => *tracing,
        None => Tracing { generation: 0, sample: 0, first_netns: 0, sampling: 0, reserved: 0 },
    }
}

/// Bit of packets of `info` (`enum ip_conntrack_info`, at most 7) at a hook.
#[inline(always)]
pub fn bit(info: u8, hook: u8) -> u64 {
    1 << ((info & 7) as u64 * HOOKS as u64 + hook as u64 % HOOKS as u64)
}

/// Bit of packets that conntrack has not seen yet.
#[inline(always)]
pub fn early_bit(hook: u8) -> u64 {
    1 << (8 * HOOKS as u64 + hook as u64 % HOOKS as u64)
}

/// Bit of entries of which a packet was traced before they were confirmed, and that were not confirmed since.
const UNCONFIRMED: u64 = 1 << 62;

#[inline(always)]
fn set(key: u64) -> Option<&'static mut Set> {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let set = PATH_CACHE.get_ptr_mut(hash as u32 & (path_cache_sets() - 1))?;
    // SAFETY: a map value. Several CPUs may write it at once: a lost update costs one more trace.
    Some(unsafe { &mut *set })
}

/// Tag of a key. Keys are addresses, whose high bits are all the same, or hashes.
#[inline(always)]
fn tag(key: u64, generation: u32) -> u64 {
    key ^ u64::from(generation) << 48
}

/// Whether a packet like this was traced in this generation of plans.
#[inline(always)]
pub fn contains(key: u64, generation: u32, bit: u64) -> bool {
    let tag = tag(key, generation);
    let Some(set) = set(key) else { return false };
    set.iter().any(|&[t, bits]| t == tag && bits & bit != 0)
}

/// Remembers that a packet was traced. For a fresh flow the bits of an earlier flow, whose entry lay at the same
/// address, are cleared.
#[inline(always)]
pub fn insert(key: u64, generation: u32, bit: u64, fresh: bool) {
    let tag = tag(key, generation);
    let Some(set) = set(key) else { return };
    let first = if fresh { UNCONFIRMED | bit } else { bit };
    for entry in set.iter_mut() {
        if entry[0] == tag {
            entry[1] = if fresh && entry[1] & UNCONFIRMED == 0 { first } else { entry[1] | first };
            return;
        }
    }
    // SAFETY: a helper without arguments.
    let victim = unsafe { bpf_get_prandom_u32() } as usize % WAYS;
    set[victim] = [tag, first];
}

/// A flow is about to be confirmed. If none of its packets was traced, what is remembered is of another flow,
/// whose entry lay at the same address.
#[inline(always)]
pub fn confirmed(key: u64, generation: u32) {
    let tag = tag(key, generation);
    let Some(set) = set(key) else { return };
    for entry in set.iter_mut() {
        if entry[0] == tag {
            entry[1] = if entry[1] & UNCONFIRMED == 0 { 0 } else { entry[1] & !UNCONFIRMED };
        }
    }
}

/// Forgets a flow, so that its next packets are traced: one of them was dropped untraced.
#[inline(always)]
pub fn remove(key: u64, generation: u32) {
    let tag = tag(key, generation);
    let Some(set) = set(key) else { return };
    for entry in set.iter_mut() {
        if entry[0] == tag {
            entry[1] = 0;
        }
    }
}
