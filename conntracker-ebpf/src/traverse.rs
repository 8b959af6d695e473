//! Packets on their way through a hook: between a link before its first base chain and one after its
//! last. The counters that move in between are those of the rules that the packet matched.

use conntracker_common::{
    counters::Counter,
    path::{IPS_NAT, MAX_MOVED, Marks, PATH_NAT, PATH_NESTED, PathBody},
    plan::{self, MAX_GAPS, MAX_NAMESPACES, PLACES, SEGMENT_EARLY, TRUSTED_SAMPLE},
    record::{FAMILY_V6, HOOK_UNKNOWN},
};

use crate::{
    conntrack::{CT_NEW, CT_RELATED, Entry, IPS_CONFIRMED, KernelTuple, Nfct},
    counters::count,
    cpu::{self, Cpu},
    emit::{self, Facts, PathScratch, now},
    globals::offset,
    hash::Hash,
    headers, known,
    memory::{load, read, read_into},
    netns, plans, seen, snapshot, trust,
};

/// Bit of ways in the cache of known paths: those that were reported.
const REPORTED: u64 = 1 << 63;

/// A packet comes to the first base chain of a hook. Packets whose path is known leave soon.
#[inline(always)]
pub fn open(state: *const u8, skb: *const u8, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    let (hook, place) = place(state, segment);
    if !cpu.is_quiet() {
        cpu.interrupt(skb, place);
    }
    cpu.enter(skb, place);
    cpu.packets = cpu.packets.wrapping_add(1);
    let tracing = known::tracing();
    let sampled = tracing.sample != 0 && cpu.packets % u64::from(tracing.sample) == 0;

    // SAFETY: skb is the context's trusted pointer.
    let nfct = Nfct::new(unsafe { load(skb, offset!(skb_nfct)) });
    let entry = if segment == SEGMENT_EARLY { None } else { nfct.entry() };
    let mut status = 0;
    let mut fresh = false;
    let (key, bit) = match entry {
        Some(entry) => {
            let info = nfct.info();
            if matches!(info, CT_NEW | CT_RELATED) {
                let Some(now) = entry.status() else { return count(Counter::ReadFailed) };
                status = now;
                fresh = status & IPS_CONFIRMED == 0;
            }
            (entry.address(), known::bit(info, hook))
        }
        None => {
            let bit = if segment == SEGMENT_EARLY {
                known::early_bit(hook)
            } else {
                known::bit(nfct.info(), hook)
            };
            let Some(key) = headers_key(skb as u64) else { return };
            (key, bit)
        }
    };
    if !fresh && !sampled && known::contains(key, tracing.generation, bit) {
        return;
    }

    // SAFETY: state is the context's trusted pointer, net one that the verifier follows.
    let netns_cookie: u64 = unsafe {
        let net: *const u8 = load(state, offset!(state_net));
        load(net, offset!(net_cookie))
    };
    let number = if netns_cookie == tracing.first_netns {
        0
    } else {
        netns::number(netns_cookie).unwrap_or(MAX_NAMESPACES)
    };
    let plan_index = plan::plan_index(number, place);
    let Some(plan) = plans::get(plan_index) else {
        // Nothing to see here.
        return known::insert(key, tracing.generation, bit, fresh);
    };
    let flow = match entry {
        Some(entry) if seen::mode().0 => flow_hash(entry.address(), netns_cookie),
        _ => 0,
    };
    if fresh
        && flow != 0
        && !sampled
        && !cpu.packets.is_multiple_of(TRUSTED_SAMPLE)
        && trust::is_trusted(trust_tag(flow, place, tracing.generation))
    {
        return count(Counter::PathTrusted);
    }
    if !plans::holds(plan) {
        return count(Counter::PathRaces);
    }
    let Some(cpu_offset) = cpu.offset() else { return count(Counter::ReadFailed) };
    let Some(index) = cpu.claim(skb) else { return count(Counter::FramesFull) };
    let frame = &mut cpu.frames[index & 3];
    frame.since = cpu::jiffies();
    frame.key = key;
    frame.bit = bit;
    frame.flow = flow;
    frame.netns_cookie = netns_cookie;
    frame.plan = plan_index;
    frame.place = place;
    frame.generation = tracing.generation;
    frame.epoch = plan.epoch;
    frame.shares = plan.shares;
    frame.gaps = 0;
    frame.nested = 0;
    frame.fresh = u32::from(fresh);
    frame.status = status;
    frame.ct_mark = 0;
    // SAFETY: skb is the context's trusted pointer.
    frame.packet_mark = unsafe { load(skb, offset!(skb_mark)) };
    let mut complete = true;
    if let Some(entry) = entry {
        complete = entry.mark(&mut frame.ct_mark);
        if fresh && status & IPS_NAT != 0 {
            // Translated once; without that it is the original tuple turned round.
            complete &= entry.reply(&mut frame.reply);
        }
    }
    if complete && snapshot::take(plan, cpu::index(index), cpu_offset) {
        count(Counter::TracedPackets);
    } else {
        cpu.owners[index & 3] = 0;
        count(Counter::ReadFailed);
    }
}

