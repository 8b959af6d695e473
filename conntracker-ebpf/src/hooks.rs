//! Which functions hang on PREROUTING in the caller's namespace? conntrack is active exactly where
//! its function is among them, and nothing but the kernel's memory says so.

use aya_ebpf::{helpers::generated::bpf_get_current_task, macros::map, maps::Array};
use conntracker_common::hooks::{FUNCTIONS, HookFunctions};

use crate::{globals::offset, memory::read};

/// NF_INET_PRE_ROUTING, index into `netns_nf.hooks_ipv4`.
const PRE_ROUTING: u64 = 0;

/// `struct nf_hook_entry`: function and private pointer.
const ENTRY_BYTES: u64 = 16;

/// 0: IPv4, 1: IPv6.
#[map]
static HOOK_FUNCTIONS: Array<HookFunctions> = Array::with_max_entries(2, 0);

/// Fills the map for the namespace of the calling thread.
#[inline(always)]
pub fn list() -> Option<()> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let nsproxy: u64 = read(task + offset!(task_nsproxy) as u64)?;
    let net: u64 = read(nsproxy + offset!(nsproxy_net) as u64)?;
    family(0, net + offset!(net_hooks_v4) as u64)?;
    family(1, net + offset!(net_hooks_v6) as u64)
}

/// One family: `hooks` is the address of its array of `nf_hook_entries` pointers.
#[inline(always)]
fn family(index: u32, hooks: u64) -> Option<()> {
    let out = HOOK_FUNCTIONS.get_ptr_mut(index)?;
    // SAFETY: a map value, written by this program alone, which the agent runs once at a time.
    let out = unsafe { &mut *out };
    out.count = 0;
    let entries: u64 = read(hooks + PRE_ROUTING * 8)?;
    if entries == 0 {
        return Some(());
    }
    let number: u16 = read(entries + offset!(entries_number) as u64)?;
    let first = entries + offset!(entries_hooks) as u64;
    for i in 0..FUNCTIONS {
        if i >= usize::from(number) {
            break;
        }
        out.functions[i] = read(first + i as u64 * ENTRY_BYTES)?;
    }
    out.count = u64::from(number);
    Some(())
}
