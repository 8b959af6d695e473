//! A word of which some bits may be unknown: marks, status bits, priorities.

use super::{
    decision::Decision,
    unknown::{Attr, Unknown},
};

/// 32 bits in host byte order. Unknown bits of `value` are 0, so that equal words compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    value: u32,
    known: u32,
    why: Unknown,
}

impl Word {
    /// All bits are known. `why` is the reason for bits that become unknown later.
    #[must_use]
    pub const fn new(value: u32, why: Unknown) -> Self {
        Self { value, known: u32::MAX, why }
    }

    /// No bit is known.
    #[must_use]
    pub const fn unknown(why: Unknown) -> Self {
        Self::partly(0, 0, why)
    }

    /// The bits of `known` are known.
    #[must_use]
    pub const fn partly(value: u32, known: u32, why: Unknown) -> Self {
        Self { value: value & known, known, why }
    }

    /// The bits that are set for certain.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }

    /// The bits that are known.
    #[must_use]
    pub const fn known(self) -> u32 {
        self.known
    }

    /// Why the others are not.
    #[must_use]
    pub const fn why(self) -> Unknown {
        self.why
    }

    /// The whole word.
    pub const fn get(self) -> Attr<u32> {
        if self.known == u32::MAX { Ok(self.value) } else { Err(self.why) }
    }

    /// Whether the bits under `mask` are equal to `value`: a known bit that differs decides.
    #[must_use]
    pub fn has(self, value: u32, mask: u32) -> Decision {
        if (self.value ^ (value & mask)) & mask & self.known != 0 || value & !mask != 0 {
            Decision::No
        } else if mask & !self.known == 0 {
            Decision::Yes
        } else {
            Decision::Undecided(self.why.into())
        }
    }

    /// With these bits set.
    #[must_use]
    pub const fn with(self, bits: u32) -> Self {
        self.changed(bits, bits)
    }

    /// Without knowing these bits.
    #[must_use]
    pub const fn forget(self, bits: u32) -> Self {
        Self::partly(self.value, self.known & !bits, self.why)
    }

    /// `(word & !mask) ^ value`, as marks are set.
    #[must_use]
    pub const fn changed(self, value: u32, mask: u32) -> Self {
        let kept = self.value & !mask;
        let known = self.known | mask;
        Self { value: (kept ^ value) & known, known, why: self.why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_bit_that_differs_decides() {
        let word = Word::partly(0b1010, 0xf, Unknown::Limit);
        assert_eq!(word.has(0b1010, 0xf), Decision::Yes);
        assert_eq!(word.has(0b1011, 0xffff), Decision::No);
        assert_eq!(word.has(0b1010, 0xff), Decision::Undecided(Unknown::Limit.into()));
        assert_eq!(word.has(0x10, 0xf), Decision::No, "a value outside of the mask");
    }

    #[test]
    fn a_mask_makes_bits_known() {
        let word = Word::unknown(Unknown::Limit).changed(0x1, 0xff);
        assert_eq!((word.value(), word.known()), (1, 0xff));
        assert_eq!(word.changed(5, u32::MAX).get(), Ok(5));
    }
}
