//! Rulesets that are recorded, kept until the recorder takes them.

use std::mem;

use super::RuleTracer;
use crate::{firewall::Ruleset, model::NetnsId, recording::statement};

impl RuleTracer {
    /// An epoch has begun in a namespace: its ruleset is to be recorded, if rulesets are. What programs printed and
    /// what the kernel has is taken out of it: it was read for that, and nobody else needs it any more.
    pub(super) fn record(&mut self, id: NetnsId, ruleset: &mut Ruleset, began_ns: u64) {
        let listings = mem::take(&mut ruleset.printed);
        let objects = mem::take(&mut ruleset.objects);
        if self.options.record {
            self.unrecorded.push(statement::Ruleset {
                netns: id.0,
                epoch: self.epoch,
                at_ns: began_ns,
                listings,
                objects,
            });
        }
    }

    /// Rulesets of epochs that have begun since the last call, if they are recorded.
    pub fn take_unrecorded(&mut self) -> Vec<statement::Ruleset> {
        mem::take(&mut self.unrecorded)
    }
}
