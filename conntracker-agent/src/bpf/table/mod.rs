//! conntrack's table in the kernel's memory: the same entries, in the same order, as in a netlink dump, but without
//! conntrack's locks and without messages. A BPF program (`table`) copies entries, and this module decodes them.
//!
//! In reading order: `layout` (offsets of members), `find` (the hash table), `programs` and `reader` (the copy),
//! `entry` (the decoding).

mod entry;
mod find;
mod layout;
mod programs;
mod reader;

pub use reader::{TableReader, Tally};
