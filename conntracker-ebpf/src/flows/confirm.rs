//! New and replied flows, seen where conntrack is about to confirm them.

use conntracker_common::{
    conntrack::{
        IP_CT_ESTABLISHED, IP_CT_ESTABLISHED_REPLY, IP_CT_NEW, IP_CT_RELATED, IPS_ASSURED,
        IPS_CONFIRMED, IPS_EXPECTED, IPS_SEEN_REPLY,
    },
    counters::Counter,
    has_ports,
    hook::POST_ROUTING,
    probes::ABSENT,
    record::{
        FLAG_COUNTED, FLAG_INTERFACES, FLAG_OWNER, HOOK_UNKNOWN, KIND_NEW, KIND_PARENT,
        KIND_REPLIED,
    },
};

use crate::{
    base::{
        counters::{count, say},
        globals::{argument, owner_number, probes, trace_rules},
        memory::at,
        mode, netns,
    },
    flows::seen,
    packet::{
        conntrack::Entry,
        emit::{emit, emit_owned, now},
        facts::Facts,
        owner::{self, Local},
        view::{Probed, View},
    },
    paths::{cpu::address, path_cache},
};

/// A packet is about to confirm a flow, or belongs to one that is.
#[inline(always)]
pub fn confirms(context: *const u8) {
    let Some(skb) = at(context, argument!(confirm_skb)) else { return };
    let state = match argument!(confirm_state) {
        ABSENT => Some(0),
        offset => at(context, offset),
    };
    let Some(state) = state else { return };
    observe(Probed { state, skb }, context);
}

/// One packet at the end of LOCAL_IN or POSTROUTING. Packets of flows already known leave in the
/// first few lines. Not inlined: the verifier adds up the stack of a function and of all that is inlined into it.
#[inline(never)]
pub fn observe(view: impl View, context: *const u8) {
    let Some(nfct) = view.nfct() else { return count(Counter::ReadFailed) };
    if nfct.is_none() {
        count(Counter::NoConntrack);
        return;
    }
    let info = nfct.info();
    // The original direction of a flow whose reply was seen (and reported) before.
    if info == IP_CT_ESTABLISHED {
        return;
    }
    let Some(entry) = nfct.entry() else { return };
    let Some(status) = entry.status() else { return count(Counter::ReadFailed) };
    // Only packets of the original direction confirm an entry: the reset that a reject rule sends
    // carries the entry of the packet it refuses, which dies unconfirmed.
    let is_new = status & IPS_CONFIRMED == 0 && matches!(info, IP_CT_RELATED | IP_CT_NEW);
    let is_reply = info == IP_CT_ESTABLISHED_REPLY
        && status & (IPS_SEEN_REPLY | IPS_ASSURED) == IPS_SEEN_REPLY;
    if !is_new && !is_reply {
        return;
    }
    if is_new && trace_rules() {
        path_cache::confirmed(entry.address(), path_cache::tracing().generation);
    }
    // Links are in the namespaces that are observed, probes in all.
    if probes() && view.netns_cookie().and_then(netns::number).is_none() {
        return;
    }
    let mut facts = Facts::new(now());
    if !gather(&mut facts, view, entry, status) {
        return;
    }
    // Each in a function of its own, one after the other: there is little room on the stack.
    if is_new {
        if new_flow(&mut facts) {
            let sent = send(KIND_NEW, &mut facts, view.skb(), context);
            count(if sent { Counter::NewRecords } else { Counter::NewLost });
            if status & IPS_EXPECTED != 0 {
                tell_parent(&mut facts, entry);
            }
        }
    } else if replied_flow(&facts) {
        let sent = send(KIND_REPLIED, &mut facts, view.skb(), context);
        count(if sent { Counter::ReplyRecords } else { Counter::ReplyLost });
    }
}

/// Sends the flow whose helper expected this one. If the ring is full, a dump tells it as long as the entry exists.
#[inline(never)]
fn tell_parent(facts: &mut Facts, entry: Entry) {
    if let Some(master) = entry.master()
        && master.orig(&mut facts.reply)
    {
        facts.body.flags &= !(FLAG_COUNTED | FLAG_OWNER);
        facts.body.other_proto = facts.reply.proto;
        emit(KIND_PARENT, facts);
    }
}

/// Sends a record, with the owner of the packet's socket if that is known.
#[inline(never)]
fn send(kind: u8, facts: &mut Facts, skb: u64, context: *const u8) -> bool {
    // Is the packet going out, the socket is its sender's, else its receiver's.
    let out = facts.body.hook == POST_ROUTING;
    let original = (kind == KIND_NEW) == out;
    // The kernel itself answers what has no ports. Which way a packet goes is not known without its hook.
    if owner_number!(wanted) == 0
        || facts.body.hook == HOOK_UNKNOWN
        || !(original || has_ports(facts.body.proto))
    {
        return emit(kind, facts);
    }
    let local = if original { &facts.orig } else { &facts.reply };
    let local = Local { proto: facts.body.proto, port: local.src_l4 };
    let owned = || owner::socket(skb, &local).and_then(|sk| Some((sk, owner::user(sk)?)));
    let Some((sk, uid)) = owned() else { return emit(kind, facts) };
    // Answers may be sent by whoever handles the packet that is answered.
    let context = if original && out { address(context).unwrap_or(0) } else { 0 };
    facts.body.flags |= FLAG_OWNER;
    emit_owned(kind, facts, sk, uid, context)
}

/// Reads everything that a record holds; false if it could not be read, which is counted if the namespace is observed.
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
        if hook == HOOK_UNKNOWN {
            facts.body.flags &= !FLAG_INTERFACES;
        }
        return true;
    }
    say!("a conntrack entry of status {:x} could not be read", status);
    count(Counter::ReadFailed);
    false
}

/// Counts a new flow; true if it is worth a record.
#[inline(never)]
fn new_flow(facts: &mut Facts) -> bool {
    count(Counter::NewFlows);
    let (folded_report, fold) = mode::mode();
    let key = seen::key(facts, fold);
    match seen::entry(&key, facts.ktime_ns) {
        Some(value) if folded_report => {
            let (flows, worth_a_record) = seen::count(value, facts.ktime_ns);
            if !worth_a_record {
                count(Counter::NewFolded);
                return false;
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
    true
}

/// Counts a reply; true if it is the first one.
#[inline(never)]
fn replied_flow(facts: &Facts) -> bool {
    let (_, fold) = mode::mode();
    let key = seen::key(facts, fold);
    match seen::entry(&key, facts.ktime_ns) {
        Some(value) if value.replied != 0 => return false,
        Some(value) => value.replied = 1,
        None => count(Counter::MapFull),
    }
    count(Counter::Replies);
    true
}
