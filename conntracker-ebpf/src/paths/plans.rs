//! Plans: for each hook point, where the rules' counters lie, and the guards that tell whether the ruleset is still the
//! one that the plan was made for.

use aya_ebpf::{macros::map, maps::Array};
pub use conntracker_common::plan::Plan;
use conntracker_common::plan::{HOOK_POINTS, MAX_NAMESPACES, MAX_RANGES, Range};

use crate::base::memory::read;

#[map]
static PLANS: Array<Plan> = Array::with_max_entries(MAX_NAMESPACES * HOOK_POINTS as u32, 0);
#[map]
static RANGES: Array<Range> = Array::with_max_entries(MAX_RANGES, 0);

/// The plan at an index, if there is one.
#[inline(always)]
pub fn get(index: u32) -> Option<&'static Plan> {
    PLANS.get(index).filter(|plan| epoch(plan) != 0)
}

/// The epoch of a plan, read anew. The agent sets it to 0 before it changes anything else of a plan, and to
/// the new number when the rest is in place: a plan that has the same epoch before and after it was used was
/// whole. (Loads keep their order on x86_64; other machines may see a plan that was replaced meanwhile, and
/// its guards then tell.)
#[inline(always)]
pub fn epoch(plan: &Plan) -> u32 {
    // SAFETY: a plain read of a live word.
    unsafe { core::ptr::read_volatile(&raw const plan.epoch) }
}

/// One of the ranges that plans refer to.
#[inline(always)]
pub fn range(index: u32) -> Option<&'static Range> {
    RANGES.get(index)
}

/// Whether the rules and functions of the hook are still those that the plan was made for. nf_tables
/// and ip_tables free nothing of the old ones while a packet is at the hook.
#[inline(always)]
pub fn holds(plan: &Plan) -> bool {
    if plan.base_seq_at != 0 && read::<u32>(plan.base_seq_at) != Some(plan.base_seq) {
        return false;
    }
    if read::<u64>(plan.hook.address) != Some(plan.hook.value) {
        return false;
    }
    for guard in &plan.legacy {
        if guard.address == 0 {
            break;
        }
        if read::<u64>(guard.address) != Some(guard.value) {
            return false;
        }
    }
    true
}
