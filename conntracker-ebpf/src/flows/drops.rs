//! Packets that the kernel dropped: netfilter, or another part of it.

use conntracker_common::{
    conntrack::IPS_TEMPLATE,
    counters::Counter,
    hook::{POST_ROUTING, PRE_ROUTING},
    record::{CONNTRACK_FULL, FLAG_COUNTED, HOOK_UNKNOWN, KIND_DROP, KIND_LOST},
};

use super::drop_counts::Cause;
use crate::{
    base::{
        counters::{count_at, say},
        globals::{NO_REASON, frozen, is_untold, offset, tells_lost_packets, trace_rules},
        memory::{forget, read, read_into, unknown},
        netns,
    },
    flows::{
        drop_counts::{self, Counted},
        ends, stats,
    },
    packet::{
        conntrack::{Entry, Nfct},
        dst,
        emit::{emit, now},
        facts::Facts,
        headers,
    },
    paths::traverse,
};

/// Reasons of subsystems (mac80211, openvswitch) have numbers of their own above this bit.
const SUBSYSTEM: u32 = 16;

/// One packet that the kernel dropped, for a reason, at an address. Reads with probe_read throughout: drops are
/// not the hot path, and a raw tracepoint's arguments have no types.
#[inline(always)]
pub fn observe(skb: u64, reason: u32, location: u64, by_netfilter: bool) {
    let (mut hook, mut path_hash, mut told, mut place) = (HOOK_UNKNOWN, 0, 0, 0);
    if by_netfilter {
        if trace_rules() {
            hook = traverse::dropped(skb, &mut path_hash);
        }
    } else {
        // Sockets of all kinds drop messages that are no packets.
        if !tells_lost_packets() || is_untold(reason) || !headers::is_ip(skb) {
            return;
        }
        told = reason;
        if reason == frozen(&NO_REASON) || reason >> SUBSYSTEM != 0 {
            place = location;
        }
    }
    report_drop(skb, path_hash, place, u32::from(hook), told);
}

/// Reports a packet that netfilter dropped or, with a `reason` or a `location`, that was lost elsewhere. A global
/// function: the verifier checks it once, with unknown arguments. Whether the packet was lost is calculated without a
/// branch, because the verifier would check everything behind a branch twice.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_drop(
    skb: u64,
    path_hash: u64,
    location: u64,
    hook: u32,
    reason: u32,
) -> i32 {
    report(skb, path_hash, location, hook as u8, reason);
    0
}

#[inline(always)]
fn report(skb: u64, path_hash: u64, location: u64, hook: u8, reason: u32) {
    let lost = u64::from(reason) | location;
    // 1 if it is not 0.
    let lost = (lost | lost.wrapping_neg()) >> 63;
    let Some(found) = namespace(skb) else {
        return count_nth(Counter::DropUnknown, Counter::LostUnknown, lost);
    };
    if netns::number(found.cookie).is_none() {
        return;
    }
    let has_entry = found.entry.is_some();
    let by_conntrack = stats::dropped_by_conntrack(found.net, found.cookie, has_entry);
    let by_conntrack = unknown(u64::from(by_conntrack)) as u32;
    let reason = reason | by_conntrack & ((lost as u32).wrapping_sub(1));
    let cause = Cause { lost: lost as u8, reason, location, path_hash };
    if let Some(entry) = found.entry {
        ends::dropped(entry);
    }
    let mut facts = Facts::new(now());
    facts.netns_cookie = found.cookie;
    if !gather(&mut facts, skb, found.dev, found.entry) {
        say!("a dropped packet could not be described, netns {}", found.cookie);
        return count_nth(Counter::DropUnknown, Counter::LostUnknown, lost);
    }
    forget(&mut facts.body);
    if hook != HOOK_UNKNOWN {
        facts.body.hook = hook;
    } else if by_conntrack == CONNTRACK_FULL && facts.body.hook == HOOK_UNKNOWN {
        // Of packets that come in conntrack makes entries at PREROUTING only, before they are routed.
        facts.body.hook = PRE_ROUTING;
    } else if lost == 0 && facts.body.hook == POST_ROUTING && dst::has_left_postrouting(skb) {
        facts.body.hook = HOOK_UNKNOWN;
    }
    // Before the packet is counted by its key: the agent reads this counter first, so that what it finds
    // counted by keys is never less.
    count_nth(Counter::DropPackets, Counter::LostPackets, lost);
    match drop_counts::count(&facts, &cause) {
        Counted::First => facts.body.flags |= FLAG_COUNTED,
        Counted::Again => return count_nth(Counter::DropFolded, Counter::LostFolded, lost),
        Counted::NoRoom => {}
    }
    facts.body.count = reason;
    // One of them is 0.
    facts.body.since_ns = location | path_hash;
    headers::quote(skb, &mut facts);
    if emit(KIND_DROP + lost as u8 * (KIND_LOST - KIND_DROP), &facts) {
        count_nth(Counter::DropRecords, Counter::LostRecords, lost);
    } else {
        count_nth(Counter::DropLost, Counter::LostUnsent, lost);
    }
}

