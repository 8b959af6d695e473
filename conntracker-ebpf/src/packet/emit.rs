//! Records into the ring buffer: no longer than they need to be, and counted when they are lost.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, RingBuf},
};
use conntracker_common::{
    ABI_VERSION,
    end::{EndBody, EndRecord4, EndRecord6, KIND_END},
    owner::{OwnedRecord4, OwnedRecord6, Owner},
    path::{KIND_PATH, MAX_LIST, Marks, PATH_NAT, PathHead},
    plan::MAX_GAPS,
    record::{FlowRecord4, FlowRecord6, Header, Tuple4, Tuple6},
};

use super::facts::Facts;
use crate::{
    base::{globals::wake_bytes, memory::masked},
    packet::{hash::Hash, owner, tuple::KernelTuple},
};

#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// A path record under construction: too large for the stack.
#[repr(C)]
pub struct PathScratch {
    /// The record's fixed part.
    pub head: PathHead,
    /// Events, counters that moved, and behind them the tuples.
    pub list: [u32; LIST],
    /// Room for the tuples, and for marks behind them.
    tuples: ([Tuple6; 3], [Marks; MAX_GAPS + 1]),
    /// Marks at the links between chains.
    pub marks: [Marks; MAX_GAPS + 1],
    /// Reply tuple at the beginning of the hook, if it was translated before.
    pub reply_before: KernelTuple,
    /// What the record is made of.
    pub facts: Facts,
    /// Hash of the list, made while it is written.
    pub hash: Hash,
}

/// Room for the list: a power of two.
const LIST: usize = MAX_LIST.next_power_of_two();

/// One for each frame of each CPU.
#[map]
static PATH_SCRATCH: Array<PathScratch> = Array::with_max_entries(1, 0);

/// Mask that covers the length of every path record.
const LEN_MASK: i32 = 1023;

const _: () = assert!(
    size_of::<PathHead>()
        + MAX_LIST * size_of::<u32>()
        + 3 * size_of::<Tuple6>()
        + MAX_GAPS * size_of::<Marks>()
        <= LEN_MASK as usize
        && size_of::<PathScratch>() >= LEN_MASK as usize
);

/// The kernel's header in front of each record (BPF_RINGBUF_HDR_SZ).
const RING_HEADER: u64 = 8;

/// Nanoseconds since boot.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Sends a record; false if the ring was full.
#[inline(never)]
pub fn emit(kind: u8, facts: &Facts) -> bool {
    if facts.is_v4() {
        let Some(mut slot) = RECORDS.reserve::<FlowRecord4>(0) else { return false };
        slot.write(record4(kind, facts, size_of::<FlowRecord4>()));
        slot.submit(wakeup(size_of::<FlowRecord4>()));
    } else {
        let Some(mut slot) = RECORDS.reserve::<FlowRecord6>(0) else { return false };
        slot.write(record6(kind, facts, size_of::<FlowRecord6>()));
        slot.submit(wakeup(size_of::<FlowRecord6>()));
    }
    true
}

/// Sends a record with the owner of the packet's socket, described where the record lies: there is no
/// more room on the stack. False if the ring was full.
#[inline(never)]
pub fn emit_owned(kind: u8, facts: &Facts, sk: u64, uid: u32, context: u64) -> bool {
    let owner = Owner { uid, ..Owner::NONE };
    if facts.is_v4() {
        const LEN: usize = size_of::<OwnedRecord4>();
        let Some(mut slot) = RECORDS.reserve::<OwnedRecord4>(0) else { return false };
        let owned = slot.write(OwnedRecord4 { record: record4(kind, facts, LEN), owner });
        owner::describe(&mut owned.owner, sk, context);
        slot.submit(wakeup(LEN));
    } else {
        const LEN: usize = size_of::<OwnedRecord6>();
        let Some(mut slot) = RECORDS.reserve::<OwnedRecord6>(0) else { return false };
        let owned = slot.write(OwnedRecord6 { record: record6(kind, facts, LEN), owner });
        owner::describe(&mut owned.owner, sk, context);
        slot.submit(wakeup(LEN));
    }
    true
}

#[inline(always)]
fn record4(kind: u8, facts: &Facts, len: usize) -> FlowRecord4 {
    FlowRecord4 {
        header: header(kind, facts, len),
        body: facts.body,
        orig: tuple4(&facts.orig),
        reply: tuple4(&facts.reply),
    }
}

#[inline(always)]
fn record6(kind: u8, facts: &Facts, len: usize) -> FlowRecord6 {
    FlowRecord6 {
        header: header(kind, facts, len),
        body: facts.body,
        orig: tuple6(&facts.orig),
        reply: tuple6(&facts.reply),
    }
}

