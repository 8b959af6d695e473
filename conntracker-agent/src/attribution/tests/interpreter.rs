//! The kernel's evaluation of a ruleset, with its counters.

use std::collections::BTreeMap;

use super::{
    super::{ChainId, SolvedVerdict, Spot},
    language::Named,
};
use crate::{
    firewall::{
        action::{Action, Via},
        model::{Chain, ChainType, Policy},
    },
    model::{path::Outcome, table::Backend},
};

/// A source of decisions.
pub trait Decide {
    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize;
}

/// What happened to a packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub steps: Vec<(ChainId, u32, SolvedVerdict)>,
    pub moved: BTreeMap<Spot, u32>,
    pub visits: BTreeMap<ChainId, u32>,
    pub fates: Vec<Fate>,
}

/// The result of a base chain that the packet met.
#[derive(Debug, PartialEq, Eq)]
pub struct Fate {
    pub base: ChainId,
    pub accepted: bool,
    /// Steps when it had decided.
    pub steps: usize,
    /// The step that decided.
    pub decider: (ChainId, u32),
}

impl Truth {
    pub fn outcome(&self) -> Outcome {
        if self.fates.last().is_none_or(|fate| fate.accepted) {
            Outcome::Passed
        } else {
            Outcome::Dropped
        }
    }

    pub fn fate(&self, base: ChainId) -> Option<bool> {
        self.fates.iter().find(|fate| fate.base == base).map(|fate| fate.accepted)
    }
}

/// Evaluates a ruleset as the kernel does.
pub struct Interpreter<'a, D> {
    named: &'a Named,
    decide: &'a mut D,
    truth: Truth,
    translated: bool,
}

impl<'a, D: Decide> Interpreter<'a, D> {
    pub fn run(named: &'a Named, bases: &[ChainId], decide: &'a mut D) -> Truth {
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
            let steps = this.truth.steps.len();
            this.truth.fates.push(Fate { base, accepted, steps, decider: (chain, index) });
            if !accepted {
                break;
            }
        }
        this.truth
    }

    fn model(&self, id: ChainId) -> &'a Chain {
        let (table, chain) = self.named.program.indices(id).unwrap();
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
            let outcomes = plain.len() + rule.targets.len();
            let way = if outcomes > 1 { self.decide.below(outcomes) } else { 0 };
            let mut met = |verdict| self.truth.steps.push((id, index, verdict));
            if outcomes == 0 {
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
