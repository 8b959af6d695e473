//! Hook points: their names, numbers and shared counters. Pure.

use std::collections::{BTreeSet, HashMap};

use conntracker_common::{
    hook::HOOKS,
    plan::{self, Range},
};

use super::plan::HookPlan;
use crate::bpf::index::legacy::BUILT_IN;

/// Index of a hook point's hook in [`Fingerprint::hooks`].
pub(super) fn hook_index(hook_point: u32) -> usize {
    usize::from(is_v6(hook_point)) * usize::from(HOOKS) + usize::from(plan::hook(hook_point))
}

/// Whether a hook point is one of IPv6.
pub(super) fn is_v6(hook_point: u32) -> bool {
    hook_point >= plan::hook_point(true, 0, 0)
}

/// The name of a hook point in messages.
pub(super) fn hook_point_name(hook_point: u32) -> String {
    let family = if is_v6(hook_point) { "IPv6" } else { "IPv4" };
    format!("{} of {family}", BUILT_IN[usize::from(plan::hook(hook_point))])
}

/// For each hook point, the hook points that share counters with it (itself included, if it has any).
pub(super) fn shares(plans: &[HookPlan]) -> HashMap<u32, u32> {
    let memory = |plan: &HookPlan| -> BTreeSet<u64> {
        let counters = |range: &Range| {
            let (address, counters) = (range.address, u64::from(range.counters));
            (0..counters).map(move |n| address + n * 16)
        };
        plan.ranges.iter().flat_map(counters).collect()
    };
    let all: Vec<_> = plans.iter().map(|plan| (plan.hook_point, memory(plan))).collect();
    let of = |hook_point: u32, mine: &BTreeSet<u64>| {
        if mine.is_empty() {
            return 0;
        }
        let common = all.iter().filter(|(_, theirs)| !mine.is_disjoint(theirs));
        common.fold(1 << hook_point, |bits, (other, _)| bits | 1 << other)
    };
    all.iter().map(|(hook_point, mine)| (*hook_point, of(*hook_point, mine))).collect()
}
