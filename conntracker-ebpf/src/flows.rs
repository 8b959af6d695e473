//! New and replied flows, seen where conntrack is about to confirm them.

use conntracker_common::{
    counters::Counter,
    record::{FLAG_COUNTED, KIND_NEW, KIND_REPLIED},
    seen::CLASS_CONNTRACK,
};

use crate::{
    conntrack::{
        CT_ESTABLISHED, CT_ESTABLISHED_REPLY, CT_NEW, CT_RELATED, Entry, IPS_ASSURED,
        IPS_CONFIRMED, IPS_SEEN_REPLY,
    },
    counters::{count, say},
    emit::{Facts, emit, now},
    globals::probes,
    netns, seen,
    view::View,
};

/// One packet at the end of LOCAL_IN or POSTROUTING. Packets of flows already known leave in the
/// first few lines. A function of its own: its stack is not that of what runs before it.
#[inline(never)]
pub fn observe(view: impl View) {
    let Some(nfct) = view.nfct() else { return count(Counter::ReadFailed) };
    if nfct.is_none() {
        count(Counter::NoConntrack);
        return;
    }
    let info = nfct.info();
    // The original direction of a flow whose reply was seen (and reported) before.
    if info == CT_ESTABLISHED {
        return;
    }
    let Some(entry) = nfct.entry() else { return };
    let Some(status) = entry.status() else { return count(Counter::ReadFailed) };
    // Only packets of the original direction confirm an entry: the reset that a reject rule sends
    // carries the entry of the packet it refuses, which dies unconfirmed.
    let is_new = status & IPS_CONFIRMED == 0 && matches!(info, CT_RELATED | CT_NEW);
    let is_reply =
        info == CT_ESTABLISHED_REPLY && status & (IPS_SEEN_REPLY | IPS_ASSURED) == IPS_SEEN_REPLY;
    if !is_new && !is_reply {
        return;
    }
    // Links are in the namespaces that are observed, probes in all.
    if probes() && view.netns_cookie().and_then(netns::number).is_none() {
        return;
    }
    let mut facts = Facts::new(now());
    if !gather(&mut facts, view, entry, status) {
        return;
    }
    if is_new {
        new_flow(&mut facts);
    } else {
        replied_flow(&facts);
    }
}

/// Everything a record says; false (counted, if it is one of ours) if it could not be read.
#[inline(always)]
fn gather(facts: &mut Facts, view: impl View, entry: Entry, status: u32) -> bool {
    let read = || Some((view.netns_cookie()?, view.hook()?, view.mark()?, view.interfaces()?));
    if let Some((cookie, (hook, _), mark, (iif, oif))) = read()
        && entry.describe(facts)
    {
        facts.netns_cookie = cookie;
        facts.body.hook = hook;
        facts.body.packet_mark = mark;
        facts.body.status = status;
        facts.body.iif = iif;
        facts.body.oif = oif;
        return true;
    }
    say!("a conntrack entry of status {:x} could not be read", status);
    count(Counter::ReadFailed);
    false
}

#[inline(always)]
fn new_flow(facts: &mut Facts) {
    count(Counter::NewFlows);
    let (folded_report, fold) = seen::mode();
    let key = seen::key(facts, CLASS_CONNTRACK, fold);
    match seen::entry(seen::flows(), &key, facts.ktime_ns) {
        Some(value) if folded_report => {
            let (flows, worth_a_record) = seen::count(value, facts.ktime_ns);
            if !worth_a_record {
                return count(Counter::NewFolded);
            }
            facts.body.count = flows.min(u64::from(u32::MAX)) as u32;
            facts.body.since_ns = value.since_ns;
            facts.body.flags |= FLAG_COUNTED;
        }
        // With a record for each flow the entry only remembers whether the reply was reported:
        // a new flow starts afresh.
        Some(value) => value.replied = 0,
        None => count(Counter::MapFull),
    }
    count(if emit(KIND_NEW, facts) { Counter::NewRecords } else { Counter::NewLost });
}

#[inline(always)]
fn replied_flow(facts: &Facts) {
    let (_, fold) = seen::mode();
    let key = seen::key(facts, CLASS_CONNTRACK, fold);
    match seen::entry(seen::flows(), &key, facts.ktime_ns) {
        Some(value) if value.replied != 0 => return,
        Some(value) => value.replied = 1,
        None => count(Counter::MapFull),
    }
    count(Counter::Replies);
    count(if emit(KIND_REPLIED, facts) { Counter::ReplyRecords } else { Counter::ReplyLost });
}
