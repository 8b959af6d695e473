//! An epoch: one ruleset of one namespace, which turns records of packets into traversals. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use conntracker_common::{
    conntrack::{
        IP_CT_ESTABLISHED_REPLY, IP_CT_NEW, IP_CT_RELATED, IP_CT_RELATED_REPLY, IP_CT_UNTRACKED,
        IPS_DST_NAT_DONE, IPS_EXPECTED, IPS_SRC_NAT_DONE,
    },
    hook::{LOCAL_OUT, PRE_ROUTING},
    plan::{SEGMENT_EARLY, hook, segment},
};

use super::{
    coverage::EpochCoverage,
    facts,
    plan::{HookPlan, Others},
    probed::{self, Addresses},
};
use crate::{
    attribution::{
        ChainId, Finding, KernelRules, Observation, Packet, Program, Solved, SolvedVerdict, Spot,
        solve,
    },
    bpf::path::{Event, PathRecord},
    capture::tracing::Unresolved,
    firewall::Ruleset,
    model::{
        hook::Hook,
        path::{
            CtState, Direction, Doubt, MarksBehind, Outcome, Site, SiteKind, Step, Traversal,
            Verdict,
        },
    },
    report::coverage::Coverage,
};

/// The most distinct paths of an epoch that share their memory, and the most solved observations that are cached.
const SHARED: usize = 65_536;

/// A ruleset as packets met it.
#[derive(Debug)]
pub(super) struct Epoch {
    /// Number, from 1.
    pub number: u32,
    ruleset: Ruleset,
    program: Program,
    plans: BTreeMap<u32, HookPlan>,
    /// Whether conntrack is active for IPv4, and for IPv6.
    tracked: [bool; 2],
    /// Whether flows are folded: a record then stands for all flows of its folded key that take its path.
    folds: bool,
    /// With probes: where rules and chains are.
    addresses: Option<Addresses>,
    /// Steps of solved observations, by hook point.
    solved: HashMap<(u32, Seen), Found>,
    sites: HashMap<(ChainId, Option<u32>), Arc<Site>>,
    shared: HashSet<Arc<Traversal>>,
    /// The rules as the kernel has them, where no probe sees them.
    kernel: Option<KernelRules>,
    /// Coverage of its rules; only for `rules hits`.
    rule_coverage: Option<EpochCoverage>,
    /// Base chains that some packet met without further facts about their rules.
    untold: BTreeSet<ChainId>,
}

/// The facts about a packet at a hook point that decide its steps.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Seen {
    Counters(Box<Observation>),
    Probes {
        events: Vec<Event>,
        moved: Vec<(u16, u16)>,
        dropped: bool,
        nested: bool,
        truncated: bool,
    },
}

/// The solution of an observation.
#[derive(Clone, Debug)]
struct Found {
    steps: Arc<[Step]>,
    /// Base chains whose rules are unknown for this packet.
    chains: Arc<[ChainId]>,
    /// Whether no path through the rules agrees with it.
    contradiction: bool,
}

impl Epoch {
    /// An epoch whose plans are in place.
    pub fn new(
        number: u32,
        ruleset: Ruleset,
        program: Program,
        plans: Vec<HookPlan>,
        addresses: Option<Addresses>,
        tracked: [bool; 2],
        folds: bool,
    ) -> Self {
        Self {
            number,
            ruleset,
            program,
            addresses,
            plans: plans.into_iter().map(|plan| (plan.hook_point, plan)).collect(),
            tracked,
            folds,
            solved: HashMap::new(),
            sites: HashMap::new(),
            shared: HashSet::new(),
            kernel: None,
            rule_coverage: None,
            untold: BTreeSet::new(),
        }
    }

    /// Asks the kernel's own rules where the listing leaves something open.
    pub fn evaluated(self, kernel: Option<KernelRules>) -> Self {
        Self { kernel, ..self }
    }

    /// Keeps what is seen of the rules.
    pub fn watched(self, rule_coverage: Option<EpochCoverage>) -> Self {
        Self { rule_coverage, ..self }
    }

