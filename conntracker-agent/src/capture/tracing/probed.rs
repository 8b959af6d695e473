//! Resolves records of probes: rules of nf_tables by the addresses of their expressions, tables of ip_tables by their
//! counters and by the data of their targets. Pure.

use std::collections::{HashMap, HashSet};

use conntracker_common::path::event;

use super::{
    join::{Join, reachable},
    plan::HookPlan,
    probes::Unseen,
};
use crate::{
    attribution::{
        ChainId, Finding, Match, Observation, Packet, Program, Solution, Solved, SolvedVerdict,
        Spot, replay, solve,
    },
    bpf::{
        index::{
            Index,
            nft::{Evaluator, NftRule},
        },
        path::{Event, PathRecord},
    },
    capture::tracing::Unresolved,
    firewall::Ruleset,
    model::path::{Outcome, Provenance},
};

/// `enum nft_verdicts` that are netfilter's own (include/uapi/linux/netfilter.h), the low byte.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_STOLEN: u32 = 2;
const NF_QUEUE: u32 = 3;

/// Rules and chains of nf_tables by their addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// The last expression of each rule.
    rules: HashMap<u64, Spot>,
    /// Expressions before the last one that may end their rule with a verdict.
    early: HashMap<u64, Spot>,
    chains: HashMap<u64, ChainId>,
    /// Rules whose matches probes see.
    told: HashSet<Spot>,
    /// The data of targets of ip_tables that a probe watches.
    targets: HashMap<u64, Spot>,
    /// Base chains from which packets reach rules that probes cannot see.
    blind: HashSet<ChainId>,
}

impl Addresses {
    /// Addresses of all chains whose rules are the listed ones.
    pub fn new(
        index: &Index,
        ruleset: &Ruleset,
        join: &Join,
        program: &Program,
        unseen: &Unseen,
    ) -> Self {
        let mut addresses = Self::default();
        let mut hidden = HashSet::new();
        for chain in &index.nft {
            let Some((at, agrees)) = join.nft_chain(chain.address) else { continue };
            let Some(id) = program.id(at.0, at.1) else { continue };
            addresses.chains.insert(chain.address, id);
            let hides = |rule: &NftRule| {
                rule.evaluators().any(|one| unseen.evaluators.contains_key(&one.eval))
            };
            if !agrees || chain.rules.iter().any(hides) {
                hidden.insert(at);
            }
            if agrees {
                let seen = chain
                    .rules
                    .iter()
                    .zip(0..)
                    .filter(|(rule, _)| rule.last.is_some() && !hides(rule));
                addresses.told.extend(seen.map(|(_, index)| Spot { chain: id, index }));
                for (rule, index) in chain.rules.iter().zip(0..) {
                    let spot = |one: &Evaluator| (one.expression, Spot { chain: id, index });
                    addresses.rules.extend(rule.last.iter().map(spot));
                    addresses.early.extend(rule.early.iter().map(spot));
                }
            }
        }
        for chain in &index.nft {
            if let Some((at, _)) = join.nft_chain(chain.address)
                && reachable(ruleset, at).iter().any(|at| hidden.contains(at))
            {
                addresses.blind.extend(program.id(at.0, at.1));
                let behind = reachable(ruleset, at).into_iter();
                let behind: HashSet<ChainId> =
                    behind.filter_map(|at| program.id(at.0, at.1)).collect();
                addresses.told.retain(|spot| !behind.contains(&spot.chain));
            }
        }
        for table in &index.legacy {
            for chain in &table.chains {
                let at = join.legacy_chain(table.address, &chain.name);
                let Some(id) = at.and_then(|at| program.id(at.0, at.1)) else { continue };
                let watched = chain.targets.iter().zip(0..).filter_map(|(target, index)| {
                    let target = target.filter(|of| !unseen.targets.contains_key(&of.function))?;
                    Some((target.data, Spot { chain: id, index }))
                });
                addresses.targets.extend(watched);
            }
        }
        addresses
    }

