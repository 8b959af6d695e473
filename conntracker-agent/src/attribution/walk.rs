//! Every way through a program that agrees with an observation, as a graph.
//!
//! A node is a moment of the packet's way: where it is, where it will come back to, and which
//! counters still have to move. Ways that come to the same moment go on as one, so that a ruleset
//! without counters costs about as many nodes as it has rules that decide. Rules whose counter did
//! not move cost nothing.

use super::{
    ChainId, Observation, SolvedVerdict, Spot,
    graph::{BEGIN, Edge, Graph, Info, Met},
    numbers::Numbers,
    program::{Knowledge, Program, ProgramChain, ProgramRule, Way},
    rests::Rests,
};
use crate::{
    flow::path::Outcome,
    ruleset::model::{ChainType, Policy},
};

/// Moments and steps between them that are looked at, at most.
const BUDGET: usize = 20_000;
/// `NFT_JUMP_STACK_SIZE` of include/net/netfilter/nf_tables.h.
const JUMPS: u32 = 16;

/// What is the same at every place of a moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Moment {
    /// Index of the base chain in the observation.
    base: usize,
    /// Number of the counters that have yet to move.
    rest: u32,
    /// A rule has translated the addresses.
    translated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Before a base chain.
    Gate,
    /// In a chain; `stack` is the number of where jumps come back to.
    At { chain: ChainId, index: u32, stack: u32 },
    /// The end of the way.
    Goal,
}

type Node = (Moment, Place);

/// Where the innermost jump comes back to, the stack below, and the depth.
type Frame = (ChainId, u32, u32, u32);

/// The bottom of the stack.
const EMPTY: u32 = 0;

/// There are more ways than can be looked at.
#[derive(Debug)]
pub(super) struct Exhausted;

/// Finds the ways. `sudden`: the packet may have been dropped by something else than a verdict
/// (matches and targets of xtables drop packets that they cannot read or change).
pub(super) fn walk(
    program: &Program,
    seen: &Observation,
    sudden: bool,
) -> Result<Graph, Exhausted> {
    let hook = seen.chains.first().and_then(|&id| program.chain(id)).map_or(0, ProgramChain::hook);
    let mut walk = Walk {
        program,
        seen,
        sudden,
        hook,
        nodes: Numbers::new(),
        rests: Rests::new(program, seen),
        stacks: Numbers::new(),
        graph: Graph::default(),
        from: BEGIN,
        exhausted: false,
    };
    walk.all()?;
    Ok(walk.graph)
}

struct Walk<'a> {
    program: &'a Program,
    seen: &'a Observation,
    sudden: bool,
    hook: u8,
    nodes: Numbers<Node>,
    rests: Rests<'a>,
    stacks: Numbers<Frame>,
    graph: Graph,
    /// The node that is being left.
    from: u32,
    exhausted: bool,
}

/// A rule, and where and when the packet is at it.
#[derive(Clone, Copy)]
struct At<'a> {
    moment: Moment,
    id: ChainId,
    chain: &'a ProgramChain,
    index: u32,
    stack: u32,
}

