//! Random rulesets and packets: what is claimed is what happened.

use std::{collections::BTreeMap, fmt::Write};

use proptest::prelude::*;

use super::{
    super::{
        ChainId, Finding, Observation, Solution, Solved, SolvedVerdict, Spot, solve,
        tests::language,
    },
    language::{Named, counted, show},
};
use crate::{
    flow::path::{Outcome, Provenance},
    ruleset::model::{Action, Backend, Chain, ChainType, Policy, Rule, Via},
};

/// A source of decisions.
trait Decide {
    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize;
}

/// Decisions from random bytes.
struct Tape<'a>(&'a [u8]);

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
    /// What is decided, and out of how many.
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
        // The kernel has it otherwise: its rules and counters are not known.
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

/// What happened to a packet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Truth {
    steps: Vec<(ChainId, u32, SolvedVerdict)>,
    moved: BTreeMap<Spot, u32>,
    visits: BTreeMap<ChainId, u32>,
    fates: Vec<Fate>,
}

/// What a base chain did that the packet met.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    base: ChainId,
    accepted: bool,
    /// The step that decided.
    decider: (ChainId, u32),
}

impl Truth {
    fn outcome(&self) -> Outcome {
        if self.fates.last().is_none_or(|fate| fate.accepted) {
            Outcome::Passed
        } else {
            Outcome::Dropped
        }
    }

    fn fate(&self, base: ChainId) -> Option<bool> {
        self.fates.iter().find(|fate| fate.base == base).map(|fate| fate.accepted)
    }
}

/// Evaluates a ruleset as the kernel does.
struct Interpreter<'a, D> {
    named: &'a Named,
    decide: &'a mut D,
    truth: Truth,
    translated: bool,
}

impl<'a, D: Decide> Interpreter<'a, D> {
    fn run(named: &'a Named, bases: &[ChainId], decide: &'a mut D) -> Truth {
        let mut this = Interpreter { named, decide, truth: Truth::default(), translated: false };
        for &base in bases {
            let chain = this.model(base);
            let spec = chain.base.as_ref().unwrap();
            if spec.kind == ChainType::Nat && this.translated {
                continue;
            }
            let accepted = this.chain(base).unwrap_or_else(|| {
                let accept = spec.policy == Policy::Accept;
                let verdict = if accept { SolvedVerdict::Accept } else { SolvedVerdict::Drop };
                this.end(base, verdict);
                accept
            });
            let &(chain, index, _) = this.truth.steps.last().unwrap();
            this.truth.fates.push(Fate { base, accepted, decider: (chain, index) });
            if !accepted {
                break;
            }
        }
        this.truth
    }

    fn model(&self, id: ChainId) -> &'a Chain {
        let (table, chain) = self.named.program.place(id).unwrap();
        &self.named.ruleset.tables[table].chains[chain]
    }

    fn end(&mut self, id: ChainId, verdict: SolvedVerdict) {
        let index = self.model(id).rules.len() as u32;
        if self.named.ruleset.tables[0].backend == Backend::Legacy {
            self.count(id, index);
        }
        self.truth.steps.push((id, index, verdict));
    }

    fn count(&mut self, id: ChainId, index: u32) {
        if self.named.program.chain(id).unwrap().known {
            *self.truth.moved.entry(Spot { chain: id, index }).or_default() += 1;
        }
    }

    /// A block of rules that are not in the model, which may lead to chains that are.
    fn wander(&mut self, from: &str) -> Option<bool> {
        let onwards: Vec<&str> =
            ["x", "y", "z"].into_iter().filter(|name| from < "x" || *name > from).collect();
        if self.decide.below(2) == 1 && !onwards.is_empty() {
            let to = onwards[self.decide.below(onwards.len())];
            let verdict = self.chain(self.named.chain(to));
            if verdict.is_some() {
                return verdict;
            }
        }
        [None, Some(true), Some(false)][self.decide.below(3)]
    }

    /// Whether the packet was accepted; `None` if it goes back to the caller.
    fn chain(&mut self, id: ChainId) -> Option<bool> {
        *self.truth.visits.entry(id).or_default() += 1;
        let chain = self.model(id);
        for (rule, index) in chain.rules.iter().zip(0..) {
            // 0: no; 1: as far as the counter; 2: matched.
            let reached = if rule.counter.is_some() && !rule.counts_matches {
                self.decide.below(3)
            } else {
                2 * self.decide.below(2)
            };
            if reached > 0 && rule.counter.is_some() {
                self.count(id, index);
            }
            if reached < 2 {
                continue;
            }
            let plain: Vec<Action> = rule
                .actions
                .iter()
                .copied()
                .filter(|action| !matches!(action, Action::Jump | Action::Goto))
                .collect();
            let ways = plain.len() + rule.targets.len();
            let way = if ways > 1 { self.decide.below(ways) } else { 0 };
            let mut met = |verdict| self.truth.steps.push((id, index, verdict));
            if ways == 0 {
                met(SolvedVerdict::Continue);
                continue;
            }
            let Some(action) = plain.get(way) else {
                let target = &rule.targets[way - plain.len()];
                let to = self.named.chain(&target.chain);
                match target.via {
                    Via::Jump => {
                        met(SolvedVerdict::Jump(to));
                        match self.chain(to) {
                            None => continue,
                            verdict => return verdict,
                        }
                    }
                    Via::Goto => {
                        met(SolvedVerdict::Goto(to));
                        return self.chain(to);
                    }
                }
            };
            if *action == Action::Unknown {
                let block = rule.kinds.is_empty();
                met(SolvedVerdict::Unknown);
                let verdict = if block {
                    self.wander(&chain.name)
                } else {
                    [None, Some(true), Some(false)][self.decide.below(3)]
                };
                match (verdict, self.decide.below(2)) {
                    (None, 0) => continue,
                    (verdict, _) => return verdict,
                }
            }
            return match action {
                Action::Accept => {
                    met(SolvedVerdict::Accept);
                    Some(true)
                }
                Action::Drop => {
                    met(SolvedVerdict::Drop);
                    Some(false)
                }
                Action::Reject => {
                    met(SolvedVerdict::Reject);
                    Some(false)
                }
                Action::Return => {
                    met(SolvedVerdict::Return);
                    None
                }
                Action::Queue => {
                    met(SolvedVerdict::Queue);
                    Some(self.decide.below(2) == 0)
                }
                Action::Nat => {
                    let done = self.decide.below(4) > 0;
                    self.translated |= done;
                    met(if done { SolvedVerdict::Accept } else { SolvedVerdict::Drop });
                    Some(done)
                }
                other => panic!("{other:?}"),
            };
        }
        if chain.base.is_none() {
            self.end(id, SolvedVerdict::Return);
        }
        None
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
        outcome: truth.outcome(),
    }
}

