//! Traces rules: for each namespace it has the present ruleset (an epoch) and the links around its base chains, and
//! turns records of packets into traversals.
//!
//! After a change (nf_tables notifies; the pointers of ip_tables and the hooks are polled) a thread lists the ruleset
//! and kernel memory is read again. If nothing changed meanwhile, the two are joined, links are attached and plans
//! are written for the programs. Until then packets are not traced: the programs notice that their plans are
//! outdated, and count the packets.

mod answers;
mod changes;
pub(crate) mod coverage;
mod epoch;
mod facts;
mod hand_over;
mod hook_points;
mod ipvs;
mod join;
mod links;
mod listers;
mod namespaces;
mod plan;
mod probed;
mod probes;
mod recorded;
mod remarks;
mod start;
mod tally;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use conntracker_common::plan::HOOK_POINTS;
use tokio::{sync::mpsc, time::Instant};

pub(crate) use self::{
    changes::RuleChanges,
    listers::{Listed, Listers},
    probes::RuleProbes,
};
use self::{
    coverage::EpochCoverage, epoch::Epoch, hook_points::hook_point_name, join::Join,
    namespaces::Namespaces, plan::Planner, plan::Unresolved, probed::Addresses, probes::Unseen,
    tally::RuleTally,
};
use crate::{
    attribution::{KernelRules, Program},
    bpf::{
        activity::Activity,
        index::{Fingerprint, Index, layout::IndexLayout, memory::Gone},
        object::Programs,
        offsets::Layout,
        path::PathRecord,
        symbols::Symbols,
    },
    firewall::Ruleset,
    model::{
        NetnsId,
        path::{Outcome, Traversal},
    },
    os::{clock::since_boot_ns, netns::Netns},
    recording::statement,
};

/// Interval between two comparisons of the hooks and the tables of ip_tables with the epoch, because the kernel
/// notifies of neither.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Time between two attempts to list a ruleset, after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Time without a change of rules after which unneeded probes are detached.
const TIDY_AFTER: Duration = Duration::from_secs(30);

/// The most modules that are loaded one after the other while the ruleset is read.
const MODULES_AT_ONCE: usize = 4;

/// The user's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleOptions {
    /// Trace also one packet in so many, at random, of flows whose paths are known; 0: none.
    pub sample: u32,
    /// Links between all base chains.
    pub per_chain: bool,
    /// Trace only some of the new flows whose folded key has taken the same path many times.
    pub sampling: bool,
    /// Keep the coverage of rules.
    pub coverage: bool,
    /// Flows fold.
    pub folds: bool,
    /// Rulesets are recorded.
    pub record: bool,
}

/// The tracer of rules.
pub(crate) struct RuleTracer {
    layout: IndexLayout,
    symbols: Symbols,
    options: RuleOptions,
    /// Probes see packets, not links.
    probes: Option<RuleProbes>,
    namespaces: Namespaces,
    /// Number of the last epoch.
    epoch: u32,
    /// Rulesets that were not taken to be recorded.
    unrecorded: Vec<statement::Ruleset>,
    /// Changes with every plan.
    generation: u32,
    /// Where the next ranges go.
    next_range: u32,
    pub tally: RuleTally,
    listers: Listers,
    next_poll: Instant,
    /// Whether the trace is starting: the user was not told yet that packets are observed.
    starting: bool,
    /// When probes are tidied up.
    tidy_at: Option<Instant>,
}

impl RuleTracer {
    /// Traces no namespace yet. Threads send listed rulesets by `sender`.
    pub fn new(
        layout: &Layout,
        symbols: Symbols,
        options: RuleOptions,
        probes: Option<RuleProbes>,
        sender: mpsc::UnboundedSender<Listed>,
    ) -> Self {
        Self {
            layout: layout.index.clone(),
            symbols,
            options,
            probes,
            namespaces: Namespaces::default(),
            epoch: 0,
            unrecorded: Vec::new(),
            generation: 0,
            next_range: 0,
            tally: RuleTally::default(),
            listers: Listers::new(sender, options.record),
            next_poll: Instant::now() + POLL_EVERY,
            starting: true,
            tidy_at: None,
        }
    }

    /// Adds a namespace and returns its number for the programs. Its rules are listed at the next poll.
    pub fn add(&mut self, programs: &mut Programs, id: NetnsId, netns: &Arc<Netns>) -> Result<u32> {
        let net = programs.kernel_memory().net(netns)?;
        Ok(self.namespaces.add(id, netns, net)?.slot)
    }

