//! From an observation to steps.

use super::{
    ChainId, Observation, Packet, Solved, SolvedVerdict, Spot,
    common::{Left, Live},
    items::{Item, items},
    kernel_rules::KernelRules,
    program::{Knowledge, Program, ProgramChain, ProgramRule, RuleOutcome},
    walk,
};
use crate::{
    firewall::model::{ChainType, Policy},
    model::path::{Outcome, Provenance},
};

/// The path of a packet, as far as an observation proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Steps in the order in which the packet met them; then those whose order the counters leave open.
    pub steps: Vec<Solved>,
    /// How well the observation agrees with the program.
    pub finding: Finding,
}

/// How well an observation agrees with a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// Some paths agree with it; the steps are those that all of them share.
    Agrees,
    /// There are too many paths: the steps are those that counters prove alone.
    Exhausted,
    /// No verdict of a rule explains the drop. (Extensions of xtables drop packets that they cannot read or change.)
    Unexplained,
    /// No path agrees with it, so the kernel evaluates another program.
    Contradiction,
}

/// Finds the steps that are common to all paths through the program which agree with the observation.
/// `kernel`: its rules are asked where conditions of the program leave something open.
#[must_use]
pub fn solve(program: &Program, kernel: Option<&KernelRules>, seen: &Observation) -> Solution {
    if !is_of(program, seen) {
        return chains_only(program, seen, Finding::Contradiction);
    }
    let solution = solve_with_fields(program, kernel, seen);
    if solution.finding != Finding::Contradiction || seen.packet == Packet::default() {
        return solution;
    }
    let unknown = Observation { packet: Packet::default(), ..seen.clone() };
    match solve_with_fields(program, kernel, &unknown).finding {
        Finding::Contradiction => solution,
        // The fields of the packet contradict the counters, so only the counters are used.
        _ => Solution { finding: Finding::Contradiction, ..exact_only(program, seen) },
    }
}

/// As [`solve`], with all known fields of the packet.
fn solve_with_fields(
    program: &Program,
    kernel: Option<&KernelRules>,
    seen: &Observation,
) -> Solution {
    let dropped = seen.outcome == Outcome::Dropped;
    for (sudden, finding) in [(false, Finding::Agrees), (true, Finding::Unexplained)] {
        if sudden && !dropped {
            break;
        }
        let Ok(graph) = walk::walk(program, kernel, seen, sudden) else {
            return exact_only(program, seen);
        };
        if let Some(live) = Live::of(&graph) {
            return Solution { steps: steps(program, seen, &live), finding };
        }
    }
    chains_only(program, seen, Finding::Contradiction)
}

/// Whether an observation has only chains and rules of this program.
fn is_of(program: &Program, seen: &Observation) -> bool {
    let is_base = |&id| program.chain(id).is_some_and(|chain| chain.base.is_some());
    let is_there = |&(Spot { chain, index }, _): &(Spot, u32)| {
        program.chain(chain).is_some_and(|chain| index <= chain.end())
    };
    let ascends = seen.moved.is_sorted_by(|(a, _), (b, _)| a < b);
    let is_watched = |(spot, _): &(Spot, SolvedVerdict)| program.is_watched(*spot);
    seen.chains.iter().all(is_base)
        && seen.moved.iter().all(is_there)
        && seen.targets_seen.iter().flatten().all(is_watched)
        && ascends
}

fn chain_step(chain: ChainId, verdict: SolvedVerdict) -> Solved {
    Solved { chain, index: None, verdict, provenance: Provenance::Chain, placed: true }
}

/// What the paths have in common.
fn steps(program: &Program, seen: &Observation, live: &Live<'_>) -> Vec<Solved> {
    let left: Vec<Left> = (0..seen.chains.len()).map(|base| live.left(base)).collect();
    let items = items(program, live, &left);
    let step = |item: &Item<'_>| {
        let end = program.chain(item.spot.chain).map_or(0, ProgramChain::end);
        let step = item.step(live, end, seen.complete);
        // On an unknown path the rule may have given another verdict.
        let known = item.placed || !live.has_opaque();
        let verdict = if known { None } else { exact_verdict(program, seen, item.spot) };
        Solved { verdict: verdict.unwrap_or(step.verdict), ..step }
    };
    let all: Vec<Solved> = items.iter().map(step).collect();
    let missing = missing(program, seen, &all);
    let mut steps = Vec::new();
    for (base, &id) in seen.chains.iter().enumerate() {
        let known = |step: &Solved| !live.is_opaque(base) || step.provenance == Provenance::Exact;
        let here = items
            .iter()
            .zip(&all)
            .filter(|(item, step)| item.placed && item.is_in(base) && known(step));
        steps.extend(here.map(|(_, step)| *step));
        steps.extend(placed(&missing).filter(|step| step.chain == id));
        match left[base] {
            Left::By(_) | Left::Never | Left::Perhaps(false) => {}
            Left::Somehow(_) if is_decided(&all, id) || is_decided(&missing, id) => {}
            Left::Somehow(verdict) => steps.push(chain_step(id, verdict)),
            Left::Perhaps(true) => steps.push(chain_step(id, SolvedVerdict::Unknown)),
        }
    }
    steps.extend(all.iter().chain(&missing).filter(|step| !step.placed));
    steps
}

