//! conntrack's hash table for the agent, off the packet path: entries are copied as they lie in memory,
//! and understood in user space (`bpf/table`).
//!
//! No lock is taken. Within an RCU read section, which a tracepoint's program runs in, memory of entries
//! stays memory of entries (SLAB_TYPESAFE_BY_RCU). That one ended meanwhile shows as conntrack's own lookups
//! see it (net/netfilter/nf_conntrack_core.c): nobody refers to it, its tuple is another one, or its chain
//! ends in another bucket. Then the bucket is read again.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, helpers::generated::bpf_loop, macros::map, maps::Array};
use conntracker_common::table::{
    CHANGING, EXT_BYTES, Part, SLOTS, Slot, TUPLE_BYTES, UNREADABLE, Walk,
};

use crate::{
    base::{
        globals::{offset, table_number, table_offset},
        memory::{masked, read, read_bytes, read_into},
    },
    paths::cpu::jiffies,
};

/// All are mapped into the agent's memory (BPF_F_MMAPABLE, Linux 5.5+).
#[map]
static WALK: Array<Walk> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// While the agent reads one of these the program fills the other one.
#[map]
static TABLE_0: Array<Part> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static TABLE_1: Array<Part> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The walk under way. Numbers on the stack the verifier would count along with the program.
#[map]
static STEPS: Array<Steps> = Array::with_max_entries(1, 0);

/// Steps of one go: an empty bucket, or a node of a chain. Bounds how long a CPU is kept from other tasks, to
/// a millisecond or so.
const STEPS_OF_ONE_GO: u32 = 1 << 13;

/// How often a bucket is read anew at once.
const ATTEMPTS: u32 = 64;

/// IP_CT_DIR_ORIGINAL.
const ORIGINAL: u8 = 0;

/// `struct nf_conntrack_tuple_hash`: a node of a chain. Each entry has two, one for each direction.
#[repr(C)]
#[derive(Clone, Copy)]
struct Node {
    /// The next one, or odd: twice the number of the bucket that the chain is of, and one.
    next: u64,
    /// Where the previous one points here.
    pprev: u64,
    /// `struct nf_conntrack_tuple`.
    tuple: [u64; TUPLE_BYTES / 8],
}

impl Node {
    /// `tuple.dst.dir`, the last byte of the tuple.
    #[inline(always)]
    fn direction(&self) -> u8 {
        let [.., last] = self.tuple;
        let [.., direction] = last.to_ne_bytes();
        direction
    }
}

/// A walk under way.
#[repr(C)]
struct Steps {
    walk: Walk,
    /// Slots that are filled, and how many were when this bucket was begun.
    filled: u32,
    filled_before: u32,
    failed: u32,
    attempts: u32,
    /// The node to look at; 0: the bucket is not begun.
    node: u64,
    /// A copy of it.
    copy: Node,
    /// Its tuple, read again.
    again: [u64; TUPLE_BYTES / 8],
}

/// What became of a node.
enum Copied {
    /// It was copied, or is not wanted.
    Done,
    /// There is no room for it.
    Full,
    /// Its entry has ended, and may be another one by now.
    Ended,
}

/// Copies entries until there is no room, or everything was read.
#[inline(always)]
pub fn run() -> Option<()> {
    let walk = WALK.get(0)?;
    // SAFETY: a map value, accessed by this program alone, which the agent runs once at a time.
    let steps = unsafe { &mut *STEPS.get_ptr_mut(0)? };
    steps.walk = *walk;
    steps.filled = 0;
    steps.filled_before = 0;
    steps.failed = 0;
    steps.attempts = 0;
    steps.node = 0;
    let now = jiffies();
    let callback: unsafe extern "C" fn(_, _) -> _ = step;
    // SAFETY: the callback has the type that the helper asks for; it needs no context.
    unsafe { bpf_loop(STEPS_OF_ONE_GO, callback as *mut c_void, core::ptr::null_mut(), 0) };
    // SAFETY: as above.
    let part = unsafe { &mut *steps.part()? };
    part.jiffies = now;
    part.bucket = steps.walk.bucket;
    // A bucket that was not read to its end is read again the next time.
    part.filled = if steps.node == 0 { steps.filled } else { steps.filled_before };
    part.failed = steps.failed;
    Some(())
}

/// A round of bpf_loop; 0 goes on, 1 ends.
unsafe extern "C" fn step(_index: u32, _context: *mut c_void) -> i64 {
    let Some(steps) = STEPS.get_ptr_mut(0) else { return 1 };
    // SAFETY: as in `run`.
    let steps = unsafe { &mut *steps };
    i64::from(!steps.go_on())
}