/// Counts one of two, by a number that is 0 or 1.
#[inline(always)]
fn count_nth(first: Counter, second: Counter, n: u64) {
    let (first, second) = (first as u64, second as u64);
    count_at(unknown(first + n * (second - first)) as u32);
}

/// Where a packet was.
struct Found {
    /// Address of its namespace, and the namespace's cookie.
    net: u64,
    cookie: u64,
    /// Address of its device; 0: none.
    dev: u64,
    /// Its conntrack entry, or template.
    entry: Option<Entry>,
}

/// The namespace is the conntrack entry's, else the route's, else the device's, else the sending socket's. (Receiving
/// sockets keep other data in the union that `sk_buff.dev` is in.)
#[inline(always)]
fn namespace(skb: u64) -> Option<Found> {
    let entry = Nfct::new(read(skb + offset!(skb_nfct) as u64)?).entry();
    let dev: u64 = read(skb + offset!(skb_dev) as u64)?;
    let mut net = 0u64;
    if let Some(entry) = entry {
        net = entry.net()?;
    }
    if net == 0 {
        net = routes_namespace(skb)?;
    }
    if net == 0 && dev != 0 {
        net = read(dev + offset!(dev_net) as u64)?;
    }
    if net == 0 {
        let sk: u64 = read(skb + offset!(skb_sk) as u64)?;
        if sk != 0 {
            net = read(sk + offset!(sk_net) as u64)?;
        }
    }
    Some(Found { net, cookie: read(net + offset!(net_cookie) as u64)?, dev, entry })
}

/// The namespace of a packet's route, 0 without one.
#[inline(always)]
fn routes_namespace(skb: u64) -> Option<u64> {
    let dst = read::<u64>(skb + offset!(skb_refdst) as u64)? & !dst::DST_NOREF;
    if dst == 0 {
        return Some(0);
    }
    // Those of tunnels' metadata have no device.
    match read::<u64>(dst + offset!(dst_dev) as u64)? {
        0 => Some(0),
        out => read(out + offset!(dev_net) as u64),
    }
}

/// Everything a record says; false if the packet is not IP or could not be read.
#[inline(always)]
fn gather(facts: &mut Facts, skb: u64, dev: u64, entry: Option<Entry>) -> bool {
    let mut status = 0;
    if let Some(entry) = entry {
        let Some(found) = entry.status() else { return false };
        status = found;
    }
    // A template (`ct zone set` before conntrack) is not the packet's entry.
    if let Some(entry) = entry
        && status & IPS_TEMPLATE == 0
    {
        facts.body.status = status;
        if !entry.describe(facts) {
            return false;
        }
    } else {
        if !headers::describe(skb, facts) {
            return false;
        }
        if let Some(template) = entry {
            template.zone(facts);
        }
    }
    dst::place(facts, skb, dev, entry.is_some())
        && read_into(skb + offset!(skb_mark) as u64, &mut facts.body.packet_mark)
}
