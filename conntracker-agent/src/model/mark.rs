//! Marks of packets and of conntrack's entries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mark, of a packet (`meta mark`, MARK) or of an entry (`ct mark`, CONNMARK): bits that rules set and look at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Mark(pub u32);

impl Mark {
    /// That of packets and entries which no rule has marked.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::LowerHex for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, out)
    }
}

impl From<Mark> for u64 {
    fn from(Mark(mark): Mark) -> Self {
        mark.into()
    }
}
