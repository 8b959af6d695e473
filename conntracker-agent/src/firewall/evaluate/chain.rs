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

/// Rules that hang on something unknown and are followed both ways, for one packet at one hook.
const FORKS: u32 = 4096;

/// Steps of one packet.
const STEPS: usize = 20_000;

/// How a packet left a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseEnd {
    /// With a verdict.
    Fate(Fate),
    /// With a translation, which accepts.
    Translate(Translation),
}

/// How a packet left a chain.
#[derive(Default)]
struct ChainEnds {
    /// At its end, or by `return`.
    returned: Vec<State>,
    /// With what ends the base chain.
    base: Vec<(BaseEnd, State)>,
    /// States that were added, those included that were joined with others.
    added: usize,
}

impl ChainEnds {
    /// An end of the base chain; as one with that which equals it.
    fn end(&mut self, end: BaseEnd, state: State) {
        self.added += 1;
        let same = |(other, one): &(BaseEnd, State)| *other == end && one.equals(&state);
        if let Some(at) = self.base.iter().position(same) {
            self.base[at].1.join(state);
        } else if self.base.len() < STATES {
            self.base.push((end, state));
        } else if let Some((end, one)) = self.base.last_mut() {
            // One of too many: what becomes of all of them is unknown.
            *end = BaseEnd::Fate(Fate::Unknown);
            one.why = one.why.union(state.why).union(Unknown::Branches.into());
        }
    }

    /// A state that goes back to the chain before.
    fn back(&mut self, state: State) {
        self.added += 1;
        state.add(&mut self.returned);
    }

    /// A packet that is not followed any further.
    fn unknown(&mut self, mut state: State) {
        state.why = state.why.union(Unknown::Branches.into());
        self.end(BaseEnd::Fate(Fate::Unknown), state);
    }
}

/// Evaluates chains at a hook.
pub(super) struct Walk<'a> {
    pub firewall: &'a Firewall,
    pub context: Context<'a>,
    /// Rules that may still be evaluated, and those that may be followed both ways.
    left: Cell<u32>,
    forks: Cell<u32>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(firewall: &'a Firewall, context: Context<'a>) -> Self {
        Self { firewall, context, left: Cell::new(RULES), forks: Cell::new(FORKS) }
    }

    /// Takes a packet through a base chain.
    pub(super) fn base(&self, number: ChainNumber, state: State) -> Vec<(BaseEnd, State)> {
        let Some(chain) = self.firewall.chain(number) else { return Vec::new() };
        let policy = chain.policy.unwrap_or(Code::Accept);
        let before = state.why;
        let ChainEnds { returned, base: mut ends, .. } = self.chain(number, state, 0);
        for mut state in returned {
            let verdict = StepVerdict::Code(policy);
            state.steps.push(self.step(number, chain.rules.len(), verdict));
            let fate = if policy == Code::Drop { Fate::Drop } else { Fate::Accept };
            ends.push((BaseEnd::Fate(fate), state));
        }
        // What the only end hung on makes no difference, unless it is that nothing is known.
        if let [(end, only)] = ends.as_mut_slice()
            && *end != BaseEnd::Fate(Fate::Unknown)
        {
            only.why = before;
        }
        ends
    }

    fn step(&self, chain: ChainNumber, index: usize, verdict: StepVerdict) -> EvaluatedStep {
        EvaluatedStep { hook: self.context.hook, chain, index, verdict, why: UnknownSet::NONE }
    }

    /// Takes a packet through a chain.
    fn chain(&self, number: ChainNumber, state: State, depth: usize) -> ChainEnds {
        let mut ends = ChainEnds::default();
        let Some(chain) = self.firewall.chain(number).filter(|_| depth <= DEPTH) else {
            ends.unknown(state);
            return ends;
        };
        let (mut live, mut next) = (vec![state], Vec::new());
        for (index, rule) in chain.rules.iter().enumerate() {
            for state in live.drain(..) {
                if self.left.get() == 0 || self.forks.get() == 0 || state.steps.len() >= STEPS {
                    ends.unknown(state);
                    continue;
                }
                self.left.set(self.left.get() - 1);
                let State { packet, upcoming, steps, why } = state;
                let (last, others) =
                    rule::evaluate(&rule.operations, packet, self.firewall, &self.context);
                if !others.is_empty() {
                    self.forks.set(self.forks.get() - 1);
                }
                let (alive, ended) = (next.len(), ends.added);
                for Possibility { end, packet, why: more } in others {
                    let (upcoming, steps) = (upcoming.clone(), steps.clone());
                    let state = State { packet, upcoming, steps, why: why.union(more) };
                    self.rule((number, index), end, state, depth, &mut next, &mut ends);
                }
                let Possibility { end, packet, why: more } = last;
                let state = State { packet, upcoming, steps, why: why.union(more) };
                self.rule((number, index), end, state, depth, &mut next, &mut ends);
                // All possibilities lead to the same state: what it hung on makes no difference.
                if ends.added == ended
                    && let Some([only]) = next.get_mut(alive..)
                {
                    only.why = why;
                }
            }
            std::mem::swap(&mut live, &mut next);
            while live.len() > STATES {
                if let Some(state) = live.pop() {
                    ends.unknown(state);
                }
            }
            if live.is_empty() {
                break;
            }
        }
        for mut state in live {
            if chain.policy.is_none() {
                let verdict = StepVerdict::Code(Code::Return);
                state.steps.push(self.step(number, chain.rules.len(), verdict));
            }
            ends.back(state);
        }
        ends
    }

    /// What follows the end of a rule.
    fn rule(
        &self,
        (chain, index): (ChainNumber, usize),
        end: RuleEnd,
        mut state: State,
        depth: usize,
        next: &mut Vec<State>,
        ends: &mut ChainEnds,
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
            RuleEnd::Verdict(Code::Return) => return ends.back(state),
            RuleEnd::Verdict(Code::Jump(to)) => {
                return self.call(to, state, depth, next, ends);
            }
            RuleEnd::Verdict(Code::Goto(to)) => {
                let mut returned = Vec::new();
                self.call(to, state, depth, &mut returned, ends);
                for state in returned {
                    ends.back(state);
                }
                return;
            }
            RuleEnd::Translate(translation) => {
                return ends.end(BaseEnd::Translate(translation), state);
            }
            RuleEnd::Verdict(Code::Accept) => Fate::Accept,
            RuleEnd::Verdict(Code::Drop) => Fate::Drop,
            RuleEnd::Verdict(Code::Queue) => Fate::Queue,
            RuleEnd::Verdict(Code::Stolen) => Fate::Stolen,
            RuleEnd::Reject => Fate::Reject,
            RuleEnd::Unknown => Fate::Unknown,
        };
        ends.end(BaseEnd::Fate(fate), state);
    }

    /// Takes a packet through a chain that a rule calls. Those that come back are added to `back`.
    fn call(
        &self,
        chain: ChainNumber,
        state: State,
        depth: usize,
        back: &mut Vec<State>,
        ends: &mut ChainEnds,
    ) {
        let called = self.chain(chain, state, depth + 1);
        for state in called.returned {
            state.add(back);
        }
        for (end, state) in called.base {
            ends.end(end, state);
        }
    }
}
