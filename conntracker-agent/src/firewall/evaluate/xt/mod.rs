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
use super::{decision::Decision, translation::Translation, unknown::UnknownSet};

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
    /// It is dropped, and the sender gets an answer.
    Reject,
    /// A program decides.
    Queue,
    /// NAT translates it and accepts, or accepts alone where a translation stands already.
    Translate(Translation),
    /// It depends on what is unknown.
    Unknown(UnknownSet),
}

#[cfg(test)]
mod tests;
