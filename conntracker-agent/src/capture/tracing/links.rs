//! The links around base chains that are attached now, kept where they are still right.

use std::{collections::HashMap, io, os::fd::OwnedFd};

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
        object::{Programs, Role},
        sys,
    },
    os::netns::Netns,
};

/// Priorities tried before giving up on a link.
const NEIGHBOURS: i32 = 64;

/// Place, role, and number among those of the same role.
type Key = (u32, Role, usize);

/// Links around the base chains of one namespace.
#[derive(Debug, Default)]
pub(super) struct ChainLinks(HashMap<Key, (OwnedFd, i32)>);

impl ChainLinks {
    /// Attaches what the plans want and is not there, detaches what they do not want. Returns the hook points
    /// that could not be given all their links, and why.
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
        // What opens goes first and comes last, so that packets in between find a link that closes.
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
            let attached = netns.enter(|| {
                for priority in priorities(&wanted) {
                    match sys::link_netfilter(program, family, hook(hook_point), priority) {
                        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                        Err(error) => return Err(error),
                        Ok(link) => return Ok(Some((link, priority))),
                    }
                }
                Ok::<_, io::Error>(None)
            });
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

/// Priorities that would do: next to the chains first, so that strangers in between cost nothing.
fn priorities(wanted: &LinkWanted) -> impl Iterator<Item = i32> {
    let LinkWanted { role, above, below } = *wanted;
    let low = above.saturating_add(1).max(i32::MIN + 1);
    let high = below.saturating_sub(1).min(i32::MAX - 1);
    let opens = role == Role::Open;
    (0..NEIGHBOURS).map_while(move |n| {
        let priority = if opens { high.checked_sub(n)? } else { low.checked_add(n)? };
        (low..=high).contains(&priority).then_some(priority)
    })
}
