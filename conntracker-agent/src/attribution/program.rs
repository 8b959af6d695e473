//! The ruleset of a namespace as the kernel evaluates it, with the meaning of its counters.

use super::{ChainId, Observation, SolvedVerdict, Spot, packet::Needs};
use crate::firewall::{
    clause::Clause,
    model::{ChainType, Policy},
};

/// The kernel's side of a ruleset: which chains are as listed, and which counters are read.
pub trait Counters {
    /// Whether the kernel's chain has the rules of the model, handle by handle.
    fn agrees(&self, table: usize, chain: usize) -> bool;

    /// Whether the counter of a rule is read. Index `rules.len()` is the end of the chain, for ip_tables only.
    fn reads(&self, table: usize, chain: usize, rule: usize) -> bool;
}

/// The ruleset of a namespace.
#[derive(Debug, Default)]
pub struct Program {
    /// Chains of all tables, table by table.
    pub(super) chains: Vec<ProgramChain>,
    /// For each table, the number of its first chain.
    pub(super) first: Vec<u32>,
    /// What rules can do, rule by rule.
    pub(super) outcomes: Vec<RuleOutcome>,
    /// By hook: the fields that rules without a counter compare, and those that any rule compares.
    pub(super) needs: [[Needs; 2]; HOOKS],
    /// Whether headers of packets follow from conntrack's tuples, because no rule changes them otherwise.
    pub(super) keeps_headers: bool,
    /// Whether only rules that reject send packets.
    pub(super) only_rejects_send: bool,
    /// Whether a rule untracks packets (`notrack`).
    pub(super) untracks: bool,
}

/// Hooks of all families: bits of [`ProgramChain::hook`].
const HOOKS: usize = 8;

/// What a counter tells of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// It moves exactly when the rule matches.
    Exact,
    /// Conditions follow it: it moves on every match, and also on some packets that do not match.
    Bound,
    /// A verdict can precede it: a match need not move it.
    Loose,
    /// There is no counter, or it is not read.
    Blind,
}

impl Knowledge {
    /// Whether a rule can match without moving a counter.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Loose | Self::Blind)
    }
}

/// An outcome of a rule that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RuleOutcome {
    Continue,
    Accept,
    Drop,
    Reject,
    Jump(ChainId),
    Goto(ChainId),
    Return,
    Queue,
    /// Accepts, or drops if it cannot translate; the kernel skips later base chains of type nat (`nf_nat_inet_fn` of
    /// net/netfilter/nf_nat_core.c).
    Nat,
    /// The same for packets of one family; those of the other one go on.
    NatOf {
        v6: bool,
    },
    /// Takes the packet, drops it, or lets it go on if it is no part of a handshake.
    Synproxy,
    Stolen,
    /// Any verdict.
    Unknown,
    /// Any verdict, possibly after rules that are not in the model.
    Wander,
}

impl RuleOutcome {
    /// Whether packets leave the model: unknown rules, user space or a new packet. Their fields are unknown
    /// afterwards.
    pub(super) fn leaves_model(self) -> bool {
        matches!(self, Self::Queue | Self::Synproxy | Self::Wander)
    }

    /// The verdict that it always is.
    pub fn verdict(self) -> Option<SolvedVerdict> {
        Some(match self {
            Self::Continue => SolvedVerdict::Continue,
            Self::Accept => SolvedVerdict::Accept,
            Self::Drop => SolvedVerdict::Drop,
            Self::Reject => SolvedVerdict::Reject,
            Self::Jump(to) => SolvedVerdict::Jump(to),
            Self::Goto(to) => SolvedVerdict::Goto(to),
            Self::Return => SolvedVerdict::Return,
            Self::Queue => SolvedVerdict::Queue,
            Self::Stolen => SolvedVerdict::Stolen,
            Self::Nat | Self::NatOf { .. } | Self::Synproxy | Self::Unknown | Self::Wander => {
                return None;
            }
        })
    }
}

#[derive(Debug)]
pub(super) struct ProgramChain {
    pub table: u32,
    /// Index in its table.
    pub index: u32,
    /// Policy and type of a base chain.
    pub base: Option<(Policy, ChainType)>,
    /// A bit for each hook from which the chain can be entered, and for each from which one packet can enter it more
    /// than once.
    pub entered: u8,
    pub entered_again: u8,
    /// A rule without a counter can lead here.
    pub called_blindly: bool,
    /// Its rules are the kernel's.
    pub known: bool,
    /// Whether its end has a counter that is read.
    pub end_counts: bool,
    /// Whether it is a chain of nf_tables, which limits the depth of jumps.
    pub nft: bool,
    pub rules: Vec<ProgramRule>,
    /// Rules that can give a verdict without moving a counter, ascending.
    pub blind: Vec<u32>,
    /// Rules that can set marks without moving a counter, ascending.
    pub marking: Vec<u32>,
}

/// How a matching rule changes a mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sets {
    #[default]
    Nothing,
    To(u32),
    /// To something.
    Anything,
}

/// What a rule does to a mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marking {
    pub sets: Sets,
    /// Whether it may set the mark without a match, because conditions follow.
    pub early: bool,
}

