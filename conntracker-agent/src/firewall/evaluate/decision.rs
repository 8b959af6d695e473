//! Answers of three values: yes, no, or undecided, with the reasons.

use super::unknown::{Attr, UnknownSet};

/// Whether a condition holds for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It depends on what is unknown.
    Undecided(UnknownSet),
}

impl Decision {
    /// Both hold. `No` on one side decides, whatever is unknown on the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, other) | (other, Self::Yes) => other,
            (Self::Undecided(one), Self::Undecided(two)) => Self::Undecided(one.union(two)),
        }
    }

    /// One of them holds. `Yes` on one side decides, whatever is unknown on the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// The opposite.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "as `and` and `or`, which are no traits")]
    pub fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            undecided @ Self::Undecided(_) => undecided,
        }
    }

    /// The opposite if `invert`, as extensions with `!` have it.
    #[must_use]
    pub fn inverted_if(self, invert: bool) -> Self {
        if invert { self.not() } else { self }
    }
}

impl From<bool> for Decision {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl From<Attr<bool>> for Decision {
    fn from(holds: Attr<bool>) -> Self {
        match holds {
            Ok(holds) => holds.into(),
            Err(unknown) => Self::Undecided(unknown.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::unknown::Unknown,
        Decision::{self, No, Undecided, Yes},
    };

    #[test]
    fn one_side_decides_where_the_other_is_unknown() {
        let unknown = Undecided(Unknown::Limit.into());
        assert_eq!(unknown.and(No), No);
        assert_eq!(unknown.or(Yes), Yes);
        assert_eq!(unknown.and(Yes), unknown);
        assert_eq!(unknown.or(No), unknown);
        assert_eq!(unknown.not(), unknown);
        assert_eq!(Decision::from(Err(Unknown::Time)), Undecided(Unknown::Time.into()));
    }
}
