//! What an expression does with the rule that it stands in.

use super::{code::Code, translation::Translation, unknown::UnknownSet};

/// The effect of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The rule goes on.
    Next,
    /// The rule ends, and the packet goes on to the next one.
    Break,
    /// One of these two.
    NextOrBreak(UnknownSet),
    /// A verdict.
    Verdict(Code),
    /// Dropped, with an answer.
    Reject,
    /// NAT is told what to do, and the packet leaves the chain.
    Translate(Translation),
    /// What becomes of the packet is unknown.
    Unknown(UnknownSet),
}
