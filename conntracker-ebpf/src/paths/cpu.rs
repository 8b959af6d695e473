//! State of each CPU: the packet that is at a hook now, and a frame for each packet that is traced.
//!
//! Programs on one CPU can interrupt each other: a packet that a rule sends (reject), a softirq in the
//! middle of OUTPUT, on preemptible kernels another task. So a frame is claimed atomically, everything
//! a traced packet writes belongs to its frame, and a packet that comes in between suspends the frames whose
//! counters it may move ([`crate::paths::nested`]).

use core::arch::asm;

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, generated::bpf_jiffies64},
    macros::map,
    maps::PerCpuArray,
};
use conntracker_common::{
    counters::Counter,
    path::{DeviceName, Marks, PATH_TRUNCATED},
    plan::{FRAMES, HOOK_POINTS, MAX_GAPS},
};

use crate::{
    base::{
        counters::count,
        globals::offset,
        memory::{read, unknown},
    },
    packet::{task::TaskState, tuple::KernelTuple},
};

/// A frame that is still open after this many jiffies (0.1 to 1 s) belongs to a packet that left its
/// hook unseen.
const STALE: u64 = 100;

/// A traced packet between the links of a hook.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// When the packet came to the hook (jiffies).
    pub since: u64,
    /// The same in nanoseconds since boot; packets that this one causes have later times.
    pub came_ns: u64,
    /// Key of the packet in the path cache.
    pub key: u64,
    /// Bit of the hook and the conntrack state in the path cache.
    pub bit: u64,
    /// Hash of its folded flow; 0 if flows do not fold.
    pub flow: u64,
    /// Cookie of the packet's network namespace.
    pub netns_cookie: u64,
    /// Index of the hook point's plan in map `PLANS`.
    pub plan: u32,
    /// Number of the hook point ([`conntracker_common::plan::hook_point`]).
    pub hook_point: u32,
    /// Generation of plans when the packet came in.
    pub generation: u32,
    /// Epoch of the plan.
    pub epoch: u32,
    /// Hook points that share counters with this one, a bit each, as in the plan.
    pub shares: u32,
    /// Packet mark when it came in.
    pub packet_mark: u32,
    /// Connmark when it came in.
    pub ct_mark: u32,
    /// Conntrack status when it came in.
    pub status: u32,
    /// Number of links between base chains that the packet has passed.
    pub gaps: u32,
    /// 1: another packet came in between and may have moved the same counters, or another task ran.
    pub nested: u32,
    /// 1: the frame's counters are being read, or the frame is free.
    pub busy: u32,
    /// Number of packets that came in between and have not left their hook.
    pub suspended: u32,
    /// The task that ran when the packet came in.
    pub task: TaskState,
    /// 1: the packet's conntrack entry was not confirmed.
    pub fresh: u32,
    /// Number of words of events (probes).
    pub events: u32,
    /// Probes: address of the `nft_pktinfo` or of the `xt_table` that evaluates the packet now; 0: none does.
    pub inside: u64,
    /// What the last base chain returned.
    pub result: u32,
    /// `PATH_` bits of the record.
    pub flags: u32,
    /// Input and output interface of `nf_hook_state`: indices (0: none) and names.
    pub iif: u32,
    pub oif: u32,
    pub iif_name: DeviceName,
    pub oif_name: DeviceName,
    /// Marks at the links between chains; the last element is for those beyond the limit.
    pub marks: [Marks; MAX_GAPS + 1],
    /// Reply tuple when it came in.
    pub reply: KernelTuple,
}

/// Instead of a hook point: none.
pub const NOWHERE: u32 = HOOK_POINTS as u32;

/// State of one CPU.
#[repr(C)]
pub struct Cpu {
    /// Owner of each frame: address of a packet, 0 if it is free.
    pub owners: [u64; FRAMES as usize],
    /// The packet that came to a hook last and has not left it.
    current: u64,
    /// Hook point of that packet. Written after `current`: a packet that comes in between leaves 0 in `current`.
    current_point: u64,
    /// Probes that are running: more than one if they interrupt each other.
    pub running: u64,
    /// What to add to a per-CPU pointer to get this CPU's memory; 0 until it is known.
    pub offset: u64,
    /// The frames.
    pub frames: [Frame; FRAMES as usize],
}

#[map]
static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// The state of this CPU.
#[inline(always)]
pub fn this() -> Option<&'static mut Cpu> {
    let cpu = CPU.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value; the module's documentation says which program writes which part.
    Some(unsafe { &mut *cpu })
}

/// Index of a frame's memory in maps that hold something for each frame of each CPU.
#[inline(always)]
pub fn index(frame: usize) -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() * FRAMES + frame as u32 }
}

