//! Tables, chains and rules, whichever program wrote them.

use std::borrow::Cow;

use serde::Serialize;

use super::action::{Action, Target};
use super::clause::Clause;
use crate::model::{
    hook::Hook,
    table::{Backend, Family, label},
};

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Address family.
    pub family: Family,
    /// Name.
    pub name: String,
    /// The part of the kernel that holds it.
    pub backend: Backend,
    /// nf_tables' handle: a table that is deleted and made again has another one.
    pub handle: Option<u64>,
    /// Whether iptables made it, legacy or iptables-nft: docs/rules.md says how that is recognised.
    pub iptables: bool,
    /// Flag `dormant`: none of its chains is at a hook.
    pub dormant: bool,
    /// Chains, in display order: base chains by hook and name, then user chains by name.
    pub chains: Vec<Chain>,
}

impl Table {
    /// What trace lines call it.
    #[must_use]
    pub fn label(&self) -> Cow<'_, str> {
        label(self.backend, self.family, self.iptables, &self.name)
    }

    /// A chain by its name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        // Tables of kube-proxy have tens of thousands of user chains, but few base chains.
        let (base, user) = self.chains.split_at(self.chains.partition_point(|c| c.base.is_some()));
        base.iter().find(|chain| chain.name == name).or_else(|| {
            let found = user.binary_search_by(|chain| chain.name.as_str().cmp(name)).ok()?;
            user.get(found)
        })
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// nf_tables' handle.
    pub handle: Option<u64>,
    /// Its hook, if it is a base chain.
    pub base: Option<Base>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A rule by nf_tables' handle.
    #[must_use]
    pub fn rule(&self, handle: u64) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.handle == Some(handle))
    }

    /// Whether the chain does nothing but accept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let accepts = self.base.as_ref().is_none_or(|base| base.policy == Policy::Accept);
        accepts && self.rules.is_empty()
    }

    /// Position after the last rule: that of a base chain's policy or a user chain's return, as the kernel's TRACE
    /// numbers them (`trace_packet` of net/ipv4/netfilter/ip_tables.c).
    #[must_use]
    pub fn end_position(&self) -> u32 {
        self.rules.len() as u32 + 1
    }

    /// What stands at a position.
    #[must_use]
    pub fn at(&self, position: u32) -> Option<ChainItem<'_>> {
        if position == self.end_position() {
            return Some(match &self.base {
                Some(base) => ChainItem::Policy(base.policy),
                None => ChainItem::Return,
            });
        }
        self.rules.get(position.checked_sub(1)? as usize).map(ChainItem::Rule)
    }
}

/// What stands at a position of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainItem<'a> {
    /// A rule.
    Rule(&'a Rule),
    /// The policy of a base chain.
    Policy(Policy),
    /// The end of a user chain.
    Return,
}

/// The hook of a base chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// Type.
    #[serde(rename = "type")]
    pub kind: ChainType,
    /// Hook.
    pub hook: Hook,
    /// Priority at the hook: lower ones come first.
    pub priority: i32,
    /// The verdict for packets that no rule decided.
    pub policy: Policy,
    /// Packets that met the policy; iptables-legacy counts them, nf_tables does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// Devices, for hooks that hang at devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// Type of a base chain (nft(8), "Chains").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainType {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each connection.
    Nat,
    /// As `filter`; the kernel routes a packet again that the chain changed.
    Route,
}

impl ChainType {
    /// By its name in nft.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "filter" => Self::Filter,
            "nat" => Self::Nat,
            "route" => Self::Route,
            _ => return None,
        })
    }

    /// Its name in nft.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Policy of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
}

impl Policy {
    /// By its name: lower case in nft, upper case in iptables.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "accept" | "ACCEPT" => Some(Self::Accept),
            "drop" | "DROP" => Some(Self::Drop),
            _ => None,
        }
    }

    /// Its name in nft.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}

/// A counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Number in its chain, from 1, as iptables(8) and TRACE count.
    pub position: u32,
    /// nf_tables' handle, which no other rule of the table ever has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// As nft or iptables-save writes it, without the values of counters.
    pub text: String,
    /// The kinds of its parts, in order: `match ct`, `lookup`, `counter`, `xt target REJECT`, …
    pub kinds: Vec<String>,
    /// Its own counter, the last one if it has several. Named counters belong to the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// Whether the counter moves exactly when the rule matches, because no condition follows it.
    pub counts_matches: bool,
    /// What it can do with a packet, besides letting it go on to the next rule.
    pub actions: Vec<Action>,
    /// Chains it can go to, those of verdict maps included.
    pub targets: Vec<Target>,
    /// The family that a NAT rule in a table for both families translates. Packets of the other family match and go
    /// on (`nft_nat_inet_eval` of net/netfilter/nft_nat.c).
    #[serde(skip)]
    pub nat_family: Option<Family>,
    /// Its conditions and statements; empty if they are unknown, as in ip_tables.
    #[serde(skip)]
    pub clauses: Vec<Clause>,
}
