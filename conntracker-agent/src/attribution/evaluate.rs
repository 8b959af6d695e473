//! Evaluates rules with the known fields of a packet: whether they match, with which verdicts, and which marks they
//! set.

use super::{
    condition::{PacketAtRule, Tri},
    packet::{Needs, Translation},
    program::{Marking, ProgramRule, RuleOutcome, Sets},
};
use crate::firewall::clause::{
    Clause, Condition, MapElement, MapElements, Operand, Test, VerdictMap,
};

/// What conditions say of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Evaluation {
    /// Whether the rule matches, so that its actions are carried out.
    pub matches: Tri,
    /// The possible outcomes, if the packet excludes some of the rule's.
    pub outcomes: Option<Vec<RuleOutcome>>,
    /// Packet mark and connmark behind the rule if it matches, where the kernel's own rule says more than the model.
    pub marks: Option<[Option<u32>; 2]>,
}

/// How the clauses set packet mark and connmark.
pub(super) fn markings(clauses: &[Clause]) -> [Marking; 2] {
    let mut markings = [Marking::default(); 2];
    let mut decided = false;
    for clause in clauses {
        match clause {
            // Packets that already got a verdict do not reach this clause.
            Clause::Mark { connection, .. } if decided => {
                markings[usize::from(*connection)] = Marking::ANYHOW;
            }
            Clause::Mark { connection, value } => {
                // Setting the connmark has no effect on packets without an entry.
                let number = value.filter(|_| !connection);
                markings[usize::from(*connection)].sets = number.map_or(Sets::Anything, Sets::To);
            }
            clause if clause.is_fallible() => {
                decided |= clause.gives_verdict();
                for marking in &mut markings {
                    marking.early |= marking.acts();
                }
            }
            _ => {}
        }
    }
    markings
}

/// Whether the rule can give a verdict before its counter, which then does not count those packets.
pub(super) fn decides_before_counter(clauses: &[Clause]) -> bool {
    let counter = clauses.iter().rposition(|clause| *clause == Clause::Counter);
    counter.is_some_and(|at| clauses[..at].iter().any(Clause::gives_verdict))
}

/// The fields of a packet that decide whether a rule matches.
pub(super) fn needs(clauses: &[Clause]) -> Needs {
    let fields = |operands: &[Operand]| {
        operands.iter().fold(Needs::NONE, |sum, operand| sum.and(Needs::of(operand.field)))
    };
    clauses.iter().fold(Needs::NONE, |sum, clause| {
        sum.and(match clause {
            Clause::Condition(Condition { operands, .. })
            | Clause::Map(VerdictMap { operands, .. }) => fields(operands),
            Clause::Translate(translate) if translate.ports.is_some() => Needs::NAT_PORT,
            Clause::Translate(_) => Needs::NAT,
            // The kernel's rule may read marks to compute others.
            Clause::Unknown | Clause::Mark { value: None, .. } => Needs::COMPUTED,
            _ => Needs::NONE,
        })
    })
}

impl ProgramRule {
    /// What conditions say of the rule.
    pub fn evaluate(&self, at: &PacketAtRule<'_>) -> Evaluation {
        // A rule of ip_tables has none.
        let mut matches = if self.clauses.is_empty() { Tri::Unknown } else { Tri::Yes };
        let mut at = *at;
        let mut clauses = self.clauses.iter();
        while let Some(clause) = clauses.next() {
            match clause {
                Clause::Condition(condition) => matches = matches.and(at.meets(condition)),
                Clause::Unknown => matches = matches.and(Tri::Unknown),
                Clause::Map(map) => {
                    let goes_on =
                        clauses.as_slice().iter().any(|clause| *clause != Clause::Counter);
                    return self.look_up(&at, map, matches, goes_on);
                }
                Clause::Verdict => break,
                // Conditions behind it see the new one.
                Clause::Mark { connection: false, value } => at.mark = *value,
                Clause::Mark { connection: true, .. } => at.connmark = None,
                Clause::Counter | Clause::Headers | Clause::Translate(_) => {}
            }
            if matches == Tri::No {
                break;
            }
        }
        Evaluation { matches, outcomes: None, marks: None }
    }

    fn look_up(
        &self,
        at: &PacketAtRule<'_>,
        map: &VerdictMap,
        matches: Tri,
        goes_on: bool,
    ) -> Evaluation {
        let open = Evaluation { matches: matches.and(Tri::Unknown), outcomes: None, marks: None };
        let (MapElements::Listed(elements), Some(outcomes)) = (&map.elements, &self.map_outcomes)
        else {
            return open;
        };
        // An element for all other keys.
        let is_rest = |element: &MapElement| element.key.iter().all(|test| *test == Test::Any);
        let is = |element: &MapElement| at.looks_up(&map.operands, &element.key);
        let mut found = Tri::No;
        let mut possible: Vec<RuleOutcome> = Vec::new();
        let all = || elements.iter().zip(outcomes);
        for (element, outcome) in all().filter(|(element, _)| !is_rest(element)) {
            match is(element) {
                Tri::No => {}
                Tri::Unknown => {
                    possible.push(*outcome);
                    found = Tri::Unknown;
                }
                Tri::Yes => {
                    // Keys do not overlap.
                    possible = vec![*outcome];
                    found = Tri::Yes;
                    break;
                }
            }
        }
        if found != Tri::Yes {
            for (element, outcome) in all().filter(|(element, _)| is_rest(element)) {
                let rest = is(element);
                if rest != Tri::No {
                    possible.push(*outcome);
                    found = found.or(rest);
                }
            }
        }
        possible.sort_unstable();
        possible.dedup();
        if goes_on && possible.contains(&RuleOutcome::Continue) {
            return open;
        }
        Evaluation { matches: matches.and(found), outcomes: Some(possible), marks: None }
    }

    /// Whether this rule can have made this translation.
    pub fn may_make(&self, translation: &Translation) -> bool {
        let mut all = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Translate(translate) => Some(translate),
            _ => None,
        });
        let (Some(only), None) = (all.next(), all.next()) else { return true };
        let same_family = |a: std::net::IpAddr| a.is_ipv4() == translation.address.is_ipv4();
        let address = only.addresses.is_none_or(|(first, last)| {
            !(same_family(first) && same_family(last))
                || (first..=last).contains(&translation.address)
        });
        let port = match (only.ports, translation.port) {
            (Some((first, last)), Some(port)) => (first..=last).contains(&port),
            _ => true,
        };
        only.source != translation.source || (address && port)
    }
}
