//! How much room there is: for flows, by the memory there is at the start, and less when it gets scarce; in the maps of
//! the BPF programs, by conntrack's table.

use std::fs;

use super::Observer;
use crate::{bpf::sizes::Sizes, os::memory};

/// The most entries that conntrack's table may have, in all namespaces.
const TABLE: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Memory that a flow takes, in the table and while a report is made of it (`cargo xtask bench memory` measures it).
const BYTES_PER_FLOW: u64 = 1_300;

/// While a report is made, it needs this much for each flow besides the table.
const REPORT_BYTES_PER_FLOW: u64 = 800;

/// Flows may take one part in so many of the memory, unless the user says how many flows there may be.
const PART: u64 = 4;

/// So many flows are kept even if memory is scarce: those of which most is told.
const FEWEST: usize = 1_000;

/// Room for flows if nothing is said of it: what fits into a quarter of the memory.
#[must_use]
pub fn max_flows() -> usize {
    let flows = memory::limit() / PART / BYTES_PER_FLOW;
    // The table numbers its slots with 32 bits.
    usize::try_from(flows).unwrap_or(usize::MAX).clamp(FEWEST, u32::MAX as usize / 2)
}

/// Sizes of the BPF programs' maps.
#[must_use]
pub fn sizes() -> Sizes {
    // Without conntrack there is no table yet.
    let max = fs::read_to_string(TABLE).ok().and_then(|max| max.trim().parse().ok());
    Sizes::for_table(max.unwrap_or(0))
}

impl Observer {
    /// If memory gets scarce, a quarter of the flows is summed up, and there is room for no more from then on: killed
    /// for want of memory, the agent could not write its report.
    pub(super) fn shed(&mut self) {
        let memory = memory::of_process();
        // What was summed up before has left room in the table.
        let left = memory.left() + self.table.unused_bytes();
        let report = self.table.len() as u64 * REPORT_BYTES_PER_FLOW;
        if left > report + memory.limit / 10 || self.table.len() <= FEWEST {
            return;
        }
        let max_flows = (self.table.len() - self.table.len() / 4).max(FEWEST);
        self.table.set_max_flows(max_flows);
        log::warn!(
            "memory is scarce ({} of {} MiB are used): there is room for {max_flows} flows from now on, the others are \
             summed up",
            memory.used >> 20,
            memory.limit >> 20
        );
    }
}
