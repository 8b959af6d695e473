//! What the tracer of rules reports besides paths: what it cannot see, and why.

use std::sync::Arc;

use super::{RuleTracer, namespaces::Namespace};
use crate::{firewall::Ruleset, model::NetnsId, os::netns::Netns, report::coverage::Coverage};

impl RuleTracer {
    /// Coverage of the rules of a namespace, in all epochs.
    pub fn coverage(&self, id: NetnsId) -> Coverage {
        let Some(namespace) = self.namespaces.known(id) else { return Coverage::default() };
        let mut coverage = namespace.coverage.clone();
        let [current, previous] = &namespace.epochs;
        for epoch in [previous, current].into_iter().flatten() {
            epoch.add_to(&mut coverage);
        }
        coverage.notes.extend(namespace.said());
        coverage
    }

    /// Base chains of a namespace, present and past, at hooks where packets are not traced, which may have dropped
    /// some.
    pub fn may_drop(&self, id: NetnsId) -> &[String] {
        self.namespaces.known(id).map_or(&[], |namespace| &namespace.may_drop)
    }

    /// The present rulesets, as far as they were read.
    pub fn rulesets(&self) -> impl Iterator<Item = &Ruleset> {
        self.namespaces.all().filter_map(|namespace| Some(namespace.epochs[0].as_ref()?.ruleset()))
    }

    /// What should be traced and is not, by namespace.
    pub fn untraced(&self) -> impl Iterator<Item = String> {
        let there = self.namespaces.all().filter(|of| of.netns.is_held());
        there.flat_map(|of| {
            let failed = of.failed.iter().map(|why| format!("rules are not traced: {why}"));
            let why = of.untold.iter().cloned().chain(failed);
            why.map(|why| format!("namespace {}: {why}", of.netns.name))
        })
    }

    /// What cannot be traced, namespace by namespace.
    pub fn notes(&self) -> impl Iterator<Item = (&Arc<Netns>, String)> {
        self.namespaces
            .all()
            .flat_map(|namespace| namespace.said().map(move |note| (&namespace.netns, note)))
    }
}

impl Namespace {
    /// What cannot be traced.
    fn said(&self) -> impl Iterator<Item = String> {
        let capped = (self.capped > 0).then(|| {
            format!(
                "{} counters are not read: there are too many behind one base chain, or at one hook",
                self.capped
            )
        });
        let failed = self.failed.iter().map(|why| format!("rules are not traced: {why}"));
        let stale = (!self.gone && self.current.is_none() && self.failed.is_none()).then(|| {
            let why = if self.listed.is_some() { "has changed and" } else { "is new and" };
            format!("the ruleset {why} is being read: packets are not traced meanwhile")
        });
        self.notes.iter().chain(&self.untold).cloned().chain(capped).chain(stale).chain(failed)
    }
}
