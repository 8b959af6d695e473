//! The body of a block: a directory of columns, then the columns, each compressed by itself.

use std::collections::BTreeMap;

use zstd::bulk::{Compressor, Decompressor};

use super::column::{ColumnReader, ColumnWriter, Malformed};

/// The most bytes that the columns of a block may have together, decoded.
const MOST: usize = 256 << 20;

/// The most columns of a block.
const MOST_COLUMNS: u64 = 1_024;

/// Columns shorter than this are not compressed: a frame of zstd has about this many bytes of its own.
const TOO_SHORT: usize = 24;

/// How a column stands in the body.
mod form {
    /// As it is.
    pub const PLAIN: u8 = 0;
    /// One byte, which the whole column repeats.
    pub const CONSTANT: u8 = 1;
    /// One frame of zstd.
    pub const ZSTD: u8 = 2;
}

/// Columns by their number. A number that a version has dropped is not used again.
pub(super) type Columns = BTreeMap<u16, Vec<u8>>;

/// Writes bodies.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub fn new(level: i32) -> std::io::Result<Self> {
        let mut compressor = Compressor::new(level)?;
        // The directory has the length, and the head of the block the checksum.
        compressor.include_contentsize(false)?;
        compressor.include_checksum(false)?;
        Ok(Self(compressor))
    }

    /// The body, and how many bytes its columns had.
    pub fn pack(&mut self, columns: &Columns) -> std::io::Result<(Vec<u8>, usize)> {
        let mut directory = ColumnWriter::default();
        let mut data = Vec::new();
        directory.number(columns.values().filter(|bytes| !bytes.is_empty()).count() as u64);
        let mut raw = 0;
        for (&id, bytes) in columns.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            raw += bytes.len();
            let before = data.len();
            let form = self.column(bytes, &mut data)?;
            directory.number(id.into());
            directory.byte(form);
            directory.number(bytes.len() as u64);
            directory.number((data.len() - before) as u64);
        }
        let mut body = directory.take();
        body.append(&mut data);
        Ok((body, raw))
    }

    fn column(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> std::io::Result<u8> {
        let first = bytes[0];
        if bytes.iter().all(|&byte| byte == first) {
            data.push(first);
            return Ok(form::CONSTANT);
        }
        if bytes.len() >= TOO_SHORT {
            let packed = self.0.compress(bytes)?;
            if packed.len() < bytes.len() {
                data.extend_from_slice(&packed);
                return Ok(form::ZSTD);
            }
        }
        data.extend_from_slice(bytes);
        Ok(form::PLAIN)
    }
}

/// Reads bodies.
pub(super) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Decompressor::new()?))
    }

    pub fn unpack(&mut self, body: &[u8]) -> Result<Columns, Malformed> {
        let mut directory = ColumnReader::new(body.to_vec());
        let count = directory.number()?;
        if count > MOST_COLUMNS {
            return Err(Malformed);
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let id: u16 = directory.small()?;
            entries.push((
                id,
                directory.byte()?,
                directory.small::<usize>()?,
                directory.small::<usize>()?,
            ));
        }
        let mut data = directory.rest();
        let mut columns = Columns::new();
        let mut sum = 0_usize;
        for (id, form, raw, on_disk) in entries {
            sum = sum.saturating_add(raw);
            let (bytes, rest) = data.split_at_checked(on_disk).ok_or(Malformed)?;
            if sum > MOST {
                return Err(Malformed);
            }
            data = rest;
            let column = match (form, bytes) {
                (form::PLAIN, bytes) => bytes.to_vec(),
                (form::CONSTANT, &[byte]) => vec![byte; raw],
                (form::ZSTD, bytes) => self.0.decompress(bytes, raw).map_err(|_| Malformed)?,
                _ => return Err(Malformed),
            };
            if column.len() != raw || columns.insert(id, column).is_some() {
                return Err(Malformed);
            }
        }
        if data.is_empty() { Ok(columns) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns() -> impl Strategy<Value = Columns> {
        let column = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            (any::<u8>(), 1..5_000_usize).prop_map(|(byte, n)| vec![byte; n]),
            (0..40_u8, 1..3_000_usize)
                .prop_map(|(of, n)| (0..n).map(|i| (i % 7) as u8 + of).collect()),
        ];
        proptest::collection::btree_map(any::<u16>(), column, 0..20)
    }

    proptest! {
        #[test]
        fn bodies_come_back_and_no_change_panics(
            columns in columns(), at: prop::sample::Index, to: u8, cut: prop::sample::Index
        ) {
            let (body, raw) = Packer::new(3).unwrap().pack(&columns).unwrap();
            let mut unpacker = Unpacker::new().unwrap();
            let wanted: Columns = columns.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
            prop_assert_eq!(wanted.values().map(Vec::len).sum::<usize>(), raw);
            prop_assert_eq!(unpacker.unpack(&body).unwrap(), wanted);
            let mut other = body.clone();
            let at = at.index(other.len());
            other[at] = to;
            let _ = unpacker.unpack(&other);
            let cut = &body[..cut.index(body.len())];
            prop_assert!(cut.len() == body.len() || unpacker.unpack(cut).is_err());
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_has_its_memory() {
        let mut body = ColumnWriter::default();
        for number in [1, 5, u64::from(form::CONSTANT), 1 << 40, 1, 0] {
            body.number(number);
        }
        assert_eq!(Unpacker::new().unwrap().unpack(&body.take()), Err(Malformed));
    }
}
