//! conntrack's table as it lies in the kernel's memory: the same entries, in the same order, as a dump by
//! netlink tells, without conntrack's locks and without messages. A BPF program copies entries (program
//! `table`), here they are understood.
//!
//! In reading order: `layout` (where members are), `find` (where the hash table is), `programs` and
//! `reader` (who copies), `entry` (what it copied).

mod entry;
mod find;
mod layout;
mod programs;
mod reader;

pub use reader::{TableReader, Tally};
