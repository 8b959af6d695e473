//! Packets that the kernel dropped: netfilter, or another part of it.

use conntracker_common::{
    counters::Counter,
    record::{CONNTRACK_FULL, FLAG_COUNTED, HOOK_UNKNOWN, KIND_DROP, KIND_LOST},
};

use crate::{
    conntrack::{Entry, IPS_TEMPLATE, Nfct},
    counters::{count, say},
    drop_counts::{self, Counted},
    dst,
    emit::{Facts, emit, now},
    ends,
    globals::{NO_REASON, frozen, is_untold, offset, trace_rules},
    headers,
    memory::{read, read_into},
    netns, stats, traverse,
};

/// Reasons of subsystems (mac80211, openvswitch) have numbers of their own above this bit.
const SUBSYSTEM: u32 = 16;

/// Why a packet was dropped.
pub struct Cause {
    /// Not by netfilter.
    pub lost: bool,
    /// See [`conntracker_common::seen::DropKey::reason`].
    pub reason: u32,
    /// See [`conntracker_common::seen::DropKey::location`].
    pub location: u64,
    /// See [`conntracker_common::seen::DropKey::path_hash`].
    pub path_hash: u64,
}

/// One packet that netfilter dropped. Reads with probe_read throughout: drops are not
/// the hot path, and a raw tracepoint's arguments have no types.
#[inline(always)]
pub fn observe(skb: u64) {
    let mut path_hash = 0;
    let hook = if trace_rules() { traverse::dropped(skb, &mut path_hash) } else { HOOK_UNKNOWN };
    report(skb, hook, path_hash);
}

/// A function of its own: its stack is not that of what runs before it.
#[inline(never)]
fn report(skb: u64, hook: u8, path_hash: u64) {
    let Some(found) = namespace(skb, false) else {
        return count(Counter::DropUnknown);
    };
    if netns::number(found.cookie).is_none() {
        return;
    }
    let reason = stats::dropped_by_conntrack(found.net, found.cookie, found.entry.is_some());
    if let Some(entry) = found.entry {
        ends::dropped(entry);
    }
    let mut facts = Facts::new(now());
    facts.netns_cookie = found.cookie;
    if !gather(&mut facts, skb, found.dev, found.entry) {
        say!("a dropped packet could not be described, netns {}", found.cookie);
        return count(Counter::DropUnknown);
    }
    if hook != HOOK_UNKNOWN {
        facts.body.hook = hook;
    } else if reason == CONNTRACK_FULL && facts.body.hook == HOOK_UNKNOWN {
        // Of packets that come in conntrack makes entries at PREROUTING only, before they are routed.
        facts.body.hook = dst::PRE_ROUTING;
    }
    // Before the packet is counted by its key: the agent reads this counter first, so that what it finds
    // counted by keys is never less.
    count(Counter::DropPackets);
    let cause = Cause { lost: false, reason, location: 0, path_hash };
    match drop_counts::count(&facts, &cause) {
        Counted::First => facts.body.flags |= FLAG_COUNTED,
        Counted::Again => return count(Counter::DropFolded),
        Counted::NoRoom => {}
    }
    facts.body.count = reason;
    facts.body.since_ns = path_hash;
    count(if emit(KIND_DROP, &facts) { Counter::DropRecords } else { Counter::DropLost });
}

/// One packet, IP or not, that another part of the kernel dropped, for a reason, at an address.
#[inline(always)]
pub fn observe_lost(skb: u64, reason: u32, location: u64) {
    if reason != 0 && is_untold(reason) {
        return;
    }
    // Sockets of all kinds drop messages that are no packets.
    if !headers::is_ip(skb) {
        return;
    }
    let location =
        if reason == frozen(&NO_REASON) || reason >> SUBSYSTEM != 0 { location } else { 0 };
    report_lost(skb, reason, location);
}

/// As [`report`].
#[inline(never)]
fn report_lost(skb: u64, reason: u32, location: u64) {
    let Some(found) = namespace(skb, true) else {
        return count(Counter::LostUnknown);
    };
    if netns::number(found.cookie).is_none() {
        return;
    }
    if let Some(entry) = found.entry {
        ends::dropped(entry);
    }
    let mut facts = Facts::new(now());
    facts.netns_cookie = found.cookie;
    if !gather(&mut facts, skb, found.dev, found.entry) {
        return count(Counter::LostUnknown);
    }
    count(Counter::LostPackets);
    let cause = Cause { lost: true, reason, location, path_hash: 0 };
    match drop_counts::count(&facts, &cause) {
        Counted::First => facts.body.flags |= FLAG_COUNTED,
        Counted::Again => return count(Counter::LostFolded),
        Counted::NoRoom => {}
    }
    facts.body.count = reason;
    facts.body.since_ns = location;
    count(if emit(KIND_LOST, &facts) { Counter::LostRecords } else { Counter::LostUnsent });
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

/// The namespace is the conntrack entry's, else the device's, else the sending socket's, else the route's. Behind
/// netfilter (`behind`) the route is asked first: sockets keep other things where the device was.
#[inline(always)]
fn namespace(skb: u64, behind: bool) -> Option<Found> {
    let entry = Nfct::new(read(skb + offset!(skb_nfct) as u64)?).entry();
    let dev: u64 = read(skb + offset!(skb_dev) as u64)?;
    let mut net = 0u64;
    if let Some(entry) = entry {
        net = entry.net()?;
    }
    if net == 0 && behind {
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
    if net == 0 && !behind {
        net = routes_namespace(skb)?;
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
