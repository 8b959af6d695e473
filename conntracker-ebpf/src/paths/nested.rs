//! Packets that come to a hook while another one is under way on the same CPU: the reset that a reject rule
//! sends, or a packet of a softirq in the middle of OUTPUT. They may move the counters of the one that is under
//! way. So its frame is suspended when they come, and resumed when they leave: what its counters moved in
//! between is taken out.

use core::marker::PhantomData;

use conntracker_common::{
    counters::Counter,
    hook,
    path::PATH_ANSWERED,
    plan::{self, FRAMES, HOOK_POINTS},
};

use crate::{
    base::{
        counters::count,
        rounds::{self, Rounds},
    },
    paths::{
        cpu::{self, Cpu},
        plans, snapshot,
    },
};

/// Hook points of packets that this machine sends, a bit each.
const LOCAL_OUT: u32 = of_hook(hook::LOCAL_OUT);

/// Hook points of packets that a softirq received, a bit each: no other softirq interrupts that one.
const ARRIVED: u32 = of_hook(hook::PRE_ROUTING) | of_hook(hook::LOCAL_IN) | of_hook(hook::FORWARD);

/// A bit for each hook point of a hook (`enum nf_inet_hooks`).
const fn of_hook(hook: u8) -> u32 {
    let mut bits = 0;
    let mut hook_point = 0;
    while hook_point < HOOK_POINTS as u32 {
        if plan::hook(hook_point) == hook {
            bits |= 1 << hook_point;
        }
        hook_point += 1;
    }
    bits
}

/// A packet that comes or leaves.
struct Other {
    skb: u64,
    /// The hook points whose counters it may move, a bit each.
    hook_points: u32,
}

impl Other {
    /// The frame of this index, if this packet may move its counters. Masked, for the verifier.
    #[inline(always)]
    fn meets(&self, cpu: &Cpu, index: u32) -> Option<usize> {
        let index = index as usize & (FRAMES as usize - 1);
        let owner = cpu.owners[index];
        let meets =
            owner != 0 && owner != self.skb && cpu.frames[index].shares & self.hook_points != 0;
        meets.then_some(index)
    }
}

/// A packet comes to one of `hook_points` (a bit for each).
#[inline(never)]
pub fn arrives(cpu: &mut Cpu, skb: u64, hook_points: u32) {
    let sent_here = hook_points & LOCAL_OUT != 0;
    for index in 0..FRAMES as usize {
        let owner = cpu.owners[index];
        if owner == skb {
            // The `sk_buff` was freed without being seen, and allocated again for this packet.
            cpu.release(index);
            count(Counter::FramesLost);
        } else if sent_here && owner != 0 && 1 << cpu.frames[index].hook_point & ARRIVED != 0 {
            cpu.frames[index].flags |= u32::from(PATH_ANSWERED);
        }
    }
    // On kernels without these loops counters are not read, so that there is nothing to suspend.
    rounds::run::<EachFrame<Suspend>>(&mut Other { skb, hook_points });
}

/// The packet leaves these hook points.
#[inline(never)]
pub fn leaves(skb: u64, hook_points: u32) {
    rounds::run::<EachFrame<Resume>>(&mut Other { skb, hook_points });
}

/// What is done with a frame whose counters the other packet may move.
trait OnFrame {
    fn work(cpu: &mut Cpu, index: usize);
}

/// A round for each frame.
struct EachFrame<W>(PhantomData<W>);

impl<W: OnFrame> Rounds for EachFrame<W> {
    type Context = Other;

    #[inline(always)]
    fn number(_: &Other) -> u32 {
        FRAMES
    }

    #[inline(always)]
    fn round(other: &mut Other, index: u32) -> bool {
        let Some(cpu) = cpu::this() else { return false };
        if let Some(index) = other.meets(cpu, index) {
            W::work(cpu, index);
        }
        true
    }
}

/// [`arrives`].
struct Suspend;

impl OnFrame for Suspend {
    #[inline(always)]
    fn work(cpu: &mut Cpu, index: usize) {
        let frame = &mut cpu.frames[index];
        if frame.busy != 0 {
            // The other program is reading this frame's counters: some of them before this packet, some after it.
            frame.nested = 1;
            return;
        }
        frame.suspended += 1;
        if frame.suspended == 1 {
            read_counters(cpu, index, snapshot::suspend);
        }
    }
}

/// [`leaves`].
struct Resume;

impl OnFrame for Resume {
    #[inline(always)]
    fn work(cpu: &mut Cpu, index: usize) {
        let frame = &mut cpu.frames[index];
        if frame.suspended != 0 {
            frame.suspended -= 1;
            if frame.suspended == 0 {
                read_counters(cpu, index, snapshot::resume);
            }
        }
    }
}

/// Reads the counters of a frame's plan. If that fails, the frame can tell no more than its chain.
#[inline(always)]
fn read_counters(cpu: &mut Cpu, index: usize, read: impl FnOnce(&plans::Plan, u32, u64) -> bool) {
    let offset = cpu.offset().unwrap_or(0);
    let frame = &mut cpu.frames[index];
    frame.busy = 1;
    let done = offset != 0
        && plans::get(frame.plan).is_some_and(|plan| {
            plans::epoch(plan) == frame.epoch && read(plan, cpu::index(index), offset)
        });
    if !done {
        frame.nested = 1;
    }
    frame.busy = 0;
}