    /// The traversal of a record, and whether model and counters contradict each other.
    pub fn traversal(&mut self, record: &PathRecord) -> Result<(Arc<Traversal>, bool), Unresolved> {
        let plan = self.plans.get(&record.hook_point).ok_or(Unresolved::Reference)?;
        let doubt = doubt(record, plan);
        let seen = if let Some(events) = &record.events {
            Seen::Probes {
                events: events.clone(),
                moved: record.moved.clone(),
                dropped: record.dropped,
                nested: record.nested,
                truncated: record.truncated,
            }
        } else {
            let mut seen = observation(record, plan, doubt)?;
            seen.packet = facts::packet(record, plan, &self.program, &seen, self.folds);
            self.program.forget_unneeded(&mut seen);
            Seen::Counters(Box::new(seen))
        };
        let key = (record.hook_point, seen);
        let Found { steps, chains, contradiction } = if let Some(known) = self.solved.get(&key) {
            known.clone()
        } else {
            let (solved, contradiction) = match (&key.1, &self.addresses) {
                (Seen::Counters(observation), _) => {
                    let solution = solve(&self.program, self.kernel.as_ref(), observation);
                    (solution.steps, solution.finding == Finding::Contradiction)
                }
                (Seen::Probes { events, .. }, Some(addresses)) => {
                    probed::steps(record, events, plan, &self.program, addresses)?
                }
                (Seen::Probes { .. }, None) => return Err(Unresolved::Reference),
            };
            let chains = solved.iter().filter(|step| step.index.is_none()).map(|step| step.chain);
            let chains = chains.collect();
            let steps = solved.iter().filter_map(|solved| self.step(solved)).collect();
            let steps = Found { steps, chains, contradiction };
            if self.solved.len() >= SHARED {
                self.solved.clear();
            }
            self.solved.insert(key, steps.clone());
            steps
        };
        self.note_unresolved_chains(record, &chains, doubt, contradiction);
        let from_conntrack = record.reply.is_some();
        let marks = self.marks(record);
        let traversal = Traversal {
            marks,
            hook: Hook::BY_NUMBER[usize::from(hook(record.hook_point))],
            direction: match record.info {
                IP_CT_ESTABLISHED_REPLY | IP_CT_RELATED_REPLY if from_conntrack => Direction::Reply,
                _ => Direction::Original,
            },
            state: self.state(record),
            outcome: outcome(record),
            epoch: self.number,
            packet_mark: record.packet_mark,
            connmark: from_conntrack.then_some(record.ct_mark),
            nat: record.reply_before.zip(record.reply),
            fragment: record.fragment,
            steps,
            doubt: if contradiction { Some(Doubt::Mismatch) } else { doubt },
        };
        Ok((self.share(traversal), contradiction))
    }

    /// Notes the base chains whose rules a record leaves open. A counter that did not move proves that its rule did
    /// not match, unless other packets moved counters too or the record names only some; probes report each chain of
    /// nf_tables separately.
    fn note_unresolved_chains(
        &mut self,
        record: &PathRecord,
        chains: &[ChainId],
        doubt: Option<Doubt>,
        contradiction: bool,
    ) {
        let probed = record.events.is_some();
        if probed {
            self.untold.extend(chains);
        }
        if !contradiction && doubt.is_none() {
            return;
        }
        let Some(plan) = self.plans.get(&record.hook_point) else { return };
        let all = contradiction || record.truncated || !probed;
        let met = plan.chains.iter().filter(|chain| all || (record.nested && chain.legacy));
        self.untold.extend(met.filter_map(|chain| Some(chain.chain?.1)));
    }

    /// Adds what is known of its rules.
    pub fn add_to(&self, coverage: &mut Coverage) {
        let Self { number, rule_coverage, ruleset, program, untold, .. } = self;
        if let Some(rule_coverage) = rule_coverage {
            rule_coverage.add_to(coverage, *number, ruleset, program, untold);
        }
    }

    /// The rules.
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    fn share(&mut self, traversal: Traversal) -> Arc<Traversal> {
        if let Some(known) = self.shared.get(&traversal) {
            return Arc::clone(known);
        }
        let new = Arc::new(traversal);
        if self.shared.len() < SHARED {
            self.shared.insert(Arc::clone(&new));
        }
        new
    }

