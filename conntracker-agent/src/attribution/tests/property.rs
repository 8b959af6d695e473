//! Random rulesets and packets: every step that is claimed has happened.

use std::fmt::Write;

use proptest::prelude::*;

use super::{
    super::{
        ChainId, Finding, Observation, Packet, Solution, Solved, SolvedVerdict, solve,
        tests::language,
    },
    interpreter::{Decide, Fate, Interpreter, Truth},
    language::{Named, counted, show},
};
use crate::{
    firewall::{
        action::Action,
        model::{Chain, Rule},
    },
    model::path::{Outcome, Provenance},
};

/// Decisions from random bytes.
pub struct Tape<'a>(pub &'a [u8]);

impl Decide for Tape<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n
    }
}

/// Every series of decisions, one after the other.
#[derive(Default)]
struct Odometer {
    /// Each decision, and the number of its alternatives.
    digits: Vec<(usize, usize)>,
    at: usize,
}

impl Decide for Odometer {
    fn below(&mut self, n: usize) -> usize {
        if self.at == self.digits.len() {
            self.digits.push((0, n));
        }
        self.at += 1;
        self.digits[self.at - 1].0
    }
}

impl Odometer {
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((digit, of)) = self.digits.pop() {
            if digit + 1 < of {
                self.digits.push((digit + 1, of));
                return true;
            }
        }
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// All rules have exact counters, and each has one verdict.
    Counted,
    Mixed,
    Uncounted,
}

/// A ruleset: chains a, b, c on the hook, and x, y, z, which only lead onwards.
fn generate(tape: &mut impl Decide, style: Style, longest: usize) -> String {
    let legacy = style != Style::Uncounted && tape.below(2) == 0;
    let mut text = if legacy { "legacy\n" } else { "" }.to_owned();
    let bases = 1 + tape.below(3);
    for (n, name) in ["a", "b", "c"].iter().enumerate().take(bases) {
        let nat = style != Style::Counted && tape.below(4) == 0;
        let kind = if nat { "nat" } else { "base" };
        let policy = ["accept", "accept", "drop"][tape.below(3)];
        writeln!(text, "{kind} {name} {policy}").unwrap();
        // Chains of an earlier base chain can be shared.
        let onwards = &["x", "y", "z"][n.min(tape.below(2))..];
        rules(tape, style, legacy, nat, onwards, longest, &mut text);
    }
    for (n, name) in ["x", "y", "z"].iter().enumerate() {
        // The kernel's chain differs: its rules and counters are unknown.
        let differs = style == Style::Mixed && tape.below(8) == 0;
        writeln!(text, "{} {name}", if differs { "differs" } else { "chain" }).unwrap();
        rules(tape, style, legacy, false, &["x", "y", "z"][n + 1..], longest, &mut text);
    }
    text
}

fn rules(
    tape: &mut impl Decide,
    style: Style,
    legacy: bool,
    nat: bool,
    onwards: &[&str],
    longest: usize,
    text: &mut String,
) {
    for _ in 0..tape.below(longest + 1) {
        let counter = match style {
            Style::Counted => "c",
            Style::Uncounted => "-",
            Style::Mixed if legacy => ["c", "c", "-"][tape.below(3)],
            Style::Mixed => ["c", "c", "b", "-"][tape.below(4)],
        };
        let mut one = || {
            let to = |n: usize| onwards.get(n % onwards.len().max(1));
            let target = tape.below(3);
            match tape.below(16) {
                0 | 1 => "accept".to_owned(),
                2 => "drop".to_owned(),
                3 => "reject".to_owned(),
                4 | 5 => "return".to_owned(),
                6 => to(target).map_or("continue".to_owned(), |to| format!("goto {to}")),
                7..=9 => to(target).map_or("continue".to_owned(), |to| format!("jump {to}")),
                10 if nat => "nat".to_owned(),
                11 if style != Style::Counted => "queue".to_owned(),
                12 if style == Style::Mixed => "unknown".to_owned(),
                13 if style == Style::Mixed && !legacy => "wander".to_owned(),
                _ => "continue".to_owned(),
            }
        };
        let mut what = one();
        if !legacy && style != Style::Counted && counter != "c" {
            let other = one();
            if !what.contains("continue") && !other.contains("continue") && other.len() % 2 == 0 {
                write!(what, "|{other}").unwrap();
            }
        }
        writeln!(text, " {counter} {what}").unwrap();
    }
}

fn bases(named: &Named) -> Vec<ChainId> {
    let base = |chain: &&Chain| chain.base.is_some();
    let chains = named.ruleset.tables[0].chains.iter().filter(base);
    chains.map(|chain| named.chain(&chain.name)).collect()
}

fn observation(bases: &[ChainId], truth: &Truth) -> Observation {
    Observation {
        chains: bases.to_vec(),
        among: (0, bases.len() - 1),
        elsewhere: Vec::new(),
        v6: false,
        moved: truth.moved.iter().map(|(&spot, &count)| (spot, count)).collect(),
        complete: true,
        targets_seen: None,
        outcome: truth.outcome(),
        packet: Packet::default(),
    }
}

