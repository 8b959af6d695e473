//! Rulesets that are recorded, kept until the recorder takes them.

use super::RuleTracer;
use crate::{firewall::Ruleset, model::NetnsId, recording::statement};

impl RuleTracer {
    /// An epoch has begun in a namespace: its ruleset is to be recorded, if rulesets are.
    pub(super) fn record(&mut self, id: NetnsId, ruleset: &Ruleset, began_ns: u64) {
        if self.options.record {
            self.unrecorded.push(statement::Ruleset {
                netns: id.0,
                epoch: self.epoch,
                at_ns: began_ns,
                listings: ruleset.printed.clone(),
                objects: ruleset.objects.clone(),
            });
        }
    }

    /// Rulesets of epochs that have begun since the last call, if they are recorded.
    pub fn take_unrecorded(&mut self) -> Vec<statement::Ruleset> {
        std::mem::take(&mut self.unrecorded)
    }
}
