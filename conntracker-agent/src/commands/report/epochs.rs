//! The rulesets that a run had, as it stated them.

use std::collections::BTreeMap;

use crate::{model::NetnsId, recording::statement::Ruleset};

/// Bytes of rulesets that are kept; those of the earliest epochs go first.
const MOST: usize = 256 << 20;

/// The ruleset of each epoch.
#[derive(Debug, Default)]
pub(in crate::commands) struct EpochRulesets {
    by_epoch: BTreeMap<(u32, u32), Ruleset>,
    bytes: usize,
}

impl EpochRulesets {
    /// Adds one. Each part of a recording states again which it has.
    pub fn add(&mut self, ruleset: &Ruleset) {
        let key = (ruleset.epoch, ruleset.netns);
        if self.by_epoch.contains_key(&key) {
            return;
        }
        self.bytes += bytes(ruleset);
        self.by_epoch.insert(key, ruleset.clone());
        while self.bytes > MOST && self.by_epoch.len() > 1 {
            let Some((_, first)) = self.by_epoch.pop_first() else { break };
            self.bytes -= bytes(&first);
        }
    }

    /// All that are kept, those of earlier epochs first.
    pub fn iter(&self) -> impl Iterator<Item = &Ruleset> {
        self.by_epoch.values()
    }

    /// The last one of a namespace.
    pub fn last(&self, netns: NetnsId) -> Option<&Ruleset> {
        self.by_epoch.values().rfind(|ruleset| ruleset.netns == netns.0)
    }

    /// That of an epoch of a namespace.
    pub fn of(&self, netns: NetnsId, epoch: u32) -> Option<&Ruleset> {
        self.by_epoch.get(&(epoch, netns.0))
    }
}

fn bytes(Ruleset { listings, objects, .. }: &Ruleset) -> usize {
    let listed: usize = listings.iter().map(|(_, text)| text.len()).sum();
    listed + objects.nf_tables.len() + objects.ip_tables.len() + objects.routing.len()
}
