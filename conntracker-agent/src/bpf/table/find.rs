//! Finds conntrack's hash table. The variable `nf_conntrack_hash` has its address, but many kernels list the
//! addresses of functions and not of variables (CONFIG_KALLSYMS_ALL). Variables next to it belong to files of sysctl,
//! though, and a hash table can be recognised: each of its chains ends in the number of its bucket.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
};

use anyhow::{Context, Result, bail};

use super::layout::Sysctl;
use crate::bpf::{
    index::memory::{Memory, u64_at},
    kernel_memory::KernelMemory,
};

/// Files whose variables are near: that of `nf_conntrack_max` is in the same source file
/// (net/netfilter/nf_conntrack_core.c), that of `nf_conntrack_buckets` in the next one.
const FILES: [&str; 2] = ["nf_conntrack_max", "nf_conntrack_buckets"];

/// Where they are.
const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// Bytes before and behind a variable that are searched.
const AROUND: u64 = 4096;

/// Bytes that are read at once, because the memory behind the variables may not be readable.
const STRETCH: u64 = 512;

/// Tables are allocated in whole pages.
const PAGE: u64 = 4096;

/// Nodes of a chain that are followed.
const LONGEST_CHAIN: usize = 4096;

/// The hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashTable {
    /// Address of its first bucket.
    pub buckets: u64,
    /// How many there are.
    pub size: u32,
}

impl HashTable {
    /// Finds it.
    pub fn find(memory: &mut KernelMemory, layout: &Sysctl) -> Result<Self> {
        let size = size()?;
        let task = memory.task()?;
        for name in FILES {
            let Ok(file) = File::open(format!("{DIRECTORY}/{name}")) else { continue };
            let variable = variable(memory, layout, task, file.as_raw_fd().cast_unsigned().into())?;
            if let Some(found) = Self::near(memory, variable, size) {
                return Ok(found);
            }
        }
        bail!("conntrack's hash table cannot be found in this kernel's memory");
    }

    /// Searches for the address of a table near a variable.
    fn near(memory: &mut dyn Memory, variable: u64, size: u32) -> Option<Self> {
        let variable = variable & !7;
        // Outwards: it is most likely close by.
        let stretches = (0..AROUND).step_by(STRETCH as usize).flat_map(|distance| {
            [variable.wrapping_add(distance), variable.wrapping_sub(distance + STRETCH)]
        });
        for stretch in stretches {
            let Ok(bytes) = memory.pieces(&[(stretch, STRETCH as u32)]) else { continue };
            for at in (0..STRETCH).step_by(8) {
                let table = Self { buckets: u64_at(&bytes, at), size };
                if table.is_plausible() && table.is_one(memory) {
                    return Some(table);
                }
            }
        }
        None
    }

    /// Whether the address is one of whole pages in the kernel's half of the address space.
    fn is_plausible(&self) -> bool {
        self.buckets.is_multiple_of(PAGE) && self.buckets.cast_signed() < 0
    }

    /// Whether some chains, the first and the last among them, end in the numbers of their buckets.
    fn is_one(&self, memory: &mut dyn Memory) -> bool {
        let last = self.size.saturating_sub(1);
        [0, 1, last / 3, last / 2, last.saturating_sub(1), last]
            .into_iter()
            .all(|bucket| self.end_of_chain(memory, bucket) == Some(bucket.into()))
    }

    /// The number in which the chain of a bucket ends.
    fn end_of_chain(&self, memory: &mut dyn Memory, bucket: u32) -> Option<u64> {
        let mut next = self.buckets.wrapping_add(8 * u64::from(bucket));
        for _ in 0..LONGEST_CHAIN {
            next = word(memory, next).ok()?;
            if next & 1 != 0 {
                return Some(next >> 1);
            }
        }
        None
    }
}

/// How many buckets the table has.
pub(super) fn size() -> Result<u32> {
    let path = format!("{DIRECTORY}/nf_conntrack_buckets");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.trim().parse().with_context(|| path)
}

/// Address of the variable of a sysctl file that a task has open.
fn variable(memory: &mut dyn Memory, layout: &Sysctl, task: u64, fd: u64) -> Result<u64> {
    let files = word(memory, task + layout.task_files)?;
    let table = word(memory, files + layout.files_table)?;
    let pointers = word(memory, table + layout.table_files)?;
    let file = word(memory, pointers + 8 * fd)?;
    let inode = word(memory, file + layout.file_inode)?;
    let entry = word(memory, inode.wrapping_sub(layout.proc_inode) + layout.proc_entry)?;
    word(memory, entry + layout.entry_data)
}

fn word(memory: &mut dyn Memory, address: u64) -> Result<u64> {
    Ok(u64_at(&memory.pieces(&[(address, 8)])?, 0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bpf::index::memory::Gone;

    const VARIABLE: u64 = 0xffff_ffff_8000_0100;
    const TABLE: u64 = 0xffff_8880_0200_0000;
    const NODE: u64 = 0xffff_8880_0300_0040;

    /// Words at addresses. Other memory within 8 KiB of the variable is 0; the rest is unreadable.
    struct Fake(BTreeMap<u64, u64>);

    impl Memory for Fake {
        fn pieces(&mut self, pieces: &[(u64, u32)]) -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            for &(address, len) in pieces {
                for at in (address..address + u64::from(len)).step_by(8) {
                    let word = self.0.get(&at).copied();
                    let near = at.abs_diff(VARIABLE) < 8192;
                    bytes.extend(word.or(near.then_some(0)).ok_or(Gone)?.to_ne_bytes());
                }
            }
            Ok(bytes)
        }
    }

    /// A table of 64 buckets, one of which has a node.
    fn memory(pointer: u64) -> Fake {
        let mut words: BTreeMap<u64, u64> =
            (0..64).map(|bucket| (TABLE + 8 * bucket, 2 * bucket + 1)).collect();
        words.insert(TABLE, NODE);
        words.insert(NODE, 1);
        words.insert(pointer, TABLE);
        Fake(words)
    }

    #[test]
    fn a_table_is_found_on_either_side_of_the_variable() {
        for pointer in [VARIABLE + 24, VARIABLE - 416, VARIABLE + 4088, VARIABLE - 4096] {
            let found = HashTable::near(&mut memory(pointer), VARIABLE + 4, 64);
            assert_eq!(found, Some(HashTable { buckets: TABLE, size: 64 }), "{pointer:x}");
        }
        assert_eq!(HashTable::near(&mut memory(VARIABLE + 4096), VARIABLE, 64), None);
    }

    #[test]
    fn what_only_looks_like_a_table_is_none() {
        // Another size, a chain without an end, one that ends elsewhere, and one that leads to unreadable memory.
        assert_eq!(HashTable::near(&mut memory(VARIABLE), VARIABLE, 65), None);
        for next in [NODE, 3, NODE + 8] {
            let mut memory = memory(VARIABLE);
            memory.0.insert(NODE, next);
            assert_eq!(HashTable::near(&mut memory, VARIABLE, 64), None);
        }
    }
}