impl Steps {
    /// Where entries go.
    #[inline(always)]
    fn part(&self) -> Option<*mut Part> {
        if self.walk.part == 0 { TABLE_0.get_ptr_mut(0) } else { TABLE_1.get_ptr_mut(0) }
    }

    /// One step; false ends the walk.
    #[inline(always)]
    fn go_on(&mut self) -> bool {
        if self.node == 0 {
            if self.walk.bucket >= self.walk.size {
                return false;
            }
            let Some(first) = read(self.walk.buckets + 8 * u64::from(self.walk.bucket)) else {
                self.failed = UNREADABLE;
                return false;
            };
            self.node = first;
            self.filled_before = self.filled;
            if self.node & 1 != 0 {
                return self.end_of_chain();
            }
        }
        if !read_into(self.node, &mut self.copy) {
            return self.bucket_again();
        }
        if self.copy.direction() == ORIGINAL {
            match self.copy_entry() {
                Some(Copied::Done) => {}
                Some(Copied::Full) => return false,
                // What an entry points to may be gone with it.
                Some(Copied::Ended) | None => return self.bucket_again(),
            }
        }
        self.node = self.copy.next;
        if self.node & 1 != 0 {
            return self.end_of_chain();
        }
        // Memory that is being made an entry.
        self.node != 0 || self.bucket_again()
    }

    /// The chain ended. If it is another bucket's, a node of it went over there meanwhile.
    #[inline(always)]
    fn end_of_chain(&mut self) -> bool {
        if self.node >> 1 != u64::from(self.walk.bucket) {
            return self.bucket_again();
        }
        self.node = 0;
        self.walk.bucket += 1;
        self.attempts = 0;
        true
    }

    #[inline(always)]
    fn bucket_again(&mut self) -> bool {
        self.node = 0;
        self.filled = self.filled_before;
        self.attempts += 1;
        if self.attempts < ATTEMPTS {
            return true;
        }
        self.failed = CHANGING;
        false
    }

    /// Copies the entry of this node, if it is of the namespace.
    #[inline(always)]
    fn copy_entry(&mut self) -> Option<Copied> {
        if self.filled as usize >= SLOTS {
            return Some(Copied::Full);
        }
        let conn = self.node - table_offset!(ct_node) as u64;
        let at = masked::<{ SLOTS as i32 - 1 }>(self.filled as usize);
        let part = self.part()?;
        // SAFETY: as in `run`; at < SLOTS.
        let slot = unsafe { &mut *(&raw mut (*part).slots).cast::<Slot>().add(at) };
        if !read_bytes(conn, slot.conn.as_mut_ptr(), table_number!(conn_bytes) as usize) {
            return None;
        }
        if word(&slot.conn, offset!(ct_net)) != self.walk.net {
            return Some(Copied::Done);
        }
        fill(slot)?;
        // Whether it is still the same entry.
        let users: u32 = read(conn + table_offset!(ct_use) as u64)?;
        if users == 0 {
            return Some(Copied::Ended);
        }
        if !read_into(conn + offset!(ct_orig) as u64, &mut self.again) {
            return None;
        }
        let mut different = 0;
        for (again, before) in self.again.iter().zip(&self.copy.tuple) {
            different |= again ^ before;
        }
        if different != 0 {
            return Some(Copied::Ended);
        }
        self.filled += 1;
        Some(Copied::Done)
    }
}

/// A number in what was copied.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    // SAFETY: a constant, which the verifier checks; members are aligned in structures, and those are.
    unsafe { bytes.as_ptr().add(at).cast::<u64>().read_volatile() }
}

/// Copies what else belongs to an entry, behind its `struct nf_conn`.
#[inline(always)]
fn fill(slot: &mut Slot) -> Option<()> {
    let ext = word(&slot.conn, table_offset!(ct_ext));
    slot.helper[0] = 0;
    if ext == 0 {
        // Its offsets: there is nothing.
        slot.ext[..16].fill(0);
    } else {
        let len: u8 = read(ext + table_offset!(ext_len) as u64)?;
        if !read_bytes(ext, slot.ext.as_mut_ptr(), masked::<{ EXT_BYTES as i32 - 1 }>(len.into())) {
            return None;
        }
        let helper = table_offset!(ext_offset) + table_number!(ext_helper) as usize;
        // SAFETY: a constant, which the verifier checks.
        let at = unsafe { slot.ext.as_ptr().add(helper).read_volatile() };
        if at != 0 {
            let helper: u64 = read(ext + u64::from(at) + table_offset!(help_helper) as u64)?;
            if helper != 0
                && !read_into(helper + table_offset!(helper_name) as u64, &mut slot.helper)
            {
                return None;
            }
        }
    }
    Some(())
}
