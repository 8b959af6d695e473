//! The bytes of a header, of which some bits may be unknown. Rules load them as the kernel's expressions do: by
//! offset and length.

use std::fmt;

/// Bytes that are kept: IPv4 and TCP with all their options have up to 60.
pub const HEADER_BYTES: usize = 64;

/// A header. Unknown bits of `value` are 0, so that equal headers compare equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    value: [u8; HEADER_BYTES],
    known: [u8; HEADER_BYTES],
}

impl Header {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { value: [0; HEADER_BYTES], known: [0; HEADER_BYTES] };

    /// Sets bytes, as far as they are kept.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (index, byte) in (offset..HEADER_BYTES).zip(bytes) {
            self.set_bits(index, *byte, 0xff);
        }
    }

    /// Sets the bits of a byte that `mask` has.
    pub fn set_bits(&mut self, offset: usize, value: u8, mask: u8) {
        if let (Some(to), Some(known)) = (self.value.get_mut(offset), self.known.get_mut(offset)) {
            *to = (*to & !mask) | (value & mask);
            *known |= mask;
        }
    }

    /// Makes bytes unknown.
    pub fn forget(&mut self, offset: usize, len: usize) {
        for index in (offset..HEADER_BYTES).take(len) {
            (self.value[index], self.known[index]) = (0, 0);
        }
    }

    /// Makes the bits of a byte unknown that `mask` has.
    pub fn forget_bits(&mut self, offset: usize, mask: u8) {
        if let (Some(value), Some(known)) = (self.value.get_mut(offset), self.known.get_mut(offset))
        {
            (*value, *known) = (*value & !mask, *known & !mask);
        }
    }

    /// A byte and the bits of it that are known; nothing is known of bytes that are not kept.
    #[must_use]
    pub fn byte(&self, offset: usize) -> (u8, u8) {
        let at = |bytes: &[u8]| bytes.get(offset).copied().unwrap_or_default();
        (at(&self.value), at(&self.known))
    }

    /// So many bytes, if all their bits are known.
    #[must_use]
    pub fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let known = self.known.get(offset..)?.first_chunk::<N>()?;
        let value = self.value.get(offset..)?.first_chunk::<N>()?;
        known.iter().all(|bits| *bits == 0xff).then_some(*value)
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.known.iter().rposition(|bits| *bits != 0).map_or(0, |last| last + 1);
        for index in 0..last {
            match self.byte(index) {
                (value, 0xff) => write!(f, "{value:02x}")?,
                (_, 0) => f.write_str("??")?,
                (value, known) => write!(f, "({value:02x}/{known:02x})")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_when_all_their_bits_are() {
        let mut header = Header::UNKNOWN;
        header.set(2, &[1, 2]);
        header.set_bits(4, 0xf1, 0x0f);
        assert_eq!(header.array(2), Some([1, 2]));
        assert_eq!(header.array::<3>(2), None);
        assert_eq!(header.byte(4), (1, 0x0f));
        assert_eq!(format!("{header:?}"), "????0102(01/0f)");
        header.forget_bits(2, 0xf0);
        assert_eq!(header.byte(2), (1, 0x0f));
        header.forget(3, 1);
        assert_eq!(header.array::<1>(3), None);
    }

    #[test]
    fn bytes_beyond_those_kept_are_unknown() {
        let mut header = Header::UNKNOWN;
        header.set(HEADER_BYTES - 1, &[7, 8]);
        assert_eq!(header.array(HEADER_BYTES - 1), Some([7]));
        assert_eq!(header.array::<2>(HEADER_BYTES - 1), None);
        assert_eq!(header.byte(usize::MAX), (0, 0));
        header.forget(usize::MAX, usize::MAX);
    }
}