/// Every claim is true, and those that counters or structure order stand in the right order.
pub fn assert_true(named: &Named, truth: &Truth, solution: &Solution) {
    let said = || {
        format!(
            "{}\ntruth: {}",
            language::solved(named, solution),
            truth
                .steps
                .iter()
                .map(|&(chain, index, verdict)| show(
                    named,
                    &Solved {
                        chain,
                        index: Some(index),
                        verdict,
                        provenance: Provenance::Exact,
                        placed: true
                    }
                ))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    // Blocks that lead anywhere can leave open which base chain moved a counter; and long paths through chains that call
    // each other can have moved the same counters in more orders than are searched.
    let long = truth.steps.len() > 30;
    let exhausted = solution.finding == Finding::Exhausted && (long || !is_known(named));
    assert!(exhausted || solution.finding == Finding::Agrees, "{}", said());
    let mut used = vec![false; truth.steps.len()];
    let mut at = 0;
    // Those that stand in order come first.
    assert!(solution.steps.is_sorted_by_key(|step| !step.placed), "{}", said());
    for step in &solution.steps {
        let Some(index) = step.index else {
            if step.verdict != SolvedVerdict::Unknown {
                let accepted = step.verdict == SolvedVerdict::Accept;
                assert_eq!(Some(accepted), truth.fate(step.chain), "{}", said());
                // It is the last step of the base chain.
                let end = truth.fates.iter().find(|fate| fate.base == step.chain).unwrap().steps;
                assert!(at <= end, "{} is too late: {}", show(named, step), said());
                at = end;
            }
            continue;
        };
        assert!(step.placed || step.provenance == Provenance::Exact, "{}", said());
        let from = if step.placed { at } else { 0 };
        let found = (from..truth.steps.len()).find(|&n| {
            let (chain, i, verdict) = truth.steps[n];
            // What an unknown target did is known by what came next.
            let same = [step.verdict, SolvedVerdict::Unknown].contains(&verdict)
                || step.verdict == SolvedVerdict::Unknown;
            !used[n] && same && (chain, i) == (step.chain, index)
        });
        assert!(found.is_some(), "{} is wrong: {}", show(named, step), said());
        used[found.unwrap()] = true;
        if step.placed {
            at = found.unwrap() + 1;
        }
    }
}

/// Whether all rules are in the model.
fn is_known(named: &Named) -> bool {
    named.ruleset.tables[0].chains.iter().all(|chain| {
        let block = |rule: &Rule| rule.kinds.is_empty() && rule.actions.contains(&Action::Unknown);
        named.program.chain(named.chain(&chain.name)).unwrap().known
            && !chain.rules.iter().any(block)
    })
}

fn style() -> impl Strategy<Value = Style> {
    prop_oneof![Just(Style::Counted), Just(Style::Mixed), Just(Style::Uncounted)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_claimed_is_what_happened(
        style in style(),
        bytes in prop::collection::vec(any::<u8>(), 0..160),
        packets in prop::collection::vec(any::<u8>(), 0..40),
        narrow: bool,
    ) {
        let text = generate(&mut Tape(&bytes), style, 4);
        let named = counted(&text);
        let bases = bases(&named);
        let truth = Interpreter::run(&named, &bases, &mut Tape(&packets));
        let mut seen = observation(&bases, &truth);
        if narrow && seen.outcome == Outcome::Dropped {
            let dropper = bases.iter().position(|&base| truth.fate(base) == Some(false));
            seen.among = (dropper.unwrap(), dropper.unwrap());
        }
        let solution = solve(&named.program, None, &seen);
        assert_true(&named, &truth, &solution);
        // A chain entered twice can leave open which visit moved which counter.
        if style == Style::Counted && truth.visits.values().all(|&visits| visits == 1) {
            let all: Vec<_> = truth.steps.iter().map(|&(chain, index, verdict)| Solved {
                chain, index: Some(index), verdict, provenance: Provenance::Exact, placed: true,
            }).collect();
            assert_eq!(solution.steps, all, "{text}");
        }
        seen.complete = false;
        let solution = solve(&named.program, None, &seen);
        assert_true(&named, &truth, &solution);
        assert!(solution.steps.iter().all(|step| step.provenance != Provenance::Exact));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// If all possible paths agree about the rule that decided, it is claimed.
    #[test]
    fn what_is_certain_is_claimed(
        style in style(),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        packets in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let text = generate(&mut Tape(&bytes), style, 2);
        let named = counted(&text);
        let bases = bases(&named);
        let truth = Interpreter::run(&named, &bases, &mut Tape(&packets));
        let seen = observation(&bases, &truth);
        let solution = solve(&named.program, None, &seen);
        let mut alike = Vec::new();
        let mut odometer = Odometer::default();
        for n in 0.. {
            prop_assume!(n < 3_000);
            let other = Interpreter::run(&named, &bases, &mut odometer);
            if observation(&bases, &other) == seen {
                assert_true(&named, &other, &solution);
                alike.push(other);
            }
            if !odometer.next() {
                break;
            }
        }
        // Only the interpreter knows what is not in the model.
        let known = is_known(&named);
        for fate in truth.fates.iter().filter(|_| known) {
            let decider = fate.decider;
            let same = |of: &Fate| of.base == fate.base && of.decider == decider;
            if alike.iter().all(|other| other.fates.iter().any(same)) {
                let evidence = solution.steps.iter().any(|step| {
                    (step.chain, step.index) == (decider.0, Some(decider.1))
                });
                assert!(evidence, "{} does not have {decider:?} in {text}",
                    language::solved(&named, &solution));
            }
        }
    }
}
