//! What rules can do with a packet that comes to them.

use super::{At, EMPTY, JUMPS, Moment, Place, Walk};
use crate::{
    attribution::{
        ChainId, SolvedVerdict, Spot,
        condition::{self, Tri},
        evaluate::Evaluation,
        graph::Met,
        program::{Knowledge, ProgramChain, ProgramRule, Way},
    },
    firewall::model::{ChainType, Policy},
};

/// What is known of a rule that is met.
#[derive(Clone, Copy)]
struct Told {
    /// Something of its own tells that it is met, and will do so this many times more.
    left: Option<u32>,
    /// What its target said.
    verdict: Option<SolvedVerdict>,
}

impl Told {
    fn allows(self, verdict: SolvedVerdict) -> bool {
        let kind = match verdict {
            SolvedVerdict::Reject => SolvedVerdict::Drop,
            other => other,
        };
        self.verdict.is_none_or(|told| told == kind)
    }
}

impl<'a> Walk<'a> {
    /// Goes to a place of a chain: to the next rule there that matters.
    pub(super) fn arrive(
        &mut self,
        moment: Moment,
        id: ChainId,
        index: u32,
        stack: u32,
        met: Option<Met>,
    ) {
        let Some(chain) = self.program.chain(id) else { return };
        let (index, passed) = self.next_stop(moment, id, chain, index);
        let to = self.edge((moment, Place::At { chain: id, index, stack }), met);
        if passed {
            // That they did not match is not known from counters.
            self.choice_at(to);
        }
    }

