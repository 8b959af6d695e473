//! A hook's counters, read before a packet and compared after it.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_loop, macros::map, maps::Array};
use conntracker_common::{
    path::{MAX_MOVED, PATH_TRUNCATED},
    plan::{COUNTER_BYTES, MAX_SLOTS, Plan, RANGE_COUNTERS, RANGE_SHARED},
};

use crate::{
    emit::{self, PathScratch},
    globals::has_loop,
    memory::{masked, read_bytes},
    plans,
};

/// A counter's bytes and packets, or packets and bytes.
type Counter = [u64; 2];

/// Counters compared at once before looking closer.
const BLOCK: usize = 8;

/// Room for every slot, and for a range that is longer than it should be.
type Snapshot = [Counter; (MAX_SLOTS + 2 * RANGE_COUNTERS) as usize];

/// Of each frame of each CPU: counters before the packet.
#[map]
static BEFORE: Array<Snapshot> = Array::with_max_entries(1, 0);
/// Of each frame of each CPU: one range after the packet.
#[map]
static AFTER: Array<[Counter; 2 * RANGE_COUNTERS as usize]> = Array::with_max_entries(1, 0);

/// What the loops need; lives on the stack of the caller.
struct Context {
    first: u32,
    frame: u32,
    cpu_offset: u64,
    /// The range and the first counter that is looked at.
    range: u32,
    from: u32,
    /// A range could not be read. bpf_loop itself does not tell whether the last round stopped it.
    failed: bool,
}

/// Where a range is, with everything the verifier must know to be in bounds.
struct Place {
    address: u64,
    slot: usize,
    counters: usize,
    word: usize,
}

/// Covers where every number of packets is in a snapshot.
const NUMBER_MASK: i32 = (MAX_SLOTS * COUNTER_BYTES - 1) as i32;

impl Place {
    /// Where in a snapshot the packets of the n-th counter are. Masked last of all: Linux 6.1 forgets the
    /// bounds of what was put together.
    #[inline(always)]
    fn number(&self, n: usize) -> usize {
        let at = (self.slot + n) * COUNTER_BYTES as usize + self.word * 8;
        masked::<NUMBER_MASK>(at)
    }
}

impl Context {
    #[inline(always)]
    fn place(&self, index: u32) -> Option<Place> {
        let range = plans::range(self.first + index)?;
        let shared = range.word & RANGE_SHARED != 0;
        Some(Place {
            address: range.address.wrapping_add(if shared { 0 } else { self.cpu_offset }),
            slot: range.slot as usize & (MAX_SLOTS as usize - 1),
            counters: range.counters as usize & (2 * RANGE_COUNTERS as usize - 1),
            word: range.word as usize & 1,
        })
    }
}

/// Reads all counters of a plan; false if one could not be read. A function of its own, as the next: its
/// stack is not that of what else its callers call.
#[inline(never)]
pub fn take(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each(plan, frame, cpu_offset, copy)
}

/// Reads them again and writes those that moved into the record of the frame.
#[inline(never)]
pub fn compare(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each(plan, frame, cpu_offset, differ)
}

type Callback = unsafe extern "C" fn(u32, *mut Context) -> i64;

/// Calls `callback` for each range; false if one failed. bpf_loop (Linux 5.17+) rather than a loop:
/// the verifier would have to walk every round.
#[inline(always)]
fn each(plan: &Plan, frame: u32, cpu_offset: u64, callback: Callback) -> bool {
    if !has_loop() {
        return plan.ranges == 0;
    }
    let mut context =
        Context { first: plan.first_range, frame, cpu_offset, range: 0, from: 0, failed: false };
    // SAFETY: the callback has the type that the helper asks for, and gets the context.
    unsafe { bpf_loop(plan.ranges, callback as *mut c_void, (&raw mut context).cast(), 0) };
    !context.failed
}

