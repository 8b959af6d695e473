//! What functions of the kernel were called with. Programs at their end know that (fexit), but for
//! return probes of kprobes: these ask what the programs at the beginning have left on the CPU.
//!
//! Calls of one task end in the reverse order of their beginning, and softirqs end before what they
//! interrupt goes on. A return that was missed leaves a call behind, which goes with the next end of what
//! began before it, and is noticed then: what is under way on the CPU is not known as a whole.

use aya_ebpf::{helpers::bpf_get_current_task, macros::map, maps::PerCpuArray};

/// Calls of one CPU that are under way: a packet's hook, base chain and expression, some levels deep.
const CALLS: usize = 32;

/// `nf_hook_slow`.
pub const HOOK: u64 = 1;
/// `nft_do_chain`.
pub const NFT: u64 = 2;
/// `ipt_do_table` and `ip6t_do_table`.
pub const TABLE: u64 = 3;
/// An evaluator of expressions.
pub const EXPRESSION: u64 = 4;
/// A target of xtables.
pub const TARGET: u64 = 5;

/// One call.
#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    task: u64,
    what: u64,
    arguments: [u64; 3],
}

#[repr(C)]
struct Stack {
    depth: u64,
    /// 1: a call or its end was missed.
    missed: u64,
    calls: [Call; CALLS],
}

#[map]
static STACK: PerCpuArray<Stack> = PerCpuArray::with_max_entries(1, 0);

/// Remembers a call.
#[inline(always)]
pub fn begin(what: u64, arguments: [u64; 3]) {
    let Some(stack) = STACK.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value. Kprobes do not interrupt each other: the kernel skips those that would.
    let stack = unsafe { &mut *stack };
    let depth = stack.depth as usize;
    if depth >= CALLS {
        // So deep only because of ends that were missed.
        stack.depth = 0;
        stack.missed = 1;
        return;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    stack.calls[depth & (CALLS - 1)] = Call { task, what, arguments };
    stack.depth = depth as u64 + 1;
}

/// The arguments of the call that ends.
#[inline(always)]
pub fn end(what: u64) -> Option<[u64; 3]> {
    let stack = STACK.get_ptr_mut(0)?;
    // SAFETY: as above.
    let stack = unsafe { &mut *stack };
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let mut depth = stack.depth as usize;
    for _ in 0..CALLS {
        if depth == 0 || depth > CALLS {
            break;
        }
        depth -= 1;
        let call = &stack.calls[depth & (CALLS - 1)];
        if call.task == task && call.what == what {
            if depth as u64 + 1 != stack.depth {
                stack.missed = 1;
            }
            stack.depth = depth as u64;
            return Some(call.arguments);
        }
    }
    stack.missed = 1;
    None
}

/// Whether a call or its end was missed since this was asked last.
#[inline(always)]
pub fn have_missed() -> bool {
    let Some(stack) = STACK.get_ptr_mut(0) else { return false };
    // SAFETY: as above.
    let stack = unsafe { &mut *stack };
    let missed = stack.missed != 0;
    stack.missed = 0;
    missed
}
