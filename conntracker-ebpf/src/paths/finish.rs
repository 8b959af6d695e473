//! The end of a packet's way through a hook: what is reported of it.

use conntracker_common::{
    conntrack::{IPS_NAT, IPS_TEMPLATE},
    counters::Counter,
    path::{PATH_NAT, PATH_NESTED, PATH_PROBED, PathBody},
    plan::{self, MAX_GAPS, SEGMENT_EARLY},
};

use crate::{
    base::{
        counters::count,
        globals::offset,
        memory::{copy, read, read_into},
        mode,
    },
    packet::{
        conntrack::Nfct,
        emit::{self, PathScratch},
        hash::{Hash, tuple_hash},
        headers,
    },
    paths::{
        cpu::{self, Cpu, Frame},
        path_cache,
        path_sampling::{self, sampling_tag},
        plans, snapshot,
    },
};

/// Bit of ways in the cache of known paths: those that were reported.
const REPORTED: u64 = 1 << 63;

/// Reads the counters again and reports the way, unless it was reported for the folded key. Returns the
/// hash of the path, 0 if there is none.
#[inline(never)]
pub fn finish(cpu: &mut Cpu, index: usize, skb: u64, dropped: bool) -> u64 {
    let index = index & 3;
    let frame_at = cpu::index(index);
    // From here on the counters of this frame are being read: who interrupts leaves them alone.
    cpu.frames[index].busy = 1;
    let path_hash = report(cpu, index, frame_at, skb, dropped).unwrap_or(0);
    let frame = &cpu.frames[index];
    if dropped {
        // Nothing is known of what comes to lie where the entry is.
        path_cache::remove(frame.key, frame.generation);
    } else if path_hash != 0 && frame.nested == 0 {
        path_cache::insert(frame.key, frame.generation, frame.bit, frame.fresh != 0);
    }
    cpu.release(index);
    path_hash
}

