//! Packets that come to a hook while another one is under way on the same CPU: the reset that a reject rule
//! sends, or a packet of a softirq in the middle of OUTPUT. They may move the counters of the one that is under
//! way. So its frame is suspended when they come, and resumed when they leave: what its counters moved in
//! between is taken out.

use conntracker_common::{counters::Counter, plan::FRAMES};

use crate::{
    counters::count,
    cpu::{self, Cpu},
    plans, snapshot,
};

/// A packet comes to one of `places` (a bit for each).
#[inline(never)]
pub fn arrives(cpu: &mut Cpu, skb: u64, places: u32) {
    for index in 0..FRAMES as usize {
        let owner = cpu.owners[index];
        if owner == skb {
            // The memory of a packet that left unseen.
            cpu.release(index);
            count(Counter::FramesLost);
        } else if owner != 0 && cpu.frames[index].shares & places != 0 {
            suspend(cpu, index);
        }
    }
}

/// The packet leaves it.
#[inline(never)]
pub fn leaves(cpu: &mut Cpu, skb: u64, places: u32) {
    for index in 0..FRAMES as usize {
        let owner = cpu.owners[index];
        let frame = &cpu.frames[index];
        if owner != 0 && owner != skb && frame.shares & places != 0 && frame.suspended != 0 {
            resume(cpu, index);
        }
    }
}

#[inline(never)]
fn suspend(cpu: &mut Cpu, index: usize) {
    let index = index & (FRAMES as usize - 1);
    if cpu.frames[index].busy != 0 {
        // Its counters are just being read: some before, some after the packet that comes.
        cpu.frames[index].nested = 1;
        return;
    }
    cpu.frames[index].suspended += 1;
    if cpu.frames[index].suspended == 1 {
        read_counters(cpu, index, snapshot::suspend);
    }
}

#[inline(never)]
fn resume(cpu: &mut Cpu, index: usize) {
    let index = index & (FRAMES as usize - 1);
    cpu.frames[index].suspended -= 1;
    if cpu.frames[index].suspended == 0 {
        read_counters(cpu, index, snapshot::resume);
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
