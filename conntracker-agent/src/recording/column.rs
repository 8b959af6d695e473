//! Columns: the values of one field in all records of a block, behind each other.

/// A column that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnWriter {
    bytes: Vec<u8>,
    last: u64,
}

impl ColumnWriter {
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A number in as few bytes as it needs, seven bits each, the low ones first (LEB128).
    pub fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// The difference to the last number of the column; those below it are odd.
    pub fn delta(&mut self, number: u64) {
        let difference = number.wrapping_sub(self.last).cast_signed();
        self.last = number;
        self.number(((difference << 1) ^ (difference >> 63)).cast_unsigned());
    }

    /// The bytes; the column is empty afterwards, with room for as many.
    pub fn take(&mut self) -> Vec<u8> {
        self.last = 0;
        let room = Vec::with_capacity(self.bytes.len());
        std::mem::replace(&mut self.bytes, room)
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A column ends before its records do, or has a number that no writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A column that is being read.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnReader {
    bytes: Vec<u8>,
    at: usize,
    last: u64,
    /// The writer was of a version that did not have the column: every value is 0.
    absent: bool,
}

impl ColumnReader {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0, last: 0, absent: false }
    }

    pub fn absent() -> Self {
        Self { absent: true, ..Self::default() }
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None if self.absent => Ok(0),
            None => Err(Malformed),
        }
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        if self.absent {
            return Ok([0; N]);
        }
        let bytes =
            self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        self.at += N;
        Ok(*bytes)
    }

    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // Nine bytes have 63 bits.
                return if shift == 63 && byte > 1 { Err(Malformed) } else { Ok(number) };
            }
        }
        Err(Malformed)
    }

    pub fn delta(&mut self) -> Result<u64, Malformed> {
        let folded = self.number()?;
        let difference = (folded >> 1) ^ (folded & 1).wrapping_neg();
        self.last = self.last.wrapping_add(difference);
        Ok(self.last)
    }

    /// What was not read yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// A number that fits into a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(all: Vec<u64>, bytes: [u8; 7]) {
            let mut out = ColumnWriter::default();
            for &number in &all {
                out.number(number);
                out.delta(number);
            }
            out.bytes(&bytes);
            let mut column = ColumnReader::new(out.take());
            for &number in &all {
                prop_assert_eq!(column.number(), Ok(number));
                prop_assert_eq!(column.delta(), Ok(number));
            }
            prop_assert_eq!(column.bytes(), Ok(bytes));
            prop_assert_eq!(column.byte(), Err(Malformed));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut column = ColumnReader::new(bytes);
            while column.delta().is_ok() {}
        }
    }

    #[test]
    fn what_a_writer_did_not_have_is_0() {
        let mut column = ColumnReader::absent();
        assert_eq!(
            (column.number(), column.bytes::<4>(), column.delta()),
            (Ok(0), Ok([0; 4]), Ok(0))
        );
    }
}
