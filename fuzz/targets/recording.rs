//! Recordings, read from any bytes; or valid ones that are changed behind their checksums, so that columns and
//! statements are reached. Nothing panics, and what is read goes into a flow table.

#![no_main]

use std::sync::OnceLock;

use conntracker::{
    flowtable::FlowTable,
    recording::{
        End, Item, Reader,
        fuzz::{Block, blocks, part},
    },
};
use libfuzzer_sys::fuzz_target;

/// Events of all kinds.
const GOLDEN: &[u8] = include_bytes!("../../conntracker-agent/src/recording/golden/1.0.rec");

/// What a recording begins with.
const MAGIC: &[u8] = b"\x89CTR";

/// Bytes of a change.
const CHANGE: usize = 6;

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(MAGIC) {
        read(bytes, End::Last);
        read(bytes, End::MayGrow);
        return;
    }
    let mut blocks = valid().clone();
    for change in bytes.chunks_exact(CHANGE) {
        let [what, block, column, at, more, value] = change.try_into().unwrap_or([0; CHANGE]);
        let block = usize::from(block) % blocks.len().max(1);
        let at = usize::from(u16::from_be_bytes([more, at]));
        if !change_blocks(&mut blocks, what, block, value)
            && let Some(block) = blocks.get_mut(block)
        {
            change_column(block, what, column.into(), at, value);
        }
    }
    let records: u64 = blocks.iter().map(|block| u64::from(block.records)).sum();
    let recording = part(blocks).expect("no block is too long");
    assert!(read(&recording, End::Last) <= records, "more events than the heads say");
});

fn valid() -> &'static Vec<Block> {
    static BLOCKS: OnceLock<Vec<Block>> = OnceLock::new();
    BLOCKS.get_or_init(|| blocks(GOLDEN).expect("a valid recording"))
}

/// Whether it was a change of whole blocks.
fn change_blocks(blocks: &mut Vec<Block>, what: u8, at: usize, value: u8) -> bool {
    let Some(block) = blocks.get_mut(at) else { return true };
    match what {
        0 => block.kind = value,
        1 => block.records = block.records.wrapping_add_signed(i32::from(value.cast_signed())),
        2 => {
            blocks.remove(at);
        }
        3 if blocks.len() < 100 => {
            let again = blocks[at].clone();
            blocks.insert(usize::from(value) % blocks.len(), again);
        }
        _ => return false,
    }
    true
}

fn change_column(block: &mut Block, what: u8, column: usize, at: usize, value: u8) {
    let Some(id) = block.columns.keys().copied().nth(column % block.columns.len().max(1)) else {
        return;
    };
    if what == 4 {
        let bytes = block.columns.remove(&id).unwrap_or_default();
        block.columns.insert(value.into(), bytes);
        return;
    }
    let Some(bytes) = block.columns.get_mut(&id) else { return };
    let at = at % bytes.len().max(1);
    match what % 4 {
        0 => bytes.insert(at, value),
        1 => bytes.truncate(at),
        2 if !bytes.is_empty() => {
            bytes.remove(at);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
    }
}

/// How many events there are.
fn read(recording: &[u8], end: End) -> u64 {
    let mut reader = Reader::new(recording).expect("memory");
    let mut table = FlowTable::new(recording.len().is_multiple_of(2), 8);
    let mut count = 0;
    while let Ok(Some(item)) = reader.next(end) {
        if let Item::Events(events) = item {
            count += events.len() as u64;
            events.into_iter().for_each(|event| table.take(event));
        }
    }
    let _flows = table.snapshot();
    count
}