    /// Rules of ip_tables whose targets a probe watches.
    pub fn watched(&self) -> impl Iterator<Item = Spot> {
        self.targets.values().copied()
    }

    /// Whether probes see every match of a rule of nf_tables.
    pub fn tells(&self, spot: Spot) -> bool {
        self.told.contains(&spot)
    }

    fn matched(&self, expression: u64, verdict: Option<(i32, Option<u64>)>) -> Option<Match> {
        let spot = self.ended(expression, verdict)?;
        let verdict = match verdict {
            None => None,
            Some((code, chain)) => Some(self.verdict(code, chain)?),
        };
        Some(Match { spot, verdict })
    }

    /// The rule that ended with an expression: its last one, or an earlier one with a verdict. Before Linux 5.17 the
    /// programs report earlier ones also when the rule goes on.
    fn ended(&self, expression: u64, verdict: Option<(i32, Option<u64>)>) -> Option<Spot> {
        let early = || {
            verdict.filter(|(code, _)| *code != event::NFT_CONTINUE)?;
            self.early.get(&expression)
        };
        self.rules.get(&expression).or_else(early).copied()
    }

    /// The verdict of a code (`enum nft_verdicts`, and netfilter's own).
    fn verdict(&self, code: i32, chain: Option<u64>) -> Option<SolvedVerdict> {
        use event::{NFT_CONTINUE, NFT_GOTO, NFT_JUMP, NFT_RETURN};
        let chain = || self.chains.get(&chain?).copied();
        Some(match code {
            NFT_CONTINUE => SolvedVerdict::Continue,
            NFT_RETURN => SolvedVerdict::Return,
            NFT_JUMP => SolvedVerdict::Jump(chain()?),
            NFT_GOTO => SolvedVerdict::Goto(chain()?),
            other => netfilter(other.cast_unsigned()),
        })
    }
}

/// A verdict of netfilter. Since Linux 6.10 nf_tables drops packets itself and returns NF_STOLEN with an
/// errno in the upper half (`NF_DROP_REASON`).
fn netfilter(code: u32) -> SolvedVerdict {
    match code & 0xff {
        NF_DROP => SolvedVerdict::Drop,
        NF_ACCEPT => SolvedVerdict::Accept,
        NF_STOLEN if code >> 16 != 0 => SolvedVerdict::Drop,
        NF_STOLEN => SolvedVerdict::Stolen,
        NF_QUEUE => SolvedVerdict::Queue,
        _ => SolvedVerdict::Unknown,
    }
}

/// What a target of xtables returned.
fn target(result: u32) -> SolvedVerdict {
    match result {
        event::XT_CONTINUE => SolvedVerdict::Continue,
        event::XT_RETURN => SolvedVerdict::Return,
        verdict => netfilter(verdict),
    }
}

/// The visit of a packet to one base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visit {
    /// Number among the chains of the hook point.
    number: usize,
    /// The known rules that it matched.
    met: Vec<Match>,
    /// Rules of ip_tables whose targets ran, with the verdicts of those.
    targets_seen: Vec<(Spot, SolvedVerdict)>,
    /// Whether it matched a rule that is not in the listing.
    stray: bool,
    /// The result of the chain's function; `None` if the packet did not reach its end.
    returned: Option<u32>,
}

/// The base chains that a packet met.
fn visits(events: &[Event], addresses: &Addresses) -> Option<Vec<Visit>> {
    let mut visits: Vec<Visit> = Vec::new();
    for event in events {
        match *event {
            Event::Enter(number) => visits.push(Visit {
                number: number as usize,
                met: Vec::new(),
                targets_seen: Vec::new(),
                stray: false,
                returned: None,
            }),
            Event::Target { data, result } => {
                let visit = visits.last_mut()?;
                match addresses.targets.get(&data) {
                    Some(spot) => visit.targets_seen.push((*spot, target(result))),
                    None => visit.stray = true,
                }
            }
            Event::Leave(code) => visits.last_mut()?.returned = Some(code),
            Event::Rule { expression, verdict } => {
                let visit = visits.last_mut()?;
                match addresses.matched(expression, verdict) {
                    // An evaluator may call another one with the same expression: that of the family inet calls that
                    // of IPv4 or IPv6. No rule matches twice in succession.
                    Some(found) => match visit.met.last_mut() {
                        Some(last) if last.spot == found.spot => *last = found,
                        _ => visit.met.push(found),
                    },
                    // The expression ends no rule, because the probed functions evaluate other expressions too.
                    None => visit.stray |= addresses.ended(expression, verdict).is_some(),
                }
            }
        }
    }
    Some(visits)
}

