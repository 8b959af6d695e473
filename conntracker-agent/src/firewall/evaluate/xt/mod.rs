//! Matches and targets of iptables (x_tables extensions).

use super::{
    context::Context,
    decision::Decision,
    packet::Packet,
    translation::Translation,
    unknown::{Unknown, UnknownSet},
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
    _name: &str,
    _revision: u32,
    _info: &[u8],
    _packet: &Packet,
    _context: &Context<'_>,
) -> MatchResult {
    MatchResult::Matches(Decision::Undecided(Unknown::Extension.into()))
}

/// What a target does with a packet. Marks are changed in the packet.
#[must_use]
pub fn target(
    _name: &str,
    _revision: u32,
    _info: &[u8],
    _packet: &mut Packet,
    _context: &Context<'_>,
) -> TargetResult {
    TargetResult::Unknown(Unknown::Extension.into())
}
