//! The kernel's memory of a ruleset, damaged: the walkers read it, or say that it is gone.

#![no_main]

use conntracker::bpf::index::fuzz::walk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = walk(bytes);
});
