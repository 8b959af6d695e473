//! Attribution: from counters that moved to rules that matched. Pure, without a kernel.
//!
//! A [`Program`] is the ruleset as the kernel evaluates it, with the meaning of its counters. An [`Observation`] has
//! the facts about one packet at one hook. [`solve`] finds every path through the program that agrees with the
//! observation, and returns only the steps that all of them share. Where probes saw the rules themselves, [`replay`]
//! puts them into their chains.

mod build;
mod common;
mod condition;
mod evaluate;
mod graph;
mod interner;
mod items;
mod kernel_rules;
pub mod packet;
mod pending;
mod program;
mod replay;
mod solve;
#[cfg(test)]
mod tests;
mod walk;

pub use self::{
    kernel_rules::KernelRules,
    packet::Packet,
    program::{Counters, Program},
    replay::{Match, replay},
    solve::{Finding, Solution, solve},
};
use crate::model::path::{Outcome, Provenance};

/// Number of a chain in a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// A rule (index from 0), or the end of a chain (index `rules.len()`): what can have a counter. ip_tables counts
/// policies and implicit returns, nf_tables does not.
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
    /// For a dropped packet: the first and the last of `chains` that may have dropped it. Links between chains narrow
    /// that down; without them it is all of them.
    pub among: (usize, usize),
    /// For a dropped packet: positions at which a hook function that is no base chain (conntrack's own) may have
    /// dropped it. `n` is the position before `chains[n]`.
    pub elsewhere: Vec<usize>,
    /// Spots whose counters moved, and by how many packets; ascending, each once.
    pub moved: Vec<(Spot, u32)>,
    /// Whether `moved` has every counter that moved: false if some were not read. Then counters prove nothing,
    /// neither those that moved nor those that did not.
    pub complete: bool,
    /// Rules of [`Program::watch`] that the packet matched, in order, with the verdicts of their targets; `None` if
    /// no probe watched the targets.
    pub targets_seen: Option<Vec<(Spot, SolvedVerdict)>>,
    /// The verdict of the packet at the hook.
    pub outcome: Outcome,
    /// The known fields of the packet.
    pub packet: Packet,
}

impl Observation {
    /// How often rules and ends of chains were met, as far as that is certain; ascending, each once. Watched targets
    /// prove matches of their rules even where other packets moved the counters.
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
    /// The verdict of the step.
    pub verdict: SolvedVerdict,
    /// How it is known.
    pub provenance: Provenance,
    /// Whether its position in the order of the steps is known. Steps without one follow behind the others.
    pub placed: bool,
}

/// As [`crate::model::path::Verdict`], with chains by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SolvedVerdict {
    /// Passed this base chain.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped, with an answer to the sender.
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
    /// It matched; which of its verdicts it gave is unknown.
    Unknown,
}
