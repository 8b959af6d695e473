//! The counters of a hook point: read when a packet comes, and compared when it leaves. What other packets moved in
//! between is taken out.

use core::marker::PhantomData;

use aya_ebpf::{macros::map, maps::Array};
use conntracker_common::{
    path::{MAX_MOVED, PATH_TRUNCATED},
    plan::{COUNTER_BYTES, MAX_SLOTS, Plan, RANGE_COUNTERS, RANGE_SHARED},
};

use crate::{
    base::{
        memory::{masked, read_bytes},
        rounds::{self, Rounds},
    },
    packet::emit::{self, PathScratch},
    paths::plans,
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

/// Arguments of the loops' callbacks; lies on the stack of the caller.
struct Context {
    first: u32,
    frame: u32,
    cpu_offset: u64,
    ranges: u32,
    /// The range and the first counter that is looked at.
    range: u32,
    from: u32,
    /// A range could not be read. The loop itself does not tell whether the last round stopped it.
    failed: bool,
}

/// A range of counters, with bounds that the verifier can follow.
struct CounterRange {
    address: u64,
    slot: usize,
    counters: usize,
    word: usize,
}

/// Mask that covers the offset of each number of packets in a snapshot.
const NUMBER_MASK: i32 = (MAX_SLOTS * COUNTER_BYTES - 1) as i32;

impl CounterRange {
    /// Offset of the n-th counter's packets in a snapshot. Masked after the sum is made: the verifier of Linux 6.1
    /// does not keep the bounds of sums.
    #[inline(always)]
    fn number(&self, n: usize) -> usize {
        let at = (self.slot + n) * COUNTER_BYTES as usize + self.word * 8;
        masked::<NUMBER_MASK>(at)
    }
}

impl Context {
    #[inline(always)]
    fn range_at(&self, index: u32) -> Option<CounterRange> {
        let range = plans::range(self.first + index)?;
        let shared = range.word & RANGE_SHARED != 0;
        Some(CounterRange {
            address: range.address.wrapping_add(if shared { 0 } else { self.cpu_offset }),
            slot: range.slot as usize & (MAX_SLOTS as usize - 1),
            counters: range.counters as usize & (2 * RANGE_COUNTERS as usize - 1),
            word: range.word as usize & 1,
        })
    }
}

/// Reads all counters of a plan; false if one could not be read. Neither this nor the next is inlined: their stack
/// would be added to that of their callers.
#[inline(never)]
pub fn take(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each::<Take>(plan, frame, cpu_offset)
}

/// Another packet comes in between: replaces each counter's value of before by how far it has moved, negated.
#[inline(never)]
pub fn suspend(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each::<Suspend>(plan, frame, cpu_offset)
}

/// That packet has left: the counters of now plus what was kept are the new values of before.
#[inline(never)]
pub fn resume(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each::<Resume>(plan, frame, cpu_offset)
}

/// Reads them again and writes those that moved into the record of the frame.
#[inline(never)]
pub fn compare(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    each::<Compare>(plan, frame, cpu_offset)
}

/// Runs a loop over the ranges of a plan; false if one of them failed.
#[inline(always)]
fn each<W: OnRange>(plan: &Plan, frame: u32, cpu_offset: u64) -> bool {
    let (first, ranges) = (plan.first_range, plan.ranges);
    let mut context =
        Context { first, frame, cpu_offset, ranges, range: 0, from: 0, failed: false };
    if rounds::run::<EachRange<W>>(&mut context) { !context.failed } else { ranges == 0 }
}

/// What is done with a range; `None` if its counters cannot be read.
trait OnRange {
    fn work(context: &mut Context, index: u32) -> Option<()>;
}

/// A round for each range.
struct EachRange<W>(PhantomData<W>);

impl<W: OnRange> Rounds for EachRange<W> {
    type Context = Context;

    #[inline(always)]
    fn number(context: &Context) -> u32 {
        context.ranges
    }

    #[inline(always)]
    fn round(context: &mut Context, index: u32) -> bool {
        context.failed = W::work(context, index).is_none();
        !context.failed
    }
}

/// [`take`].
struct Take;

impl OnRange for Take {
    #[inline(always)]
    fn work(context: &mut Context, index: u32) -> Option<()> {
        context.copy(index)
    }
}

/// [`compare`].
struct Compare;

impl OnRange for Compare {
    #[inline(always)]
    fn work(context: &mut Context, index: u32) -> Option<()> {
        context.differ(index)
    }
}

/// [`suspend`].
struct Suspend;

impl OnRange for Suspend {
    #[inline(always)]
    fn work(context: &mut Context, index: u32) -> Option<()> {
        context.shift(index, u64::wrapping_sub)
    }
}

/// [`resume`].
struct Resume;

impl OnRange for Resume {
    #[inline(always)]
    fn work(context: &mut Context, index: u32) -> Option<()> {
        context.shift(index, u64::wrapping_add)
    }
}

/// A block of [`Context::differ`]: a round for each counter.
struct Counters;

impl Rounds for Counters {
    type Context = Context;

    #[inline(always)]
    fn number(_: &Context) -> u32 {
        BLOCK as u32
    }

    #[inline(always)]
    fn round(context: &mut Context, index: u32) -> bool {
        context.one(index).is_some()
    }
}

impl Context {
    #[inline(always)]
    fn copy(&self, index: u32) -> Option<()> {
        let range_at = self.range_at(index)?;
        let before = BEFORE.get_ptr_mut(self.frame)?;
        // SAFETY: slot + counters < MAX_SLOTS + 2 * RANGE_COUNTERS.
        let to = unsafe { before.cast::<Counter>().add(range_at.slot) };
        read_bytes(range_at.address, to.cast(), range_at.counters * COUNTER_BYTES as usize)
            .then_some(())
    }

    /// Replaces what was kept of each counter of a range by `by(kept, now)`.
    #[inline(always)]
    fn shift(&self, index: u32, by: impl Fn(u64, u64) -> u64) -> Option<()> {
        let range_at = self.range_at(index)?;
        let before = BEFORE.get_ptr_mut(self.frame)?;
        let after = AFTER.get_ptr_mut(self.frame)?;
        if !read_bytes(range_at.address, after.cast(), range_at.counters * COUNTER_BYTES as usize) {
            return None;
        }
        // SAFETY: as in `differ`.
        let (before, after) = unsafe {
            (
                before.cast::<u8>().add(range_at.number(0)).cast::<u64>(),
                after.cast::<u64>().add(range_at.word),
            )
        };
        for i in 0..RANGE_COUNTERS as usize {
            if i >= range_at.counters {
                break;
            }
            // SAFETY: i < RANGE_COUNTERS.
            unsafe { *before.add(2 * i) = by(*before.add(2 * i), *after.add(2 * i)) };
        }
        Some(())
    }

    #[inline(always)]
    fn differ(&mut self, index: u32) -> Option<()> {
        let range_at = self.range_at(index)?;
        let before = BEFORE.get_ptr_mut(self.frame)?;
        let after = AFTER.get_ptr_mut(self.frame)?;
        if !read_bytes(range_at.address, after.cast(), range_at.counters * COUNTER_BYTES as usize) {
            return None;
        }
        // SAFETY: as in `copy`; words of a counter are 0 and 1.
        let (before, after) = unsafe {
            (
                before.cast::<u8>().add(range_at.number(0)).cast::<u64>(),
                after.cast::<u64>().add(range_at.word),
            )
        };
        for block in 0..RANGE_COUNTERS as usize / BLOCK {
            if block * BLOCK >= range_at.counters {
                break;
            }
            let mut differences = 0;
            for i in block * BLOCK..(block + 1) * BLOCK {
                // SAFETY: i < RANGE_COUNTERS; what lies behind the range is compared for nothing.
                differences |= unsafe { *before.add(2 * i) ^ *after.add(2 * i) };
            }
            if differences != 0 {
                self.range = index;
                self.from = (block * BLOCK) as u32;
                // A loop would be walked by the verifier for each block.
                if !rounds::run::<Counters>(self) {
                    return None;
                }
            }
        }
        Some(())
    }

    /// One counter of the block that begins at `from`.
    #[inline(always)]
    fn one(&self, index: u32) -> Option<()> {
        let range_at = self.range_at(self.range)?;
        let i = (self.from + index) as usize & (RANGE_COUNTERS as usize - 1);
        if i >= range_at.counters {
            return None;
        }
        let before = BEFORE.get_ptr_mut(self.frame)?;
        let after = AFTER.get_ptr_mut(self.frame)?;
        let scratch = emit::path_scratch(self.frame)?;
        // SAFETY: as in `differ`.
        let packets = unsafe {
            let before = before.cast::<u8>().add(range_at.number(i)).cast::<u64>();
            let after = after.cast::<Counter>().add(i).cast::<u64>().add(range_at.word);
            (*after).wrapping_sub(*before)
        };
        if packets != 0 {
            moved(scratch, range_at.slot + i, packets);
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