impl Cpu {
    /// Whether no frame is in use, as for nearly every packet.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        let [a, b, c, d] = self.owners;
        a | b | c | d == 0
    }

    /// A packet is at a hook point now.
    #[inline(always)]
    pub fn enter(&mut self, skb: u64, hook_point: u32) {
        self.current = skb;
        self.current_point = u64::from(hook_point);
    }

    /// The packet has left.
    #[inline(always)]
    pub fn leave(&mut self) {
        self.current = 0;
    }

    /// The packet has left, if it is the one that came last.
    #[inline(always)]
    pub fn leave_if(&mut self, skb: u64) {
        if self.current == skb {
            self.current = 0;
        }
    }

    /// Whether a packet came to a hook and has not left it.
    #[inline(always)]
    pub fn is_occupied(&self) -> bool {
        self.current != 0
    }

    /// Gives a frame up.
    #[inline(always)]
    pub fn release(&mut self, index: usize) {
        self.frames[index & 3].busy = 1;
        self.owners[index & 3] = 0;
    }

    /// Kprobes have missed a call: the paths of all frames in use are incomplete.
    #[inline(always)]
    pub fn missed(&mut self) {
        for (owner, frame) in self.owners.iter().zip(&mut self.frames) {
            if *owner != 0 {
                frame.flags |= u32::from(PATH_TRUNCATED);
                frame.nested = 1;
            }
        }
    }

    /// Hook point of a packet that has not left it, else [`NOWHERE`]. (Not an `Option`: the compiler may copy the number of
    /// a `None`, which nothing has written, and the verifier refuses to read it.)
    #[inline(always)]
    pub fn hook_point_of(&self, skb: u64) -> u32 {
        if self.current == skb { self.current_point as u32 } else { NOWHERE }
    }

    /// Takes a free frame.
    #[inline(always)]
    pub fn claim(&mut self, skb: u64) -> Option<usize> {
        let skb = address(skb as *const u8)?;
        for i in 0..FRAMES as usize {
            if self.owners[i] == 0 && exchange(&mut self.owners[i], 0, skb) {
                return Some(hidden(i));
            }
        }
        let now = jiffies();
        for i in 0..FRAMES as usize {
            let owner = self.owners[i];
            if now.wrapping_sub(self.frames[i].since) > STALE
                && exchange(&mut self.owners[i], owner, skb)
            {
                self.frames[i].busy = 1;
                count(Counter::FramesLost);
                return Some(hidden(i));
            }
        }
        None
    }

    /// The frame of a packet at a hook point.
    #[inline(always)]
    pub fn find(&self, skb: u64, hook_point: u32) -> Option<usize> {
        let is = |&i: &usize| self.owners[i] == skb && self.frames[i].hook_point == hook_point;
        (0..FRAMES as usize).find(is).map(hidden)
    }

    /// The frame whose packet is evaluated by `what` now ([`Frame::inside`]).
    #[inline(always)]
    pub fn inside(&self, what: u64) -> Option<usize> {
        let is = |&i: &usize| self.owners[i] != 0 && self.frames[i].inside == what;
        (0..FRAMES as usize).find(is).map(hidden)
    }

    /// The frame of a packet at any hook point.
    #[inline(always)]
    pub fn find_anywhere(&self, skb: u64) -> Option<usize> {
        (0..FRAMES as usize).find(|&i| self.owners[i] == skb).map(hidden)
    }

    /// What to add to a per-CPU pointer to get this CPU's memory. No helper tells it: it is the difference between
    /// the address of our own value of a per-CPU map and the per-CPU pointer that the map has.
    #[inline(always)]
    pub fn offset(&mut self) -> Option<u64> {
        if self.offset == 0 {
            let value = address(core::ptr::from_mut(self).cast())?;
            let map = address((&raw const CPU).cast())?;
            let pointer: u64 = read(map + offset!(array_pptrs) as u64)?;
            self.offset = value.wrapping_sub(pointer);
        }
        Some(self.offset)
    }
}

/// The kernel's clock tick: cheaper to read than the time, and exact enough to find frames that are stale.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: a helper without arguments (Linux 5.5+).
    unsafe { bpf_jiffies64() }
}

/// A pointer as a number: the verifier allows no such cast, but reads back what was stored.
#[inline(always)]
pub fn address(pointer: *const u8) -> Option<u64> {
    let stored = pointer;
    read((&raw const stored) as u64)
}

/// The index of a frame, [`unknown`] to the verifier.
#[inline(always)]
fn hidden(index: usize) -> usize {
    unknown(index as u64) as usize
}

/// Compares and exchanges atomically (BPF_CMPXCHG, Linux 5.12+); true if it was `old`.
/// `core::sync::atomic` has no such operation for the BPF target.
#[inline(always)]
fn exchange(value: &mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: `value` is an aligned, live u64.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({value} + 0, r0, {new})",
            value = in(reg) core::ptr::from_mut(value),
            new = in(reg) new,
            inout("r0") found,
            options(nostack),
        );
    }
    found == old
}

/// Whether a base chain has dropped the packet that is being dropped: it is still in one, or the last one
/// said so.
#[inline(always)]
pub fn was_dropped_by_chain(cpu: &Cpu, index: usize) -> bool {
    let frame = &cpu.frames[index & 3];
    frame.inside != 0 || frame.result & 0xff == DROPPED
}

/// Low half of what base chains return when the packet is dropped there (NF_DROP).
const DROPPED: u32 = 0;