/// A packet goes from one base chain to the next.
#[inline(always)]
pub fn gap(state: *const u8, skb: *const u8, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    if cpu.is_quiet() {
        return;
    }
    let (_, place) = place(state, segment);
    if let Some(index) = cpu.find(skb, place) {
        let frame = &mut cpu.frames[index & 3];
        let at = frame.gaps as usize & MAX_GAPS;
        // SAFETY: skb is the context's trusted pointer.
        let (mark, nfct) =
            unsafe { (load(skb, offset!(skb_mark)), Nfct::new(load(skb, offset!(skb_nfct)))) };
        frame.marks[at] = Marks { packet: mark, connection: 0 };
        if segment != SEGMENT_EARLY
            && let Some(entry) = nfct.entry()
        {
            // Unreadable is as good as not there: the record will tell.
            entry.mark(&mut frame.marks[at].connection);
        }
        frame.gaps += 1;
    }
}

/// A packet leaves the last base chain of a hook.
#[inline(always)]
pub fn close(state: *const u8, skb: *const u8, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    cpu.leave();
    if cpu.is_quiet() {
        return;
    }
    let (_, place) = place(state, segment);
    if let Some(index) = cpu.find(skb, place) {
        let skb = cpu.owners[index & 3];
        finish(cpu, index, skb, false);
    }
}

/// A packet was dropped by netfilter. Returns the hook, or [`HOOK_UNKNOWN`] if it was not seen there.
#[inline(never)]
pub fn dropped(skb: u64) -> u8 {
    let Some(cpu) = cpu::this() else { return HOOK_UNKNOWN };
    let place = cpu.place_of(skb).unwrap_or(PLACES as u32);
    cpu.leave();
    if !cpu.is_quiet()
        && let Some(index) = cpu.find_anywhere(skb)
    {
        let hook = plan::hook(cpu.frames[index & 3].place);
        finish(cpu, index, skb, true);
        return hook;
    }
    forget(skb, place);
    if place < PLACES as u32 { plan::hook(place) } else { HOOK_UNKNOWN }
}

/// A packet was dropped whose path was known, and is another one now: the next ones are looked at.
#[inline(always)]
fn forget(skb: u64, place: u32) {
    let Some(nfct) = read(skb + offset!(skb_nfct) as u64) else { return };
    let generation = known::tracing().generation;
    let key = match Nfct::new(nfct).entry() {
        Some(entry) => {
            if seen::mode().0
                && let Some(net) = entry.net()
                && let Some(cookie) = read(net + offset!(net_cookie) as u64)
            {
                let flow = flow_hash(entry.address(), cookie);
                trust::dropped(trust_tag(flow, place, generation));
            }
            entry.address()
        }
        None => headers_key(skb).unwrap_or(0),
    };
    known::remove(key, generation);
}

