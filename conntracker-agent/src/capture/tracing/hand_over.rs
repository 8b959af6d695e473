//! Plans on their way to the programs.

use anyhow::Result;
use conntracker_common::plan::{Guard, HOOK_POINTS, LEGACY_TABLES, MAX_RANGES, Plan, Tracing};

use super::{
    RuleTracer,
    hook_points::{hook_index, shares},
    plan::HookPlan,
};
use crate::{
    bpf::{index::Fingerprint, object::Programs},
    model::NetnsId,
};

impl RuleTracer {
    /// Writes the plans into the programs' maps; `false` if there is no room.
    pub(super) fn hand_over(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
        plans: &[HookPlan],
        fingerprint: &Fingerprint,
    ) -> Result<bool> {
        let slot = self.namespaces.get(id)?.slot;
        let total: u32 = plans.iter().map(|plan| plan.ranges.len() as u32).sum();
        let reserved = self.reserve(id, total);
        let (mut first, plans) = if let Some(first) = reserved {
            (first, plans)
        } else {
            self.namespaces.get(id)?.untold.push(format!(
                "rules are not traced: their counters are in {total} separate ranges of memory, which are too many"
            ));
            (0, [].as_slice())
        };
        if let Some(probes) = &mut self.probes {
            probes.hand_over(programs, id, slot, plans)?;
        }
        let shares = shares(plans);
        for hook_point in 0..HOOK_POINTS as u32 {
            let Some(plan) = plans.iter().find(|plan| plan.hook_point == hook_point) else {
                programs.set_plan(slot, hook_point, None)?;
                continue;
            };
            programs.set_ranges(first, &plan.ranges)?;
            let hook = hook_index(hook_point);
            let mut legacy = [Guard { address: 0, value: 0 }; LEGACY_TABLES];
            for (to, from) in legacy.iter_mut().zip(&plan.legacy) {
                *to = *from;
            }
            let value = Plan {
                epoch: self.epoch,
                base_seq: fingerprint.generation.base_seq,
                base_seq_at: fingerprint.generation.base_seq_at,
                hook: fingerprint.hooks[hook],
                legacy,
                first_range: first,
                ranges: plan.ranges.len() as u32,
                shares: shares.get(&hook_point).copied().unwrap_or(0),
                reserved: 0,
            };
            programs.set_plan(slot, hook_point, Some(&value))?;
            first += plan.ranges.len() as u32;
        }
        self.generation = (self.generation + 1) & 0xffff;
        programs.set_tracing(Tracing {
            generation: self.generation,
            sample: self.options.sample,
            first_netns: self
                .namespaces
                .traced()
                .find(|(_, of)| of.slot == 0)
                .map_or(0, |(_, of)| of.cookie),
            sampling: u32::from(self.options.sampling),
            reserved: 0,
        })?;
        Ok(reserved.is_some())
    }

    /// Reserves ranges that no plan refers to, neither a present one nor a previous one, which packets may still use.
    fn reserve(&mut self, id: NetnsId, number: u32) -> Option<u32> {
        let taken: Vec<(u32, u32)> = self.namespaces.all().map(|n| n.ranges).collect();
        let free = |first: u32| {
            first + number <= MAX_RANGES
                && taken.iter().all(|&(begin, len)| first + number <= begin || begin + len <= first)
        };
        let mut ends: Vec<u32> = taken.iter().map(|(begin, len)| begin + len).collect();
        ends.sort_unstable();
        let first = [self.next_range, 0].into_iter().chain(ends).find(|&first| free(first))?;
        self.next_range = first + number;
        self.namespaces.get(id).ok()?.ranges = (first, number);
        Some(first)
    }
}
