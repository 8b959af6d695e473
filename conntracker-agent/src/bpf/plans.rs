//! Plans and ranges of counters, in the layout that the programs read.

use anyhow::Result;
use aya::maps::Array;
use conntracker_common::plan::{MAX_RANGES, Plan, Range, plan_index};

use super::object::Programs;

/// Words of a [`Plan`].
const PLAN_WORDS: usize = size_of::<Plan>() / 8;

/// A plan as the map has it.
fn words(plan: &Plan) -> [u64; PLAN_WORDS] {
    let Plan { epoch, base_seq, base_seq_at, hook, legacy, first_range, ranges, shares, reserved } =
        *plan;
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut words = [0; PLAN_WORDS];
    let all = [pair(epoch, base_seq), base_seq_at, hook.address, hook.value]
        .into_iter()
        .chain(legacy.iter().flat_map(|guard| [guard.address, guard.value]))
        .chain([pair(first_range, ranges), pair(shares, reserved)]);
    for (word, value) in words.iter_mut().zip(all) {
        *word = value;
    }
    words
}

impl Programs {
    /// Writes ranges of counters from `first` on.
    pub fn set_ranges(&mut self, first: u32, ranges: &[Range]) -> Result<()> {
        let mut map: Array<_, [u64; 2]> = Array::try_from(self.map_mut("RANGES")?)?;
        for (index, range) in (first..MAX_RANGES).zip(ranges) {
            let Range { address, slot, counters, word } = *range;
            let second = u64::from(slot) | u64::from(counters) << 32 | u64::from(word) << 48;
            map.set(index, [address, second], 0)?;
        }
        Ok(())
    }

    /// Sets, or with `None` removes, the plan of a hook point of the n-th namespace. The kernel copies it word by
    /// word while programs read it, so its epoch shows them whether it is complete: the epoch becomes 0 before
    /// anything else changes, and is set last.
    pub fn set_plan(&mut self, namespace: u32, hook_point: u32, plan: Option<&Plan>) -> Result<()> {
        let index = plan_index(namespace, hook_point);
        let mut map: Array<_, [u64; PLAN_WORDS]> = Array::try_from(self.map_mut("PLANS")?)?;
        let mut old = map.get(&index, 0)?;
        old[0] &= !u64::from(u32::MAX);
        map.set(index, old, 0)?;
        let Some(plan) = plan else {
            map.set(index, [0; PLAN_WORDS], 0)?;
            return Ok(());
        };
        map.set(index, words(&Plan { epoch: 0, ..*plan }), 0)?;
        map.set(index, words(plan), 0)?;
        Ok(())
    }
}
