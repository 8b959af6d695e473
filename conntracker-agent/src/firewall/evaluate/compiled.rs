//! Chains and rules in the form in which packets are evaluated, whatever part of the kernel they are from.

use super::{code::Code, xt};
use crate::{
    firewall::legacy::entries::HeaderMatch,
    model::table::{Backend, Family},
    netlink::nftables::expression::{Destination, Expression, Register},
};

/// A chain.
#[derive(Debug)]
pub(in crate::firewall) struct CompiledChain {
    pub backend: Backend,
    pub family: Family,
    pub table: String,
    pub name: String,
    /// What a base chain does with packets that no rule decides; `None` of a user chain.
    pub policy: Option<Code>,
    /// Interfaces that it is about; empty: all.
    pub devices: Vec<String>,
    pub rules: Vec<CompiledRule>,
}

/// A rule.
#[derive(Debug)]
pub(in crate::firewall) struct CompiledRule {
    /// Rules of ip_tables have none.
    pub handle: Option<u64>,
    pub operations: Vec<Operation>,
}

/// An expression whose chains and sets are found.
#[derive(Debug)]
pub(in crate::firewall) enum Operation {
    /// Sets the verdict.
    Verdict(Code),
    /// Looks a key up.
    Lookup { set: usize, from: Register, to: Option<Destination>, invert: bool },
    /// Looks an object up, of a kind.
    ObjectMap { set: usize, from: Register, kind: u32 },
    /// Compares the header, as each rule of ip_tables does first.
    Header(Box<HeaderMatch>),
    /// A match of iptables.
    Match(Box<xt::Match>),
    /// A target of iptables.
    Target(xt::Target),
    /// Any other.
    Plain(Expression),
}
