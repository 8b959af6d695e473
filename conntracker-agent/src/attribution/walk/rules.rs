//! What a rule can do with a packet that reaches it.

use super::{At, EMPTY, JUMPS, SearchPoint, SearchState, Walk};
use crate::{
    attribution::{
        ChainId, SolvedVerdict, Spot,
        condition::{self, Tri},
        evaluate::Evaluation,
        graph::Met,
        program::{Knowledge, ProgramChain, ProgramRule, RuleOutcome},
    },
    firewall::model::{ChainType, Policy},
};

/// The evidence about a rule that is met.
#[derive(Clone, Copy)]
struct Evidence {
    /// Its own counter or target proves the match, and must do so this many times more.
    left: Option<u32>,
    /// What its target said.
    verdict: Option<SolvedVerdict>,
}

impl Evidence {
    fn allows(self, verdict: SolvedVerdict) -> bool {
        let kind = match verdict {
            SolvedVerdict::Reject => SolvedVerdict::Drop,
            other => other,
        };
        self.verdict.is_none_or(|evidence| evidence == kind)
    }
}

impl<'a> Walk<'a> {
    /// Continues at a position of a chain: at the next rule that matters.
    pub(super) fn arrive(
        &mut self,
        state: SearchState,
        id: ChainId,
        index: u32,
        stack: u32,
        met: Option<Met>,
    ) {
        let Some(chain) = self.program.chain(id) else { return };
        let (index, passed) = self.next_stop(state, id, chain, index);
        let to = self.edge((state, SearchPoint::At { chain: id, index, stack }), met);
        if passed {
            // Counters do not prove that these rules did not match.
            self.choice_at(to);
        }
    }

    /// The first rule from a position on that may have matched and matters; or the end. The flag: rules were skipped
    /// because of the packet's fields.
    fn next_stop(
        &self,
        state: SearchState,
        id: ChainId,
        chain: &ProgramChain,
        index: u32,
    ) -> (u32, bool) {
        let next = self
            .pending
            .remaining_from(state.rest, Spot { chain: id, index })
            .next()
            .filter(|spot| spot.chain == id)
            .map_or(chain.end(), |spot| spot.index.min(chain.end()));
        let mut passed = false;
        let mut first = |rules: &mut dyn Iterator<Item = u32>| {
            let matters = |at: &u32| {
                let matters = self.may_matter(state, Spot { chain: id, index: *at }, chain);
                passed |= !matters;
                matters
            };
            rules.take_while(|at| *at < next).find(matters)
        };
        let found = if self.seen.complete {
            let from = |rules: &'_ [u32]| rules.partition_point(|&rule| rule < index);
            let blind = &chain.blind[from(&chain.blind)..];
            let found = first(&mut blind.iter().copied());
            let marking = &chain.marking[from(&chain.marking)..];
            let marking = if self.marks { marking } else { &[] };
            found.into_iter().chain(first(&mut marking.iter().copied())).min()
        } else {
            // No counter tells anything.
            let acts = |at: &u32| {
                let rule = chain.rules.get(*at as usize);
                rule.is_some_and(|rule| {
                    self.program.outcomes(rule) != [RuleOutcome::Continue]
                        || (self.marks && rule.marks())
                })
            };
            first(&mut (index..chain.end()).filter(acts))
        };
        (found.unwrap_or(next), passed)
    }

    /// Whether a rule can have an effect on this packet.
    fn may_matter(&self, state: SearchState, spot: Spot, chain: &ProgramChain) -> bool {
        let Some(rule) = chain.rules.get(spot.index as usize) else { return false };
        let targets_seen = rule.watched && self.seen.targets_seen.is_some();
        let early = self.marks && rule.markings.iter().any(|marking| marking.early);
        targets_seen || early || self.evaluate(state, spot, rule).matches != Tri::No
    }

    fn evaluate(&self, state: SearchState, spot: Spot, rule: &ProgramRule) -> Evaluation {
        let [mark, connmark] = state.marks;
        let packet = &self.seen.packet;
        let at = condition::PacketAtRule { packet, base: state.base, mark, connmark };
        let found = rule.evaluate(&at);
        match (self.kernel, self.seen.chains.get(state.base)) {
            (Some(kernel), Some(base)) => {
                kernel.refine(found, (spot, *base), self.program.outcomes(rule), &at)
            }
            _ => found,
        }
    }

    pub(super) fn at(&mut self, at: At<'a>) {
        let At { state, chain, index, .. } = at;
        if self.sudden {
            self.stop(state, None);
        }
        if !chain.known {
            return self.opaque(state, chain);
        }
        match chain.rules.get(index as usize) {
            Some(rule) => self.rule(at, rule),
            None => self.end_of_chain(at),
        }
    }