/// The steps of a record, and whether they contradict the ruleset.
pub(super) fn steps(
    record: &PathRecord,
    events: &[Event],
    plan: &HookPlan,
    program: &Program,
    addresses: &Addresses,
) -> Result<(Vec<Solved>, bool), Unresolved> {
    let visits = visits(events, addresses).ok_or(Unresolved::Reference)?;
    let last = visits.len().saturating_sub(1);
    let mut steps = Vec::new();
    let mut contradiction = false;
    for (at, visit) in visits.iter().enumerate() {
        let planned = plan.chains.get(visit.number).ok_or(Unresolved::Reference)?;
        let Some((_, chain)) = planned.chain else { continue };
        let end = match visit.returned {
            Some(code) => netfilter(code),
            None if at == last && record.dropped => SolvedVerdict::Drop,
            None => SolvedVerdict::Unknown,
        };
        let solution = if planned.legacy {
            legacy(record, plan, program, chain, visit, end)?
        } else if visit.stray || record.truncated || addresses.blind.contains(&chain) {
            let provenance = Provenance::Chain;
            let step = Solved { chain, index: None, verdict: end, provenance, placed: true };
            Solution { steps: vec![step], finding: Finding::Agrees }
        } else {
            replay(program, chain, &visit.met, end)
        };
        if solution.finding == Finding::Contradiction {
            log::debug!(
                "record and rules contradict each other in {chain:?}: {visit:?}, {events:x?}"
            );
            contradiction = true;
        }
        steps.extend(solution.steps);
    }
    Ok((steps, contradiction))
}

/// The steps in a table of ip_tables, from the counters that belong to it and the targets that ran.
fn legacy(
    record: &PathRecord,
    plan: &HookPlan,
    program: &Program,
    chain: ChainId,
    visit: &Visit,
    end: SolvedVerdict,
) -> Result<Solution, Unresolved> {
    let of = program.indices(chain).map(|(table, _)| table);
    let mut moved = Vec::new();
    for &(slot, packets) in &record.moved {
        let spot = *plan.slots.get(usize::from(slot)).ok_or(Unresolved::Reference)?;
        if program.indices(spot.chain).map(|(table, _)| table) == of {
            moved.push((spot, u32::from(packets)));
        }
    }
    moved.sort_unstable();
    let outcome = if end == SolvedVerdict::Drop { Outcome::Dropped } else { Outcome::Passed };
    Ok(solve(
        program,
        None,
        &Observation {
            v6: record.orig.src.is_ipv6(),
            chains: vec![chain],
            among: (0, 0),
            elsewhere: Vec::new(),
            moved,
            complete: !record.nested && !record.truncated,
            targets_seen: (!visit.stray && !record.truncated).then(|| visit.targets_seen.clone()),
            outcome,
            packet: Packet::default(),
        },
    ))
}

