//! The BPF half: offsets from BTF, loading, links, the ring.
//!
//! In reading order: [`btf`] and [`offsets`] (what the running kernel looks like), [`object`] (the programs and their
//! maps), [`links`] (attaching), [`ring`] and [`record`] (the programs' records), [`sys`] (the only unsafe `bpf(2)`
//! calls).

pub mod activity;
pub mod btf;
mod callbacks;
pub mod counts;
pub mod drops;
pub mod end;
pub mod events;
pub mod index;
mod kernel_memory;
pub mod links;
mod loader;
pub mod object;
pub mod offsets;
pub mod owner;
pub mod path;
mod plans;
pub mod points;
pub mod probes;
pub mod reasons;
pub mod record;
pub mod ring;
pub mod sizes;
pub mod symbols;
pub mod sys;
pub mod table;