    /// Marks behind each chain that a link separates from the next one; probes read them at each chain.
    fn marks(&mut self, record: &PathRecord) -> Arc<[MarksBehind]> {
        let Some(plan) = self.plans.get(&record.hook_point) else { return Arc::new([]) };
        let marks = match &record.events {
            Some(events) => probed::marks(record, events, &plan.gaps),
            None => record.marks.clone(),
        };
        let mut first = 0;
        let segments: Vec<(Option<ChainId>, bool)> = plan
            .gaps
            .iter()
            .map(|&end| {
                let chains = plan.chains.get(first..end).unwrap_or_default();
                first = end;
                (chains.last().and_then(|chain| Some(chain.chain?.1)), chains.len() == 1)
            })
            .collect();
        segments
            .into_iter()
            .zip(marks)
            .filter_map(|((chain, alone), (packet, connection))| {
                let chain = self.site_of(chain?, None)?;
                Some(MarksBehind { chain, alone, packet, connection })
            })
            .collect()
    }

    fn state(&self, record: &PathRecord) -> CtState {
        if segment(record.hook_point) == SEGMENT_EARLY {
            return CtState::Early;
        }
        let v6 = usize::from(record.orig.src.is_ipv6());
        match (record.reply, record.info) {
            (None, IP_CT_UNTRACKED) => CtState::Untracked,
            (None, _) if self.tracked[v6] => CtState::Invalid,
            (None, _) => CtState::Untracked,
            (Some(_), IP_CT_NEW) => CtState::New,
            (Some(_), IP_CT_RELATED | IP_CT_RELATED_REPLY) => CtState::Related,
            (Some(_), _) => CtState::Established,
        }
    }

    fn step(&mut self, solved: &Solved) -> Option<Step> {
        let site = self.site_of(solved.chain, solved.index)?;
        let Solved { verdict, provenance, placed, .. } = *solved;
        Some(Step { site, verdict: self.verdict(verdict), provenance, placed })
    }

    /// The site of a rule, which is in memory once.
    fn site_of(&mut self, chain: ChainId, index: Option<u32>) -> Option<Arc<Site>> {
        if let Some(known) = self.sites.get(&(chain, index)) {
            return Some(Arc::clone(known));
        }
        let site = Arc::new(self.site(chain, index)?);
        self.sites.insert((chain, index), Arc::clone(&site));
        Some(site)
    }

    fn site(&self, chain: ChainId, index: Option<u32>) -> Option<Site> {
        let (t, c) = self.program.indices(chain)?;
        let table = self.ruleset.tables.get(t)?;
        let chain = table.chains.get(c)?;
        let rule = index.and_then(|index| chain.rules.get(index as usize));
        let kind = match (index, rule) {
            (None, _) => SiteKind::Chain,
            (Some(_), Some(_)) => SiteKind::Rule,
            (Some(_), None) if chain.base.is_some() => SiteKind::Policy,
            (Some(_), None) => SiteKind::Return,
        };
        Some(Site {
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            iptables: table.iptables,
            chain: chain.name.clone(),
            kind,
            position: index.map(|index| index + 1),
            handle: rule.and_then(|rule| rule.handle),
            text: rule.map(|rule| rule.text.clone()),
        })
    }

    fn name(&self, chain: ChainId) -> String {
        let found = self
            .program
            .indices(chain)
            .and_then(|(t, c)| Some(&self.ruleset.tables.get(t)?.chains.get(c)?.name));
        found.cloned().unwrap_or_default()
    }

    fn verdict(&self, solved: SolvedVerdict) -> Verdict {
        match solved {
            SolvedVerdict::Accept => Verdict::Accept,
            SolvedVerdict::Drop => Verdict::Drop,
            SolvedVerdict::Reject => Verdict::Reject,
            SolvedVerdict::Continue => Verdict::Continue,
            SolvedVerdict::Return => Verdict::Return,
            SolvedVerdict::Jump(to) => Verdict::Jump(self.name(to)),
            SolvedVerdict::Goto(to) => Verdict::Goto(self.name(to)),
            SolvedVerdict::Queue => Verdict::Queue,
            SolvedVerdict::Stolen => Verdict::Stolen,
            SolvedVerdict::Unknown => Verdict::Unknown,
        }
    }
}

fn outcome(record: &PathRecord) -> Outcome {
    if record.dropped { Outcome::Dropped } else { Outcome::Passed }
}