/// The marks at the positions where links would be: `gaps` has the number of chains before each. If the packet
/// skipped a chain of NAT, the marks are those at the beginning of the next one.
pub(super) fn marks(record: &PathRecord, events: &[Event], gaps: &[usize]) -> Vec<(u32, u32)> {
    let entered = events.iter().filter_map(|event| match event {
        Event::Enter(number) => Some(*number as usize),
        _ => None,
    });
    // No marks are needed before the first chain.
    let borders: Vec<(usize, (u32, u32))> =
        entered.skip(1).zip(record.marks.iter().copied()).collect();
    gaps.iter()
        .map_while(|&before| {
            borders.iter().find(|(number, _)| *number >= before).map(|(_, marks)| *marks)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: Spot = Spot { chain: ChainId(1), index: 4 };

    fn addresses() -> Addresses {
        Addresses {
            rules: HashMap::from([(0x10, SPOT), (0x20, Spot { index: 5, ..SPOT })]),
            early: HashMap::from([(0x30, SPOT)]),
            chains: HashMap::from([(0x1000, ChainId(7))]),
            told: HashSet::new(),
            targets: HashMap::from([(0x40, SPOT)]),
            blind: HashSet::new(),
        }
    }

    fn rule(expression: u64, verdict: Option<(i32, Option<u64>)>) -> Event {
        Event::Rule { expression, verdict }
    }

    #[test]
    fn events_belong_to_the_chain_that_was_entered_last() {
        let events = [
            Event::Enter(0),
            rule(0x10, None),
            // Not the last expression of a rule.
            rule(0x18, None),
            Event::Leave(1),
            Event::Enter(2),
            // One evaluator has called another.
            rule(0x20, Some((-3, Some(0x1000)))),
            rule(0x20, Some((-3, Some(0x1000)))),
        ];
        let visits = visits(&events, &addresses()).unwrap();
        let jump = Some(SolvedVerdict::Jump(ChainId(7)));
        let visit = |number, met, returned| Visit {
            number,
            met,
            targets_seen: Vec::new(),
            stray: false,
            returned,
        };
        assert_eq!(
            visits,
            [
                visit(0, vec![Match { spot: SPOT, verdict: None }], Some(1)),
                visit(2, vec![Match { spot: Spot { index: 5, ..SPOT }, verdict: jump }], None),
            ]
        );
    }

    #[test]
    fn a_chain_that_is_not_known_makes_the_rule_a_stray_and_events_need_a_chain() {
        let lost = [Event::Enter(0), rule(0x10, Some((-4, Some(0x2000))))];
        assert!(visits(&lost, &addresses()).unwrap()[0].stray);
        assert_eq!(visits(&[rule(0x10, None)], &addresses()), None);
    }

    #[test]
    fn an_expression_before_the_last_ends_its_rule_only_with_a_verdict() {
        let met = |code, chain| {
            let events = [Event::Enter(0), rule(0x30, Some((code, chain)))];
            let visit = visits(&events, &addresses()).unwrap().remove(0);
            (visit.met, visit.stray)
        };
        let dropped = Match { spot: SPOT, verdict: Some(SolvedVerdict::Drop) };
        assert_eq!(met(0, None), (vec![dropped], false));
        assert_eq!(met(event::NFT_CONTINUE, None), (vec![], false));
        assert_eq!(met(event::NFT_JUMP, Some(0x2000)), (vec![], true));
    }

    #[test]
    fn targets_tell_their_rules_and_unknown_ones_make_strays() {
        let ran = |data, result| Event::Target { data, result };
        let events = [
            Event::Enter(1),
            ran(0x40, event::XT_CONTINUE),
            ran(0x40, 0),
            ran(0x40, event::XT_RETURN),
        ];
        let visits_of = |events: &[Event]| visits(events, &addresses()).unwrap();
        let targets_seen = [SolvedVerdict::Continue, SolvedVerdict::Drop, SolvedVerdict::Return];
        let visit = &visits_of(&events)[0];
        assert_eq!(visit.targets_seen, targets_seen.map(|verdict| (SPOT, verdict)));
        assert!(!visit.stray);
        assert!(visits_of(&[Event::Enter(1), ran(0x48, 1)])[0].stray);
    }

    #[test]
    fn verdicts_of_netfilter_are_read_by_value() {
        assert_eq!(netfilter(0x10002), SolvedVerdict::Drop);
        assert_eq!(netfilter(2), SolvedVerdict::Stolen);
        assert_eq!(netfilter(0x0003_0003), SolvedVerdict::Queue);
        assert_eq!(netfilter(1), SolvedVerdict::Accept);
        assert_eq!(netfilter(0), SolvedVerdict::Drop);
    }
}
