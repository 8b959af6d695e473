//! The heads of parts and of blocks, 64 bytes each.

use super::Error;

/// Length of either head in bytes.
pub(super) const HEAD: usize = 64;

/// What a part begins with. As in PNG, a transfer that changes line ends or the eighth bit changes it.
const MAGIC: [u8; 8] = *b"\x89CTR\r\n\x1a\n";

/// Major number of the format: a reader refuses a higher one.
pub const MAJOR: u16 = 1;

/// Minor number: what a reader of the same major number can leave out has been added.
const MINOR: u16 = 0;

/// The most bytes that a body may have on disk: a reader allocates no more for a damaged or hostile length.
pub(super) const MOST_ON_DISK: u32 = 64 << 20;

/// Head of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// Random, the part's own.
    pub part: [u8; 16],
    /// Random, equal in all parts of one run.
    pub recording: [u8; 16],
    /// Number of the part in its run, from 1.
    pub number: u32,
    /// When it was made: nanoseconds since the epoch.
    pub made_ns: u64,
}

impl PartHead {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD] {
        let Self { part, recording, number, made_ns } = *self;
        let mut out = Fields::new();
        out.put(&MAGIC).put(&MAJOR.to_le_bytes()).put(&MINOR.to_le_bytes()).put(&[0; 4]);
        out.put(&part).put(&recording).put(&number.to_le_bytes()).put(&made_ns.to_le_bytes());
        out.sealed()
    }

    /// From bytes; `None` if they are damaged.
    ///
    /// # Errors
    /// The bytes are those of another kind of file, or of a later version.
    pub fn parse(bytes: &[u8; HEAD]) -> Result<Option<Self>, Error> {
        if !is_sealed(bytes) {
            return Ok(None);
        }
        if bytes[..8] != MAGIC {
            return Err(Error::NotARecording(bytes[..8].to_vec()));
        }
        let found = u16::from_le_bytes(at(bytes, 8));
        if found > MAJOR {
            return Err(Error::TooNew { found });
        }
        Ok(Some(Self {
            part: at(bytes, 16),
            recording: at(bytes, 32),
            number: u32::from_le_bytes(at(bytes, 48)),
            made_ns: u64::from_le_bytes(at(bytes, 52)),
        }))
    }

    /// Whether a part may begin with these bytes.
    #[must_use]
    pub fn begins(bytes: &[u8]) -> bool {
        let length = bytes.len().min(MAGIC.len());
        bytes[..length] == MAGIC[..length]
    }

    /// Whether damaged bytes look like those of a recording all the same.
    #[must_use]
    pub fn resembles(bytes: &[u8]) -> bool {
        let length = bytes.len().min(MAGIC.len());
        let equal = bytes.iter().zip(MAGIC).filter(|&(&a, b)| a == b).count();
        length > 0 && equal + 1 >= length
    }

    /// The word that the part's blocks begin with.
    #[must_use]
    pub fn sync(&self) -> [u8; 8] {
        // Nothing else in the file has it: the head has the identifier as it is.
        let mut sync: [u8; 8] = at(&self.part, 0);
        for (byte, other) in sync.iter_mut().zip(&self.part[8..]) {
            *byte = byte.rotate_left(3) ^ other ^ 0xa5;
        }
        sync
    }
}

/// What a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockType {
    /// [`super::statement::Header`].
    Header,
    /// Strings that later blocks refer to.
    Strings,
    /// [`super::statement::Ruleset`].
    Ruleset,
    /// Paths that later blocks refer to.
    Paths,
    /// FlowEvents.
    Events,
    /// [`super::statement::Owners`].
    Owners,
    /// [`super::statement::Counts`].
    Counts,
    /// [`super::statement::Gap`].
    Gap,
    /// [`super::statement::Close`].
    Close,
    /// Of a later version.
    Other(u8),
}

/// Numbers of the types. One that a version has dropped is not used again.
const TYPES: [(u8, BlockType); 9] = [
    (1, BlockType::Header),
    (3, BlockType::Strings),
    (4, BlockType::Ruleset),
    (6, BlockType::Paths),
    (7, BlockType::Events),
    (8, BlockType::Owners),
    (9, BlockType::Counts),
    (10, BlockType::Gap),
    (12, BlockType::Close),
];

impl BlockType {
    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Other(number) => number,
            known => TYPES.iter().find(|(_, of)| *of == known).map_or(0, |(number, _)| *number),
        }
    }

    /// Whether this version has no such type.
    pub(super) fn is_of_later_version(self) -> bool {
        matches!(self, Self::Other(_))
    }

    pub(super) fn of(number: u8) -> Self {
        TYPES.iter().find(|(of, _)| *of == number).map_or(Self::Other(number), |(_, known)| *known)
    }
}

/// A reader that does not know the type of the block must not go on without it.
const MUST_UNDERSTAND: u16 = 1;