/// Sends the record of an end; false if the ring was full.
#[inline(never)]
pub fn emit_end(facts: &Facts, end: &EndBody) -> bool {
    if facts.is_v4() {
        let Some(mut slot) = RECORDS.reserve::<EndRecord4>(0) else { return false };
        slot.write(EndRecord4 {
            header: header(KIND_END, facts, size_of::<EndRecord4>()),
            flow: facts.body,
            end: *end,
            orig: tuple4(&facts.orig),
            reply: tuple4(&facts.reply),
        });
        slot.submit(wakeup(size_of::<EndRecord4>()));
    } else {
        let Some(mut slot) = RECORDS.reserve::<EndRecord6>(0) else { return false };
        slot.write(EndRecord6 {
            header: header(KIND_END, facts, size_of::<EndRecord6>()),
            flow: facts.body,
            end: *end,
            orig: tuple6(&facts.orig),
            reply: tuple6(&facts.reply),
        });
        slot.submit(wakeup(size_of::<EndRecord6>()));
    }
    true
}

impl PathScratch {
    /// Empties the list.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.hash = Hash::new(0);
    }

    /// Adds a word to the list. Beyond its end the index wraps: such a list is truncated, and the record says so.
    #[inline(always)]
    pub fn put(&mut self, at: u32, word: u32) {
        self.list[at as usize & (LIST - 1)] = word;
        self.hash.add(u64::from(word));
    }
}

/// The scratch memory of a frame.
#[inline(always)]
pub fn path_scratch(frame: u32) -> Option<&'static mut PathScratch> {
    let scratch = PATH_SCRATCH.get_ptr_mut(frame)?;
    // SAFETY: a map value that only the frame's owner uses.
    Some(unsafe { &mut *scratch })
}

/// Completes a path record and sends it; false if the ring was full.
#[inline(never)]
pub fn emit_path(scratch: &mut PathScratch) -> bool {
    let PathScratch { head, reply_before, facts, marks, .. } = &mut *scratch;
    let listed = head.path.events as usize + head.path.moved as usize;
    if listed > MAX_LIST {
        return false;
    }
    let mut len = size_of::<PathHead>() + listed * size_of::<u32>();
    let tuples = if head.path.flags & PATH_NAT != 0 { 3 } else { 2 };
    let each = if facts.is_v4() { size_of::<Tuple4>() } else { size_of::<Tuple6>() };
    let gaps = head.path.gaps as usize & MAX_GAPS;
    head.header = header(KIND_PATH, facts, len + tuples * each + gaps * size_of::<Marks>());
    head.flow = facts.body;
    let (orig, reply, before) =
        (&raw const facts.orig, &raw const facts.reply, core::ptr::from_ref(reply_before));
    let marks = core::ptr::from_ref(marks).cast::<Marks>();
    let bytes = core::ptr::from_mut(scratch).cast::<u8>();
    for n in 0..3 {
        if n >= tuples {
            break;
        }
        let tuple = match n {
            0 => orig,
            1 => reply,
            _ => before,
        };
        // SAFETY: behind at most MAX_LIST words there is room for three tuples of IPv6; what is read is
        // behind that.
        unsafe {
            let to = bytes.add(len);
            if each == size_of::<Tuple4>() {
                to.cast::<Tuple4>().write(tuple4(&*tuple));
            } else {
                to.cast::<Tuple6>().write(tuple6(&*tuple));
            }
        }
        len += each;
    }
    for n in 0..MAX_GAPS {
        if n >= gaps {
            break;
        }
        let at = masked::<LEN_MASK>(len);
        // SAFETY: behind the tuples there is room for MAX_GAPS marks; what is read is behind that.
        unsafe { bytes.add(at).cast::<Marks>().write_unaligned(*marks.add(n)) };
        len += size_of::<Marks>();
    }
    let len = masked::<LEN_MASK>(len);
    // SAFETY: the record is longer than `len`.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, len) };
    // Not `len` itself: Linux 6.12 forgets its bounds when it is compared after something was added. A
    // wakeup too many at each threshold does no harm.
    RECORDS.output::<[u8]>(bytes, wakeup(LEN_MASK as usize)).is_ok()
}

#[inline(always)]
fn header(kind: u8, facts: &Facts, len: usize) -> Header {
    Header {
        kind,
        version: ABI_VERSION,
        len: len as u16,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() },
        ktime_ns: facts.ktime_ns,
        netns_cookie: facts.netns_cookie,
    }
}

#[inline(always)]
fn tuple4(t: &KernelTuple) -> Tuple4 {
    let [s0, s1, s2, s3, ..] = t.src;
    let [d0, d1, d2, d3, ..] = t.dst;
    Tuple4 { src: [s0, s1, s2, s3], dst: [d0, d1, d2, d3], src_l4: t.src_l4, dst_l4: t.dst_l4 }
}

#[inline(always)]
fn tuple6(t: &KernelTuple) -> Tuple6 {
    Tuple6 { src: t.src, dst: t.dst, src_l4: t.src_l4, dst_l4: t.dst_l4 }
}

/// Wakes the reader only when the fill has just crossed a multiple of the threshold: a wakeup per
/// record costs more than the record (kernel-facts: 190k wakeups for 400k records).
#[inline(always)]
fn wakeup(len: usize) -> u64 {
    let available = RECORDS.query(u64::from(BPF_RB_AVAIL_DATA));
    let wake = wake_bytes();
    let crossed = available >= wake && available & (wake - 1) < len as u64 + RING_HEADER;
    u64::from(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
