//! Paths of a packet as a graph.

use super::{SolvedVerdict, Spot};

/// A rule, policy, return or base chain that a packet met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    pub spot: Spot,
    pub verdict: SolvedVerdict,
    /// For a rule whose counter moved, and moves only on a match: how often the counter still has to move after this.
    /// Every path meets the rule once with each number below the count.
    pub counted: Option<u32>,
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub from: u32,
    pub to: u32,
    /// The step; `None` if the edge leaves no trace or is unknown.
    pub met: Option<Met>,
    /// The path through the rest of the base chain is unknown.
    pub opaque: bool,
}

/// What later stages need to know about a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    /// Twice the number of base chains behind it, one more if it is in a base chain.
    pub level: usize,
    /// A rule without a counter may decide here.
    pub choice: bool,
}

/// All paths. Node 0 is the beginning, node 1 the goal; edges are sorted by `from`.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Info>,
    pub edges: Vec<Edge>,
}

pub(super) const BEGIN: u32 = 0;
pub(super) const GOAL: u32 = 1;
