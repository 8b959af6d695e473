//! Probes that rules need, attached as the rulesets of the observed namespaces ask for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use conntracker_common::{
    plan::{ChainKey, ChainPlace, hook, plan_index},
    record::{FAMILY_V4, FAMILY_V6},
};

use super::{places::is_v6, plan::PlacePlan};
use crate::{
    flow::NetnsId,
    kernel::bpf::{
        btf::KernelBtf,
        index::Index,
        object::Programs,
        points::{self, Points},
        probes::{self, Hookups, Probes},
        symbols::{Kallsyms, Name},
    },
};

/// Evaluators that no packet passes without matching: they run, and go on or give the verdict that the
/// rule has (net/netfilter/nft_*.c). What is not known to be one of these is looked at when it ends.
const NEVER_BREAK: &[&str] = &[
    "nft_immediate_eval",
    "nft_counter_eval",
    "nft_log_eval",
    "nft_meta_set_eval",
    "nft_ct_set_eval",
    "nft_ct_set_zone_eval",
    "nft_notrack_eval",
    "nft_reject_inet_eval",
    "nft_reject_ipv4_eval",
    "nft_reject_ipv6_eval",
    "nft_queue_eval",
];

/// Probes for rules, and what the programs know of chains.
pub(crate) struct RuleProbes {
    btf: Arc<KernelBtf>,
    points: Points,
    probes: Probes,
    /// Names of evaluators by address; `None`: it has none.
    names: HashMap<u64, Option<Name>>,
    /// Functions that each namespace's rules need.
    needed: BTreeMap<NetnsId, BTreeSet<String>>,
    /// What the map of chains has of each namespace.
    chains: HashMap<NetnsId, Vec<ChainKey>>,
}

impl fmt::Debug for RuleProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleProbes").field("needed", &self.needed).finish_non_exhaustive()
    }
}

/// Evaluators that could not be attached to, by address, and why.
pub(super) type Unseen = BTreeMap<u64, String>;

impl RuleProbes {
    /// None attached yet.
    pub fn new(btf: Arc<KernelBtf>, points: Points, probes: Probes) -> Self {
        Self {
            btf,
            points,
            probes,
            names: HashMap::new(),
            needed: BTreeMap::new(),
            chains: HashMap::new(),
        }
    }

    /// Attaches what the rules of a namespace need, and detaches what none needs any more. Returns the
    /// evaluators that cannot be seen.
    pub(super) fn arrange(
        &mut self,
        programs: &Programs,
        id: NetnsId,
        index: &Index,
        plans: &[PlacePlan],
    ) -> Result<Unseen> {
        let mut needed = BTreeSet::new();
        let mut unseen = Unseen::new();
        let chains = || plans.iter().flat_map(|plan| plan.chains.iter().map(|c| (plan.place, c)));
        let evaluators: BTreeSet<u64> = index
            .nft
            .iter()
            .flat_map(|chain| &chain.rules)
            .filter_map(|rule| Some(rule.last.as_ref()?.eval))
            .collect();
        self.name(&evaluators)?;
        for eval in evaluators {
            if let Err(error) = self.attach_evaluator(programs, eval, &mut needed) {
                unseen.insert(eval, format!("{error:#}"));
            }
        }
        for v6 in [false, true] {
            if chains().any(|(place, chain)| chain.legacy && is_v6(place) == v6) {
                let choice = if v6 { &self.points.ip6_table } else { &self.points.ip_table };
                let choice = choice.clone()?;
                self.attach(programs, &choice.points, probes::TABLE, &mut needed)?;
            }
        }
        if chains().any(|(_, chain)| !chain.legacy) {
            let choice = self.points.nft_chain.clone()?;
            self.attach(programs, &choice.points, probes::NFT_CHAIN, &mut needed)?;
        }
        self.needed.insert(id, needed);
        let needed: BTreeSet<&String> = self.needed.values().flatten().collect();
        self.probes.retain(|function| needed.contains(function));
        Ok(unseen)
    }

    /// Tells the programs where packets meet the chains of a namespace.
    pub(super) fn hand_over(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
        plans: &[PlacePlan],
    ) -> Result<()> {
        let mut before = self.chains.remove(&id).unwrap_or_default();
        let mut now = Vec::new();
        for plan in plans {
            let family = if is_v6(plan.place) { FAMILY_V6 } else { FAMILY_V4 };
            let mut first = true;
            for (chain, number) in plan.chains.iter().zip(0..) {
                let key = ChainKey {
                    chain: chain.address,
                    family: family.into(),
                    hook: hook(plan.place).into(),
                };
                let place = ChainPlace {
                    plan: plan_index(id.0, plan.place),
                    place: plan.place,
                    number,
                    first: u32::from(first),
                };
                programs
                    .set_chain(key, Some(place))
                    .context("too many base chains in all namespaces together")?;
                now.push(key);
                // Chains of NAT are for first packets: others begin with the next one.
                first &= chain.nat;
            }
        }
        before.retain(|key| !now.contains(key));
        for key in before {
            programs.set_chain(key, None)?;
        }
        self.chains.insert(id, now);
        Ok(())
    }

    fn attach(
        &mut self,
        programs: &Programs,
        points: &[points::Point],
        hookups: Hookups,
        needed: &mut BTreeSet<String>,
    ) -> Result<()> {
        for point in points {
            self.probes.attach(programs, point, hookups)?;
            needed.insert(point.function.clone());
        }
        Ok(())
    }

    /// Learns the names of functions.
    fn name(&mut self, wanted: &BTreeSet<u64>) -> Result<()> {
        let new: BTreeSet<u64> =
            wanted.iter().copied().filter(|at| !self.names.contains_key(at)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut found = Kallsyms::read()?.at(&new);
        self.names.extend(new.iter().map(|at| (*at, found.remove(at))));
        // They may be those of a module that was loaded since.
        let known = |name: &Name| self.btf.function(&name.function).is_some();
        if !self.names.values().flatten().all(known)
            && let Some(btf) = self.btf.with_new_modules()?
        {
            self.btf = Arc::new(btf);
        }
        Ok(())
    }

    fn attach_evaluator(
        &mut self,
        programs: &Programs,
        eval: u64,
        needed: &mut BTreeSet<String>,
    ) -> Result<()> {
        let name = self.names.get(&eval).cloned().flatten();
        let name = name.ok_or_else(|| anyhow!("the function at {eval:#x} has no name"))?;
        let point = points::evaluator(&self.btf, &|_| true, &name.function)?;
        let never_breaks = NEVER_BREAK.contains(&name.function.as_str());
        let hookups = if never_breaks { probes::MATCHES } else { probes::EXPRESSION };
        self.attach(programs, &[point], hookups, needed)
    }
}
