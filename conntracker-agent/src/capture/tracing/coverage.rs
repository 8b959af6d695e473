//! Coverage: for each rule, whether the trace would have seen a packet that matched it. Pure.
//!
//! A rule without a step proves that no packet matched it only if every packet that reached it was traced, and if a
//! counter or probe shows its matches.

use std::collections::BTreeSet;

use super::{
    hook_points::is_v6,
    join::{ChainAt, Join, reachable},
    plan::HookPlan,
    probed::Addresses,
};
use crate::{
    attribution::{ChainId, Program, Spot},
    bpf::index::Index,
    firewall::{
        Ruleset,
        action::Action,
        model::{Policy, Rule, Table},
    },
    model::{
        hook::Hook,
        table::{Backend, Family},
    },
    report::coverage::{Coverage, Unseen},
};

/// The most base chains that a note names.
const MOST_NAMED: usize = 8;

/// Coverage of the rules of one epoch.
#[derive(Debug, Default)]
pub(super) struct EpochCoverage {
    /// By table, chain and rule: why matches of the rule may be missing.
    rules: Vec<Vec<Vec<Option<Unseen>>>>,
    /// They were there when the observation began.
    from_start: bool,
}

impl EpochCoverage {
    /// Coverage of rules that are traced, except at the base chains in `unobserved`.
    pub fn new(
        ruleset: &Ruleset,
        join: &Join,
        program: &Program,
        addresses: Option<&Addresses>,
        unobserved: &BTreeSet<ChainAt>,
        from_start: bool,
    ) -> Self {
        let of_rule = |at: ChainAt, table: &Table, (index, rule): (usize, &Rule)| {
            let spot = program.id(at.0, at.1).map(|chain| Spot { chain, index: index as u32 });
            let told = spot.is_some_and(|spot| match addresses {
                Some(addresses) if table.backend == Backend::Nft => addresses.tells(spot),
                _ => program.tells(spot),
            });
            match told {
                true => None,
                false if !join.agrees_at(at) || has_counter(table, rule) => Some(Unseen::NotRead),
                false => Some(Unseen::NoCounter),
            }
        };
        let mut rules: Vec<Vec<Vec<Option<Unseen>>>> = ruleset
            .tables
            .iter()
            .enumerate()
            .map(|(t, table)| {
                let chains = table.chains.iter().enumerate();
                chains
                    .map(|(c, chain)| {
                        chain.rules.iter().enumerate().map(|r| of_rule((t, c), table, r)).collect()
                    })
                    .collect()
            })
            .collect();
        for base in unobserved {
            for (t, c) in reachable(ruleset, *base) {
                rules[t][c].fill(Some(Unseen::NotObserved));
            }
        }
        Self { rules, from_start }
    }

    /// Adds the coverage of an epoch. `untold`: base chains about which some packets had no more facts.
    pub fn add_to(
        &self,
        coverage: &mut Coverage,
        epoch: u32,
        ruleset: &Ruleset,
        program: &Program,
        untold: &BTreeSet<ChainId>,
    ) {
        let hook_points = untold.iter().filter_map(|chain| program.indices(*chain));
        let untold: BTreeSet<ChainAt> = hook_points.flat_map(|at| reachable(ruleset, at)).collect();
        coverage.untold |= !untold.is_empty();
        let tables = ruleset.tables.iter().zip(&self.rules).enumerate();
        let rules = tables.flat_map(|(t, (table, chains))| {
            let untold = &untold;
            table.chains.iter().zip(chains).enumerate().flat_map(move |(c, (chain, rules))| {
                let doubt = untold.contains(&(t, c)).then_some(Unseen::Untold);
                let rules = chain.rules.iter().zip(rules);
                rules.map(move |(rule, unseen)| (table, &*chain.name, rule, unseen.or(doubt)))
            })
        });
        coverage.add(epoch, self.from_start, rules);
    }
}

