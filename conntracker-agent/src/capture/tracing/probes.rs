//! The probes that rules need. The rulesets of the observed namespaces decide which are attached.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use conntracker_common::{
    plan::{ChainKey, HookedChain, hook, plan_index},
    record::{FAMILY_V4, FAMILY_V6},
};

use super::{hook_points::is_v6, plan::HookPlan};
use crate::{
    bpf::{
        btf::KernelBtf,
        index::{Index, nft::NftRule},
        object::{Programs, Seeing},
        points::{Choice, NoPoint, Point, Points, Search},
        probes::{self, Hookups, Method, Probes},
        symbols::{Kallsyms, Name},
    },
    capture::kernel::Kernel,
    model::NetnsId,
};

/// Evaluators that never end a rule without a match: they go on, or give the rule's verdict (net/netfilter/nft_*.c).
/// All others need a probe at their end.
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

/// What a function of a rule is.
#[derive(Clone, Copy)]
enum Kind {
    /// One that evaluates expressions of nf_tables.
    Evaluator,
    /// A target of ip_tables.
    Target,
}

/// Probes for rules, and the programs' map of chains.
pub(crate) struct RuleProbes {
    btf: Arc<KernelBtf>,
    points: Points,
    /// Functions that are left alone.
    avoid: Vec<String>,
    method: Method,
    /// The arguments that the programs were loaded with.
    seeing: Seeing,
    probes: Probes,
    /// Names of evaluators by address.
    names: HashMap<u64, Vec<Name>>,
    /// Functions that each namespace's rules need.
    needed: BTreeMap<NetnsId, BTreeSet<String>>,
    /// The keys in the map of chains, by namespace.
    chains: HashMap<NetnsId, Vec<ChainKey>>,
}

impl fmt::Debug for RuleProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleProbes").field("needed", &self.needed).finish_non_exhaustive()
    }
}

/// Functions to which no probe could be attached, by address, with the reason.
pub(super) type Refused = BTreeMap<u64, String>;

/// What probes cannot see.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// Evaluators of nf_tables.
    pub evaluators: Refused,
    /// Targets of ip_tables.
    pub targets: Refused,
}

impl RuleProbes {
    /// None attached yet.
    pub fn new(kernel: &Kernel, method: Method, seeing: Seeing) -> Self {
        let Kernel { btf, points, avoid, .. } = kernel;
        Self {
            btf: Arc::clone(btf),
            points: points.clone(),
            avoid: avoid.clone(),
            method,
            seeing,
            probes: Probes::new(method),
            names: HashMap::new(),
            needed: BTreeMap::new(),
            chains: HashMap::new(),
        }
    }

    /// Attaches the probes that the rules of a namespace need. Returns the functions that were refused.
    pub(super) fn arrange(
        &mut self,
        programs: &Programs,
        id: NetnsId,
        index: &Index,
        plans: &[HookPlan],
    ) -> Result<Unseen> {
        let mut needed = BTreeSet::new();
        let chains =
            || plans.iter().flat_map(|plan| plan.chains.iter().map(|c| (plan.hook_point, c)));
        let evaluators: BTreeSet<u64> = index
            .nft
            .iter()
            .flat_map(|chain| &chain.rules)
            .flat_map(NftRule::evaluators)
            .map(|evaluator| evaluator.eval)
            .collect();
        let targets: BTreeSet<u64> = index
            .legacy
            .iter()
            .flat_map(|table| &table.chains)
            .flat_map(|chain| chain.targets.iter().flatten())
            .map(|target| target.function)
            .collect();
        self.name(evaluators.union(&targets))?;
        let mut unseen = Unseen::default();
        for (functions, refused, kind) in [
            (evaluators, &mut unseen.evaluators, Kind::Evaluator),
            (targets, &mut unseen.targets, Kind::Target),
        ] {
            for function in functions {
                if let Err(error) = self.attach_named(programs, function, kind, &mut needed) {
                    refused.insert(function, format!("{error:#}"));
                }
            }
        }
        for v6 in [false, true] {
            if chains().any(|(hook_point, chain)| chain.legacy && is_v6(hook_point) == v6) {
                let of = |points: &Points| {
                    if v6 { points.ip6_table.clone() } else { points.ip_table.clone() }
                };
                let choice = self.choice(of)?;
                self.attach(programs, &choice.points, probes::TABLE, &mut needed)?;
            }
        }
        if chains().any(|(_, chain)| !chain.legacy) {
            let choice = self.choice(|points| points.nft_chain.clone())?;
            self.attach(programs, &choice.points, probes::NFT_CHAIN, &mut needed)?;
        }
        self.needed.insert(id, needed);
        Ok(unseen)
    }

