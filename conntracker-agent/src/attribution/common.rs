//! The steps that all paths through a graph share.
//!
//! Only nodes and edges from which the goal can be reached are live. In a topological order of the live nodes, a node
//! that no edge skips is on every path, and so is the edge that alone spans a gap between two neighbours.

use std::collections::VecDeque;

use super::{
    SolvedVerdict, Spot,
    graph::{BEGIN, Edge, GOAL, Graph, Met},
};

/// The live part of a graph: the nodes and edges on paths to the goal.
pub(super) struct Live<'a> {
    graph: &'a Graph,
    /// Position of each node in topological order; `None` for those that are not live.
    positions: Vec<Option<usize>>,
    /// Live edges, by node.
    pub edges: Vec<&'a Edge>,
    /// For each gap behind a position: the number of edges that span it.
    over: Vec<usize>,
}

/// How a base chain was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// By this step, on every path.
    By(Spot),
    /// By one of several rules, with the verdict if they share it.
    Somehow(SolvedVerdict),
    /// Unknown, because the packet may not have come that far. The flag: it may have been dropped here.
    Perhaps(bool),
    /// The packet did not come here.
    Never,
}

impl<'a> Live<'a> {
    /// `None` if there is no path at all.
    pub fn of(graph: &'a Graph) -> Option<Self> {
        let live = reach_goal(graph);
        let alive = |node: u32| live.get(node as usize).copied().unwrap_or_default();
        if !alive(BEGIN) {
            return None;
        }
        let edges: Vec<&Edge> =
            graph.edges.iter().filter(|edge| alive(edge.from) && alive(edge.to)).collect();
        let mut this = Self { graph, positions: Vec::new(), edges, over: Vec::new() };
        let count = this.sort(&live);
        // The kernel accepts no loops, so a model with one is wrong.
        (count == live.iter().filter(|live| **live).count()).then(|| {
            this.count_edges_over_gaps(count);
            this
        })
    }

    /// Sorts the nodes topologically, and returns how many it could sort.
    fn sort(&mut self, live: &[bool]) -> usize {
        let mut incoming = vec![0_usize; live.len()];
        for edge in &self.edges {
            incoming[edge.to as usize] += 1;
        }
        self.positions = vec![None; live.len()];
        let mut ready = VecDeque::from([BEGIN]);
        let mut next = 0;
        while let Some(node) = ready.pop_front() {
            self.positions[node as usize] = Some(next);
            next += 1;
            let from = self.edges.partition_point(|edge| edge.from < node);
            for edge in self.edges[from..].iter().take_while(|edge| edge.from == node) {
                let incoming = &mut incoming[edge.to as usize];
                *incoming -= 1;
                if *incoming == 0 {
                    ready.push_back(edge.to);
                }
            }
        }
        next
    }

    fn count_edges_over_gaps(&mut self, nodes: usize) {
        let mut changes = vec![0_isize; nodes + 1];
        for edge in &self.edges {
            changes[self.position(edge.from)] += 1;
            changes[self.position(edge.to)] -= 1;
        }
        let mut sum = 0;
        self.over = changes
            .iter()
            .map(|change| {
                sum += change;
                sum.unsigned_abs()
            })
            .collect();
    }

    pub fn position(&self, node: u32) -> usize {
        self.positions.get(node as usize).copied().flatten().unwrap_or_default()
    }

    pub fn level(&self, node: u32) -> usize {
        self.graph.nodes.get(node as usize).map_or(0, |info| info.level)
    }

    /// Whether an edge is on every path.
    pub fn is_on_all(&self, edge: &Edge) -> bool {
        let gaps = self.position(edge.from)..self.position(edge.to);
        self.over.get(gaps).is_some_and(|over| over.contains(&1))
    }