#[inline(always)]
fn report(cpu: &mut Cpu, index: usize, frame_at: u32, skb: u64, dropped: bool) -> Option<u64> {
    let cpu_offset = cpu.offset()?;
    let frame = &mut cpu.frames[index];
    if frame.suspended != 0 || !frame.task.lasts() {
        // Who came in between has not left, or another task may have run and moved the same counters.
        frame.nested = 1;
    }
    let frame = &cpu.frames[index];
    let scratch = emit::path_scratch(frame_at)?;
    scratch.head.path = PathBody {
        epoch: frame.epoch,
        packet_mark: frame.packet_mark,
        ct_mark: frame.ct_mark,
        status: frame.status,
        info: 0,
        dropped: u8::from(dropped),
        segment: plan::segment(frame.hook_point),
        gaps: if frame.gaps > MAX_GAPS as u32 { MAX_GAPS as u8 } else { frame.gaps as u8 },
        flags: frame.flags as u8,
        moved: 0,
        events: frame.events as u8,
        reserved: 0,
        iif_name: frame.iif_name,
        oif_name: frame.oif_name,
        path_hash: 0,
    };
    copy(&frame.marks, &mut scratch.marks);
    if frame.flags as u8 & PATH_PROBED == 0 {
        scratch.clear();
    }
    let holds = plans::get(frame.plan).is_some_and(|plan| {
        plans::epoch(plan) == frame.epoch
            && snapshot::compare(plan, frame_at, cpu_offset)
            && plans::holds(plan)
            && plans::epoch(plan) == frame.epoch
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
    // 0 says that there is none.
    let way = way(scratch, frame, &after) | 1;
    scratch.head.path.path_hash = way;
    if frame.flow != 0 {
        if frame.fresh != 0 {
            path_sampling::took(
                sampling_tag(frame.flow, frame.hook_point, frame.generation),
                way,
                dropped,
            );
        }
        let key = frame.flow ^ way;
        if path_cache::contains(key, frame.generation, REPORTED) {
            count(Counter::PathFolded);
            return Some(way);
        }
        reported = key;
    }
    scratch.facts.clear(frame.came_ns);
    scratch.facts.netns_cookie = frame.netns_cookie;
    scratch.facts.body.hook = plan::hook(frame.hook_point);
    scratch.facts.body.iif = frame.iif;
    scratch.facts.body.oif = frame.oif;
    if !gather(scratch, skb) {
        count(Counter::ReadFailed);
        return None;
    }
    if dropped && reported == 0 {
        // Each dropped packet is traced, also where flows do not fold.
        let key = way ^ tuple_hash(&scratch.facts.orig);
        if path_cache::contains(key, frame.generation, REPORTED) {
            count(Counter::PathFolded);
            return Some(way);
        }
        reported = key;
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
        path_cache::insert(reported, frame.generation, REPORTED, false);
    }
    Some(way)
}

/// Marks of a packet at the end of a hook.
struct After {
    packet_mark: u32,
    ct_mark: u32,
    /// The reply direction, its client folded, is in the scratch memory.
    translated: bool,
}

/// Reads what tells one way from another, besides the counters.
#[inline(always)]
fn after(scratch: &mut PathScratch, skb: u64) -> Option<After> {
    let nfct = Nfct::new(read(skb + offset!(skb_nfct) as u64)?);
    let mut after = After { packet_mark: 0, ct_mark: 0, translated: false };
    let mut complete = read_into(skb + offset!(skb_mark) as u64, &mut after.packet_mark);
    // What is there before conntrack's own function is not its word on this packet.
    if scratch.head.path.segment != SEGMENT_EARLY {
        scratch.head.path.info = nfct.info();
        if let Some(entry) = nfct.entry() {
            complete &= entry.mark(&mut after.ct_mark);
            if entry.status()? & IPS_NAT != 0 {
                let facts = &mut scratch.facts;
                complete &= entry.reply(&mut facts.reply);
                mode::fold_source(&mut facts.reply.dst_l4, facts.reply.proto);
                after.translated = true;
            }
        }
    }
    if complete { Some(after) } else { None }
}

/// What a record says of the flow. Before conntrack, what a packet has is no entry of its own: a template
/// (`ct zone set`), which tells the zone, or over lo that of the way out. With probe_read: packets that are reported are few, and dropped
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
    } else {
        if !headers::describe(skb, facts) {
            return false;
        }
        if let Some(template) = nfct.entry()
            && template.status().is_some_and(|status| status & IPS_TEMPLATE != 0)
        {
            template.zone(facts);
        }
    }
    read_into(skb + offset!(skb_mark) as u64, &mut facts.body.packet_mark)
}

/// Hash of a way: what is the same for two packets of a folded flow that went the same way.
#[inline(never)]
fn way(scratch: &PathScratch, frame: &Frame, after: &After) -> u64 {
    let path = &scratch.head.path;
    // Not the number of events and counters: they tell it.
    let what = [path.info, path.dropped, path.gaps, path.flags];
    let mut hash = Hash::new(u64::from(frame.hook_point));
    // Rules without counters can tell packets apart by these alone.
    hash.add(u64::from(frame.iif) << 32 | u64::from(frame.oif));
    hash.add(u64::from(path.epoch) << 32 | u64::from(u32::from_ne_bytes(what)));
    hash.add(u64::from(path.packet_mark) << 32 | u64::from(after.packet_mark));
    hash.add(u64::from(path.ct_mark) << 32 | u64::from(after.ct_mark));
    if after.translated {
        // As do the addresses that NAT made.
        hash.tuple(&scratch.facts.reply);
    }
    hash.add(scratch.hash.finish());
    for i in 0..MAX_GAPS {
        if i >= path.gaps as usize {
            break;
        }
        let marks = scratch.marks[i];
        hash.add(u64::from(marks.packet) << 32 | u64::from(marks.connection));
    }
    hash.finish()
}