/// One round of [`take`]; 0 goes on, 1 ends.
unsafe extern "C" fn copy(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context that `each` passed.
    let context = unsafe { &mut *context };
    context.failed = context.copy(index).is_none();
    i64::from(context.failed)
}

/// One round of [`compare`].
unsafe extern "C" fn differ(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context that `each` passed.
    let context = unsafe { &mut *context };
    context.failed = context.differ(index).is_none();
    i64::from(context.failed)
}

/// A counter of [`Context::differ`].
unsafe extern "C" fn one(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context that `differ` passed, which it does not use meanwhile.
    let context = unsafe { &*context };
    i64::from(context.one(index).is_none())
}

impl Context {
    #[inline(always)]
    fn copy(&self, index: u32) -> Option<()> {
        let place = self.place(index)?;
        let before = BEFORE.get_ptr_mut(self.frame)?;
        // SAFETY: slot + counters < MAX_SLOTS + 2 * RANGE_COUNTERS.
        let to = unsafe { before.cast::<Counter>().add(place.slot) };
        read_bytes(place.address, to.cast(), place.counters * COUNTER_BYTES as usize).then_some(())
    }

    #[inline(always)]
    fn differ(&mut self, index: u32) -> Option<()> {
        let place = self.place(index)?;
        let before = BEFORE.get_ptr_mut(self.frame)?;
        let after = AFTER.get_ptr_mut(self.frame)?;
        if !read_bytes(place.address, after.cast(), place.counters * COUNTER_BYTES as usize) {
            return None;
        }
        // SAFETY: as in `copy`; words of a counter are 0 and 1.
        let (before, after) = unsafe {
            (
                before.cast::<u8>().add(place.number(0)).cast::<u64>(),
                after.cast::<u64>().add(place.word),
            )
        };
        for block in 0..RANGE_COUNTERS as usize / BLOCK {
            if block * BLOCK >= place.counters {
                break;
            }
            let mut differences = 0;
            for i in block * BLOCK..(block + 1) * BLOCK {
                // SAFETY: i < RANGE_COUNTERS; what lies behind the range is compared for nothing.
                differences |= unsafe { *before.add(2 * i) ^ *after.add(2 * i) };
            }
            if differences != 0 && has_loop() {
                self.range = index;
                self.from = (block * BLOCK) as u32;
                // A loop would be walked by the verifier for each block.
                // SAFETY: as in `each`.
                unsafe {
                    bpf_loop(
                        BLOCK as u32,
                        one as Callback as *mut c_void,
                        core::ptr::from_mut(self).cast(),
                        0,
                    )
                };
            }
        }
        Some(())
    }

    /// One counter of the block that begins at `from`.
    #[inline(always)]
    fn one(&self, index: u32) -> Option<()> {
        let place = self.place(self.range)?;
        let i = (self.from + index) as usize & (RANGE_COUNTERS as usize - 1);
        if i >= place.counters {
            return None;
        }
        let before = BEFORE.get_ptr_mut(self.frame)?;
        let after = AFTER.get_ptr_mut(self.frame)?;
        let scratch = emit::path_scratch(self.frame)?;
        // SAFETY: as in `differ`.
        let packets = unsafe {
            let before = before.cast::<u8>().add(place.number(i)).cast::<u64>();
            let after = after.cast::<Counter>().add(i).cast::<u64>().add(place.word);
            (*after).wrapping_sub(*before)
        };
        if packets != 0 {
            moved(scratch, place.slot + i, packets);
        }
        Some(())
    }
}

#[inline(always)]
fn moved(scratch: &mut PathScratch, slot: usize, packets: u64) {
    let path = &mut scratch.head.path;
    let n = path.moved;
    if n >= MAX_MOVED as u8 {
        path.flags |= PATH_TRUNCATED;
        return;
    }
    let at = u32::from(path.events) + u32::from(n);
    let packets = if packets > u64::from(u16::MAX) { u16::MAX } else { packets as u16 };
    path.moved = n + 1;
    scratch.put(at, u32::from(packets) << 16 | slot as u32 & 0xffff);
}
