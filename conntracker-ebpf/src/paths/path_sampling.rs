//! Sampling of new flows, in reports that fold: when many flows of one folded key in a row have taken the same path, the
//! next ones are assumed to take it, too, and only a few of them are traced. This keeps tracing cheap in a flood. Each
//! dropped packet is traced: a drop is never attributed by assumption.
//!
//! A cache without locks: flows whose entry was replaced are traced again.

use crate::packet::hash::Hash;
use aya_ebpf::{macros::map, maps::Array};
use conntracker_common::plan::TRUSTED_AFTER;

/// Entries, a power of two.
const ENTRIES: u32 = 1 << 14;

/// What the last flows of a folded key did at a hook point.
#[repr(C)]
struct SampledFlow {
    /// Hash of the folded key, the hook point and the generation of plans ([`sampling_tag`]).
    tag: u64,
    /// Hash of the path.
    way: u64,
    /// Number of flows in a row that took it.
    streak: u64,
}

#[map]
static SAMPLED_FLOWS: Array<SampledFlow> = Array::with_max_entries(ENTRIES, 0);

#[inline(always)]
fn entry(tag: u64) -> Option<&'static mut SampledFlow> {
    let entry = SAMPLED_FLOWS.get_ptr_mut((tag >> 40) as u32 & (ENTRIES - 1))?;
    // SAFETY: a map value. Several CPUs may write it at once: at worst a streak begins anew, or goes on
    // with a flow that took another path and was reported.
    Some(unsafe { &mut *entry })
}

/// Whether enough flows of the key took one path.
#[inline(always)]
pub fn is_sampled_out(tag: u64) -> bool {
    entry(tag).is_some_and(|entry| entry.tag == tag && entry.streak >= u64::from(TRUSTED_AFTER))
}

/// A flow took a path.
#[inline(always)]
pub fn took(tag: u64, way: u64, dropped: bool) {
    let Some(entry) = entry(tag) else { return };
    if entry.tag == tag && entry.way == way && !dropped {
        if entry.streak < u64::from(TRUSTED_AFTER) {
            entry.streak += 1;
        }
        return;
    }
    entry.streak = 0;
    entry.tag = tag;
    entry.way = way;
}

/// A packet was dropped untraced: the streak of its key ends.
#[inline(always)]
pub fn dropped(tag: u64) {
    if let Some(entry) = entry(tag)
        && entry.tag == tag
    {
        entry.streak = 0;
    }
}

/// Tag of a folded flow at a hook point.
#[inline(always)]
pub fn sampling_tag(flow: u64, hook_point: u32, generation: u32) -> u64 {
    let mut hash = Hash::new(flow);
    hash.add(u64::from(generation) << 32 | u64::from(hook_point));
    hash.finish()
}
