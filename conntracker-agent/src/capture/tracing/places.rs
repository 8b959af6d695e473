//! Places by name and number, and what they have in common. Pure.

use std::collections::{BTreeSet, HashMap};

use conntracker_common::plan::{self, Range};

use super::plan::PlacePlan;
use crate::bpf::index::legacy::BUILT_IN;

/// Index of a place's hook in [`Fingerprint::hooks`].
pub(super) fn hook_index(place: u32) -> usize {
    usize::from(is_v6(place)) * usize::from(plan::HOOKS) + usize::from(plan::hook(place))
}

/// Whether a place is one of IPv6.
pub(super) fn is_v6(place: u32) -> bool {
    place >= plan::place(true, 0, 0)
}

/// What people call a place.
pub(super) fn place_name(place: u32) -> String {
    let family = if is_v6(place) { "IPv6" } else { "IPv4" };
    format!("{} of {family}", BUILT_IN[usize::from(plan::hook(place))])
}

/// For each place, the places that share counters with it (itself included, if it has any).
pub(super) fn shares(plans: &[PlacePlan]) -> HashMap<u32, u32> {
    let memory = |plan: &PlacePlan| -> BTreeSet<u64> {
        let counters = |range: &Range| {
            let (address, counters) = (range.address, u64::from(range.counters));
            (0..counters).map(move |n| address + n * 16)
        };
        plan.ranges.iter().flat_map(counters).collect()
    };
    let all: Vec<_> = plans.iter().map(|plan| (plan.place, memory(plan))).collect();
    let of = |place: u32, mine: &BTreeSet<u64>| {
        if mine.is_empty() {
            return 0;
        }
        let common = all.iter().filter(|(_, theirs)| !mine.is_disjoint(theirs));
        common.fold(1 << place, |bits, (other, _)| bits | 1 << other)
    };
    all.iter().map(|(place, mine)| (*place, of(*place, mine))).collect()
}
