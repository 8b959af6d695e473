//! The registers of nf_tables, of which some bits may be unknown.

use super::{
    unknown::{Attr, UnknownSet},
    word::Word,
};
use crate::netlink::nftables::expression::{REGISTER_BYTES, Register};

/// Bytes of the words in which registers are kept.
const WORD: usize = 4;

/// All registers. Unknown bits of `value` are 0.
#[derive(Clone)]
pub(super) struct Registers {
    value: [u8; REGISTER_BYTES],
    known: [u8; REGISTER_BYTES],
    /// Why bits of each word are unknown.
    why: [UnknownSet; REGISTER_BYTES / WORD],
}

/// Bytes of registers.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// Unknown bits are 0.
    pub value: &'a [u8],
    /// Bits that are known.
    pub known: &'a [u8],
    /// Why the others are not.
    pub why: UnknownSet,
}

impl Bits<'_> {
    /// Whether all bits are known.
    pub(super) fn is_known(&self) -> bool {
        self.known.iter().all(|bits| *bits == 0xff)
    }

    /// The lowest value that is possible.
    pub(super) fn lowest(&self) -> &[u8] {
        self.value
    }

    /// The highest value that is possible.
    pub(super) fn highest(&self) -> Vec<u8> {
        self.value.iter().zip(self.known).map(|(value, known)| value | !known).collect()
    }

    /// Whether this value is possible.
    pub(super) fn may_be(&self, value: &[u8]) -> bool {
        let mut bytes = self.value.iter().zip(self.known).zip(value);
        bytes.all(|((own, known), other)| (own ^ other) & known == 0)
    }
}

impl Registers {
    /// As a rule finds them: what rules before it left there is not used.
    pub(super) fn new() -> Self {
        Self {
            value: [0; REGISTER_BYTES],
            known: [0xff; REGISTER_BYTES],
            why: [UnknownSet::NONE; REGISTER_BYTES / WORD],
        }
    }

    /// So many bytes; fewer at the end of the registers.
    pub(super) fn load(&self, from: Register, len: usize) -> Bits<'_> {
        let start = from.offset();
        let end = start.saturating_add(len).min(REGISTER_BYTES);
        let words = &self.why[start / WORD..end.div_ceil(WORD)];
        Bits {
            value: &self.value[start..end],
            known: &self.known[start..end],
            why: words.iter().fold(UnknownSet::NONE, |all, why| all.union(*why)),
        }
    }

    /// The bytes of an array, if they are all known; else why not.
    pub(super) fn array<const N: usize>(&self, from: Register) -> Result<[u8; N], UnknownSet> {
        let bits = self.load(from, N);
        let array = bits.value.try_into().ok().filter(|_| bits.is_known());
        array.ok_or(bits.why)
    }

    /// Writes a value that is known, and zeros up to the end of its last word.
    pub(super) fn store(&mut self, to: Register, value: &[u8]) {
        self.store_bits(to, value, &[], UnknownSet::NONE);
    }

    /// Writes a value, or that it is unknown.
    pub(super) fn attr<const N: usize>(&mut self, to: Register, value: Attr<[u8; N]>) {
        match value {
            Ok(value) => self.store(to, &value),
            Err(why) => self.store_unknown(to, N, why.into()),
        }
    }

    /// Writes a word in host byte order.
    pub(super) fn word(&mut self, to: Register, word: Word) {
        let (value, known) = (word.value().to_ne_bytes(), word.known().to_ne_bytes());
        self.store_bits(to, &value, &known, word.why().into());
    }

    /// Writes so many bytes of which nothing is known.
    pub(super) fn store_unknown(&mut self, to: Register, len: usize, why: UnknownSet) {
        let zeros = [0; REGISTER_BYTES];
        let len = len.min(REGISTER_BYTES);
        self.store_bits(to, &zeros[..len], &zeros[..len], why);
    }

    /// Writes a value of which the bits of `known` are known (all, where it is too short), and zeros up to the end
    /// of its last word.
    pub(super) fn store_bits(&mut self, to: Register, value: &[u8], known: &[u8], why: UnknownSet) {
        let start = to.offset();
        let end = start.saturating_add(value.len().next_multiple_of(WORD)).min(REGISTER_BYTES);
        for index in start..end {
            let at = index - start;
            let bits = known.get(at).copied().unwrap_or(0xff);
            self.known[index] = bits;
            self.value[index] = value.get(at).copied().unwrap_or_default() & bits;
        }
        for word in start / WORD..end / WORD {
            let whole = self.known[word * WORD..(word + 1) * WORD].iter().all(|bits| *bits == 0xff);
            self.why[word] = if whole { UnknownSet::NONE } else { why };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::unknown::Unknown, *};

    #[test]
    fn a_word_is_written_to_its_end_and_has_reasons_of_its_own() {
        let register = |number| Register::numbered(number).unwrap();
        let mut registers = Registers::new();
        registers.store_unknown(register(1), 16, Unknown::Limit.into());
        registers.store(register(9), &[1, 2]);
        assert_eq!(registers.array(register(9)), Ok([1, 2, 0, 0]));
        assert_eq!(registers.array::<4>(register(1)), Err(Unknown::Limit.into()));
        assert!(registers.load(register(9), 4).is_known());
        assert!(!registers.load(register(9), 5).is_known());
        registers.store_bits(register(10), &[0xff], &[0x0f], Unknown::Time.into());
        let bits = registers.load(register(10), 1);
        assert_eq!((bits.lowest(), bits.highest()), (&[0x0f][..], vec![0xff]));
        assert!(bits.may_be(&[0x7f]) && !bits.may_be(&[0x70]));
        assert_eq!(registers.load(register(23), 100).value.len(), 4, "the end of the registers");
    }
}
