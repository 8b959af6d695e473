//! What a packet still has to meet: counters that must move, targets that must run. Paths with the same remainder are
//! in the same state, so each remainder has a number.

use super::{Observation, SolvedVerdict, Spot, interner::Interner, program::Program};

/// States, by number.
pub(super) struct Pending<'a> {
    /// What tells, ascending, and how often.
    evidence: Vec<(Spot, u32)>,
    /// For each of them: whether its target was watched.
    watched: Vec<bool>,
    /// Targets that ran, in order.
    targets_seen: &'a [(Spot, SolvedVerdict)],
    /// How often each still has to be met.
    states: Interner<Box<[u32]>>,
}

impl<'a> Pending<'a> {
    pub fn new(program: &Program, seen: &'a Observation) -> Self {
        let targets_seen = seen.targets_seen.as_deref();
        let evidence = seen.evidence(program);
        let is_watched =
            |(spot, _): &(Spot, u32)| targets_seen.is_some() && program.is_watched(*spot);
        Self {
            watched: evidence.iter().map(is_watched).collect(),
            evidence,
            targets_seen: targets_seen.unwrap_or_default(),
            states: Interner::new(),
        }
    }

    /// All is left.
    pub fn all(&mut self) -> u32 {
        self.states.number(self.evidence.iter().map(|&(_, count)| count).collect()).0
    }

    /// The empty remainder, at the end of all paths.
    pub fn none(&mut self) -> u32 {
        self.states.number(Box::default()).0
    }

    fn counts(&self, rest: u32) -> &[u32] {
        self.states.get(rest).map_or(&[][..], |counts| counts)
    }

    /// Whether nothing is left.
    pub fn is_used_up(&self, rest: u32) -> bool {
        self.counts(rest).iter().all(|&count| count == 0)
    }

    /// How often a spot still has to be met.
    pub fn left(&self, rest: u32, spot: Spot) -> u32 {
        let at = self.evidence.binary_search_by_key(&spot, |(spot, _)| *spot).ok();
        at.and_then(|at| self.counts(rest).get(at)).copied().unwrap_or_default()
    }

    /// The spots that still have to be met, ascending.
    pub fn remaining(&self, rest: u32) -> impl Iterator<Item = Spot> {
        self.from(rest, 0)
    }

    /// Those of them from a spot on.
    pub fn remaining_from(&self, rest: u32, from: Spot) -> impl Iterator<Item = Spot> {
        self.from(rest, self.evidence.partition_point(|(spot, _)| *spot < from))
    }

    fn from(&self, rest: u32, first: usize) -> impl Iterator<Item = Spot> {
        let counts = self.counts(rest);
        let evidence = self.evidence.iter().zip(counts).skip(first);
        evidence.filter(|(_, count)| **count > 0).map(|((spot, _), _)| *spot)
    }

    /// The remainder after spots were met; `left` has their new numbers.
    pub fn spend(&mut self, rest: u32, left: impl Fn(Spot, u32) -> u32) -> u32 {
        let counts = self.evidence.iter().zip(self.counts(rest));
        let counts = counts.map(|((spot, _), &count)| left(*spot, count)).collect();
        self.states.number(counts).0
    }

    /// The target that has to run next.
    pub fn next_target(&self, rest: u32) -> Option<(Spot, SolvedVerdict)> {
        let watched = self.counts(rest).iter().zip(&self.watched).filter(|(_, watched)| **watched);
        let left: u32 = watched.map(|(count, _)| *count).sum();
        let met = self.targets_seen.len().checked_sub(left as usize)?;
        self.targets_seen.get(met).copied()
    }
}
