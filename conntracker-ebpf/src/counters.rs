//! Per-CPU counters: what was seen, sent, and lost.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use conntracker_common::counters::{self, Counter};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNTERS, 0);

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU value; a nested program on this CPU may lose one increment, no more.
        unsafe { *value += 1 }
    }
}
