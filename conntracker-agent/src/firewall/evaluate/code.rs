//! Verdicts of rules, with chains by their numbers.

use std::collections::HashMap;

use crate::netlink::nftables::data::Verdict;

/// Number of a chain in a [`super::Firewall`].
pub type ChainNumber = u32;

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Dropped.
    Drop,
    /// Passed this base chain.
    Accept,
    /// Taken by the rule.
    Stolen,
    /// Given to a program.
    Queue,
    /// The rule goes on.
    Continue,
    /// The rule ends, as if it did not match.
    Break,
    /// To a chain, to come back.
    Jump(ChainNumber),
    /// To a chain for good.
    Goto(ChainNumber),
    /// Back to the chain before.
    Return,
}

impl Code {
    /// Of a verdict; `None` if the table does not have its chain.
    pub(super) fn of(verdict: &Verdict, chains: &HashMap<&str, ChainNumber>) -> Option<Self> {
        let number = |chain: &String| chains.get(chain.as_str()).copied();
        Some(match verdict {
            Verdict::Drop => Self::Drop,
            Verdict::Accept => Self::Accept,
            Verdict::Stolen => Self::Stolen,
            Verdict::Queue => Self::Queue,
            Verdict::Continue => Self::Continue,
            Verdict::Break => Self::Break,
            Verdict::Jump(chain) => Self::Jump(number(chain)?),
            Verdict::Goto(chain) => Self::Goto(number(chain)?),
            Verdict::Return => Self::Return,
        })
    }
}
