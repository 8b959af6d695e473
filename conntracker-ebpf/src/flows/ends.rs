//! Ends of flows: what conntrack knew of them last, and those that it never confirmed.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use conntracker_common::{
    IPPROTO_SCTP, IPPROTO_TCP,
    conntrack::{IPS_CONFIRMED, IPS_DYING, IPS_TEMPLATE},
    counters::Counter,
    end::{END_COUNTERS, END_START, END_STATE, END_UNCONFIRMED, EndBody},
    probes::ABSENT,
};

use crate::{
    base::{
        counters::{count, say},
        globals::{argument, end_number, end_offset, offset},
        memory::{at, read, read_into},
        netns,
    },
    packet::{
        conntrack::Entry,
        emit::{emit_end, now},
        facts::Facts,
    },
    paths::cpu::jiffies,
};

/// The entry of a packet that netfilter is dropping on this CPU.
#[repr(C)]
struct Dropped {
    entry: u64,
    /// When (jiffies).
    since: u64,
}

#[map]
static DROPPED: PerCpuArray<Dropped> = PerCpuArray::with_max_entries(1, 0);

/// A packet is dropped, and reported. If its entry was never confirmed, the entry is destroyed next on this CPU: that
/// end is not reported, too.
#[inline(always)]
pub fn dropped(entry: Entry) {
    if end_number!(wanted) == 0 {
        return;
    }
    if let Some(dropped) = DROPPED.get_ptr_mut(0) {
        // SAFETY: a per-CPU value. Who comes in between costs a record too many.
        unsafe { *dropped = Dropped { entry: entry.address(), since: jiffies() } };
    }
}

/// Whether a packet of this entry was dropped on this CPU just now.
#[inline(always)]
fn was_dropped(entry: Entry) -> bool {
    let Some(dropped) = DROPPED.get_ptr_mut(0) else { return false };
    // SAFETY: as above.
    let dropped = unsafe { &mut *dropped };
    if dropped.entry != entry.address() {
        return false;
    }
    dropped.entry = 0;
    // Memory is used again soon: an entry that stood there before is not this one.
    jiffies().wrapping_sub(dropped.since) <= 1
}

/// `nf_ct_delete` begins: an entry is about to leave the table. If several CPUs delete it, the first one sets
/// IPS_DYING.
#[inline(always)]
pub fn deleted(context: *const u8) {
    let Some(entry) = at(context, argument!(delete_ct)).map(Entry::at) else { return };
    let Some(status) = entry.status() else { return count(Counter::ReadFailed) };
    if status & (IPS_CONFIRMED | IPS_DYING) == IPS_CONFIRMED {
        report(entry, status);
    }
}

/// `nf_ct_destroy`: an entry is about to be freed. Confirmed entries were reported when they were deleted; templates
/// belong to no packet.
#[inline(always)]
pub fn destroyed(context: *const u8) {
    let Some(entry) = at(context, argument!(destroy_ct)).map(Entry::at) else { return };
    let Some(status) = entry.status() else { return count(Counter::ReadFailed) };
    if status & (IPS_CONFIRMED | IPS_TEMPLATE) == 0 && !was_dropped(entry) {
        report(entry, status);
    }
}

/// Reports an end, if the entry's namespace is observed.
#[inline(never)]
fn report(entry: Entry, status: u32) {
    let net = || read::<u64>(entry.net()? + offset!(net_cookie) as u64);
    let Some(cookie) = net() else { return count(Counter::ReadFailed) };
    if netns::number(cookie).is_none() {
        return;
    }
    count(Counter::Ends);
    let mut facts = Facts::new(now());
    facts.netns_cookie = cookie;
    facts.body.status = status;
    // It is no packet that ends.
    facts.body.flags = 0;
    if !entry.describe(&mut facts) {
        say!("the end of an entry of status {:x} could not be read", status);
        return count(Counter::ReadFailed);
    }
    let mut end = EndBody::NONE;
    if status & IPS_CONFIRMED == 0 {
        end.flags = END_UNCONFIRMED;
    } else {
        end.overdue = overdue(entry);
    }
    extensions(entry, &mut end);
    state(entry, facts.body.proto, &mut end);
    count(if emit_end(&facts, &end) { Counter::EndRecords } else { Counter::EndLost });
}

/// Ticks since the entry's timeout: it stays in the table until a packet or the garbage collector finds it.
#[inline(always)]
fn overdue(entry: Entry) -> u32 {
    let Some(timeout) = read::<u32>(entry.address() + end_offset!(ct_timeout) as u64) else {
        return 0;
    };
    let ticks = (jiffies() as u32).wrapping_sub(timeout);
    if ticks as i32 > 0 { ticks } else { 0 }
}

/// Accounting and time stamps, where the entry has them.
#[inline(always)]
fn extensions(entry: Entry, end: &mut EndBody) {
    let Some(ext) = read::<u64>(entry.address() + end_offset!(ct_ext) as u64) else { return };
    if ext == 0 {
        return;
    }
    if let Some(acct) = extension(ext, end_number!(ext_acct)) {
        let [packets, reply_packets] = &mut end.packets;
        let [bytes, reply_bytes] = &mut end.bytes;
        if read_into(acct + end_offset!(acct_packets) as u64, packets)
            && read_into(acct + end_offset!(acct_bytes) as u64, bytes)
            && read_into(acct + end_offset!(acct_reply_packets) as u64, reply_packets)
            && read_into(acct + end_offset!(acct_reply_bytes) as u64, reply_bytes)
        {
            end.flags |= END_COUNTERS;
        }
    }
    // Of an entry that is not confirmed it says nothing yet.
    if end.flags & END_UNCONFIRMED == 0
        && let Some(tstamp) = extension(ext, end_number!(ext_tstamp))
        && read_into(tstamp + end_offset!(tstamp_start) as u64, &mut end.start_ns)
    {
        end.flags |= END_START;
    }
}

/// Address of an extension, if the entry has it.
#[inline(always)]
fn extension(ext: u64, id: u32) -> Option<u64> {
    if id == ABSENT {
        return None;
    }
    let at: u8 = read(ext + end_offset!(ext_offset) as u64 + u64::from(id))?;
    if at == 0 { None } else { Some(ext + u64::from(at)) }
}

/// The state that the protocol's tracker has.
#[inline(always)]
fn state(entry: Entry, proto: u8, end: &mut EndBody) {
    let offset = match proto {
        IPPROTO_TCP => end_offset!(ct_tcp_state) as u32,
        IPPROTO_SCTP => end_number!(sctp_state),
        _ => ABSENT,
    };
    // Of enumerations of 32 bits too this is the byte that tells.
    if offset != ABSENT && read_into(entry.address() + u64::from(offset), &mut end.state) {
        end.flags |= END_STATE;
    }
}