    /// A namespace is gone.
    pub fn forget(&mut self, programs: &mut Programs, id: NetnsId) -> Result<()> {
        let Some(namespace) = self.namespaces.end(id) else { return Ok(()) };
        for hook_point in 0..HOOK_POINTS as u32 {
            programs.set_plan(namespace.slot, hook_point, None)?;
        }
        match &mut self.probes {
            Some(probes) => probes.forget(programs, id),
            None => Ok(()),
        }
    }

    /// Forgets a namespace that has ended.
    pub fn forget_all_of(&mut self, id: NetnsId) {
        self.namespaces.remove(id);
    }

    fn index(&mut self, programs: &mut Programs, id: NetnsId) -> Result<Index> {
        let net = self.namespaces.get(id)?.net;
        let Self { layout, symbols, .. } = self;
        for _ in 0..MODULES_AT_ONCE {
            match Index::read(programs.kernel_memory(), layout, symbols, net) {
                // The module with the rules may have been loaded since.
                Err(error) if !error.is::<Gone>() && !layout.is_complete() => {
                    *layout = Layout::of_running_kernel()?.index;
                }
                result => return result,
            }
        }
        Index::read(programs.kernel_memory(), layout, symbols, net)
    }

    /// Notes that the rules of a namespace could not be read, and when to try again.
    fn fail(&mut self, id: NetnsId, error: &anyhow::Error) {
        self.tally.failed += 1;
        if let Ok(namespace) = self.namespaces.get(id) {
            namespace.not_before = Instant::now() + AFTER_FAILURE;
            let why = format!("{error:#}");
            // The message comes once, though the attempts go on.
            if namespace.failed.as_ref() != Some(&why) {
                log::warn!("{why}; rules are not traced until it can be read");
            }
            namespace.failed = Some(why);
        }
    }

    /// Checks whether anything changed, if the interval has passed; with `now` in any case. An error in one namespace
    /// does not affect the others.
    pub fn poll(&mut self, programs: &mut Programs, now: bool) {
        if !now && Instant::now() < self.next_poll {
            return;
        }
        self.next_poll = Instant::now() + POLL_EVERY;
        if let Some(probes) = &mut self.probes
            && self.tidy_at.is_some_and(|at| at <= Instant::now())
        {
            if let Err(error) = probes.detach_unneeded() {
                log::warn!("probes that no rules need stay attached: {error:#}");
            }
            self.tidy_at = None;
        }
        let traced: Vec<NetnsId> = self.namespaces.traced().map(|(id, _)| id).collect();
        for id in traced {
            if let Err(error) = self.check_namespace(programs, id) {
                self.fail(id, &error);
            }
        }
    }

    /// Checks whether the rules of a namespace have changed.
    fn check_namespace(&mut self, programs: &mut Programs, id: NetnsId) -> Result<()> {
        let namespace = self.namespaces.get(id)?;
        if namespace.listing.is_some() || Instant::now() < namespace.not_before {
            return Ok(());
        }
        if let Some(current) = &namespace.current {
            let found = current.now(programs.kernel_memory());
            match found {
                Ok(found) if found == *current => return Ok(()),
                Err(error) if !error.is::<Gone>() => {
                    namespace.current = None;
                    return Err(error);
                }
                _ => {
                    log::debug!("namespace {}: rules have changed", namespace.netns.name);
                    namespace.current = None;
                }
            }
        }
        if self.listers.are_busy() { Ok(()) } else { self.renew(programs, id) }
    }

