//! From counters that moved to rules that matched. Pure: no kernel needed.
//!
//! A [`Program`] is the ruleset as the kernel evaluates it, with what its counters can tell. An
//! [`Observation`] is what was seen of one packet at one hook. [`solve`] finds every path through the
//! program that agrees with the observation, and says only what all of them have in common. Where probes
//! saw the rules themselves, [`replay`] puts them into the chains they belong to.

mod build;
mod common;
mod condition;
mod evaluate;
mod graph;
mod interner;
mod items;
pub mod packet;
mod pending;
mod program;
mod replay;
mod solve;
#[cfg(test)]
mod tests;
mod walk;

pub use self::{
    packet::Packet,
    program::{Counters, Program},
    replay::{Match, replay},
    solve::{Finding, Solution, solve},
};
use crate::model::path::{Outcome, Provenance};

/// Number of a chain in a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// A place that can have a counter: a rule (index from 0), or the end of a chain, at index
/// `rules.len()` (ip_tables counts policies and implicit returns, nf_tables does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The chain.
    pub chain: ChainId,
    /// Index in the chain.
    pub index: u32,
}

/// What one packet did at one hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    /// It was of IPv6.
    pub v6: bool,
    /// Base chains that the packet met, in order; for a dropped packet, those it may have met.
    pub chains: Vec<ChainId>,
    /// For a dropped packet: the chains of `chains` among which it was dropped, from (inclusive) and
    /// to (inclusive). Links between chains tell; otherwise all of them.
    pub among: (usize, usize),
    /// For a dropped packet: where else it may have been dropped, by a hook that is no base chain
    /// (conntrack's own). `n` stands for the place before `chains[n]`; empty: nowhere.
    pub elsewhere: Vec<usize>,
    /// Spots whose counters moved, and by how many packets; ascending, each once.
    pub moved: Vec<(Spot, u32)>,
    /// Whether `moved` is all that moved: false if counters were not read. Then no conclusion
    /// may be drawn from a counter that did not move, nor from one that did.
    pub complete: bool,
    /// Rules that [`Program::watch`] names and that the packet matched, in order, and what their
    /// targets said; `None` if their targets were not looked at.
    pub targets_seen: Option<Vec<(Spot, SolvedVerdict)>>,
    /// What became of the packet.
    pub outcome: Outcome,
    /// What else is known of it.
    pub packet: Packet,
}

impl Observation {
    /// How often rules and ends of chains were met, as far as that can be relied on; ascending, each
    /// once. Targets that were looked at tell of their rules whatever else moved the counters.
    fn evidence(&self, program: &Program) -> Vec<(Spot, u32)> {
        let Some(targets_seen) = &self.targets_seen else {
            return if self.complete { self.moved.clone() } else { Vec::new() };
        };
        let counted = if self.complete { &*self.moved } else { &[] };
        let mut evidence: Vec<(Spot, u32)> =
            counted.iter().copied().filter(|(spot, _)| !program.is_watched(*spot)).collect();
        evidence.extend(targets_seen.iter().map(|(spot, _)| (*spot, 1)));
        evidence.sort_unstable();
        evidence.dedup_by(|(spot, count), (first, sum)| {
            let same = spot == first;
            if same {
                *sum += *count;
            }
            same
        });
        evidence
    }
}

/// A step by its number; `flow::path::Step` is the same with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Solved {
    /// The chain.
    pub chain: ChainId,
    /// Index of the rule, `rules.len()` for policy or return; `None`: only the base chain is known.
    pub index: Option<u32>,
    /// What the step did.
    pub verdict: SolvedVerdict,
    /// How it is known.
    pub provenance: Provenance,
    /// When it was met is known: it stands in order. OtherFlows follow behind the last of those.
    pub placed: bool,
}

/// As [`crate::model::path::Verdict`], with chains by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SolvedVerdict {
    /// Passed this base chain.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped, and the sender was told.
    Reject,
    /// Went on to the next rule.
    Continue,
    /// Left the chain.
    Return,
    /// To come back.
    Jump(ChainId),
    /// For good.
    Goto(ChainId),
    /// Given to a program.
    Queue,
    /// Taken.
    Stolen,
    /// Matched; which of its verdicts it gave is not known.
    Unknown,
}
