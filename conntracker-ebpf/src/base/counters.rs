//! Per-CPU counters: what was seen, sent, and lost.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use conntracker_common::counters::{self, Counter};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::COUNTERS, 0);

/// Says what went wrong through aya-log, in builds with feature `bpf-log` only, and only where a packet
/// could not be reported: never on the path of packets that can.
macro_rules! say {
    ($($message:tt)*) => {
        #[cfg(feature = "bpf-log")]
        aya_log_ebpf::warn!((), $($message)*);
    };
}
pub(crate) use say;

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    count_at(counter as u32);
}

/// As [`count`], by the number of the counter.
#[inline(always)]
pub fn count_at(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a per-CPU value; a nested program on this CPU may lose one increment, no more.
        unsafe { *value += 1 }
    }
}