    /// For each position, whether a path through one of these edges can lie behind it.
    pub fn behind(&self, edges: &[&Edge]) -> Vec<bool> {
        let mut reached = vec![false; self.over.len()];
        for edge in edges {
            reached[self.position(edge.to)] = true;
        }
        let mut todo: Vec<u32> = edges.iter().map(|edge| edge.to).collect();
        while let Some(node) = todo.pop() {
            let from = self.edges.partition_point(|edge| edge.from < node);
            for edge in self.edges[from..].iter().take_while(|edge| edge.from == node) {
                let to = self.position(edge.to);
                if !std::mem::replace(&mut reached[to], true) {
                    todo.push(edge.to);
                }
            }
        }
        reached
    }

    /// Edges by which a base chain is left.
    pub fn exits(&self, base: usize) -> impl Iterator<Item = &'a Edge> {
        let level = 2 * base + 1;
        let exits =
            move |edge: &&&Edge| self.level(edge.from) == level && self.level(edge.to) != level;
        self.edges.iter().filter(exits).copied()
    }

    /// How a base chain was left.
    pub fn left(&self, base: usize) -> Left {
        let level = 2 * base + 1;
        let Some(first) = self.exits(base).next() else { return Left::Never };
        let passes_by = |edge: &&Edge| self.level(edge.from) < level && self.level(edge.to) > level;
        if self.edges.iter().any(passes_by) {
            return Left::Perhaps(self.exits(base).any(|edge| edge.to == GOAL));
        }
        match first.met {
            Some(Met { spot, .. })
                if self.exits(base).all(|edge| edge.met.is_some_and(|met| met.spot == spot)) =>
            {
                Left::By(spot)
            }
            _ => {
                let verdict = |edge: &Edge| {
                    if edge.to == GOAL { SolvedVerdict::Drop } else { SolvedVerdict::Accept }
                };
                let same = self.exits(base).all(|edge| verdict(edge) == verdict(first));
                Left::Somehow(if same { verdict(first) } else { SolvedVerdict::Unknown })
            }
        }
    }

    /// Whether some path goes through unknown rules.
    pub fn has_opaque(&self) -> bool {
        self.edges.iter().any(|edge| edge.opaque)
    }

    /// Whether some path goes through unknown rules of a base chain.
    pub fn is_opaque(&self, base: usize) -> bool {
        self.exits(base).any(|edge| edge.opaque)
    }

    /// Whether counters decided every rule between the beginning of the base chain and a step.
    pub fn is_without_choice(&self, edge: &Edge) -> bool {
        let (level, to) = (self.level(edge.from), self.position(edge.from));
        let mut places = self.graph.nodes.iter().zip(&self.positions);
        self.is_on_all(edge)
            && places.all(|(info, position)| {
                let before = position.is_some_and(|position| position <= to);
                !(before && info.level == level && info.choice)
            })
            && self.is_entered_on_one_path(level)
    }

    /// Whether one path alone leads through a base chain.
    pub fn is_one_path(&self, level: usize) -> bool {
        let mut left = self.edges.iter().filter(|edge| self.level(edge.from) == level);
        // Edges are sorted by the node that they leave.
        let mut last = None;
        left.all(|edge| !edge.opaque && last.replace(edge.from) != Some(edge.from))
            && self.is_entered_on_one_path(level)
    }

    /// Whether all paths enter a base chain in the same state.
    fn is_entered_on_one_path(&self, level: usize) -> bool {
        let mut entries = self
            .edges
            .iter()
            .filter(|edge| self.level(edge.to) == level && self.level(edge.from) != level);
        match (entries.next(), entries.next()) {
            (Some(entry), None) => self.is_on_all(entry),
            _ => false,
        }
    }
}

/// For each node whether the goal can be reached from it.
fn reach_goal(graph: &Graph) -> Vec<bool> {
    let mut back: Vec<&Edge> = graph.edges.iter().collect();
    back.sort_unstable_by_key(|edge| edge.to);
    let mut live = vec![false; graph.nodes.len()];
    let mut todo = vec![GOAL];
    while let Some(node) = todo.pop() {
        if std::mem::replace(&mut live[node as usize], true) {
            continue;
        }
        let from = back.partition_point(|edge| edge.to < node);
        let edges = back[from..].iter().take_while(|edge| edge.to == node);
        todo.extend(edges.map(|edge| edge.from).filter(|&from| !live[from as usize]));
    }
    live
}
