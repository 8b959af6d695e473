//! The evidence that no packet matched a rule, and the reasons to doubt it.

use std::collections::HashMap;

use serde::Serialize;

use super::spot::{Spot, rules};
use crate::{
    firewall::{
        Ruleset,
        model::{Chain, Rule, Table},
    },
    model::loss::{Loss, LossCount},
    report::{
        Footer, Report,
        coverage::{Coverage, Unseen},
    },
};

/// Losses that may hide a packet at any rule.
pub(in crate::commands::rules) const OF_ALL_RULES: [Loss; 8] = [
    Loss::PathRecordsLost,
    Loss::PathRaces,
    Loss::PathFramesLost,
    Loss::PathFramesFull,
    Loss::PathsUnresolved,
    Loss::ProbeRunsMissed,
    Loss::KernelReadsFailed,
    Loss::RecordsRejected,
];

/// Losses that may hide paths at one hook.
const OF_HOOKS: [Loss; 2] = [Loss::PathsContradicting, Loss::PathsNested];

/// Why an unseen packet may have matched a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    RulesNotTraced,
    NotObserved,
    NoCounter,
    CounterNotRead,
    PacketsUntold,
    CameLater,
    PacketsLost,
    CounterMoved,
}

impl Why {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::RulesNotTraced => "rules are not traced",
            Self::NotObserved => "not observed: packets are not traced where they are met",
            Self::NoCounter => "no counter that tells",
            Self::CounterNotRead => "their counters are not read",
            Self::PacketsUntold => "of packets at their hooks no more is known than the chain",
            Self::CameLater => "they came while packets were observed",
            Self::PacketsLost => "packets were lost",
            Self::CounterMoved => "their counters moved, by packets that were not traced",
        }
    }
}

impl From<Unseen> for Why {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::NotObserved => Self::NotObserved,
            Unseen::NoCounter => Self::NoCounter,
            Unseen::NotRead => Self::CounterNotRead,
            Unseen::Untold => Self::PacketsUntold,
            Unseen::Late => Self::CameLater,
        }
    }
}

/// What is known beside the packets.
pub(super) struct Evidence<'a> {
    /// For each rule, why its matches may be unseen; nothing if rules were not traced.
    seen: Option<HashMap<Spot<'a>, Option<Unseen>>>,
    lost: bool,
    /// Packets that rules had counted when the observation began.
    before: HashMap<Spot<'a>, u64>,
}

impl<'a> Evidence<'a> {
    /// `before`: the ruleset when the observation began.
    pub fn of(report: &'a Report, before: &'a Ruleset) -> Self {
        let of_coverage = |coverage: &'a Coverage| {
            coverage.iter().map(|(key, unseen)| (Spot::of_key(key), unseen)).collect()
        };
        let before = rules(before).filter_map(|(table, chain, rule)| {
            Some((Spot::of_rule(table, chain, rule), matches(rule)?))
        });
        Self {
            seen: report.coverage.as_ref().ok().map(of_coverage),
            lost: losses(&report.footer).next().is_some(),
            before: before.collect(),
        }
    }

    /// Packets that matched a rule during the observation, by its own counter.
    pub fn counted(&self, table: &Table, chain: &Chain, rule: &Rule) -> Option<u64> {
        // A counter that was reset proves nothing.
        matches(rule)?.checked_sub(*self.before.get(&Spot::of_rule(table, chain, rule))?)
    }

    /// Why an unseen packet may have matched a rule; `None` if none can.
    pub fn doubt(&self, table: &Table, chain: &Chain, rule: &Rule) -> Option<Why> {
        let Some(seen) = &self.seen else { return Some(Why::RulesNotTraced) };
        match seen.get(&Spot::of_rule(table, chain, rule)) {
            None => Some(Why::CameLater),
            Some(Some(unseen)) => Some((*unseen).into()),
            Some(None) if self.lost => Some(Why::PacketsLost),
            Some(None) => {
                let moved = self.counted(table, chain, rule).is_some_and(|packets| packets > 0);
                moved.then_some(Why::CounterMoved)
            }
        }
    }
}

/// Packets that matched, if the rule has a counter that moves exactly on a match.
fn matches(rule: &Rule) -> Option<u64> {
    rule.counter.filter(|_| rule.counts_matches).map(|counter| counter.packets)
}

/// Losses that may hide a packet at any rule.
pub(super) fn losses(footer: &Footer) -> impl Iterator<Item = &LossCount> {
    footer.losses.iter().filter(|lost| lost.count > 0 && OF_ALL_RULES.contains(&lost.loss))
}

/// A line about why the result is incomplete; `None` if it is complete.
#[must_use]
pub fn incomplete(report: &Report) -> Option<String> {
    let coverage = match &report.coverage {
        Ok(coverage) => coverage,
        Err(why) => {
            return Some(format!("no rule can be called unmatched: rules are not traced: {why}"));
        }
    };
    let of_hooks = report
        .footer
        .losses
        .iter()
        .filter(|lost| coverage.untold && lost.count > 0 && OF_HOOKS.contains(&lost.loss));
    let mut counts: Vec<String> = losses(&report.footer)
        .chain(of_hooks)
        .map(|lost| format!("{}={}", lost.loss.name(), lost.count))
        .collect();
    if counts.is_empty() && coverage.untold {
        counts.push("packets of which only the chain is known".to_owned());
    }
    (!counts.is_empty()).then(|| {
        format!("not every rule without a match can be called unmatched: {}", counts.join(", "))
    })
}
