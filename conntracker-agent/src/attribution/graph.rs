//! Paths of a packet as a graph.

use super::{SolvedVerdict, Spot};

/// What a packet met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    pub spot: Spot,
    pub verdict: SolvedVerdict,
    /// Its counter moved, and moves only if it is met: how often it has yet to move after this. So
    /// every path meets it with each number below the count, once.
    pub counted: Option<u32>,
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub from: u32,
    pub to: u32,
    /// `None` if it leaves no trace, or is not known.
    pub met: Option<Met>,
    /// The path through the rest of the base chain is not known.
    pub opaque: bool,
}

/// What is to be known of a state afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    /// Twice the number of base chains behind it, one more if it is in a base chain.
    pub level: usize,
    /// A rule that no counter tells of may decide here.
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