    /// Begins a new epoch, after a thread has listed the ruleset if the rules changed.
    fn renew(&mut self, programs: &mut Programs, id: NetnsId) -> Result<()> {
        let index = match self.index(programs, id) {
            Ok(index) => index,
            Err(error) if error.is::<Gone>() => {
                // The ruleset keeps changing; the next poll tries again.
                self.tally.races += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let now = index.fingerprint();
        let namespace = self.namespaces.get(id)?;
        let [current, _] = &namespace.epochs;
        if let (Some(epoch), Some(listed)) = (current, &namespace.listed)
            && now.same_rules(listed)
        {
            // Only functions at the hooks have changed: conntrack's, or links of another program.
            let (ruleset, listed) = (epoch.ruleset().clone(), listed.clone());
            self.begin(programs, id, ruleset, &listed)?;
            return Ok(());
        }
        self.list(id, now)
    }

    /// Lists a ruleset in a thread.
    fn list(&mut self, id: NetnsId, now: Fingerprint) -> Result<()> {
        let namespace = self.namespaces.get(id)?;
        self.listers.list(id, &namespace.netns)?;
        namespace.listing = Some(now);
        Ok(())
    }

    /// A ruleset was listed.
    pub fn on_listed(&mut self, programs: &mut Programs, listed: Listed) {
        let Listed { netns: id, result } = listed;
        let Ok(namespace) = self.namespaces.get(id) else { return };
        let Some(before) = namespace.listing.take().filter(|_| !namespace.gone) else { return };
        match result {
            Ok(ruleset) => {
                let begun = self
                    .begin(programs, id, ruleset, &before)
                    .and_then(|begun| if begun { Ok(()) } else { self.renew(programs, id) });
                if let Err(error) = begun {
                    self.fail(id, &error);
                }
            }
            Err(error) => self.fail(id, &error),
        }
    }

    /// Begins an epoch, if the ruleset is still the listed one; false if not.
    fn begin(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
        mut ruleset: Ruleset,
        before: &Fingerprint,
    ) -> Result<bool> {
        let index = match self.index(programs, id) {
            Ok(index) => index,
            Err(error) if error.is::<Gone>() => {
                self.tally.races += 1;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let now = index.fingerprint();
        // Added or removed functions at the hooks are no change of rules.
        if !now.same_rules(before) {
            self.tally.races += 1;
            return Ok(false);
        }
        let mut join = Join::new(&index, &ruleset);
        let mut untold: Vec<String> = join
            .mismatched
            .iter()
            .map(|chain| {
                format!("the rules of chain {chain} in the kernel are not those that were listed: they are not told apart")
            })
            .collect();
        let mut without_links = BTreeSet::new();
        let (mut program, plans) = loop {
            let program = Program::new(&ruleset, &join);
            let planner = Planner {
                index: &index,
                ruleset: &ruleset,
                join: &join,
                program: &program,
                per_chain: self.options.per_chain,
                probes: self.probes.is_some(),
                ipvs: ipvs::is_loaded(),
                words: self.layout.words(),
            };
            let mut plans = planner.plans();
            plans.retain(|plan| !without_links.contains(&plan.hook_point));
            if let Some(why) = programs.without_counters() {
                for plan in plans.extract_if(.., |plan| !plan.ranges.is_empty()) {
                    if without_links.insert(plan.hook_point) {
                        untold.push(format!(
                            "{} is not traced: counters of rules cannot be read, for {why}",
                            hook_point_name(plan.hook_point)
                        ));
                    }
                }
            }
            let namespace = self.namespaces.get(id)?;
            // With probes the plans want none.
            let failed = namespace.links.arrange(programs, &namespace.netns, &plans)?;
            if failed.is_empty() {
                break (program, plans);
            }
            for (hook_point, why) in failed {
                // At these hook points packets move counters unseen, perhaps counters of other hooks too: the answer
                // of a reject is sent while the rejected packet is traced.
                let slots = plans
                    .iter()
                    .filter(|plan| plan.hook_point == hook_point)
                    .flat_map(|p| &p.slots);
                join.hide(
                    slots.filter_map(|spot| Some((program.indices(spot.chain)?, spot.index))),
                );
                if without_links.insert(hook_point) {
                    untold.push(format!("{} is not traced: {why}", hook_point_name(hook_point)));
                }
            }
        };
        let namespace = self.namespaces.get(id)?;
        namespace.capped = join.capped();
        namespace.notes.clone_from(&ruleset.notes);
        if self.probes.is_none() {
            namespace.notes.extend(remarks::without_counters(&ruleset));
        }
        namespace.untold = untold;
        namespace.untold.extend(ruleset.unread.iter().cloned());
        let unlisted = plans.iter().flat_map(|plan| &plan.chains).filter(|c| c.chain.is_none());
        let unlisted = unlisted.count();
        if unlisted > 0 {
            namespace
                .untold
                .push(format!("{unlisted} base chains were not listed: their rules are unknown"));
        }
        let unseen = match &mut self.probes {
            Some(probes) => probes.arrange(programs, id, &index, &plans)?,
            None => Unseen::default(),
        };
        let namespace = self.namespaces.get(id)?;
        namespace.notes.extend(unseen.evaluators.values().map(|why| {
            format!(
                "rules of nf_tables that end with the same expression are not told apart: {why}"
            )
        }));
        namespace.notes.extend(unseen.targets.values().map(|why| {
            format!(
                "rules of ip_tables with the same target are identified by their counters alone: {why}"
            )
        }));
        // The functions now include our own links.
        let index = match self.index(programs, id) {
            Ok(index) => index,
            Err(error) if error.is::<Gone>() => {
                self.tally.races += 1;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let fingerprint = index.fingerprint();
        if !fingerprint.same_rules(&now) {
            self.tally.races += 1;
            return Ok(false);
        }
        self.epoch += 1;
        let handed = self.hand_over(programs, id, &plans, &fingerprint)?;
        let Activity { v4, v6 } = Activity::of(&index.hooks);
        let addresses = self
            .probes
            .is_some()
            .then(|| Addresses::new(&index, &ruleset, &join, &program, &unseen));
        if let Some(addresses) = &addresses {
            program.watch(addresses.watched());
        }
        let traced = if handed { &*plans } else { &[] };
        let unobserved = coverage::unobserved(&index, &ruleset, &join, traced);
        let untraceable = coverage::untraceable(&ruleset, &unobserved);
        let may_drop = coverage::may_drop(&ruleset, &unobserved);
        let rule_coverage = self.options.coverage.then(|| {
            let addresses = addresses.as_ref();
            EpochCoverage::new(&ruleset, &join, &program, addresses, &unobserved, self.starting)
        });
        let began_ns = since_boot_ns();
        let kernel = if self.probes.is_none() { KernelRules::new(&ruleset) } else { None };
        self.record(id, &mut ruleset, began_ns);
        let (folds, tracked) = (self.options.folds, [v4, v6]);
        let epoch = Epoch::new(self.epoch, ruleset, program, plans, addresses, tracked, folds)
            .evaluated(kernel)
            .watched(rule_coverage);
        let namespace = self.namespaces.get(id)?;
        namespace.notes.extend(coverage::note(&untraceable));
        // They may have existed when a packet was dropped.
        namespace.may_drop.extend(may_drop);
        namespace.may_drop.sort_unstable();
        namespace.may_drop.dedup();
        let [current, previous] = &mut namespace.epochs;
        if let Some(over) = std::mem::replace(previous, current.replace(epoch)) {
            over.add_to(&mut namespace.coverage);
        }
        namespace.listed = Some(now);
        namespace.current = Some(fingerprint);
        namespace.failed = None;
        self.tally.epochs += 1;
        self.tally.epoch_began_ns = began_ns;
        self.tidy_at = Some(Instant::now() + TIDY_AFTER);
        log::debug!("epoch {} of namespace {} begins", self.epoch, namespace.netns.name);
        Ok(true)
    }

    /// The traversal of a record; `None`, which is counted, if it cannot be resolved.
    pub fn resolve(&mut self, id: NetnsId, record: &PathRecord) -> Option<Arc<Traversal>> {
        let namespace = self.namespaces.get(id).ok()?;
        let epoch =
            namespace.epochs.iter_mut().flatten().find(|epoch| epoch.number == record.epoch);
        let resolved = epoch.ok_or(Unresolved::Reference).and_then(|epoch| epoch.traversal(record));
        let (traversal, contradiction) = match resolved {
            Ok(resolved) => resolved,
            Err(why) => {
                log::debug!("a path of epoch {} is not resolved: {why:?}", record.epoch);
                self.tally.unresolved += 1;
                return None;
            }
        };
        self.tally.contradictions += u64::from(contradiction);
        self.tally.nested += u64::from(record.nested);
        // Later packets of a flow skip chains of NAT, so their traversal may be empty.
        let tells = !traversal.steps.is_empty()
            || traversal.packet_mark.0 != traversal.packet_mark.1
            || traversal.connmark.is_some_and(|(before, after)| before != after)
            || traversal.outcome == Outcome::Dropped;
        tells.then_some(traversal)
    }

    /// Number of epochs so far.
    pub fn epochs(&self) -> u64 {
        self.tally.epochs
    }

    /// Runs of probes that the kernel skipped.
    pub fn missed(&self) -> Result<u64> {
        self.probes.as_ref().map_or(Ok(0), RuleProbes::missed)
    }

    /// Links around base chains.
    pub fn links(&self) -> usize {
        self.namespaces.all().map(|namespace| namespace.links.len()).sum()
    }
}

#[cfg(test)]
mod tests;
