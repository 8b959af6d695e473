//! Records of the ring: of flows, paths and ends. The first byte tells whether version and length are put right.

#![no_main]

use conntracker::bpf::{
    end::{End, is_end},
    path::{PathRecord, is_path},
    record::Record,
};
use conntracker_common::ABI_VERSION;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((mended, record)) = bytes.split_first() else { return };
    let mut record = record.to_vec();
    let len = (record.len() as u16).to_ne_bytes();
    if mended % 2 == 1
        && let Some([_, version, length @ ..]) = record.first_chunk_mut::<4>()
    {
        *version = ABI_VERSION;
        *length = len;
    }
    // A record is of one kind.
    let kinds = [
        Record::decode(&record).is_ok(),
        PathRecord::decode(&record).is_ok_and(|_| is_path(&record)),
        End::decode(&record).is_ok_and(|_| is_end(&record)),
    ];
    assert!(kinds.into_iter().filter(|is| *is).count() <= 1);
});
