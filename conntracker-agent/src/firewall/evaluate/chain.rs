//! Packets in a base chain and the chains that it calls (`nft_do_chain` of net/netfilter/nf_tables_core.c).

use std::cell::Cell;

use super::{
    code::{ChainNumber, Code},
    context::Context,
    rule::{self, Possibility, RuleEnd},
    ruleset::Firewall,
    state::{EvaluatedStep, Fate, State, StepVerdict},
    translation::Translation,
    unknown::{Unknown, UnknownSet},
};

/// Chains that call each other, NFT_JUMP_STACK_SIZE.
const DEPTH: usize = 16;

/// States that are followed at once.
const STATES: usize = 64;

/// Rules that are evaluated for one packet at one hook.
const RULES: u32 = 1_000_000;

/// How a packet left a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseEnd {
    /// With a verdict.
    Fate(Fate),
    /// With a translation, which accepts.
    Translate(Translation),
}

/// How a packet left a chain.
enum ChainEnd {
    /// At its end, or by `return`.
    Return,
    /// With a verdict that ends the base chain.
    Base(BaseEnd),
}

/// Evaluates chains at a hook.
pub(super) struct Walk<'a> {
    pub firewall: &'a Firewall,
    pub context: Context<'a>,
    /// Rules that may still be evaluated.
    left: Cell<u32>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(firewall: &'a Firewall, context: Context<'a>) -> Self {
        Self { firewall, context, left: Cell::new(RULES) }
    }

    /// Takes a packet through a base chain.
    pub(super) fn base(&self, number: ChainNumber, state: State) -> Vec<(BaseEnd, State)> {
        let Some(chain) = self.firewall.chain(number) else { return Vec::new() };
        let policy = chain.policy.unwrap_or(Code::Accept);
        let before = state.why;
        let mut ends: Vec<(BaseEnd, State)> = self
            .chain(number, state, 0)
            .into_iter()
            .map(|(end, mut state)| match end {
                ChainEnd::Base(end) => (end, state),
                ChainEnd::Return => {
                    let verdict = StepVerdict::Code(policy);
                    state.steps.push(self.step(number, chain.rules.len(), verdict));
                    let fate = if policy == Code::Drop { Fate::Drop } else { Fate::Accept };
                    (BaseEnd::Fate(fate), state)
                }
            })
            .collect();
        if let [(_, only)] = ends.as_mut_slice() {
            only.why = before;
        }
        ends
    }

    fn step(&self, chain: ChainNumber, index: usize, verdict: StepVerdict) -> EvaluatedStep {
        EvaluatedStep { hook: self.context.hook, chain, index, verdict, why: UnknownSet::NONE }
    }

    /// Takes a packet through a chain.
    fn chain(&self, number: ChainNumber, state: State, depth: usize) -> Vec<(ChainEnd, State)> {
        let Some(chain) = self.firewall.chain(number).filter(|_| depth <= DEPTH) else {
            return vec![unknown(state)];
        };
        let (mut live, mut ended) = (vec![state], Vec::new());
        for (index, rule) in chain.rules.iter().enumerate() {
            let mut next = Vec::new();
            for state in live {
                let Some(left) = self.left.get().checked_sub(1) else {
                    ended.push(unknown(state));
                    continue;
                };
                self.left.set(left);
                let State { packet, upcoming, steps, why } = state;
                let mut possible =
                    rule::evaluate(&rule.operations, packet, self.firewall, &self.context);
                let last = possible.pop();
                let (first, first_ended) = (next.len(), ended.len());
                for Possibility { end, packet, why: more } in possible {
                    let (upcoming, steps) = (upcoming.clone(), steps.clone());
                    let state = State { packet, upcoming, steps, why: why.union(more) };
                    self.rule((number, index), end, state, depth, &mut next, &mut ended);
                }
                if let Some(Possibility { end, packet, why: more }) = last {
                    let state = State { packet, upcoming, steps, why: why.union(more) };
                    self.rule((number, index), end, state, depth, &mut next, &mut ended);
                }
                // All possibilities lead to the same state: what it hung on makes no difference.
                if ended.len() == first_ended
                    && let Some([only]) = next.get_mut(first..)
                {
                    only.why = why;
                }
            }
            live = next;
            while live.len() > STATES {
                ended.extend(live.pop().map(unknown));
            }
            if live.is_empty() {
                break;
            }
        }
        let at_end = live.into_iter().map(|mut state| {
            if chain.policy.is_none() {
                let verdict = StepVerdict::Code(Code::Return);
                state.steps.push(self.step(number, chain.rules.len(), verdict));
            }
            (ChainEnd::Return, state)
        });
        ended.extend(at_end);
        ended
    }

    /// What follows the end of a rule.
    fn rule(
        &self,
        (chain, index): (ChainNumber, usize),
        end: RuleEnd,
        mut state: State,
        depth: usize,
        next: &mut Vec<State>,
        ended: &mut Vec<(ChainEnd, State)>,
    ) {
        let verdict = match end {
            RuleEnd::NoMatch => return state.add(next),
            RuleEnd::Verdict(code) => StepVerdict::Code(code),
            RuleEnd::Translate(_) => StepVerdict::Code(Code::Accept),
            RuleEnd::Reject => StepVerdict::Reject,
            RuleEnd::Unknown => StepVerdict::Unknown,
        };
        state.steps.push(self.step(chain, index, verdict));
        let fate = match end {
            RuleEnd::NoMatch | RuleEnd::Verdict(Code::Continue | Code::Break) => {
                return state.add(next);
            }
            RuleEnd::Verdict(Code::Return) => return ended.push((ChainEnd::Return, state)),
            RuleEnd::Verdict(Code::Jump(to)) => {
                for (end, state) in self.chain(to, state, depth + 1) {
                    match end {
                        ChainEnd::Return => state.add(next),
                        end @ ChainEnd::Base(_) => ended.push((end, state)),
                    }
                }
                return;
            }
            RuleEnd::Verdict(Code::Goto(to)) => {
                return ended.extend(self.chain(to, state, depth + 1));
            }
            RuleEnd::Translate(translation) => {
                return ended.push((ChainEnd::Base(BaseEnd::Translate(translation)), state));
            }
            RuleEnd::Verdict(Code::Accept) => Fate::Accept,
            RuleEnd::Verdict(Code::Drop) => Fate::Drop,
            RuleEnd::Verdict(Code::Queue) => Fate::Queue,
            RuleEnd::Verdict(Code::Stolen) => Fate::Stolen,
            RuleEnd::Reject => Fate::Reject,
            RuleEnd::Unknown => Fate::Unknown,
        };
        ended.push((ChainEnd::Base(BaseEnd::Fate(fate)), state));
    }
}

/// A packet that is not followed any further.
fn unknown(mut state: State) -> (ChainEnd, State) {
    state.why = state.why.union(Unknown::Branches.into());
    (ChainEnd::Base(BaseEnd::Fate(Fate::Unknown)), state)
}