/// Whether the rule has a counter that moves exactly when it matches.
fn has_counter(table: &Table, rule: &Rule) -> bool {
    rule.counts_matches || table.backend == Backend::Legacy
}

/// Base chains that packets meet and that no plan traces. No packet meets chains of a dormant table.
pub(super) fn unobserved(
    index: &Index,
    ruleset: &Ruleset,
    join: &Join,
    plans: &[HookPlan],
) -> BTreeSet<ChainAt> {
    let traced: BTreeSet<(bool, u8, ChainAt)> = plans
        .iter()
        .flat_map(|plan| {
            let (v6, hook) =
                (is_v6(plan.hook_point), conntracker_common::plan::hook(plan.hook_point));
            plan.chains.iter().filter_map(move |chain| Some((v6, hook, chain.chain?.0)))
        })
        .collect();
    let mut hooked = BTreeSet::new();
    let mut missed = BTreeSet::new();
    for (v6, lists) in [false, true].into_iter().zip(&index.hooks) {
        for (hook, list) in (0..).zip(lists) {
            for at in list.functions.iter().filter_map(|found| join.base_chain(hook, found)) {
                hooked.insert(at);
                if !traced.contains(&(v6, hook, at)) {
                    missed.insert(at);
                }
            }
        }
    }
    for (t, table) in ruleset.tables.iter().enumerate().filter(|(_, table)| !table.dormant) {
        let bases = table.chains.iter().enumerate().filter(|(_, chain)| chain.base.is_some());
        missed.extend(bases.map(|(c, _)| (t, c)).filter(|at| !hooked.contains(at)));
    }
    // A hook whose base chains accept everything needs no trace.
    missed.retain(|at| !is_idle(ruleset, *at));
    missed
}

fn is_idle(ruleset: &Ruleset, (t, c): ChainAt) -> bool {
    ruleset.tables[t].chains[c].is_idle()
}

/// Whether packets can be traced at the hook of a base chain.
fn is_traceable(table: &Table, hook: Hook) -> bool {
    matches!(table.family, Family::Ip | Family::Ip6 | Family::Inet)
        && !matches!(hook, Hook::Ingress | Hook::Egress)
}

/// Base chains at hooks where packets are never traced: bridges, devices, ARP.
pub(super) fn untraceable(ruleset: &Ruleset, unobserved: &BTreeSet<ChainAt>) -> Vec<String> {
    let chains = unobserved.iter().filter_map(|&(t, c)| {
        let table = &ruleset.tables[t];
        let chain = &table.chains[c];
        let untraceable = chain.base.as_ref().is_some_and(|base| !is_traceable(table, base.hook));
        untraceable.then(|| format!("{}/{}", table.label(), chain.name))
    });
    chains.collect()
}

/// Those of them that may drop a packet of a flow, which ARP is not.
pub(super) fn may_drop(ruleset: &Ruleset, unobserved: &BTreeSet<ChainAt>) -> Vec<String> {
    let drops = |&(t, c): &ChainAt| {
        let table = &ruleset.tables[t];
        let base = table.chains[c].base.as_ref();
        let by_policy = base.is_some_and(|base| base.policy == Policy::Drop);
        let by_rule = |&(t, c): &ChainAt| {
            let actions = ruleset.tables[t].chains[c].rules.iter().flat_map(|rule| &rule.actions);
            actions.into_iter().any(|action| {
                matches!(action, Action::Drop | Action::Reject | Action::Queue | Action::Unknown)
            })
        };
        table.family != Family::Arp && (by_policy || reachable(ruleset, (t, c)).iter().any(by_rule))
    };
    untraceable(ruleset, &unobserved.iter().copied().filter(drops).collect())
}

/// Says which they are.
pub(super) fn note(chains: &[String]) -> Option<String> {
    let (named, others) = chains.split_at(chains.len().min(MOST_NAMED));
    let others = match others.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| {
        format!(
            "packets are not traced in chains of bridges, devices and ARP: rules of {}{others} are not reported",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
