//! Packets that netfilter dropped.

use conntracker_common::{
    counters::Counter,
    record::{FLAG_COUNTED, HOOK_UNKNOWN, KIND_DROP},
};

use crate::{
    conntrack::{Entry, IPS_TEMPLATE, Nfct},
    counters::{count, say},
    drop_counts::{self, Counted},
    dst,
    emit::{Facts, emit, now},
    ends,
    globals::{offset, trace_rules},
    headers,
    memory::{read, read_into},
    netns, traverse,
};

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
    let Some((netns_cookie, dev, entry)) = namespace(skb) else {
        return count(Counter::DropUnknown);
    };
    if netns::number(netns_cookie).is_none() {
        return;
    }
    if let Some(entry) = entry {
        ends::dropped(entry);
    }
    let mut facts = Facts::new(now());
    facts.netns_cookie = netns_cookie;
    if !gather(&mut facts, skb, dev, entry) {
        say!("a dropped packet could not be described, netns {}", netns_cookie);
        return count(Counter::DropUnknown);
    }
    if hook != HOOK_UNKNOWN {
        facts.body.hook = hook;
    }
    // Before the packet is counted by its key: the agent reads this counter first, so that what it finds
    // counted by keys is never less.
    count(Counter::DropPackets);
    match drop_counts::count(&facts, path_hash) {
        Counted::First => facts.body.flags |= FLAG_COUNTED,
        Counted::Again => return count(Counter::DropFolded),
        Counted::NoRoom => {}
    }
    facts.body.since_ns = path_hash;
    count(if emit(KIND_DROP, &facts) { Counter::DropRecords } else { Counter::DropLost });
}

/// (namespace cookie, device, conntrack entry) of a packet. The namespace is the conntrack entry's,
/// else the device's, else the sending socket's, else the route's.
#[inline(always)]
fn namespace(skb: u64) -> Option<(u64, u64, Option<Entry>)> {
    let entry = Nfct::new(read(skb + offset!(skb_nfct) as u64)?).entry();
    let dev: u64 = read(skb + offset!(skb_dev) as u64)?;
    let mut net = 0u64;
    if let Some(entry) = entry {
        net = entry.net()?;
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
    if net == 0 {
        let dst = read::<u64>(skb + offset!(skb_refdst) as u64)? & !1;
        if dst != 0 {
            let out: u64 = read(dst + offset!(dst_dev) as u64)?;
            net = read(out + offset!(dev_net) as u64)?;
        }
    }
    Some((read(net + offset!(net_cookie) as u64)?, dev, entry))
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
