//! The programs that copy conntrack's table, with their own maps alone: those of all programs are tens of
//! MiB, which the kernel would have to allocate first.

use std::os::fd::OwnedFd;

use anyhow::Result;
use conntracker_common::{
    offsets::Offsets,
    table::{Part, Walk},
};

use super::layout::TableLayout;
use crate::bpf::{
    kernel_memory::KernelMemory,
    loader::{CONSTANTS, Loader, words},
    object::READ_MEMORY,
    sys::{self, MappedArray},
};

/// Name of the program that copies entries.
pub(super) const TABLE: &str = "table";

/// The maps that the programs use.
const MAPS: [&str; 7] =
    [CONSTANTS, "WALK", "STEPS", "TABLE_0", "TABLE_1", "MEMORY_REQUEST", "MEMORY"];

/// The programs and their maps.
pub(super) struct Programs {
    pub table: OwnedFd,
    pub walk: MappedArray,
    pub parts: [MappedArray; 2],
    pub memory: KernelMemory,
}

impl Programs {
    /// Loads them.
    pub fn load(offsets: Offsets, layout: &TableLayout) -> Result<Self> {
        let (programs, maps) = Loader::new()?
            .constants(&[
                ("OFFSETS", words(&offsets.to_array())),
                ("TABLE_OFFSETS", words(&layout.offsets.to_array())),
                ("TABLE_NUMBERS", words(&layout.numbers.to_array())),
            ])?
            .load_with(MAPS.into_iter())?;
        let memory = KernelMemory::new(
            programs.load(READ_MEMORY, sys::load_syscall)?,
            maps.fd("MEMORY_REQUEST")?,
            maps.fd("MEMORY")?,
        )?;
        Ok(Self {
            table: programs.load(TABLE, sys::load_raw_tracepoint)?,
            walk: MappedArray::new(maps.fd("WALK")?, size_of::<Walk>())?,
            parts: [
                MappedArray::new(maps.fd("TABLE_0")?, size_of::<Part>())?,
                MappedArray::new(maps.fd("TABLE_1")?, size_of::<Part>())?,
            ],
            memory,
        })
    }
}
