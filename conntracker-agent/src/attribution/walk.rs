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
    program::{Program, ProgramChain},
    rests::Rests,
};
use crate::{firewall::model::ChainType, model::path::Outcome};

/// Moments and steps between them that are looked at, at most.
const BUDGET: usize = 20_000;
/// `NFT_JUMP_STACK_SIZE` of include/net/netfilter/nf_tables.h.
const JUMPS: u32 = 16;

mod rules;

/// What is the same at every place of a moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Moment {
    /// Index of the base chain in the observation.
    base: usize,
    /// Number of the counters that have yet to move.
    rest: u32,
    /// A rule has translated the addresses.
    translated: bool,
    /// Packet mark and connmark, where they are known.
    marks: [Option<u32>; 2],
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
        marks: !seen.packet.marks.is_empty(),
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
    /// Whether rules ask for marks, so that they have to be followed.
    marks: bool,
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

impl<'a> Walk<'a> {
    fn all(&mut self) -> Result<(), Exhausted> {
        let rest = self.rests.all();
        let bottom = (ChainId(u32::MAX), 0, EMPTY, 0);
        self.stacks.number(bottom);
        let moment = Moment { base: 0, rest, translated: false, marks: self.marks(0, [None; 2]) };
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

    /// Returns where it leads to.
    fn edge(&mut self, node: Node, met: Option<Met>) -> u32 {
        let to = self.node(node);
        self.graph.edges.push(Edge { from: self.from, to, met, opaque: false });
        to
    }

    /// Marks the node that is being left.
    fn choice(&mut self) {
        self.choice_at(self.from);
    }

    fn choice_at(&mut self, node: u32) {
        if let Some(node) = self.graph.nodes.get_mut(node as usize) {
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
        let Moment { base, translated, .. } = moment;
        let goal = (self.end(), Place::Goal);
        let dropped = self.seen.outcome == Outcome::Dropped;
        let passed = !dropped && base == self.seen.chains.len();
        let dropped_between = dropped && self.seen.elsewhere.contains(&base);
        if (passed || dropped_between) && self.is_told(moment) {
            self.edge(goal, None);
        }
        if dropped && base > self.seen.among.1 {
            return;
        }
        let Some((id, chain)) = self.base(base) else { return };
        if translated && chain.base.is_some_and(|(_, kind)| kind == ChainType::Nat) {
            self.next_base(moment, None);
        } else {
            self.arrive(moment, id, 0, EMPTY, None);
        }
    }

    fn end(&mut self) -> Moment {
        let (base, rest) = (self.seen.chains.len(), self.rests.none());
        Moment { base, rest, translated: false, marks: [None; 2] }
    }

    /// Marks before a base chain; `now`: those behind the one before.
    fn marks(&self, base: usize, now: [Option<u32>; 2]) -> [Option<u32>; 2] {
        match self.seen.packet.marks.get(base) {
            Some((packet, connection)) => [packet.or(now[0]), connection.or(now[1])],
            None => [None; 2],
        }
    }

    fn next_base(&mut self, moment: Moment, met: Option<Met>) {
        let base = moment.base + 1;
        let marks = self.marks(base, moment.marks);
        self.edge((Moment { base, marks, ..moment }, Place::Gate), met);
    }

    /// Whether a way that ends here tells all that was seen.
    fn is_told(&self, moment: Moment) -> bool {
        // Only rules change an address; NAT without a rule keeps it.
        let translation = &self.seen.packet.translation;
        let changed = translation.is_some_and(|translation| translation.changed);
        (moment.translated || !changed) && self.rests.is_used_up(moment.rest)
    }

    /// The base chain lets the packet pass.
    fn pass(&mut self, moment: Moment, met: Option<Met>) {
        if self.can_finish(moment.base + 1, moment.rest) {
            self.next_base(moment, met);
        }
    }

    /// The base chain ends the packet's way.
    fn stop(&mut self, moment: Moment, met: Option<Met>) {
        let (first, last) = self.seen.among;
        let here = (first..=last).contains(&moment.base);
        let silent = met.is_some_and(|met| met.verdict == SolvedVerdict::Drop);
        if silent && self.seen.packet.answered {
            return;
        }
        if here && self.seen.outcome == Outcome::Dropped && self.is_told(moment) {
            let end = self.end();
            self.edge((end, Place::Goal), met);
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
        let moment = Moment { marks: [None; 2], ..moment };
        self.choice();
        self.pass(Moment { rest, ..moment }, None);
        if chain_type == Some(ChainType::Nat) {
            self.pass(Moment { rest, translated: true, ..moment }, None);
        }
        self.stop(Moment { rest, ..moment }, None);
        if chain_type == Some(ChainType::Nat) {
            self.stop(Moment { rest, translated: true, ..moment }, None);
        }
        for edge in self.graph.edges.iter_mut().skip(before) {
            edge.opaque = true;
        }
    }
}