impl At<'_> {
    fn spot(&self) -> Spot {
        Spot { chain: self.id, index: self.index }
    }
}

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
    fn all(&mut self) -> Result<(), Exhausted> {
        let rest = self.rests.all();
        let bottom = (ChainId(u32::MAX), 0, EMPTY, 0);
        self.stacks.number(bottom);
        let moment = Moment { base: 0, rest, translated: false };
        self.node((moment, Place::Gate));
        let end = self.end();
        self.node((end, Place::Goal));
        while let Some(&(moment, place)) = self.nodes.get(self.from) {
            match place {
                Place::Gate => self.gate(moment),
                Place::At { chain: id, index, stack } => {
                    if let Some(chain) = self.program.chain(id) {
                        self.at(At { moment, id, chain, index, stack });
                    }
                }
                Place::Goal => {}
            }
            if self.exhausted || self.graph.edges.len() + self.graph.nodes.len() > BUDGET {
                return Err(Exhausted);
            }
            self.from += 1;
        }
        Ok(())
    }

    fn node(&mut self, node: Node) -> u32 {
        let (number, new) = self.nodes.number(node);
        if new {
            let (Moment { base, .. }, place) = node;
            let level = match place {
                Place::Gate => 2 * base,
                Place::At { .. } => 2 * base + 1,
                Place::Goal => usize::MAX,
            };
            self.graph.nodes.push(Info { level, choice: false });
        }
        number
    }

    fn edge(&mut self, node: Node, met: Option<Met>) {
        let to = self.node(node);
        self.graph.edges.push(Edge { from: self.from, to, met, opaque: false });
    }

    /// Marks the node that is being left.
    fn choice(&mut self) {
        if let Some(node) = self.graph.nodes.get_mut(self.from as usize) {
            node.choice = true;
        }
    }

    fn base(&self, at: usize) -> Option<(ChainId, &'a ProgramChain)> {
        let id = *self.seen.chains.get(at)?;
        Some((id, self.program.chain(id)?))
    }

    // What has yet to be met.

    /// Whether a chain may be entered once more.
    fn comes_again(&self, id: ChainId, rest: u32) -> bool {
        let Some(chain) = self.program.chain(id) else { return false };
        let leads = |spot: Spot| {
            let caller = self.program.chain(spot.chain);
            let rule = caller.and_then(|chain| chain.rules.get(spot.index as usize));
            rule.is_some_and(|rule| self.program.leads(rule, id))
        };
        chain.entered_again(self.hook)
            && (chain.called_blindly || self.rests.remaining(rest).any(leads))
    }

    /// Whether counters of a chain have yet to move that no longer can, when it is left, or gone on
    /// in behind them.
    fn leaves_behind(&self, at: &At<'_>, rest: u32) -> bool {
        let behind = |spot: Spot| {
            // A base chain's policy is where ways out of other chains lead.
            spot.chain == at.id && !(at.chain.base.is_some() && spot.index == at.chain.end())
        };
        self.rests.remaining(rest).any(behind) && !self.comes_again(at.id, rest)
    }

    /// Whether the counters that have yet to move can still do so, from a base chain on.
    fn can_finish(&self, base: usize, rest: u32) -> bool {
        let later = self.seen.chains.get(base..).unwrap_or_default();
        self.rests.remaining(rest).all(|spot| {
            later.contains(&spot.chain)
                || self.program.chain(spot.chain).is_some_and(|chain| {
                    let same_table = |id: &ChainId| {
                        self.program.chain(*id).is_some_and(|later| later.table == chain.table)
                    };
                    chain.base.is_none() && later.iter().any(same_table)
                })
        })
    }

    // Base chains.

    fn gate(&mut self, moment: Moment) {
        let Moment { base, rest, translated } = moment;
        let goal = (self.end(), Place::Goal);
        let dropped = self.seen.outcome == Outcome::Dropped;
        let passed = !dropped && base == self.seen.chains.len();
        let dropped_between = dropped && self.seen.elsewhere.contains(&base);
        if (passed || dropped_between) && self.rests.is_used_up(rest) {
            self.edge(goal, None);
        }
        if dropped && base > self.seen.among.1 {
            return;
        }
        let Some((id, chain)) = self.base(base) else { return };
        if translated && chain.base.is_some_and(|(_, kind)| kind == ChainType::Nat) {
            self.edge((Moment { base: base + 1, ..moment }, Place::Gate), None);
        } else {
            self.arrive(moment, id, 0, EMPTY, None);
        }
    }

    fn end(&mut self) -> Moment {
        Moment { base: self.seen.chains.len(), rest: self.rests.none(), translated: false }
    }

    /// The base chain lets the packet pass.
    fn pass(&mut self, moment: Moment, met: Option<Met>) {
        let base = moment.base + 1;
        if self.can_finish(base, moment.rest) {
            self.edge((Moment { base, ..moment }, Place::Gate), met);
        }
    }

    /// The base chain ends the packet's way.
    fn stop(&mut self, moment: Moment, met: Option<Met>) {
        let (first, last) = self.seen.among;
        let here = (first..=last).contains(&moment.base);
        if here && self.seen.outcome == Outcome::Dropped && self.rests.is_used_up(moment.rest) {
            let end = self.end();
            self.edge((end, Place::Goal), met);
        }
    }

    // Rules.

    /// Goes to a place of a chain: to the next rule there that matters.
    fn arrive(&mut self, moment: Moment, id: ChainId, index: u32, stack: u32, met: Option<Met>) {
        let Some(chain) = self.program.chain(id) else { return };
        let index = self.next_stop(id, chain, index, moment.rest);
        self.edge((moment, Place::At { chain: id, index, stack }), met);
    }

    /// The first rule from a place on that may have matched, and that then matters; or the end.
    fn next_stop(&self, id: ChainId, chain: &ProgramChain, index: u32, rest: u32) -> u32 {
        let end = chain.end();
        let next = self
            .rests
            .remaining_from(rest, Spot { chain: id, index })
            .next()
            .filter(|spot| spot.chain == id)
            .map_or(end, |spot| spot.index);
        if !self.seen.complete {
            // No counter tells anything.
            let rules = chain.rules.get(index as usize..).unwrap_or_default();
            let decides = |rule: &ProgramRule| self.program.ways(rule) != [Way::Continue];
            return rules.iter().position(decides).map_or(next, |n| next.min(index + n as u32));
        }
        let blind = chain.blind.get(chain.blind.partition_point(|&rule| rule < index));
        next.min(*blind.unwrap_or(&end)).min(end)
    }

    fn at(&mut self, at: At<'a>) {
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
        let At { moment, id, index, stack, .. } = at;
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
            return self.skip(at);
        }
        let rest = moment.rest;
        let counts = knowledge != Knowledge::Blind;
        let counted = knowledge == Knowledge::Exact;
        let mut after = moment;
        if counts {
            after.rest = self.rests.spend(rest, |of, left| left - u32::from(of == spot));
        }
        let told = Told {
            left: counted.then(|| self.rests.left(after.rest, spot)),
            verdict: next.map(|(_, verdict)| verdict),
        };
        let before = self.graph.edges.len();
        let decides = self.program.ways(rule) != [Way::Continue];
        if decides || counted {
            for &way in self.program.ways(rule) {
                self.way(At { moment: after, ..at }, way, told);
            }
            if rule.fragile && self.sudden && told.allows(SolvedVerdict::Drop) {
                let verdict = SolvedVerdict::Drop;
                self.stop(after, Some(Met { spot, verdict, counted: told.left }));
            }
        }
        if counted {
            if self.graph.edges.len() > before + 1 {
                self.choice();
            }
        } else {
            // It may not have matched.
            self.arrive(after, id, index + 1, stack, None);
            if decides {
                self.choice();
            }
        }
        if counts && self.comes_again(id, rest) {
            // It is met another time.
            self.skip(at);
        }
    }

    /// Goes on behind a rule that is not met now.
    fn skip(&mut self, at: At<'a>) {
        self.arrive(at.moment, at.id, at.index + 1, at.stack, None);
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
                if told.allows(SolvedVerdict::Accept) {
                    let translated = Moment { translated: true, ..moment };
                    self.pass(translated, met(SolvedVerdict::Accept));
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
                self.way(at, Way::Drop, told);
                self.way(at, Way::Return, told);
            }
            Way::Wander => self.opaque(moment, chain),
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

    /// Goes through the rest of a base chain on a way that the model does not have.
    fn opaque(&mut self, moment: Moment, chain: &ProgramChain) {
        let table = |id: ChainId| self.program.chain(id).map(|chain| (chain.table, chain.base));
        let later = self.seen.chains.get(moment.base + 1..).unwrap_or_default();
        let shared = |id: ChainId| {
            table(id).is_some_and(|(of, base)| {
                of == chain.table
                    && base.is_none()
                    && later.iter().any(|&id| table(id).is_some_and(|(table, _)| table == of))
            })
        };
        if self.rests.remaining(moment.rest).any(|spot| shared(spot.chain)) {
            // Which of two base chains moved them cannot be told.
            self.exhausted = true;
            return;
        }
        let here = |id: ChainId| {
            table(id).is_some_and(|(of, _)| of == chain.table) && !later.contains(&id)
        };
        let rest = self.rests.spend(moment.rest, |of, left| if here(of.chain) { 0 } else { left });
        let chain_type = self.base(moment.base).and_then(|(_, base)| base.base).map(|base| base.1);
        let before = self.graph.edges.len();
        self.choice();
        self.pass(Moment { rest, ..moment }, None);
        if chain_type == Some(ChainType::Nat) {
            self.pass(Moment { rest, translated: true, ..moment }, None);
        }
        self.stop(Moment { rest, ..moment }, None);
        for edge in self.graph.edges.iter_mut().skip(before) {
            edge.opaque = true;
        }
    }
}