    /// Detaches probes that no rules need. Attaching and detaching take long, so this waits until the rulesets have
    /// stopped changing.
    pub(super) fn detach_unneeded(&mut self) -> Result<()> {
        let needed: BTreeSet<&String> = self.needed.values().flatten().collect();
        Ok(self.probes.retain(|function| needed.contains(function))?)
    }

    /// As [`Probes::missed`].
    pub fn missed(&self) -> Result<u64> {
        Ok(self.probes.missed()?)
    }

    /// Writes the hook points of the chains of a namespace into the programs' map; `slot` is its number there.
    pub(super) fn hand_over(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
        slot: u32,
        plans: &[HookPlan],
    ) -> Result<()> {
        let mut before = self.chains.remove(&id).unwrap_or_default();
        let mut now = Vec::new();
        for plan in plans {
            let family = if is_v6(plan.hook_point) { FAMILY_V6 } else { FAMILY_V4 };
            let mut first = true;
            for (chain, number) in plan.chains.iter().zip(0..) {
                let key = ChainKey {
                    chain: chain.address,
                    family: family.into(),
                    hook: hook(plan.hook_point).into(),
                };
                let hook_point = HookedChain {
                    plan: plan_index(slot, plan.hook_point),
                    hook_point: plan.hook_point,
                    number,
                    first: u32::from(first),
                };
                programs
                    .set_chain(key, Some(hook_point))
                    .context("too many base chains in all namespaces together")?;
                now.push(key);
                // Only first packets meet chains of NAT, so others begin at the next chain.
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

    /// A namespace is gone.
    pub(super) fn forget(&mut self, programs: &mut Programs, id: NetnsId) -> Result<()> {
        self.needed.remove(&id);
        self.hand_over(programs, id, 0, &[])
    }

    /// The functions for a purpose. Their module may have been loaded after the programs, so their arguments must be
    /// those that the programs were loaded with.
    fn choice(&mut self, of: impl Fn(&Points) -> Result<Choice, NoPoint>) -> Result<Choice> {
        if let Ok(choice) = of(&self.points) {
            return Ok(choice);
        }
        if let Some(btf) = self.btf.with_new_modules()? {
            self.btf = Arc::new(btf);
        }
        let kallsyms = Kallsyms::read()?;
        let names = kallsyms.names();
        let exists = |name: &str| names.contains(name);
        self.points =
            Points::resolve(Search { btf: &self.btf, exists: &exists, avoid: &self.avoid });
        let choice = of(&self.points)?;
        if probes::seeing(&self.btf, &self.points, self.method)? != self.seeing {
            bail!("a module of the firewall was loaded after the trace began: begin it anew");
        }
        Ok(choice)
    }

    fn attach(
        &mut self,
        programs: &Programs,
        points: &[Point],
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
    fn name<'a>(&mut self, wanted: impl Iterator<Item = &'a u64>) -> Result<()> {
        let new: BTreeSet<u64> =
            wanted.copied().filter(|at| !self.names.contains_key(at)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut found = Kallsyms::read()?.at(&new);
        self.names.extend(new.iter().map(|at| (*at, found.remove(at).unwrap_or_default())));
        // They may belong to a module that was loaded since.
        let known = |name: &Name| self.btf.function(&name.function).is_some();
        if !self.names.values().flatten().all(known)
            && let Some(btf) = self.btf.with_new_modules()?
        {
            self.btf = Arc::new(btf);
        }
        Ok(())
    }

    fn attach_named(
        &mut self,
        programs: &Programs,
        function: u64,
        kind: Kind,
        needed: &mut BTreeSet<String>,
    ) -> Result<()> {
        let names = self.names.get(&function).map_or(&[][..], |names| names);
        let mut point = Err(anyhow!("the function at {function:#x} has no name"));
        let search = Search { btf: &self.btf, exists: &|_| true, avoid: &self.avoid };
        for name in names {
            if point.is_err() {
                let found = match kind {
                    Kind::Evaluator => search.evaluator(&name.function),
                    Kind::Target => search.target(&name.function),
                };
                point = found.map_err(Into::into);
            }
        }
        let point = point?;
        let hookups = match kind {
            Kind::Target => probes::TARGET,
            Kind::Evaluator if NEVER_BREAK.contains(&point.function.as_str()) => probes::MATCHES,
            Kind::Evaluator => probes::EXPRESSION,
        };
        self.attach(programs, &[point], hookups, needed)
    }
}