    fn rule(&mut self, at: At<'a>, rule: &'a ProgramRule) {
        let At { state, id, .. } = at;
        let spot = at.spot();
        let targets_seen = rule.watched && self.seen.targets_seen.is_some();
        let knowledge = match rule.knowledge {
            _ if targets_seen => Knowledge::Exact,
            knowledge if self.seen.complete => knowledge,
            _ => Knowledge::Blind,
        };
        let next = if targets_seen { self.pending.next_target(state.rest) } else { None };
        if targets_seen && next.is_none_or(|(next, _)| next != spot) {
            // Other rules must be met first, or this one was met before.
            return self.miss(at, rule);
        }
        let pending = self.pending.left(state.rest, spot) > 0;
        let (counts, counted) = match knowledge {
            Knowledge::Exact | Knowledge::Bound if !pending => return self.miss(at, rule),
            Knowledge::Exact => (true, true),
            Knowledge::Bound => (true, false),
            Knowledge::Loose => (pending, false),
            Knowledge::Blind => (false, false),
        };
        let mut after = state;
        if counts {
            after.rest = self.pending.spend(state.rest, |of, left| left - u32::from(of == spot));
        }
        let evidence = Evidence {
            left: counted.then(|| self.pending.left(after.rest, spot)),
            verdict: next.map(|(_, verdict)| verdict),
        };
        if counted {
            // The match is proved; conditions add nothing.
            let all = Evaluation { matches: Tri::Yes, outcomes: None, marks: None };
            self.met(At { state: after, ..at }, rule, evidence, &all);
        } else {
            let found = self.evaluate(state, spot, rule);
            self.met(At { state: after, ..at }, rule, evidence, &found);
        }
        if counts && (knowledge == Knowledge::Loose || self.may_reenter(id, state.rest)) {
            // It is met another time.
            if knowledge == Knowledge::Loose {
                let found = self.evaluate(state, spot, rule);
                self.met(at, rule, evidence, &found);
            } else {
                self.miss(at, rule);
            }
        }
    }

    /// A rule is met: it matches, or it does not.
    fn met(&mut self, at: At<'a>, rule: &'a ProgramRule, evidence: Evidence, found: &Evaluation) {
        let before = self.graph.edges.len();
        let counted = evidence.left.is_some();
        let outcomes = found.outcomes.as_deref().unwrap_or(self.program.outcomes(rule));
        let decides = self.program.outcomes(rule) != [RuleOutcome::Continue];
        let matched = match found.marks {
            Some(marks) if self.marks => SearchState { marks, ..at.state },
            _ => self.marked(at.state, rule, true),
        };
        if found.matches != Tri::No {
            let state = matched;
            for &outcome in outcomes {
                self.outcome(At { state, ..at }, outcome, evidence);
            }
            if rule.fragile && self.sudden && evidence.allows(SolvedVerdict::Drop) {
                let verdict = SolvedVerdict::Drop;
                let met = Met { spot: at.spot(), verdict, counted: evidence.left };
                self.stop(state, Some(met));
            }
        }
        if found.matches != Tri::Yes {
            // A rule that only goes on is the same with and without a match.
            let same = !decides && matched == self.marked(at.state, rule, false);
            if !(same && found.matches == Tri::Unknown) {
                self.miss(at, rule);
            }
        }
        if (counted && self.graph.edges.len() > before + 1) || (!counted && decides) {
            self.choice();
        }
    }

    /// The known marks behind a rule.
    fn marked(&self, state: SearchState, rule: &ProgramRule, matched: bool) -> SearchState {
        if !self.marks {
            return state;
        }
        let [packet, connection] = rule.markings;
        let [mark, connmark] = state.marks;
        SearchState {
            marks: [packet.after(mark, matched), connection.after(connmark, matched)],
            ..state
        }
    }

    /// Continues behind a rule that does not match.
    fn miss(&mut self, at: At<'a>, rule: &ProgramRule) {
        self.arrive(self.marked(at.state, rule, false), at.id, at.index + 1, at.stack, None);
    }

