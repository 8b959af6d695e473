//! The links around base chains. Those that still fit are kept when the ruleset changes.

use std::{collections::HashMap, iter, os::fd::OwnedFd};

use anyhow::{Context, Result};
use conntracker_common::{
    plan::{hook, segment},
    record::{FAMILY_V4, FAMILY_V6},
};

use super::{
    hook_points::is_v6,
    plan::{HookPlan, LinkWanted},
};
use crate::{
    bpf::{
        links,
        object::{Programs, Role},
    },
    os::netns::Netns,
};

/// Hook point, role, and number among those of the same role.
type Key = (u32, Role, usize);

/// Links around the base chains of one namespace.
#[derive(Debug, Default)]
pub(super) struct ChainLinks(HashMap<Key, (OwnedFd, i32)>);

impl ChainLinks {
    /// Attaches the links that the plans need and detaches the others. Returns the hook points that did not get all
    /// their links, and why.
    pub fn arrange(
        &mut self,
        programs: &Programs,
        netns: &Netns,
        plans: &[HookPlan],
    ) -> Result<Vec<(u32, String)>> {
        let mut wanted: HashMap<Key, LinkWanted> = HashMap::new();
        for plan in plans {
            let mut numbers: HashMap<Role, usize> = HashMap::new();
            for link in &plan.links {
                let number = numbers.entry(link.role).or_default();
                wanted.insert((plan.hook_point, link.role, *number), *link);
                *number += 1;
            }
        }
        // Opening links are detached first and attached last, so that every traced packet meets a closing link.
        let mut gone: Vec<Key> = self
            .0
            .iter()
            .filter_map(|(key, (_, priority))| {
                let right =
                    wanted.get(key).is_some_and(|w| w.above < *priority && *priority < w.below);
                (!right).then_some(*key)
            })
            .collect();
        gone.sort_by_key(|(_, role, _)| *role);
        for key in gone {
            self.0.remove(&key);
        }
        let mut missing: Vec<(Key, LinkWanted)> =
            wanted.into_iter().filter(|(key, _)| !self.0.contains_key(key)).collect();
        missing.sort_by_key(|((_, role, _), _)| std::cmp::Reverse(*role));
        let mut failed = Vec::new();
        for (key, wanted) in missing {
            let (hook_point, role, _) = key;
            let program = programs
                .rule_program(segment(hook_point), role)
                .context("the programs that trace rules are not loaded")?;
            let family = if is_v6(hook_point) { FAMILY_V6 } else { FAMILY_V4 };
            let attached = netns
                .enter(|| links::attach(program, family, hook(hook_point), priorities(&wanted)));
            match attached {
                Ok(Some(link)) => {
                    self.0.insert(key, link);
                }
                Ok(None) => failed.push((
                    hook_point,
                    format!(
                        "there is no free priority between {} and {}",
                        wanted.above, wanted.below
                    ),
                )),
                Err(error) => failed.push((hook_point, error.to_string())),
            }
        }
        Ok(failed)
    }

    /// Number of links.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Priorities between the two that are wanted, those nearest to our chains first: hook functions of others in
/// between would run while the packet is traced. The kernel takes neither INT_MIN nor INT_MAX.
fn priorities(wanted: &LinkWanted) -> impl Iterator<Item = i32> {
    let LinkWanted { role, above, below } = *wanted;
    let mut between = above.saturating_add(1)..below;
    let opens = role == Role::Open;
    iter::from_fn(move || if opens { between.next_back() } else { between.next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(role: Role, above: i32, below: i32) -> Vec<i32> {
        priorities(&LinkWanted { role, above, below }).take(3).collect()
    }

    #[test]
    fn priorities_lie_between_both_and_begin_beside_our_chains() {
        assert_eq!(first(Role::Open, -200, 0), [-1, -2, -3]);
        assert_eq!(first(Role::Gap, 0, 10), [1, 2, 3]);
        assert_eq!(first(Role::Close, 0, 3), [1, 2]);
        assert!(first(Role::Open, 4, 5).is_empty());
    }

    #[test]
    fn the_least_and_the_greatest_number_are_no_priority() {
        assert_eq!(first(Role::Open, i32::MIN, i32::MIN + 2), [i32::MIN + 1]);
        assert_eq!(first(Role::Close, i32::MAX - 2, i32::MAX), [i32::MAX - 1]);
        assert!(first(Role::Close, i32::MAX, i32::MAX).is_empty());
    }
}