    /// The first rule from a place on that may have matched, and that then matters; or the end. The flag:
    /// rules were passed over because of what is known of the packet.
    fn next_stop(
        &self,
        moment: Moment,
        id: ChainId,
        chain: &ProgramChain,
        index: u32,
    ) -> (u32, bool) {
        let next = self
            .rests
            .remaining_from(moment.rest, Spot { chain: id, index })
            .next()
            .filter(|spot| spot.chain == id)
            .map_or(chain.end(), |spot| spot.index.min(chain.end()));
        let mut passed = false;
        let mut first = |rules: &mut dyn Iterator<Item = u32>| {
            let matters = |at: &u32| {
                let matters = self.may_matter(moment, chain, *at);
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
                    self.program.ways(rule) != [Way::Continue] || (self.marks && rule.marks())
                })
            };
            first(&mut (index..chain.end()).filter(acts))
        };
        (found.unwrap_or(next), passed)
    }

    /// Whether a rule can do something, as far as the packet is known.
    fn may_matter(&self, moment: Moment, chain: &ProgramChain, index: u32) -> bool {
        let Some(rule) = chain.rules.get(index as usize) else { return false };
        let sighted = rule.watched && self.seen.sighted.is_some();
        let early = self.marks && rule.markings.iter().any(|marking| marking.early);
        sighted || early || self.evaluate(moment, rule).matches != Tri::No
    }

    fn evaluate(&self, moment: Moment, rule: &ProgramRule) -> Evaluation {
        let [mark, connmark] = moment.marks;
        rule.evaluate(&condition::Moment {
            packet: &self.seen.packet,
            base: moment.base,
            mark,
            connmark,
        })
    }

    pub(super) fn at(&mut self, at: At<'a>) {
        let At { moment, chain, index, .. } = at;
        if self.sudden {
            self.stop(moment, None);
        }
        if !chain.known {
            return self.opaque(moment, chain);
        }
        match chain.rules.get(index as usize) {
            Some(rule) => self.rule(at, rule),
            None => self.end_of_chain(at),
        }
    }

    fn rule(&mut self, at: At<'a>, rule: &'a ProgramRule) {
        let At { moment, id, .. } = at;
        let spot = at.spot();
        let sighted = rule.watched && self.seen.sighted.is_some();
        let knowledge = match rule.knowledge {
            _ if sighted => Knowledge::Exact,
            knowledge if self.seen.complete => knowledge,
            _ => Knowledge::Blind,
        };
        let next = if sighted { self.rests.next_sighted(moment.rest) } else { None };
        if sighted && next.is_none_or(|(next, _)| next != spot) {
            // Others have to be met first, or this one was before.
            return self.miss(at, rule);
        }
        let pending = self.rests.left(moment.rest, spot) > 0;
        let (counts, counted) = match knowledge {
            Knowledge::Exact | Knowledge::Bound if !pending => return self.miss(at, rule),
            Knowledge::Exact => (true, true),
            Knowledge::Bound => (true, false),
            Knowledge::Loose => (pending, false),
            Knowledge::Blind => (false, false),
        };
        let mut after = moment;
        if counts {
            after.rest = self.rests.spend(moment.rest, |of, left| left - u32::from(of == spot));
        }
        let told = Told {
            left: counted.then(|| self.rests.left(after.rest, spot)),
            verdict: next.map(|(_, verdict)| verdict),
        };
        if counted {
            // That it matched is known; conditions say no more.
            let all = Evaluation { matches: Tri::Yes, ways: None };
            self.met(At { moment: after, ..at }, rule, told, &all);
        } else {
            let found = self.evaluate(moment, rule);
            self.met(At { moment: after, ..at }, rule, told, &found);
        }
        if counts && (knowledge == Knowledge::Loose || self.comes_again(id, moment.rest)) {
            // It is met another time.
            if knowledge == Knowledge::Loose {
                let found = self.evaluate(moment, rule);
                self.met(at, rule, told, &found);
            } else {
                self.miss(at, rule);
            }
        }
    }

    /// A rule is met: it matches, or it does not.
    fn met(&mut self, at: At<'a>, rule: &'a ProgramRule, told: Told, found: &Evaluation) {
        let before = self.graph.edges.len();
        let counted = told.left.is_some();
        let ways = found.ways.as_deref().unwrap_or(self.program.ways(rule));
        let decides = self.program.ways(rule) != [Way::Continue];
        if found.matches != Tri::No {
            let moment = self.marked(at.moment, rule, true);
            for &way in ways {
                self.way(At { moment, ..at }, way, told);
            }
            if rule.fragile && self.sudden && told.allows(SolvedVerdict::Drop) {
                let verdict = SolvedVerdict::Drop;
                let met = Met { spot: at.spot(), verdict, counted: told.left };
                self.stop(moment, Some(met));
            }
        }
        if found.matches != Tri::Yes {
            // Where it does nothing but go on, both are the same.
            let same = !decides
                && self.marked(at.moment, rule, true) == self.marked(at.moment, rule, false);
            if !(same && found.matches == Tri::Unknown) {
                self.miss(at, rule);
            }
        }
        if (counted && self.graph.edges.len() > before + 1) || (!counted && decides) {
            self.choice();
        }
    }

    /// What is known of the marks behind a rule.
    fn marked(&self, moment: Moment, rule: &ProgramRule, matched: bool) -> Moment {
        if !self.marks {
            return moment;
        }
        let [packet, connection] = rule.markings;
        let [mark, connmark] = moment.marks;
        Moment {
            marks: [packet.after(mark, matched), connection.after(connmark, matched)],
            ..moment
        }
    }

    /// Goes on behind a rule that does not match.
    fn miss(&mut self, at: At<'a>, rule: &ProgramRule) {
        self.arrive(self.marked(at.moment, rule, false), at.id, at.index + 1, at.stack, None);
    }

    /// What a rule does.
    fn way(&mut self, at: At<'a>, way: Way, told: Told) {
        let At { moment, id, chain, index, stack } = at;
        let met = |verdict| Some(Met { spot: at.spot(), verdict, counted: told.left });
        if way.verdict().is_some_and(|verdict| !told.allows(verdict)) {
            return;
        }
        match way {
            Way::Continue => {
                let met = met(SolvedVerdict::Continue).filter(|_| told.left.is_some());
                self.arrive(moment, id, index + 1, stack, met);
            }
            Way::Accept => self.pass(moment, met(SolvedVerdict::Accept)),
            Way::Drop => self.stop(moment, met(SolvedVerdict::Drop)),
            Way::Reject => self.stop(moment, met(SolvedVerdict::Reject)),
            Way::Return => self.leave(at, met(SolvedVerdict::Return)),
            Way::Jump(to) => {
                let depth = self.stacks.get(stack).map_or(0, |frame| frame.3) + 1;
                if depth <= JUMPS || !chain.nft {
                    let (stack, _) = self.stacks.number((id, index + 1, stack, depth));
                    self.arrive(moment, to, 0, stack, met(SolvedVerdict::Jump(to)));
                }
            }
            Way::Goto(to) => {
                if !self.leaves_behind(&at, moment.rest) {
                    self.arrive(moment, to, 0, stack, met(SolvedVerdict::Goto(to)));
                }
            }
            Way::Queue => {
                // A program may let it go on, or not; or there is no such program.
                self.pass(moment, met(SolvedVerdict::Queue));
                self.stop(moment, met(SolvedVerdict::Queue));
            }
            Way::Nat => {
                let moment = Moment { translated: true, ..moment };
                if told.allows(SolvedVerdict::Accept) && self.may_translate(&at) {
                    self.pass(moment, met(SolvedVerdict::Accept));
                }
                if told.allows(SolvedVerdict::Drop) {
                    self.stop(moment, met(SolvedVerdict::Drop));
                }
            }
            Way::NatOf { v6 } if v6 == self.seen.v6 => self.way(at, Way::Nat, told),
            Way::NatOf { .. } => self.way(at, Way::Continue, told),
            Way::Synproxy => {
                self.way(at, Way::Continue, told);
                self.way(at, Way::Stolen, told);
                self.way(at, Way::Drop, told);
            }
            Way::Stolen => self.stop(moment, met(SolvedVerdict::Stolen)),
            Way::Unknown => {
                self.way(at, Way::Continue, told);
                self.way(at, Way::Accept, told);
                if self.is_nat(moment) {
                    self.way(at, Way::Nat, told);
                }
                self.way(at, Way::Drop, told);
                self.way(at, Way::Return, told);
            }
            Way::Wander => self.opaque(moment, chain),
        }
    }

    fn is_nat(&self, moment: Moment) -> bool {
        let base = self.base(moment.base).and_then(|(_, chain)| chain.base);
        base.is_some_and(|(_, kind)| kind == ChainType::Nat)
    }

    /// Whether a rule can have translated as it was.
    fn may_translate(&self, at: &At<'_>) -> bool {
        let rule = self.program.rule(at.spot());
        match (&self.seen.packet.translation, rule) {
            (Some(translation), Some(rule)) => rule.may_make(translation),
            _ => true,
        }
    }

    /// Leaves a chain: back to where it was called, or to the policy.
    fn leave(&mut self, at: At<'a>, met: Option<Met>) {
        let At { moment, stack, .. } = at;
        if self.leaves_behind(&at, moment.rest) {
            return;
        }
        if stack == EMPTY {
            // Not the chain that a goto led to: the policy belongs to the base chain.
            if let Some((id, base)) = self.base(moment.base) {
                self.arrive(moment, id, base.end(), EMPTY, met);
            }
        } else if let Some(&(id, index, below, _)) = self.stacks.get(stack) {
            self.arrive(moment, id, index, below, met);
        }
    }

    fn end_of_chain(&mut self, at: At<'a>) {
        let spot = at.spot();
        let counted = at.chain.end_counts && self.seen.complete;
        let mut moment = at.moment;
        if counted {
            if !self.rests.remaining(moment.rest).any(|of| of == spot) {
                // Its counter had moved.
                return;
            }
            moment.rest = self.rests.spend(moment.rest, |of, left| left - u32::from(of == spot));
        }
        let counted = counted.then(|| self.rests.left(moment.rest, spot));
        let met = |verdict| Some(Met { spot, verdict, counted });
        match at.chain.base {
            None => self.leave(At { moment, ..at }, met(SolvedVerdict::Return)),
            Some(_) if self.leaves_behind(&at, moment.rest) => {}
            Some((Policy::Accept, _)) => self.pass(moment, met(SolvedVerdict::Accept)),
            Some((Policy::Drop, _)) => self.stop(moment, met(SolvedVerdict::Drop)),
        }
    }
}
