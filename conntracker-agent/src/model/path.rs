//! The paths of a flow's packets through the firewall: each traversal of a hook that was traced.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Tuple;
use crate::model::{
    hook::Hook,
    table::{Backend, Family, label},
};

/// Direction of a packet within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the one that began.
    Original,
    /// Back.
    Reply,
}

impl Direction {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reply => "reply",
        }
    }
}

/// The state that conntrack gave a packet (`enum ip_conntrack_info`), as `ct state` of a rule has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CtState {
    /// `new`.
    New,
    /// `established`.
    Established,
    /// `related`.
    Related,
    /// `untracked`.
    Untracked,
    /// `invalid`: conntrack is active and gave the packet no entry.
    Invalid,
    /// The packet had not reached conntrack's hook function yet (raw tables), so it had no state.
    Early,
}

impl CtState {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Related => "related",
            Self::Untracked => "untracked",
            Self::Invalid => "invalid",
            Self::Early => "early",
        }
    }
}

/// Why a packet is [`CtState::Invalid`]. The kernel stores no reason with the packet; only its log
/// (`nf_conntrack_log_invalid`) names the checksum, the window or the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalidity {
    /// No entry has its tuple, and it cannot begin a flow: a TCP packet in mid-connection with
    /// `nf_conntrack_tcp_loose=0`, flags that do not go together, an ICMP error that quotes no known flow.
    NoEntry,
    /// An entry has its tuple, and conntrack's tracker of the protocol did not accept the packet: window, state,
    /// flags or checksum (`tcp_in_window`, `nf_conntrack_tcp_packet`).
    NotAccepted,
}

impl Invalidity {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEntry => "no_entry",
            Self::NotAccepted => "not_accepted",
        }
    }
}

/// What became of a packet at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It left the last base chain of the hook.
    Passed,
    /// It was dropped there.
    Dropped,
}

impl Outcome {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
        }
    }
}

/// Why the steps of a traversal are less exact than its counters allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Doubt {
    /// Another packet ran on the same CPU meanwhile and moved the same counters.
    Nested,
    /// The chain has more counters than the programs read.
    Capped,
    /// The rules in kernel memory differ from those that nft or iptables-save listed.
    Mismatch,
}

impl Doubt {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Capped => "capped",
            Self::Mismatch => "mismatch",
        }
    }
}

/// How a step is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provenance {
    /// The kernel's counters, or its evaluation of the rule, prove it.
    Exact,
    /// The evaluator found this path alone for the packet, and it agrees with what became of the packet.
    Evaluated,
    /// The only possibility that the ruleset leaves.
    Inferred,
    /// Only the base chain and its verdict are known.
    Chain,
}

impl Provenance {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Evaluated => "evaluated",
            Self::Inferred => "inferred",
            Self::Chain => "chain",
        }
    }
}

/// The kind of a step. The order is that of report lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SiteKind {
    /// The policy of a base chain.
    Policy,
    /// A rule.
    Rule,
    /// The end of a user chain.
    Return,
    /// A base chain whose rules are unknown.
    Chain,
}

impl SiteKind {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Rule => "rule",
            Self::Return => "return",
            Self::Chain => "chain",
        }
    }
}

/// A rule, policy, return or base chain that a packet met. Equal sites of different epochs are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Site {
    /// Part of the kernel.
    pub backend: Backend,
    /// Address family of the table.
    pub family: Family,
    /// Name of the table.
    pub table: String,
    /// Made by iptables: its label is its name alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub iptables: bool,
    /// Name of the chain.
    pub chain: String,
    /// What it is.
    pub kind: SiteKind,
    /// Number in the chain from 1; policies and returns are behind the last rule. `None` for
    /// [`SiteKind::Chain`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// nf_tables' handle of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// Text of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Site {
    /// What trace lines call the table: `filter` for tables of iptables, `inet fw4` for others.
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        label(self.backend, self.family, self.iptables, &self.table)
    }
}

/// What a step did with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
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
    /// Went to a chain, to come back.
    Jump(String),
    /// Went to a chain for good.
    Goto(String),
    /// Given to a program.
    Queue,
    /// Taken by the rule (synproxy, forward).
    Stolen,
    /// The rule matched, and which of its verdicts it gave is unknown.
    Unknown,
}

impl Verdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Continue => "continue",
            Self::Return => "return",
            Self::Jump(_) => "jump",
            Self::Goto(_) => "goto",
            Self::Queue => "queue",
            Self::Stolen => "stolen",
            Self::Unknown => "unknown",
        }
    }

    /// The chain that it leads to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Step {
    /// Where.
    pub site: Arc<Site>,
    /// Its verdict.
    pub verdict: Verdict,
    /// How it is known.
    pub provenance: Provenance,
    /// Whether its position in the order of the steps is known.
    pub placed: bool,
}

/// Marks of a packet behind a base chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MarksBehind {
    /// The chain, as a site of kind [`SiteKind::Chain`].
    pub chain: Arc<Site>,
    /// Whether no other chain lies between it and the link before.
    pub alone: bool,
    /// Packet mark.
    pub packet: u32,
    /// Connmark, 0 without a conntrack entry.
    pub connection: u32,
}