    /// What a rule does.
    fn outcome(&mut self, at: At<'a>, outcome: RuleOutcome, evidence: Evidence) {
        let At { state, id, chain, index, stack } = at;
        let met = |verdict| Some(Met { spot: at.spot(), verdict, counted: evidence.left });
        if outcome.verdict().is_some_and(|verdict| !evidence.allows(verdict)) {
            return;
        }
        match outcome {
            RuleOutcome::Continue => {
                let met = met(SolvedVerdict::Continue).filter(|_| evidence.left.is_some());
                self.arrive(state, id, index + 1, stack, met);
            }
            RuleOutcome::Accept => self.pass(state, met(SolvedVerdict::Accept)),
            RuleOutcome::Drop => self.stop(state, met(SolvedVerdict::Drop)),
            RuleOutcome::Reject => self.stop(state, met(SolvedVerdict::Reject)),
            RuleOutcome::Return => self.leave(at, met(SolvedVerdict::Return)),
            RuleOutcome::Jump(to) => {
                let depth = self.stacks.get(stack).map_or(0, |frame| frame.3) + 1;
                if depth <= JUMPS || !chain.nft {
                    let (stack, _) = self.stacks.number((id, index + 1, stack, depth));
                    self.arrive(state, to, 0, stack, met(SolvedVerdict::Jump(to)));
                }
            }
            RuleOutcome::Goto(to) => {
                if !self.leaves_behind(&at, state.rest) {
                    self.arrive(state, to, 0, stack, met(SolvedVerdict::Goto(to)));
                }
            }
            RuleOutcome::Queue => {
                // A program in user space may accept the packet or drop it, or no such program exists.
                self.pass(state, met(SolvedVerdict::Queue));
                self.stop(state, met(SolvedVerdict::Queue));
            }
            RuleOutcome::Nat => {
                let state = SearchState { translated: true, ..state };
                if evidence.allows(SolvedVerdict::Accept) && self.may_translate(&at) {
                    self.pass(state, met(SolvedVerdict::Accept));
                }
                if evidence.allows(SolvedVerdict::Drop) {
                    self.stop(state, met(SolvedVerdict::Drop));
                }
            }
            RuleOutcome::NatOf { v6 } if v6 == self.seen.v6 => {
                self.outcome(at, RuleOutcome::Nat, evidence);
            }
            RuleOutcome::NatOf { .. } => self.outcome(at, RuleOutcome::Continue, evidence),
            RuleOutcome::Synproxy => {
                self.outcome(at, RuleOutcome::Continue, evidence);
                self.outcome(at, RuleOutcome::Stolen, evidence);
                self.outcome(at, RuleOutcome::Drop, evidence);
            }
            RuleOutcome::Stolen => self.stop(state, met(SolvedVerdict::Stolen)),
            RuleOutcome::Unknown => {
                self.outcome(at, RuleOutcome::Continue, evidence);
                self.outcome(at, RuleOutcome::Accept, evidence);
                if self.is_nat(state) {
                    self.outcome(at, RuleOutcome::Nat, evidence);
                }
                self.outcome(at, RuleOutcome::Drop, evidence);
                self.outcome(at, RuleOutcome::Return, evidence);
            }
            RuleOutcome::Wander => self.opaque(state, chain),
        }
    }

    fn is_nat(&self, state: SearchState) -> bool {
        let base = self.base(state.base).and_then(|(_, chain)| chain.base);
        base.is_some_and(|(_, kind)| kind == ChainType::Nat)
    }

    /// Whether a rule can have made the observed translation.
    fn may_translate(&self, at: &At<'_>) -> bool {
        let rule = self.program.rule(at.spot());
        match (&self.seen.packet.translation, rule) {
            (Some(translation), Some(rule)) => rule.may_make(translation),
            _ => true,
        }
    }

    /// Leaves a chain: to the rule behind the jump, or to the policy.
    fn leave(&mut self, at: At<'a>, met: Option<Met>) {
        let At { state, stack, .. } = at;
        if self.leaves_behind(&at, state.rest) {
            return;
        }
        if stack == EMPTY {
            // The policy is that of the base chain, not of a chain that a goto led to.
            if let Some((id, base)) = self.base(state.base) {
                self.arrive(state, id, base.end(), EMPTY, met);
            }
        } else if let Some(&(id, index, below, _)) = self.stacks.get(stack) {
            self.arrive(state, id, index, below, met);
        }
    }

    fn end_of_chain(&mut self, at: At<'a>) {
        let spot = at.spot();
        let counted = at.chain.end_counts && self.seen.complete;
        let mut state = at.state;
        if counted {
            if !self.pending.remaining(state.rest).any(|of| of == spot) {
                // Its counter had moved.
                return;
            }
            state.rest = self.pending.spend(state.rest, |of, left| left - u32::from(of == spot));
        }
        let counted = counted.then(|| self.pending.left(state.rest, spot));
        let met = |verdict| Some(Met { spot, verdict, counted });
        match at.chain.base {
            None => self.leave(At { state, ..at }, met(SolvedVerdict::Return)),
            Some(_) if self.leaves_behind(&at, state.rest) => {}
            Some((Policy::Accept, _)) => self.pass(state, met(SolvedVerdict::Accept)),
            Some((Policy::Drop, _)) => self.stop(state, met(SolvedVerdict::Drop)),
        }
    }
}
