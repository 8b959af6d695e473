//! `conntracker rules unused`: rules that no packet matched, with the evidence for each: counters of the kernel, or what
//! a recording has seen.

mod observed;
mod render;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde::Serialize;

use self::observed::Observed;
use super::{
    Format,
    listed::Listed,
    origin::{Loaded, Origin},
};
use crate::{
    firewall::{
        action::Action,
        model::{Chain, Rule, Table},
    },
    model::{path::Site, table::Backend},
    os::{messages, output::Destination},
    report::coverage::{RuleId, RuleKey},
};

/// What to look at.
pub struct Unused {
    /// Where the rules come from: the kernel or a recording.
    pub origin: Origin,
    /// Only this table, or only this chain of it.
    pub only: Option<String>,
    /// Format.
    pub format: Format,
}

/// Writes what is known of the use of each rule.
///
/// # Errors
/// The rules or the recording cannot be read, or there is no such table or chain.
pub fn run(asked: &Unused) -> Result<ExitCode> {
    messages::to_stderr();
    let loaded = asked.origin.load()?;
    let Loaded { rules, firewall, recorded, .. } = &loaded;
    let only = asked.only.as_deref();
    let listed = Listed::new(rules, firewall, only)
        .with_context(|| format!("no table or chain `{}`", only.unwrap_or_default()))?;
    let observed = match (&asked.origin, recorded) {
        (Origin::File { source, .. }, Some(netns)) => Some(Observed::read(source, *netns)?),
        (Origin::File { .. }, None) => {
            anyhow::bail!(
                "a file of rules has no counters: name a recording, or none for the kernel's rules"
            )
        }
        (Origin::Live(_), _) => None,
    };
    let mut uses = Vec::new();
    for (table, chain) in listed.listed() {
        let bases = bases(table);
        let bases = bases.get(chain.name.as_str());
        for rule in &chain.rules {
            let evidence = match &observed {
                Some(observed) => observed.evidence(&key(table, chain, rule), rule, bases),
                None => of_counter(rule),
            };
            let site = Listed::of_rule(table, chain, rule);
            uses.push(RuleUse { site, effect: RuleEffect::of(rule), evidence });
        }
    }
    Destination::Stdout.write(|out| match asked.format {
        Format::Text => render::text(&loaded.name, &loaded.notes, observed.as_ref(), &uses, out),
        Format::Json => render::json(&loaded.name, &loaded.notes, observed.as_ref(), &uses, out),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What a rule does with packets that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum RuleEffect {
    Accept,
    Drop,
    Other,
}

impl RuleEffect {
    const ALL: [Self; 3] = [Self::Accept, Self::Drop, Self::Other];

    fn of(rule: &Rule) -> Self {
        let has = |actions: &[Action]| rule.actions.iter().any(|action| actions.contains(action));
        if has(&[Action::Drop, Action::Reject]) {
            Self::Drop
        } else if has(&[Action::Accept, Action::Nat]) {
            Self::Accept
        } else {
            Self::Other
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Other => "other",
        }
    }
}

/// Why it is not known whether packets matched a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Doubt {
    NoCounter,
    RulesNotTraced,
    Filtered,
    PacketsLost,
    PacketsUntold,
    ChainNotMet,
    CounterMoved,
    CameLater,
}

impl Doubt {
    fn text(self) -> &'static str {
        match self {
            Self::NoCounter => "no counter that moves exactly when it matches",
            Self::RulesNotTraced => "rules were not traced",
            Self::Filtered => "the recording has only flows of a filter",
            Self::PacketsLost => "packets were lost",
            Self::PacketsUntold => "of some packets at its hook no more is known than the chain",
            Self::ChainNotMet => "no traced packet came to the base chain that leads to it",
            Self::CounterMoved => "its counter moved, by packets that were not traced",
            Self::CameLater => "it is not in the rulesets that the recording has",
        }
    }
}

/// What is known of the use of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RuleUsage {
    /// A packet matched; when the last one that was traced, nanoseconds since the epoch.
    Met(Option<u64>),
    /// None did.
    Unused,
    /// It is not known.
    NotObserved(Doubt),
}

/// The evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UseEvidence {
    verdict: RuleUsage,
    /// The counter now, or of a recording when the rule was first listed.
    counter: Option<u64>,
    /// Since when the recording has the rule: nanoseconds since the epoch.
    since_ns: Option<u64>,
}

/// A rule and its use.
struct RuleUse {
    site: Site,
    effect: RuleEffect,
    evidence: UseEvidence,
}

/// Packets that the counter of a rule has counted, if it moves exactly when the rule matches.
pub(super) fn counted(rule: &Rule) -> Option<u64> {
    rule.counter.filter(|_| rule.counts_matches).map(|counter| counter.packets)
}

/// Of the kernel's rules only counters tell.
fn of_counter(rule: &Rule) -> UseEvidence {
    let counter = counted(rule);
    let verdict = match counter {
        Some(0) => RuleUsage::Unused,
        Some(_) => RuleUsage::Met(None),
        None => RuleUsage::NotObserved(Doubt::NoCounter),
    };
    UseEvidence { verdict, counter, since_ns: None }
}

/// What tells a rule from all others.
fn key(table: &Table, chain: &Chain, rule: &Rule) -> RuleKey {
    RuleKey {
        backend: table.backend,
        family: table.family,
        table: table.name.clone(),
        chain: chain.name.clone(),
        id: match rule.handle {
            Some(handle) if table.backend == Backend::Nft => RuleId::Handle(handle),
            _ => RuleId::Numbered(rule.position, rule.text.clone()),
        },
    }
}

/// The base chains that lead to each chain of a table.
fn bases(table: &Table) -> HashMap<&str, BTreeSet<&str>> {
    let called: BTreeMap<&str, Vec<&str>> = table
        .chains
        .iter()
        .map(|chain| {
            let targets = chain.rules.iter().flat_map(|rule| &rule.targets);
            (chain.name.as_str(), targets.map(|target| target.chain.as_str()).collect())
        })
        .collect();
    let mut bases: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for base in table.chains.iter().filter(|chain| chain.base.is_some()) {
        let mut open = vec![base.name.as_str()];
        while let Some(chain) = open.pop() {
            if bases.entry(chain).or_default().insert(&base.name) {
                open.extend(called.get(chain).into_iter().flatten());
            }
        }
    }
    bases
}