/// One way through a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Traversal {
    /// Hook.
    pub hook: Hook,
    /// Direction of the packet.
    pub direction: Direction,
    /// State of the packet.
    pub state: CtState,
    /// The verdict at the hook.
    pub outcome: Outcome,
    /// Number of the ruleset's epoch, from 1.
    pub epoch: u32,
    /// Packet mark at the beginning and at the end of the hook.
    pub packet_mark: (u32, u32),
    /// Marks between base chains, where links separate them.
    pub marks: Arc<[MarksBehind]>,
    /// Connmark at the beginning and at the end; `None` without a conntrack entry.
    pub connmark: Option<(u32, u32)>,
    /// Reply tuple at the beginning and at the end, if the hook translated an address.
    pub nat: Option<(Tuple, Tuple)>,
    /// The packet was a fragment.
    pub fragment: bool,
    /// Steps, in the order in which the packet met them; then those whose order the counters leave open.
    pub steps: Arc<[Step]>,
    /// Why they are not all exact, if a cause is known.
    pub doubt: Option<Doubt>,
}

impl Traversal {
    /// The step that dropped the packet, if it was dropped and the step is known.
    #[must_use]
    pub fn dropped_by(&self) -> Option<&Step> {
        let drops = |step: &&Step| matches!(step.verdict, Verdict::Drop | Verdict::Reject);
        self.steps.iter().rfind(drops).filter(|_| self.outcome == Outcome::Dropped)
    }
}

/// Up to so many paths of one flow are compared one by one; more of them get an index.
const SEARCHED: usize = 16;

/// The distinct paths of one flow's packets, each with the number of packets that took it, in the order in which they
/// were first seen.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    all: Vec<(Arc<Traversal>, u64)>,
    /// Index of each path, if there are many: a folded flow behind NAT has a path for each translation.
    #[expect(clippy::box_collection, reason = "few flows have one: 8 bytes in the others, not 48")]
    index: Option<Box<HashMap<Arc<Traversal>, usize>>>,
}

impl PartialEq for Paths {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Paths {}

impl Paths {
    /// Adds packets on a path.
    pub fn add(&mut self, traversal: &Arc<Traversal>, packets: u64) {
        if let Some(at) = self.find(traversal) {
            self.all[at].1 += packets;
            return;
        }
        let at = self.all.len();
        if at == 0 {
            // Most flows have one: no room for more.
            self.all.reserve_exact(1);
        }
        self.all.push((Arc::clone(traversal), packets));
        if let Some(index) = &mut self.index {
            index.insert(Arc::clone(traversal), at);
        } else if self.all.len() > SEARCHED {
            let known = self.all.iter().enumerate();
            self.index =
                Some(Box::new(known.map(|(at, (path, _))| (Arc::clone(path), at)).collect()));
        }
    }

    fn find(&self, traversal: &Arc<Traversal>) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(traversal).copied(),
            // Equal ones mostly share their memory.
            None => self
                .all
                .iter()
                .position(|(known, _)| Arc::ptr_eq(known, traversal) || known == traversal),
        }
    }

    /// The same packets on other paths.
    #[cfg(feature = "cli")]
    pub(crate) fn changed(&self, mut change: impl FnMut(&Traversal) -> Traversal) -> Self {
        let mut changed = Self::default();
        for (traversal, packets) in &self.all {
            changed.add(&Arc::new(change(traversal)), *packets);
        }
        changed
    }

    /// Adds all of another flow's.
    pub fn merge(&mut self, other: &Self) {
        for (traversal, packets) in &other.all {
            self.add(traversal, *packets);
        }
    }

    /// The paths, each with the number of packets that took it.
    pub fn iter(&self) -> impl Iterator<Item = (&Traversal, u64)> {
        self.all.iter().map(|(traversal, packets)| (&**traversal, *packets))
    }

    /// As [`Self::iter`], with the shared memory of each path.
    pub fn shared(&self) -> impl Iterator<Item = (&Arc<Traversal>, u64)> {
        self.all.iter().map(|(traversal, packets)| (traversal, *packets))
    }

    /// Whether no packet was traced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_there_once_however_many_there_are() {
        let with_mark = |mark| {
            Arc::new(Traversal {
                hook: Hook::Forward,
                direction: Direction::Original,
                state: CtState::New,
                outcome: Outcome::Passed,
                epoch: 1,
                packet_mark: (0, mark),
                marks: Arc::new([]),
                connmark: None,
                nat: None,
                fragment: false,
                steps: Arc::new([]),
                doubt: None,
            })
        };
        let mut paths = Paths::default();
        // More than are searched one by one; each again in memory of its own.
        for round in 1..=3 {
            for mark in 0..100 {
                paths.add(&with_mark(mark), round);
            }
        }
        let found: Vec<(u32, u64)> =
            paths.iter().map(|(path, packets)| (path.packet_mark.1, packets)).collect();
        assert_eq!(found, (0..100).map(|mark| (mark, 6)).collect::<Vec<_>>());
        let mut both = Paths::default();
        both.merge(&paths);
        assert_eq!(both, paths);
    }
}
