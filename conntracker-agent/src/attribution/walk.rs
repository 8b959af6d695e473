//! Every path through a program that agrees with an observation, as a graph.
//!
//! A node is a state of the search: its position, its stack of jumps, and the counters that still have to move. Paths
//! that reach the same state are merged, so a ruleset without counters costs about as many nodes as it has rules that
//! decide. Rules whose counter did not move cost nothing.

use super::{
    ChainId, Observation, SolvedVerdict, Spot,
    graph::{BEGIN, Edge, Graph, Info, Met},
    interner::Interner,
    kernel_rules::KernelRules,
    pending::Pending,
    program::{Program, ProgramChain},
};
use crate::{firewall::model::ChainType, model::path::Outcome};

/// The most nodes and edges of one search.
const BUDGET: usize = 20_000;
/// `NFT_JUMP_STACK_SIZE` of include/net/netfilter/nf_tables.h.
const JUMPS: u32 = 16;

mod rules;

/// The part of a state that does not depend on the position.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SearchState {
    /// Index of the base chain in the observation.
    base: usize,
    /// Number of the remainder: the counters that still have to move.
    rest: u32,
    /// A rule has translated the addresses.
    translated: bool,
    /// Packet mark and connmark, where they are known.
    marks: [Option<u32>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SearchPoint {
    /// Before a base chain.
    Gate,
    /// In a chain; `stack` is the number of the stack of jumps.
    At { chain: ChainId, index: u32, stack: u32 },
    /// The end of the path.
    Goal,
}

type Node = (SearchState, SearchPoint);

/// The position that the innermost jump returns to, the stack below it, and the depth.
type Frame = (ChainId, u32, u32, u32);

/// The bottom of the stack.
const EMPTY: u32 = 0;

/// There are more paths than the budget allows.
#[derive(Debug)]
pub(super) struct Exhausted;

/// Finds the paths. `sudden`: the packet may have been dropped without a verdict (matches and targets of xtables drop
/// packets that they cannot read or change).
pub(super) fn walk(
    program: &Program,
    kernel: Option<&KernelRules>,
    seen: &Observation,
    sudden: bool,
) -> Result<Graph, Exhausted> {
    let hook = seen.chains.first().and_then(|&id| program.chain(id)).map_or(0, ProgramChain::hook);
    let mut walk = Walk {
        program,
        kernel,
        seen,
        sudden,
        hook,
        nodes: Interner::new(),
        pending: Pending::new(program, seen),
        stacks: Interner::new(),
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
    kernel: Option<&'a KernelRules>,
    seen: &'a Observation,
    sudden: bool,
    hook: u8,
    nodes: Interner<Node>,
    pending: Pending<'a>,
    stacks: Interner<Frame>,
    graph: Graph,
    /// The node that is being left.
    from: u32,
    exhausted: bool,
    /// Whether rules compare marks, so that the search must follow them.
    marks: bool,
}

/// A rule, with its position and the state of the search there.
#[derive(Clone, Copy)]
struct At<'a> {
    state: SearchState,
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
        let rest = self.pending.all();
        let bottom = (ChainId(u32::MAX), 0, EMPTY, 0);
        self.stacks.number(bottom);
        let state =
            SearchState { base: 0, rest, translated: false, marks: self.marks(0, [None; 2]) };
        self.node((state, SearchPoint::Gate));
        let end = self.end();
        self.node((end, SearchPoint::Goal));
        while let Some(&(state, place)) = self.nodes.get(self.from) {
            match place {
                SearchPoint::Gate => self.gate(state),
                SearchPoint::At { chain: id, index, stack } => {
                    if let Some(chain) = self.program.chain(id) {
                        self.at(At { state, id, chain, index, stack });
                    }
                }
                SearchPoint::Goal => {}
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
            let (SearchState { base, .. }, place) = node;
            let level = match place {
                SearchPoint::Gate => 2 * base,
                SearchPoint::At { .. } => 2 * base + 1,
                SearchPoint::Goal => usize::MAX,
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

    /// Whether a chain may be entered again.
    fn may_reenter(&self, id: ChainId, rest: u32) -> bool {
        let Some(chain) = self.program.chain(id) else { return false };
        let leads = |spot: Spot| {
            let caller = self.program.chain(spot.chain);
            let rule = caller.and_then(|chain| chain.rules.get(spot.index as usize));
            rule.is_some_and(|rule| self.program.leads(rule, id))
        };
        chain.entered_again(self.hook)
            && (chain.called_blindly || self.pending.remaining(rest).any(leads))
    }

    /// Whether leaving a chain, or skipping rules in it, makes it impossible for its remaining counters to move.
    fn leaves_behind(&self, at: &At<'_>, rest: u32) -> bool {
        let behind = |spot: Spot| {
            // Paths out of other chains lead to the policy of the base chain.
            spot.chain == at.id && !(at.chain.base.is_some() && spot.index == at.chain.end())
        };
        self.pending.remaining(rest).any(behind) && !self.may_reenter(at.id, rest)
    }

    /// Whether the remaining counters can still move from a base chain on.
    fn can_finish(&self, base: usize, rest: u32) -> bool {
        let later = self.seen.chains.get(base..).unwrap_or_default();
        self.pending.remaining(rest).all(|spot| {
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

    fn gate(&mut self, state: SearchState) {
        let SearchState { base, translated, .. } = state;
        let goal = (self.end(), SearchPoint::Goal);
        let dropped = self.seen.outcome == Outcome::Dropped;
        let passed = !dropped && base == self.seen.chains.len();
        let dropped_between = dropped && self.seen.elsewhere.contains(&base);
        if (passed || dropped_between) && self.is_evident(state) {
            self.edge(goal, None);
        }
        if dropped && base > self.seen.among.1 {
            return;
        }
        let Some((id, chain)) = self.base(base) else { return };
        if translated && chain.base.is_some_and(|(_, kind)| kind == ChainType::Nat) {
            self.next_base(state, None);
        } else {
            self.arrive(state, id, 0, EMPTY, None);
        }
    }

    fn end(&mut self) -> SearchState {
        let (base, rest) = (self.seen.chains.len(), self.pending.none());
        SearchState { base, rest, translated: false, marks: [None; 2] }
    }

    /// Marks before a base chain; `now`: those behind the previous one.
    fn marks(&self, base: usize, now: [Option<u32>; 2]) -> [Option<u32>; 2] {
        match self.seen.packet.marks.get(base) {
            Some((packet, connection)) => [packet.or(now[0]), connection.or(now[1])],
            None => [None; 2],
        }
    }

    fn next_base(&mut self, state: SearchState, met: Option<Met>) {
        let base = state.base + 1;
        let marks = self.marks(base, state.marks);
        self.edge((SearchState { base, marks, ..state }, SearchPoint::Gate), met);
    }

    /// Whether a path that ends here explains the whole observation.
    fn is_evident(&self, state: SearchState) -> bool {
        // Only rules change an address; NAT without a rule keeps it.
        let translation = &self.seen.packet.translation;
        let changed = translation.is_some_and(|translation| translation.changed);
        (state.translated || !changed) && self.pending.is_used_up(state.rest)
    }

    /// The base chain lets the packet pass.
    fn pass(&mut self, state: SearchState, met: Option<Met>) {
        if self.can_finish(state.base + 1, state.rest) {
            self.next_base(state, met);
        }
    }

    /// The base chain ends the packet's path.
    fn stop(&mut self, state: SearchState, met: Option<Met>) {
        let (first, last) = self.seen.among;
        let here = (first..=last).contains(&state.base);
        let silent = met.is_some_and(|met| met.verdict == SolvedVerdict::Drop);
        if silent && self.seen.packet.answered {
            return;
        }
        if here && self.seen.outcome == Outcome::Dropped && self.is_evident(state) {
            let end = self.end();
            self.edge((end, SearchPoint::Goal), met);
        }
    }

    /// Follows an unknown path through the rest of a base chain.
    fn opaque(&mut self, state: SearchState, chain: &ProgramChain) {
        let table = |id: ChainId| self.program.chain(id).map(|chain| (chain.table, chain.base));
        let later = self.seen.chains.get(state.base + 1..).unwrap_or_default();
        let shared = |id: ChainId| {
            table(id).is_some_and(|(of, base)| {
                of == chain.table
                    && base.is_none()
                    && later.iter().any(|&id| table(id).is_some_and(|(table, _)| table == of))
            })
        };
        if self.pending.remaining(state.rest).any(|spot| shared(spot.chain)) {
            // Either of two base chains may have moved them.
            self.exhausted = true;
            return;
        }
        let here = |id: ChainId| {
            table(id).is_some_and(|(of, _)| of == chain.table) && !later.contains(&id)
        };
        let rest = self.pending.spend(state.rest, |of, left| if here(of.chain) { 0 } else { left });
        let chain_type = self.base(state.base).and_then(|(_, base)| base.base).map(|base| base.1);
        let before = self.graph.edges.len();
        let state = SearchState { marks: [None; 2], ..state };
        self.choice();
        self.pass(SearchState { rest, ..state }, None);
        if chain_type == Some(ChainType::Nat) {
            self.pass(SearchState { rest, translated: true, ..state }, None);
        }
        self.stop(SearchState { rest, ..state }, None);
        if chain_type == Some(ChainType::Nat) {
            self.stop(SearchState { rest, translated: true, ..state }, None);
        }
        for edge in self.graph.edges.iter_mut().skip(before) {
            edge.opaque = true;
        }
    }
}
