//! How the programs run loops of more rounds than the verifier would walk: value of global `LOOPS`.

/// Not at all: no counters are read.
pub const NONE: u32 = 0;
/// By the helper `bpf_loop` (Linux 5.17+).
pub const BY_NUMBER: u32 = 1;
/// By `bpf_for_each_map_elem` (Linux 5.13+), over map `ROUNDS`, which has an element for each round.
pub const BY_ELEMENT: u32 = 2;