/// Hash of a folded flow.
#[inline(never)]
fn flow_hash(entry: u64, netns_cookie: u64) -> u64 {
    let entry = Entry::at(entry);
    let mut tuple = KernelTuple::NONE;
    if !entry.orig(&mut tuple) {
        return 0;
    }
    let zone = entry.zone_word().unwrap_or(0);
    let mut hash = Hash::new(netns_cookie);
    seen::fold_source(&mut tuple.src_l4, tuple.proto);
    hash.tuple(&tuple);
    hash.add(u64::from(zone) << 16 | u64::from(tuple.l3num));
    hash.finish()
}

/// Tag of a folded flow at a place.
#[inline(always)]
fn trust_tag(flow: u64, place: u32, generation: u32) -> u64 {
    let mut hash = Hash::new(flow);
    hash.add(u64::from(generation) << 32 | u64::from(place));
    hash.finish()
}

/// The hook and place of a packet.
#[inline(always)]
fn place(state: *const u8, segment: u8) -> (u8, u32) {
    // SAFETY: state is the context's trusted pointer.
    let (hook, family): (u8, u8) =
        unsafe { (load(state, offset!(state_hook)), load(state, offset!(state_pf))) };
    (hook, plan::place(family == FAMILY_V6, segment, hook))
}

/// Key of a packet without a conntrack entry, which its headers are.
#[inline(never)]
fn headers_key(skb: u64) -> Option<u64> {
    let mut tuple = KernelTuple::NONE;
    headers::tuple(skb, &mut tuple)?;
    let mut hash = Hash::new(u64::from(tuple.l3num));
    hash.tuple(&tuple);
    // Devices belong to namespaces: the same tuple in two of them has two keys.
    hash.add(read(skb + offset!(skb_dev) as u64)?);
    Some(hash.finish())
}

/// Reads the counters again and reports the way, unless it was reported for the folded key.
#[inline(never)]
fn finish(cpu: &mut Cpu, index: usize, skb: u64, dropped: bool) {
    let index = index & 3;
    let frame_at = cpu::index(index);
    let reported = report(cpu, index, frame_at, skb, dropped);
    let frame = &cpu.frames[index];
    if reported.is_some() && !dropped && frame.nested == 0 {
        known::insert(frame.key, frame.generation, frame.bit, frame.fresh != 0);
    }
    cpu.owners[index] = 0;
}

#[inline(always)]
fn report(cpu: &mut Cpu, index: usize, frame_at: u32, skb: u64, dropped: bool) -> Option<()> {
    let cpu_offset = cpu.offset()?;
    let frame = &cpu.frames[index];
    let scratch = emit::path_scratch(frame_at)?;
    scratch.head.path = PathBody {
        epoch: frame.epoch,
        packet_mark: frame.packet_mark,
        ct_mark: frame.ct_mark,
        status: frame.status,
        info: 0,
        dropped: u8::from(dropped),
        segment: plan::segment(frame.place),
        gaps: if frame.gaps > MAX_GAPS as u32 { MAX_GAPS as u8 } else { frame.gaps as u8 },
        flags: 0,
        moved: 0,
        reserved: [0; 2],
    };
    scratch.marks = frame.marks;
    let holds = plans::get(frame.plan).is_some_and(|plan| {
        plan.epoch == frame.epoch
            && snapshot::compare(plan, frame_at, cpu_offset)
            && plans::holds(plan)
    });
    if !holds {
        count(Counter::PathRaces);
        return None;
    }
    if frame.nested != 0 {
        scratch.head.path.flags |= PATH_NESTED;
    }
    let after = after(scratch, skb)?;
    let mut reported = 0;
    if frame.flow != 0 {
        let way = way(scratch, frame.place, after.packet_mark, after.ct_mark);
        if frame.fresh != 0 {
            trust::took(trust_tag(frame.flow, frame.place, frame.generation), way, dropped);
        }
        let key = frame.flow ^ way;
        if known::contains(key, frame.generation, REPORTED) {
            count(Counter::PathFolded);
            return Some(());
        }
        reported = key;
    }
    scratch.facts = Facts::new(now());
    scratch.facts.netns_cookie = frame.netns_cookie;
    scratch.facts.body.hook = plan::hook(frame.place);
    if !gather(scratch, skb) {
        count(Counter::ReadFailed);
        return None;
    }
    let before = frame.status & IPS_NAT;
    if frame.fresh != 0 && scratch.facts.body.status & IPS_NAT != before {
        scratch.head.path.flags |= PATH_NAT;
        if before != 0 {
            scratch.reply_before = frame.reply;
        }
    }
    if !emit::emit_path(scratch) {
        // Neither the way nor the flow is known then: the next packet tells again.
        count(Counter::PathLost);
        return None;
    }
    count(Counter::PathRecords);
    if reported != 0 {
        known::insert(reported, frame.generation, REPORTED, false);
    }
    Some(())
}