fn placed(steps: &[Solved]) -> impl Iterator<Item = Solved> {
    steps.iter().copied().filter(|step| step.placed)
}

/// Whether the steps have the rule that decided in a base chain.
fn is_decided(steps: &[Solved], base: ChainId) -> bool {
    use SolvedVerdict::{Accept, Drop, Reject, Stolen};
    steps.iter().any(|step| {
        step.chain == base
            && step.index.is_some()
            && matches!(step.verdict, Accept | Drop | Reject | Stolen)
    })
}

/// Exact steps that `steps` lacks, in program order. A packet meets the rules of a base chain in this order, but
/// those of other chains at any time.
fn missing(program: &Program, seen: &Observation, known: &[Solved]) -> Vec<Solved> {
    let mut found = Vec::new();
    for (spot, count) in seen.evidence(program) {
        let is = |step: &&Solved| (step.chain, step.index) == (spot.chain, Some(spot.index));
        let evidence = known.iter().filter(is).count();
        if let Some(verdict) = exact_verdict(program, seen, spot) {
            let step = Solved {
                chain: spot.chain,
                index: Some(spot.index),
                verdict,
                provenance: Provenance::Exact,
                placed: program.chain(spot.chain).is_some_and(|chain| chain.base.is_some()),
            };
            found.extend(std::iter::repeat_n(step, (count as usize).saturating_sub(evidence)));
        }
    }
    found
}

/// The verdict of a rule whose counter moved or whose target ran, as far as that proves it; `None` if the rule may
/// not have matched.
fn exact_verdict(program: &Program, seen: &Observation, spot: Spot) -> Option<SolvedVerdict> {
    let chain = program.chain(spot.chain)?;
    let Some(rule) = chain.rules.get(spot.index as usize) else {
        return match chain.base {
            None => Some(SolvedVerdict::Return),
            Some((policy, _)) => Some(match policy {
                Policy::Accept => SolvedVerdict::Accept,
                Policy::Drop => SolvedVerdict::Drop,
            }),
        };
    };
    let targets_seen = rule.watched && seen.targets_seen.is_some();
    (targets_seen || rule.knowledge == Knowledge::Exact).then(|| only_verdict(program, seen, rule))
}

fn only_verdict(program: &Program, seen: &Observation, rule: &ProgramRule) -> SolvedVerdict {
    let passed = seen.outcome == Outcome::Passed;
    match *program.outcomes(rule) {
        [RuleOutcome::Continue] if !passed && rule.fragile => SolvedVerdict::Unknown,
        [RuleOutcome::Nat] if passed => SolvedVerdict::Accept,
        [outcome] => outcome.verdict().unwrap_or(SolvedVerdict::Unknown),
        _ => SolvedVerdict::Unknown,
    }
}

/// Steps that counters prove alone, and base chains.
fn exact_only(program: &Program, seen: &Observation) -> Solution {
    let evidence = missing(program, seen, &[]);
    let mut steps = Vec::new();
    for (&id, chain) in seen.chains.iter().zip(chain_steps(program, seen)) {
        steps.extend(placed(&evidence).filter(|step| step.chain == id));
        steps.extend(chain.filter(|_| !is_decided(&evidence, id)));
    }
    steps.extend(evidence.iter().filter(|step| !step.placed));
    Solution { steps, finding: Finding::Exhausted }
}

/// Nothing but the base chains.
fn chains_only(program: &Program, seen: &Observation, finding: Finding) -> Solution {
    Solution { steps: chain_steps(program, seen).flatten().collect(), finding }
}

/// What is known of each base chain without its rules.
fn chain_steps(program: &Program, seen: &Observation) -> impl Iterator<Item = Option<Solved>> {
    let (first, last) = seen.among;
    let dropped = seen.outcome == Outcome::Dropped;
    let only = first == last && seen.elsewhere.is_empty();
    let translates = |id: &ChainId| {
        program.chain(*id).and_then(|chain| chain.base).is_some_and(|(_, of)| of == ChainType::Nat)
    };
    let nat = seen.chains.iter().position(translates);
    seen.chains.iter().enumerate().map(move |(base, id)| {
        let verdict = match base {
            // One before it may have translated.
            _ if translates(id) && nat < Some(base) => return None,
            _ if !dropped || base < first => SolvedVerdict::Accept,
            _ if base > last => return None,
            _ if only => SolvedVerdict::Drop,
            _ => SolvedVerdict::Unknown,
        };
        Some(chain_step(*id, verdict))
    })
}
