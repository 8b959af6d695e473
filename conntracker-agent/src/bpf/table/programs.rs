//! The programs, loaded without aya's loader: it parses all of the kernel's BTF for what they do not have,
//! and makes the maps of all programs. That takes as long as reading some hundred thousand entries.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use conntracker_common::{
    offsets::Offsets,
    table::{Part, Walk},
};

use super::layout::TableLayout;
use crate::bpf::{
    kernel_memory::KernelMemory,
    object::{OBJECT, READ_MEMORY, check_abi},
    raw::RawObject,
    sys::{self, MappedArray},
};

/// Name of the program that copies entries.
pub(super) const TABLE: &str = "table";

/// Section of the constants.
const CONSTANTS: &str = ".rodata";

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
        check_abi(OBJECT)?;
        let mut object = aya_obj::Object::parse(OBJECT)?;
        let [offsets, table_offsets, numbers] = [
            bytes(&offsets.to_array()),
            bytes(&layout.offsets.to_array()),
            bytes(&layout.numbers.to_array()),
        ];
        object.patch_map_data(HashMap::from([
            ("OFFSETS", (&*offsets, true)),
            ("TABLE_OFFSETS", (&*table_offsets, true)),
            ("TABLE_NUMBERS", (&*numbers, true)),
        ]))?;
        let mut maps = HashMap::new();
        for name in MAPS {
            let map = object.maps.get(name).cloned();
            let map = map.with_context(|| format!("the BPF object has no map {name}"))?;
            let constants = (name == CONSTANTS).then(|| map.data().to_vec());
            // Names of maps are of letters, digits, `_` and `.`, and short.
            let map = MapData::create(map, name, None).context("cannot create the BPF maps")?;
            if let Some(constants) = constants {
                sys::freeze(map.fd().as_fd(), &constants)?;
            }
            maps.insert(name, map);
        }
        // The object's other maps are those of programs that are not loaded. The kernel would refuse one
        // that uses this.
        let of_others = -1;
        let raw = RawObject::with_maps(object, |name| {
            Some(maps.get(name).map_or(of_others, |map| map.fd().as_fd().as_raw_fd()))
        })?;
        let fd = |name: &str| -> BorrowedFd<'_> { maps[name].fd().as_fd() };
        let memory = KernelMemory::new(
            raw.load(READ_MEMORY, sys::load_syscall)?,
            fd("MEMORY_REQUEST"),
            fd("MEMORY"),
        )?;
        Ok(Self {
            table: raw.load(TABLE, sys::load_raw_tracepoint)?,
            walk: MappedArray::new(fd("WALK"), size_of::<Walk>())?,
            parts: [
                MappedArray::new(fd("TABLE_0"), size_of::<Part>())?,
                MappedArray::new(fd("TABLE_1"), size_of::<Part>())?,
            ],
            memory,
        })
    }
}

/// Numbers as they lie in memory.
fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}