/// Why the counters do not tell everything.
fn doubt(record: &PathRecord, plan: &HookPlan) -> Option<Doubt> {
    if record.nested {
        Some(Doubt::Nested)
    } else if record.truncated {
        Some(Doubt::Capped)
    } else if plan.chains.iter().any(|chain| chain.chain.is_none()) {
        Some(Doubt::Mismatch)
    } else {
        None
    }
}

/// Whether NAT may have routed a packet again, because the addresses of its flow are translated
/// (`nf_nat_ipv4_local_fn` of net/netfilter/nf_nat_proto.c). The status would show that, but programs read it of
/// first packets only.
fn is_translated(record: &PathRecord) -> bool {
    record.reply.is_some_and(|reply| record.orig.inverted() != Some(reply))
}

/// The observation of a record, for the solver.
pub(super) fn observation(
    record: &PathRecord,
    plan: &HookPlan,
    doubt: Option<Doubt>,
) -> Result<Observation, Unresolved> {
    let done = match hook(record.hook_point) {
        PRE_ROUTING | LOCAL_OUT => IPS_DST_NAT_DONE,
        _ => IPS_SRC_NAT_DONE,
    };
    // `nf_nat_inet_fn` of net/netfilter/nf_nat_core.c. The first packets of expected flows are related, and so are
    // ICMP errors, for which NAT decides nothing.
    let first = record.info == IP_CT_NEW
        || (matches!(record.info, IP_CT_RELATED | IP_CT_RELATED_REPLY)
            && record.status & IPS_EXPECTED != 0);
    let translates = record.reply.is_some() && first && record.status & done == 0;
    let mut moved: Vec<(Spot, u32)> = record
        .moved
        .iter()
        .map(|&(slot, packets)| {
            let spot = plan.slots.get(usize::from(slot)).ok_or(Unresolved::Reference)?;
            Ok((*spot, u32::from(packets)))
        })
        .collect::<Result<_, _>>()?;
    moved.sort_unstable();
    let (gaps, passed) = (&plan.gaps, usize::from(record.gaps));
    let from = passed.checked_sub(1).and_then(|last| gaps.get(last)).copied().unwrap_or(0);
    let to = gaps.get(passed).copied().unwrap_or(plan.chains.len());
    let mut chains = Vec::new();
    let mut elsewhere = Vec::new();
    // `nf_nat_icmp_reply_translation` of net/netfilter/nf_nat_proto.c.
    let error = matches!(record.info, IP_CT_RELATED | IP_CT_RELATED_REPLY);
    let may_drop = |others: Others| record.dropped && (others.strangers || (others.nat && error));
    let mut among: Option<(usize, usize)> = None;
    // The kernel routes outgoing packets again behind chains that change their mark or addresses, and may find no
    // route (`ip_route_me_harder` of net/ipv4/netfilter.c).
    let routed_again = hook(record.hook_point) == LOCAL_OUT;
    let mut behind_nat = None;
    for (number, planned) in plan.chains.iter().enumerate() {
        if (from..to).contains(&number) && may_drop(planned.after) {
            elsewhere.push(chains.len());
        }
        let Some((_, chain)) = planned.chain else { continue };
        if planned.nat {
            // A reset that a rule sends is related too, and meets NAT like a first packet.
            let met = translates || (error && moved.iter().any(|(spot, _)| spot.chain == chain));
            behind_nat = Some(chains.len() + usize::from(met));
            if !met {
                continue;
            }
        }
        if (from..to).contains(&number) {
            let at = chains.len();
            among = Some(among.map_or((at, at), |(first, _)| (first, at)));
        }
        chains.push(chain);
    }
    if to == plan.chains.len() && may_drop(plan.end) {
        elsewhere.push(chains.len());
    }
    let last = chains.len().saturating_sub(1);
    if record.dropped {
        if routed_again && record.packet_mark.0 != record.packet_mark.1 {
            elsewhere.extend(1..=chains.len());
        }
        elsewhere.extend(behind_nat.filter(|_| error || (routed_again && is_translated(record))));
    }
    Ok(Observation {
        v6: record.orig.src.is_ipv6(),
        among: among.unwrap_or((0, last)),
        elsewhere,
        chains,
        moved,
        complete: doubt.is_none(),
        targets_seen: None,
        outcome: outcome(record),
        packet: Packet::default(),
    })
}