impl Marking {
    /// The mark behind the rule.
    pub fn after(self, mark: Option<u32>, matched: bool) -> Option<u32> {
        match (self.sets, matched) {
            (Sets::To(mark), true) => Some(mark),
            (Sets::Anything, true) => None,
            (Sets::To(_) | Sets::Anything, false) if self.early => None,
            _ => mark,
        }
    }

    /// It can set the mark.
    pub fn acts(self) -> bool {
        self.sets != Sets::Nothing
    }

    /// It may set a mark to anything.
    pub const ANYHOW: Self = Self { sets: Sets::Anything, early: true };
}

#[derive(Debug)]
pub(super) struct ProgramRule {
    pub knowledge: Knowledge,
    /// Whether it has a target of xtables that lets packets go on but drops those that it cannot change.
    pub fragile: bool,
    /// Whether a probe watches its target.
    pub watched: bool,
    /// Its clauses, if it is a rule of nf_tables.
    pub clauses: Vec<Clause>,
    /// The outcomes of the elements of its verdict map.
    pub map_outcomes: Option<Vec<RuleOutcome>>,
    /// How it changes packet mark and connmark.
    pub markings: [Marking; 2],
    /// Its part of `Program::outcomes`.
    pub outcomes: (u32, u32),
}

impl Program {
    /// Removes the fields of a packet that no rule at its hook compares, so that packets with the same path become
    /// equal.
    pub fn forget_unneeded(&self, seen: &mut Observation) {
        let hook = seen.chains.first().and_then(|&id| self.chain(id)).map_or(0, ProgramChain::hook);
        let needs = self.needs.get(hook.trailing_zeros() as usize);
        // If counters were not read, all rules count as rules without one.
        let needs = needs.map_or(Needs::NONE, |needs| needs[usize::from(!seen.complete)]);
        seen.packet.keep(needs);
    }

    /// Whether headers of packets follow from conntrack's tuples.
    #[must_use]
    pub fn keeps_headers(&self) -> bool {
        self.keeps_headers
    }

    /// Whether only rules that reject send packets.
    #[must_use]
    pub fn only_rejects_send(&self) -> bool {
        self.only_rejects_send
    }

    /// Whether a rule untracks packets (`notrack`).
    #[must_use]
    pub fn untracks(&self) -> bool {
        self.untracks
    }

    /// A chain by the indices of its table in the ruleset and of the chain in the table.
    #[must_use]
    pub fn id(&self, table: usize, chain: usize) -> Option<ChainId> {
        let id = ChainId(self.first.get(table)?.checked_add(u32::try_from(chain).ok()?)?);
        (self.indices(id)? == (table, chain)).then_some(id)
    }

    /// The indices of the table in the ruleset and of the chain in the table.
    #[must_use]
    pub fn indices(&self, id: ChainId) -> Option<(usize, usize)> {
        self.chain(id).map(|chain| (chain.table as usize, chain.index as usize))
    }

    pub(super) fn chain(&self, id: ChainId) -> Option<&ProgramChain> {
        self.chains.get(id.0 as usize)
    }

    /// Marks rules whose targets a probe watches: [`super::Observation::targets_seen`] has those that ran.
    pub fn watch(&mut self, rules: impl Iterator<Item = Spot>) {
        for Spot { chain, index } in rules {
            let chain = self.chains.get_mut(chain.0 as usize);
            if let Some(rule) = chain.and_then(|chain| chain.rules.get_mut(index as usize)) {
                rule.watched = true;
            }
        }
    }

    pub(super) fn rule(&self, spot: Spot) -> Option<&ProgramRule> {
        self.chain(spot.chain)?.rules.get(spot.index as usize)
    }

    /// Whether every match of a rule is seen, and no other packet: its counter moves only then, or a probe watches
    /// its target.
    #[must_use]
    pub fn tells(&self, spot: Spot) -> bool {
        self.rule(spot).is_some_and(|rule| rule.watched || rule.knowledge == Knowledge::Exact)
    }

    pub(super) fn is_watched(&self, spot: Spot) -> bool {
        self.rule(spot).is_some_and(|rule| rule.watched)
    }

    pub(super) fn outcomes(&self, rule: &ProgramRule) -> &[RuleOutcome] {
        &self.outcomes[rule.outcomes.0 as usize..rule.outcomes.1 as usize]
    }

    /// Whether a rule can lead to a chain directly.
    pub(super) fn leads(&self, rule: &ProgramRule, to: ChainId) -> bool {
        let outcomes = self.outcomes(rule);
        [RuleOutcome::Jump(to), RuleOutcome::Goto(to), RuleOutcome::Wander]
            .iter()
            .any(|outcome| outcomes.binary_search(outcome).is_ok())
    }
}

impl ProgramRule {
    /// Whether it can set marks.
    pub fn marks(&self) -> bool {
        self.markings.iter().any(|marking| marking.acts())
    }
}

impl ProgramChain {
    pub fn end(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Whether one packet can enter it more than once at a hook.
    pub fn entered_again(&self, hook: u8) -> bool {
        self.entered_again & hook != 0
    }

    /// The bit of the hook of a base chain.
    pub fn hook(&self) -> u8 {
        if self.base.is_some() { self.entered } else { 0 }
    }
}
