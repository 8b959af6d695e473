//! Paths of packets through the rules of a hook: by the counters that moved, or by the functions that ran.

pub mod calls;
pub mod chains;
pub mod cpu;
pub mod finish;
pub mod nested;
pub mod path_cache;
pub mod path_sampling;
pub mod plans;
pub mod probes;
pub mod snapshot;
pub mod traverse;