/// Every claim is true, and those that counters or structure order stand in the right order.
fn assert_true(named: &Named, truth: &Truth, solution: &Solution) {
    let said = || {
        format!(
            "{}\ntruth: {}",
            language::solved(named, solution),
            truth
                .steps
                .iter()
                .map(|&(chain, index, verdict)| show(
                    named,
                    &Solved { chain, index: Some(index), verdict, provenance: Provenance::Exact }
                ))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    // Blocks that lead anywhere can leave open which base chain moved a counter.
    let exhausted = solution.finding == Finding::Exhausted && !is_known(named);
    assert!(exhausted || solution.finding == Finding::Agrees, "{}", said());
    // Of exact steps in chains to which several ways lead, the order may be open.
    let is_open = |step: &&Solved| {
        step.provenance == Provenance::Exact
            && (exhausted || !is_known(named) || several_ways(named, step.chain))
    };
    let (open, ordered): (Vec<&Solved>, Vec<&Solved>) = solution.steps.iter().partition(is_open);
    let mut used = vec![false; truth.steps.len()];
    let mut at = 0;
    for (step, in_order) in
        ordered.into_iter().map(|step| (step, true)).chain(open.into_iter().map(|s| (s, false)))
    {
        let Some(index) = step.index else {
            if step.verdict != SolvedVerdict::Unknown {
                let accepted = step.verdict == SolvedVerdict::Accept;
                assert_eq!(Some(accepted), truth.fate(step.chain), "{}", said());
            }
            continue;
        };
        let from = if in_order { at } else { 0 };
        let found = (from..truth.steps.len()).find(|&n| {
            let (chain, i, verdict) = truth.steps[n];
            // What an unknown target did is known by what came next.
            let same = [step.verdict, SolvedVerdict::Unknown].contains(&verdict)
                || step.verdict == SolvedVerdict::Unknown;
            !used[n] && same && (chain, i) == (step.chain, index)
        });
        assert!(found.is_some(), "{} is wrong: {}", show(named, step), said());
        used[found.unwrap()] = true;
        if in_order {
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

/// Whether a packet can come to a chain in more than one way.
fn several_ways(named: &Named, id: ChainId) -> bool {
    let table = &named.ruleset.tables[0];
    let (_, at) = named.program.place(id).unwrap();
    let callers: Vec<&Chain> = table
        .chains
        .iter()
        .flat_map(|chain| {
            let to = |rule: &Rule| {
                rule.targets.iter().filter(|to| to.chain == table.chains[at].name).count()
            };
            std::iter::repeat_n(chain, chain.rules.iter().map(to).sum())
        })
        .collect();
    callers.len() > 1 || callers.iter().any(|caller| several_ways(named, named.chain(&caller.name)))
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
        let solution = solve(&named.program, &seen);
        assert_true(&named, &truth, &solution);
        // A chain entered twice can leave open which visit moved which counter.
        if style == Style::Counted && truth.visits.values().all(|&visits| visits == 1) {
            let all: Vec<_> = truth.steps.iter().map(|&(chain, index, verdict)| Solved {
                chain, index: Some(index), verdict, provenance: Provenance::Exact,
            }).collect();
            assert_eq!(solution.steps, all, "{text}");
        }
        seen.complete = false;
        let solution = solve(&named.program, &seen);
        assert_true(&named, &truth, &solution);
        assert!(solution.steps.iter().all(|step| step.provenance != Provenance::Exact));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// If all that can have happened agrees on the rule that decided, it is told.
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
        let solution = solve(&named.program, &seen);
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
        // Of what is not in the model only the interpreter knows.
        let known = is_known(&named);
        for fate in truth.fates.iter().filter(|_| known) {
            let decider = fate.decider;
            let same = |of: &Fate| of.base == fate.base && of.decider == decider;
            if alike.iter().all(|other| other.fates.iter().any(same)) {
                let told = solution.steps.iter().any(|step| {
                    (step.chain, step.index) == (decider.0, Some(decider.1))
                });
                assert!(told, "{} does not have {decider:?} in {text}",
                    language::solved(&named, &solution));
            }
        }
    }
}
