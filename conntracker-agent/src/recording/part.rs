//! Blocks of a part as bytes.

use std::io;

use serde::Serialize;

use super::{
    body::{Columns, Packer},
    head::{BlockHead, BlockType, HEAD, MOST_ON_DISK, PartHead},
    statement::Ruleset,
};
use crate::firewall::objects::KernelObjects;

/// The column of a statement's JSON.
pub(super) const JSON: u16 = 0;

/// The columns of a ruleset besides: messages of nf_tables, tables of ip_tables, messages of rtnetlink.
pub(super) const NF_TABLES: u16 = 85;
pub(super) const IP_TABLES: u16 = 86;
pub(super) const ROUTING: u16 = 87;

/// A block before it is bytes.
#[derive(Clone, Debug)]
pub(super) struct RawBlock {
    pub kind: BlockType,
    pub columns: Columns,
    pub records: u32,
    /// Times of the first and the last record, nanoseconds since boot.
    pub times: (u64, u64),
}

impl RawBlock {
    /// A block of one statement, at a time.
    pub fn statement(kind: BlockType, what: &impl Serialize, at_ns: u64) -> io::Result<Self> {
        let json = serde_json::to_vec(what)?;
        Ok(Self { kind, columns: Columns::from([(JSON, json)]), records: 1, times: (at_ns, at_ns) })
    }

    /// A block of a ruleset.
    pub fn ruleset(ruleset: &Ruleset) -> io::Result<Self> {
        let mut block = Self::statement(BlockType::Ruleset, ruleset, ruleset.at_ns)?;
        let KernelObjects { nf_tables, ip_tables, routing, missing: _ } = &ruleset.objects;
        for (column, bytes) in [(NF_TABLES, nf_tables), (IP_TABLES, ip_tables), (ROUTING, routing)]
        {
            block.columns.insert(column, bytes.clone());
        }
        Ok(block)
    }

    /// Bytes that it has in memory.
    pub fn size(&self) -> usize {
        self.columns.values().map(Vec::len).sum()
    }
}

/// Turns blocks into the bytes of one part.
pub(super) struct PartWriter {
    head: PartHead,
    packer: Packer,
    sequence: u64,
    before: u32,
}

impl PartWriter {
    /// A part with this head, whose bytes come first.
    pub fn new(head: PartHead, level: i32) -> io::Result<Self> {
        Ok(Self { head, packer: Packer::new(level)?, sequence: 0, before: 0 })
    }

    /// The bytes of the next block. It has its place once [`Self::written`] is called.
    pub fn pack(&mut self, block: &RawBlock) -> io::Result<Vec<u8>> {
        let RawBlock { kind, columns, records, times: (first_ns, last_ns) } = block;
        let (body, raw) = self.packer.pack(columns)?;
        let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, "a block is too long");
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MOST_ON_DISK);
        let head = BlockHead {
            kind: *kind,
            must_understand: false,
            length: length.ok_or_else(too_long)?,
            raw_length: raw.try_into().map_err(|_| too_long())?,
            records: *records,
            first_ns: *first_ns,
            last_ns: *last_ns,
            sequence: self.sequence,
            before: self.before,
            body: crc32fast::hash(&body),
        };
        let mut bytes = head.to_bytes(self.head.sync()).to_vec();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// The bytes of the block are in the file.
    pub fn written(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<HEAD>() {
            self.sequence += 1;
            self.before = BlockHead::crc(head);
        }
    }
}
