//! Recordings whose content was changed and whose checksums are right, for the fuzz target: nothing else gets behind
//! the checksums.

use super::{
    End, Error, PartHead,
    body::{Columns, Unpacker},
    head::BlockType,
    part::{PartWriter, RawBlock},
    scan::{Frame, Scanner},
};

/// A block before it is bytes.
#[derive(Clone, Debug)]
pub struct Block {
    /// Number of its type.
    pub kind: u8,
    /// How many records it says that it has.
    pub records: u32,
    /// Its columns by their numbers, decoded.
    pub columns: Columns,
}

/// The blocks of a recording.
///
/// # Errors
/// It is no recording.
pub fn blocks(mut recording: &[u8]) -> Result<Vec<Block>, Error> {
    let (mut scanner, mut unpacker) = (Scanner::new(&mut recording), Unpacker::new()?);
    let mut blocks = Vec::new();
    while let Some(found) = scanner.next(End::Last)? {
        if let Frame::Block(head) = found.frame
            && let Ok(columns) = unpacker.unpack(scanner.body())
        {
            blocks.push(Block { kind: head.kind.number(), records: head.records, columns });
        }
    }
    Ok(blocks)
}

/// The bytes of a part that has these blocks.
///
/// # Errors
/// A block is too long.
pub fn part(blocks: Vec<Block>) -> std::io::Result<Vec<u8>> {
    let head = PartHead { part: [1; 16], recording: [2; 16], number: 1, made_ns: 3 };
    let mut bytes = head.to_bytes().to_vec();
    let mut writer = PartWriter::new(head, 1)?;
    for Block { kind, records, columns } in blocks {
        let kind = BlockType::of(kind);
        let block = writer.pack(&RawBlock { kind, columns, records, times: (0, 0) })?;
        writer.written(&block);
        bytes.extend(block);
    }
    Ok(bytes)
}