/// Marks of a packet at the end of a hook.
struct After {
    packet_mark: u32,
    ct_mark: u32,
}

/// Reads what tells one way from another, besides the counters.
#[inline(always)]
fn after(scratch: &mut PathScratch, skb: u64) -> Option<After> {
    let nfct = Nfct::new(read(skb + offset!(skb_nfct) as u64)?);
    scratch.head.path.info = nfct.info() as u8;
    let mut after = After { packet_mark: 0, ct_mark: 0 };
    let mut complete = read_into(skb + offset!(skb_mark) as u64, &mut after.packet_mark);
    if let Some(entry) = nfct.entry()
        && scratch.head.path.segment != SEGMENT_EARLY
    {
        complete &= entry.mark(&mut after.ct_mark);
    }
    if complete { Some(after) } else { None }
}

/// What a record says of the flow. Before conntrack, what a packet has is no entry of its own: a template
/// (`ct zone set`), or over lo that of the way out. With probe_read: packets that are reported are few, and dropped
/// ones come without types.
#[inline(never)]
fn gather(scratch: &mut PathScratch, skb: u64) -> bool {
    let Some(raw) = read(skb + offset!(skb_nfct) as u64) else { return false };
    let nfct = Nfct::new(raw);
    let facts = &mut scratch.facts;
    if let Some(entry) = nfct.entry()
        && scratch.head.path.segment != SEGMENT_EARLY
    {
        let Some(status) = entry.status() else { return false };
        facts.body.status = status;
        if !entry.describe(facts) {
            return false;
        }
    } else if !headers::describe(skb, facts) {
        return false;
    }
    read_into(skb + offset!(skb_mark) as u64, &mut facts.body.packet_mark)
}

/// Hash of a way: what is the same for two packets of a folded flow that went the same way.
#[inline(never)]
fn way(scratch: &PathScratch, place: u32, packet_mark: u32, ct_mark: u32) -> u64 {
    let path = &scratch.head.path;
    let what = [path.info, path.dropped, path.gaps, path.flags];
    let mut hash = Hash::new(u64::from(place));
    hash.add(u64::from(path.epoch) << 32 | u64::from(u32::from_ne_bytes(what)));
    hash.add(u64::from(path.packet_mark) << 32 | u64::from(packet_mark));
    hash.add(u64::from(path.ct_mark) << 32 | u64::from(ct_mark));
    for i in 0..MAX_MOVED {
        if i >= path.moved as usize {
            break;
        }
        let moved = scratch.moved[i];
        hash.add(u64::from(moved.slot) << 16 | u64::from(moved.packets));
    }
    for i in 0..MAX_GAPS {
        if i >= path.gaps as usize {
            break;
        }
        let marks = scratch.marks[i];
        hash.add(u64::from(marks.packet) << 32 | u64::from(marks.connection));
    }
    hash.finish()
}