/// Head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub kind: BlockType,
    pub must_understand: bool,
    /// Bytes of the body on disk, and decoded.
    pub length: u32,
    pub raw_length: u32,
    pub records: u32,
    /// Times of the first and the last record, nanoseconds since boot.
    pub first_ns: u64,
    pub last_ns: u64,
    /// Number of the block in its part, from 0.
    pub sequence: u64,
    /// CRC-32 of the head of the block before, 0 for the first one.
    pub before: u32,
    /// CRC-32 of the body on disk.
    pub body: u32,
}

impl BlockHead {
    pub fn to_bytes(self, sync: [u8; 8]) -> [u8; HEAD] {
        let Self { kind, must_understand, length, raw_length, records, .. } = self;
        let flags = if must_understand { MUST_UNDERSTAND } else { 0 };
        let mut out = Fields::new();
        out.put(&sync).put(&[kind.number(), 0]).put(&flags.to_le_bytes());
        out.put(&length.to_le_bytes()).put(&raw_length.to_le_bytes()).put(&records.to_le_bytes());
        out.put(&self.first_ns.to_le_bytes()).put(&self.last_ns.to_le_bytes());
        out.put(&self.sequence.to_le_bytes());
        out.put(&self.before.to_le_bytes()).put(&self.body.to_le_bytes());
        out.sealed()
    }

    /// From bytes that begin with the part's own word; `None` if they are damaged.
    pub fn parse(bytes: &[u8; HEAD]) -> Option<Self> {
        let length = u32::from_le_bytes(at(bytes, 12));
        if !is_sealed(bytes) || length > MOST_ON_DISK {
            return None;
        }
        Some(Self {
            kind: BlockType::of(bytes[8]),
            must_understand: u16::from_le_bytes(at(bytes, 10)) & MUST_UNDERSTAND != 0,
            length,
            raw_length: u32::from_le_bytes(at(bytes, 16)),
            records: u32::from_le_bytes(at(bytes, 20)),
            first_ns: u64::from_le_bytes(at(bytes, 24)),
            last_ns: u64::from_le_bytes(at(bytes, 32)),
            sequence: u64::from_le_bytes(at(bytes, 40)),
            before: u32::from_le_bytes(at(bytes, 48)),
            body: u32::from_le_bytes(at(bytes, 52)),
        })
    }

    /// The CRC-32 of a head's bytes, which the next block has.
    pub fn crc(bytes: &[u8; HEAD]) -> u32 {
        u32::from_le_bytes(at(bytes, HEAD - 4))
    }
}

/// A head that is being written.
struct Fields {
    bytes: [u8; HEAD],
    length: usize,
}

impl Fields {
    fn new() -> Self {
        Self { bytes: [0; HEAD], length: 0 }
    }

    fn put(&mut self, field: &[u8]) -> &mut Self {
        self.bytes[self.length..self.length + field.len()].copy_from_slice(field);
        self.length += field.len();
        self
    }

    /// With the CRC-32 of all bytes before it at its end.
    fn sealed(mut self) -> [u8; HEAD] {
        let crc = crc32fast::hash(&self.bytes[..HEAD - 4]);
        self.bytes[HEAD - 4..].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

fn is_sealed(bytes: &[u8; HEAD]) -> bool {
    crc32fast::hash(&bytes[..HEAD - 4]).to_le_bytes() == bytes[HEAD - 4..]
}

/// `N` bytes from an offset that is inside the head.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|n| bytes[offset + n])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written_and_each_bit_counts() {
        let part = PartHead { part: [7; 16], recording: [9; 16], number: 3, made_ns: 1 << 60 };
        let bytes = part.to_bytes();
        assert_eq!(PartHead::parse(&bytes).unwrap(), Some(part));
        let block = BlockHead {
            kind: BlockType::Events,
            must_understand: true,
            length: 1000,
            raw_length: 4000,
            records: 2048,
            first_ns: 5,
            last_ns: u64::MAX,
            sequence: 77,
            before: 0xdead_beef,
            body: 0x1234_5678,
        };
        let head = block.to_bytes(part.sync());
        assert_eq!(BlockHead::parse(&head), Some(block));
        for bit in 0..HEAD * 8 {
            let flip = |bytes: &[u8; HEAD]| {
                let mut flipped = *bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            };
            assert_eq!(PartHead::parse(&flip(&bytes)).unwrap(), None);
            assert!(PartHead::resembles(&flip(&bytes)[..8]));
            assert_eq!(BlockHead::parse(&flip(&head)), None);
        }
    }

    #[test]
    fn other_files_and_later_versions_are_refused() {
        let mut later =
            PartHead { part: [1; 16], recording: [2; 16], number: 1, made_ns: 0 }.to_bytes();
        later[8] = 2;
        let crc = crc32fast::hash(&later[..HEAD - 4]);
        later[HEAD - 4..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(PartHead::parse(&later), Err(Error::TooNew { found: 2 })));
        assert!(!PartHead::resembles(b"\x7fELF\x02\x01\x01\x00"));
        assert!(!PartHead::resembles(b""));
    }

    #[test]
    fn types_that_are_not_known_keep_their_numbers() {
        for number in 0..=u8::MAX {
            assert_eq!(BlockType::of(number).number(), number);
        }
    }
}
