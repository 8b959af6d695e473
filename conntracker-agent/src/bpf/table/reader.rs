//! Runs the program that copies entries.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, BufMut};
use conntracker_common::table::{CHANGING, PART_HEADER, SLOTS, Slot, UNREADABLE, Walk};

use super::{
    entry::Copy,
    find::{self, HashTable},
    layout::{EntryLayout, TableLayout, hz},
    programs::{Programs, TABLE},
};
use crate::{
    bpf::{
        btf::KernelBtf,
        offsets::offsets,
        sys::{self, MappedArray},
    },
    netlink::{self, ctnetlink::Entry},
    os::{ahead::ahead, netns::Netns},
};

/// Reads conntrack's table from the kernel's memory (Linux 5.17+).
pub struct TableReader {
    programs: Programs,
    table: HashTable,
    layout: EntryLayout,
}

/// Counts of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries.
    pub entries: u64,
    /// Entries with a security context, which cannot be read.
    pub secret: u64,
    /// Whether the hash table was resized meanwhile, so that entries may be missing or come twice.
    pub resized: bool,
}

impl TableReader {
    /// Loads the program and finds the table.
    ///
    /// # Errors EPERM without CAP_BPF and CAP_PERFMON; a kernel without BTF or `bpf_loop`, or with structures that
    /// this version does not know.
    pub fn open() -> Result<Self> {
        netlink::load_modules();
        let btf = KernelBtf::of_running_kernel()?;
        if btf.enumerator("BPF_FUNC_loop").is_err() {
            bail!("the kernel has no bpf_loop (Linux 5.17+)");
        }
        let layout = TableLayout::resolve(&btf, hz()?)?;
        let mut programs = Programs::load(offsets(&btf)?, &layout)?;
        let table = HashTable::find(&mut programs.memory, &layout.sysctl)?;
        log::debug!("conntrack's hash table: {} buckets at {:x}", table.size, table.buckets);
        Ok(Self { programs, table, layout: layout.entry })
    }

    /// Hands the entries of a namespace to `each`, in the order of the hash table, while a thread runs the program
    /// for those that follow. An error of `each` ends it.
    pub fn for_each<E: From<anyhow::Error>>(
        &mut self,
        netns: &Netns,
        mut each: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<Tally, E> {
        let Self { programs, table, layout } = self;
        let net = programs.memory.net(netns)?;
        let Programs { table: program, walk, parts, memory: _ } = programs;
        let mut walker = Walker { program, walk, table: *table, net, bucket: 0 };
        let copies = (0..)
            .zip(parts)
            .map(|(number, memory)| Copies { number, memory, jiffies: 0, filled: 0 })
            .collect();
        let mut tally = Tally::default();
        let read = |copies: &mut Copies<'_>| {
            let jiffies = copies.jiffies;
            for slot in copies.slots() {
                let copy = Copy::new(slot);
                let Some(entry) = copy.entry(layout, jiffies) else { continue };
                tally.entries += 1;
                tally.secret += u64::from(copy.has_secmark(layout));
                each(&entry)?;
            }
            Ok(())
        };
        ahead(copies, |copies| walker.fill(copies), read)
            .context("cannot start a thread to read the table")
            .map_err(E::from)
            .flatten()?;
        tally.resized = find::size()? != table.size;
        Ok(tally)
    }
}

/// Map `TABLE_0` or `TABLE_1`, and the result of the program for it.
struct Copies<'a> {
    number: u32,
    memory: &'a mut MappedArray,
    jiffies: u32,
    filled: usize,
}

impl Copies<'_> {
    /// The slots that are filled.
    fn slots(&mut self) -> impl Iterator<Item = &[u8]> {
        let slots = self.memory.bytes().get(PART_HEADER..).unwrap_or_default();
        slots.chunks_exact(size_of::<Slot>()).take(self.filled)
    }
}

/// Has the program walk along the table.
struct Walker<'a> {
    program: &'a OwnedFd,
    walk: &'a mut MappedArray,
    table: HashTable,
    net: u64,
    bucket: u32,
}

impl Walker<'_> {
    /// Runs the program once; false if the end of the table was reached.
    fn fill(&mut self, copies: &mut Copies<'_>) -> Result<bool> {
        copies.filled = 0;
        let HashTable { buckets, size } = self.table;
        let mut walk = Vec::with_capacity(size_of::<Walk>());
        walk.put_u64_ne(buckets);
        walk.put_u64_ne(self.net);
        for word in [size, self.bucket, copies.number, 0] {
            walk.put_u32_ne(word);
        }
        self.walk.write(&walk);
        if sys::run(self.program.as_fd())? != 0 {
            bail!("BPF program `{TABLE}` failed");
        }
        let mut header = copies.memory.bytes();
        // Timeouts are kept in the lower half.
        copies.jiffies = header.get_u64_ne() as u32;
        let bucket = header.get_u32_ne();
        copies.filled = header.get_u32_ne() as usize;
        let failed = header.get_u32_ne();
        if failed != 0 {
            return Err(self.failure(failed));
        }
        if bucket == self.bucket && copies.filled == 0 {
            bail!(
                "bucket {bucket} of conntrack's table has more than {SLOTS} entries: raise \
                 net.netfilter.nf_conntrack_buckets, or use --via netlink"
            );
        }
        self.bucket = bucket;
        Ok(bucket < size)
    }

    /// What to say.
    fn failure(&self, failed: u32) -> anyhow::Error {
        let what = match failed {
            _ if find::size().is_ok_and(|size| size != self.table.size) => "was resized",
            UNREADABLE => "could not be read",
            CHANGING => "kept changing",
            _ => "failed in an unknown way",
        };
        anyhow!(
            "conntrack's table {what} at bucket {}: run it again, or use --via netlink",
            self.bucket
        )
    }
}
