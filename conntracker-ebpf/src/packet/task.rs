//! The task that a CPU runs, and how often it was switched out: on preemptible kernels a packet that a process
//! sends can be interrupted by another task between two links, and that task's packets move the same counters.

use aya_ebpf::helpers::bpf_get_current_task;
use conntracker_common::probes::ABSENT;

use crate::base::{
    globals::{SWITCHES, frozen},
    memory::read,
};

/// A task and its number of context switches. As long as both are the same, only interrupts ran on the CPU besides.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TaskState {
    task: u64,
    /// Context switches, voluntary and involuntary. The kernel counts them when a task is switched out.
    switches: u64,
}

impl TaskState {
    /// Of the task that runs now.
    #[inline(always)]
    pub fn now() -> Self {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        let [voluntary, involuntary] = frozen(&SWITCHES);
        Self { task, switches: counter(task, voluntary).wrapping_add(counter(task, involuntary)) }
    }

    /// Whether the task has run without being switched out.
    #[inline(always)]
    pub fn lasts(&self) -> bool {
        *self == Self::now()
    }
}

#[inline(always)]
fn counter(task: u64, offset: u32) -> u64 {
    if offset == ABSENT { 0 } else { read(task + u64::from(offset)).unwrap_or(0) }
}
