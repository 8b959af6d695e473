//! New flows whose folded key has taken the same way many times: the next ones are taken to do so, too,
//! but for each n-th. In a flood this is what keeps tracing cheap.
//!
//! A cache without locks: what falls out of it, or is overwritten by another key, is traced again.

use aya_ebpf::{macros::map, maps::Array};
use conntracker_common::plan::TRUSTED_AFTER;

/// Entries, a power of two.
const ENTRIES: u32 = 1 << 14;

/// What a folded key did at a place.
#[repr(C)]
struct Trust {
    /// The key, the place, and the generation of plans, hashed.
    tag: u64,
    /// The way, hashed.
    way: u64,
    /// How many took it one after the other.
    streak: u32,
    /// 1: they were dropped.
    dropped: u32,
}

#[map]
static TRUST: Array<Trust> = Array::with_max_entries(ENTRIES, 0);

#[inline(always)]
fn entry(tag: u64) -> Option<&'static mut Trust> {
    let entry = TRUST.get_ptr_mut((tag >> 40) as u32 & (ENTRIES - 1))?;
    // SAFETY: a map value. Several CPUs may write it at once: at worst a streak begins anew, or goes on
    // with a flow that took another way and was reported.
    Some(unsafe { &mut *entry })
}

/// Whether enough flows of the key took one way.
#[inline(always)]
pub fn is_trusted(tag: u64) -> bool {
    entry(tag).is_some_and(|entry| entry.tag == tag && entry.streak >= TRUSTED_AFTER)
}

/// A flow took a way.
#[inline(always)]
pub fn took(tag: u64, way: u64, dropped: bool) {
    let Some(entry) = entry(tag) else { return };
    if entry.tag == tag && entry.way == way {
        if entry.streak < TRUSTED_AFTER {
            entry.streak += 1;
        }
        return;
    }
    entry.streak = 0;
    entry.tag = tag;
    entry.way = way;
    entry.dropped = u32::from(dropped);
}

/// A packet was dropped untraced: if its key was not known to be dropped there, trust is gone.
#[inline(always)]
pub fn dropped(tag: u64) {
    if let Some(entry) = entry(tag)
        && entry.tag == tag
        && entry.dropped == 0
    {
        entry.streak = 0;
    }
}
