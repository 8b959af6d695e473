//! Matches and targets of iptables (x_tables extensions), in ip_tables and, as `xt` expressions, in nf_tables.
//!
//! [`Match`] and [`Target`] are decoded from the structures that the kernel keeps. Whatever they read of a packet may
//! be unknown; then the answer is undecided, with the reason. Packets are whole: no match drops one because its
//! header is cut off.

pub mod address;
pub mod change;
pub mod compare;
pub mod conntrack;
pub(super) mod ip;
mod matches;
pub mod meta;
pub mod multiport;
pub mod nat;
pub mod network;
mod targets;
pub mod tcp;
pub mod transport;
pub mod u32_match;

pub use self::{
    matches::{Match, Statistic},
    targets::Target,
};
use super::{
    context::Context, decision::Decision, packet::Packet, translation::Translation,
    unknown::UnknownSet,
};

/// What a match says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchResult {
    /// Whether the packet matches.
    Matches(Decision),
    /// The packet is dropped at once, whatever the rule's target is (`hotdrop`).
    Drops,
}

/// What a target does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetResult {
    /// The packet goes on to the next rule (XT_CONTINUE); what it changed is in the packet.
    Continue,
    /// It leaves the base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// It is dropped, and the sender gets an answer.
    Reject,
    /// It leaves the chain.
    Return,
    /// A program decides.
    Queue,
    /// The rule takes it.
    Stolen,
    /// NAT translates it and accepts, or accepts alone where a translation stands already.
    Translate(Translation),
    /// It depends on what is unknown.
    Unknown(UnknownSet),
}

/// Whether a packet matches an extension. `info` is the extension's own structure, in host byte order but for
/// addresses and ports, as the kernel keeps it.
#[must_use]
pub fn matches(
    name: &str,
    revision: u32,
    info: &[u8],
    packet: &Packet,
    context: &Context<'_>,
) -> MatchResult {
    Match::decode(name, revision, info).result(packet, context)
}

/// What a target does with a packet. Marks are changed in the packet.
#[must_use]
pub fn target(
    name: &str,
    revision: u32,
    info: &[u8],
    packet: &mut Packet,
    context: &Context<'_>,
) -> TargetResult {
    Target::decode(name, revision, info).apply(packet, context)
}

#[cfg(test)]
mod tests;
