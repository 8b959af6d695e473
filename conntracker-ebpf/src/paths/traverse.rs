//! A packet's path through a hook, from the link before the first base chain to the link behind the last one. The
//! counters that move in between are those of the rules that the packet matched.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use conntracker_common::{
    conntrack::{IPS_CONFIRMED, IPS_NAT},
    counters::Counter,
    hook,
    path::{DeviceName, Marks},
    plan::{self, MAX_GAPS, MAX_NAMESPACES, SAMPLED_ONE_IN, SEGMENT_EARLY, Tracing},
    record::{FAMILY_V6, HOOK_UNKNOWN},
};

use super::path_sampling::sampling_tag;
use crate::{
    base::{
        counters::count,
        globals::{offset, probes},
        memory::{read, read_into},
        mode, netns,
    },
    packet::{
        conntrack::{Entry, Nfct},
        emit::now,
        hash::{Hash, tuple_hash},
        headers,
        task::TaskState,
        tuple::KernelTuple,
        view::View,
    },
    paths::{
        cpu::{self, Cpu, Frame, NOWHERE, was_dropped_by_chain},
        finish::finish,
        nested, path_cache, path_sampling, plans, snapshot,
    },
};

/// Distance of the hook points of a hook's two segments.
const HOOKS: u32 = hook::HOOKS as u32;

/// A packet as the path cache knows it.
#[derive(Clone, Copy)]
pub struct Who {
    /// The conntrack entry; none before conntrack's own function.
    pub entry: Option<Entry>,
    /// Key in the path cache: the entry's address, or a hash of the headers.
    pub key: u64,
    /// Bit of the hook and the conntrack state.
    pub bit: u64,
    /// `nf_conn.status`, read for packets that may be the first of their flow.
    pub status: u32,
    /// The entry is not confirmed yet.
    pub fresh: bool,
}

impl Who {
    /// `None` if the packet cannot be read, which is counted, or is not IP.
    #[inline(always)]
    pub fn of(view: impl View, segment: u8, hook: u8) -> Option<Self> {
        let nfct = view.nfct()?;
        let entry = if segment == SEGMENT_EARLY { None } else { nfct.entry() };
        let Some(entry) = entry else {
            let bit = if segment == SEGMENT_EARLY {
                path_cache::early_bit(hook)
            } else {
                path_cache::bit(nfct.info(), hook)
            };
            let key = headers_key(view.skb());
            if key == 0 {
                return None;
            }
            return Some(Self { entry: None, key, bit, status: 0, fresh: false });
        };
        let info = nfct.info();
        let mut status = 0;
        let mut fresh = false;
        if nfct.may_be_first() {
            let Some(now) = entry.status() else {
                count(Counter::ReadFailed);
                return None;
            };
            status = now;
            fresh = status & IPS_CONFIRMED == 0;
        }
        let bit = path_cache::bit(info, hook);
        Some(Self { entry: Some(entry), key: entry.address(), bit, status, fresh })
    }

    /// Whether a packet of this flow was traced here before.
    #[inline(always)]
    pub fn is_known(&self, generation: u32) -> bool {
        !self.fresh && path_cache::contains(self.key, generation, self.bit)
    }

    /// Nothing is traced at this hook point: packets of this flow need not look again.
    #[inline(always)]
    pub fn forget(&self, generation: u32) {
        path_cache::insert(self.key, generation, self.bit, self.fresh);
    }
}

/// A packet comes to a hook point.
#[inline(always)]
pub fn arrive(cpu: &mut Cpu, skb: u64, hook_point: u32) {
    if !cpu.is_quiet() {
        nested::arrives(cpu, skb, hook_points(hook_point));
    }
    cpu.enter(skb, hook_point);
}

/// A bit for each hook point whose counters a packet may move before it leaves: links close each segment of a hook
/// by itself, probes see the whole hook as one.
#[inline(always)]
pub fn hook_points(hook_point: u32) -> u32 {
    if !probes() {
        return 1 << hook_point;
    }
    let other = if plan::segment(hook_point) == SEGMENT_EARLY {
        hook_point - HOOKS
    } else {
        hook_point + HOOKS
    };
    1 << hook_point | 1 << other
}

/// One packet in `number`, by chance. Counting would always pick packets of the same flows where flows have equal
/// numbers of packets.
#[inline(always)]
fn one_in(number: u32) -> bool {
    // SAFETY: a helper without arguments.
    number != 0 && unsafe { bpf_get_prandom_u32() }.is_multiple_of(number)
}

/// Whether a packet is traced although its path is known.
#[inline(always)]
pub fn is_sample(tracing: &Tracing) -> bool {
    one_in(tracing.sample)
}

/// A packet comes to the first base chain of a hook. It is traced unless its path is known.
#[inline(always)]
pub fn open(view: impl View, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    let Some((hook, hook_point)) = hook_point(view, segment) else { return };
    arrive(cpu, view.skb(), hook_point);
    let tracing = path_cache::tracing();
    let sampled = is_sample(&tracing);
    let Some(who) = Who::of(view, segment, hook) else { return };
    if sampled || !who.is_known(tracing.generation) {
        begin(cpu, view, &who, hook_point, &tracing, sampled);
    }
}

/// Begins to trace a packet at a hook point; returns its frame.
#[inline(always)]
pub fn begin(
    cpu: &mut Cpu,
    view: impl View,
    who: &Who,
    hook_point: u32,
    tracing: &Tracing,
    sampled: bool,
) -> Option<usize> {
    let netns_cookie = view.netns_cookie()?;
    let number = if netns_cookie == tracing.first_netns {
        0
    } else {
        netns::number(netns_cookie).unwrap_or(MAX_NAMESPACES)
    };
    let plan_index = plan::plan_index(number, hook_point);
    let Some(plan) = plans::get(plan_index) else {
        who.forget(tracing.generation);
        return None;
    };
    let flow = match who.entry {
        _ if !mode::mode().0 => 0,
        Some(entry) => flow_hash(entry.address(), netns_cookie),
        None => who.key,
    };
    if who.fresh
        && flow != 0
        && !sampled
        && tracing.sampling != 0
        && path_sampling::is_sampled_out(sampling_tag(flow, hook_point, tracing.generation))
        && !one_in(SAMPLED_ONE_IN)
    {
        count(Counter::PathTrusted);
        return None;
    }
    let epoch = plans::epoch(plan);
    if !plans::holds(plan) {
        count(Counter::PathRaces);
        return None;
    }
    let Some(cpu_offset) = cpu.offset() else {
        count(Counter::ReadFailed);
        return None;
    };
    let packet_mark = view.mark()?;
    let Some(index) = cpu.claim(view.skb()) else {
        count(Counter::FramesFull);
        return None;
    };
    let frame = &mut cpu.frames[index & 3];
    frame.since = cpu::jiffies();
    frame.came_ns = now();
    frame.key = who.key;
    frame.bit = who.bit;
    frame.flow = flow;
    frame.netns_cookie = netns_cookie;
    frame.plan = plan_index;
    frame.hook_point = hook_point;
    frame.generation = tracing.generation;
    frame.epoch = epoch;
    frame.shares = plan.shares;
    frame.gaps = 0;
    frame.nested = 0;
    frame.suspended = 0;
    frame.task = TaskState::now();
    frame.fresh = u32::from(who.fresh);
    frame.status = who.status;
    frame.ct_mark = 0;
    frame.packet_mark = packet_mark;
    frame.events = 0;
    frame.flags = 0;
    frame.inside = 0;
    frame.result = 0;
    let mut complete = devices(view, frame);
    if let Some(entry) = who.entry {
        complete &= entry.mark(&mut frame.ct_mark);
        if who.fresh && who.status & IPS_NAT != 0 {
            // Only translated entries need it: of others it is the inverted original tuple.
            complete &= entry.reply(&mut frame.reply);
        }
    }
    let taken = complete && snapshot::take(plan, cpu::index(index), cpu_offset);
    if taken && plans::epoch(plan) == epoch {
        cpu.frames[index & 3].busy = 0;
        count(Counter::TracedPackets);
        return Some(index);
    }
    cpu.release(index);
    count(if taken { Counter::PathRaces } else { Counter::ReadFailed });
    None
}

/// Copies the interfaces of `nf_hook_state`, with their names of now.
#[inline(always)]
fn devices(view: impl View, frame: &mut Frame) -> bool {
    frame.iif = 0;
    frame.oif = 0;
    frame.iif_name = [0; 2];
    frame.oif_name = [0; 2];
    let Some((input, output)) = view.devices() else { return false };
    (input == 0 || device(input, &mut frame.iif, &mut frame.iif_name))
        && (output == 0 || device(output, &mut frame.oif, &mut frame.oif_name))
}

/// Copies index and name of a device; false if they could not be read.
#[inline(always)]
fn device(dev: u64, index: &mut u32, name: &mut DeviceName) -> bool {
    read_into(dev + offset!(dev_ifindex) as u64, index)
        && read_into(dev + offset!(dev_name) as u64, name)
}

/// A packet goes from one base chain to the next.
#[inline(always)]
pub fn gap(view: impl View, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    if cpu.is_quiet() {
        return;
    }
    let Some((_, hook_point)) = hook_point(view, segment) else { return };
    if let Some(index) = cpu.find(view.skb(), hook_point) {
        border(&mut cpu.frames[index & 3], view);
    }
}

/// Copies packet mark and connmark between two base chains.
#[inline(always)]
pub fn border(frame: &mut Frame, view: impl View) {
    let (Some(packet), Some(nfct)) = (view.mark(), view.nfct()) else { return };
    let at = frame.gaps as usize & MAX_GAPS;
    frame.marks[at] = Marks { packet, connection: 0 };
    if plan::segment(frame.hook_point) != SEGMENT_EARLY
        && let Some(entry) = nfct.entry()
    {
        // If it cannot be read, the record says 0, as without an entry.
        entry.mark(&mut frame.marks[at].connection);
    }
    frame.gaps += 1;
}

/// A packet leaves the last base chain of a hook.
#[inline(always)]
pub fn close(view: impl View, segment: u8) {
    let Some(cpu) = cpu::this() else { return };
    cpu.leave();
    if cpu.is_quiet() {
        return;
    }
    let Some((_, hook_point)) = hook_point(view, segment) else { return };
    nested::leaves(view.skb(), hook_points(hook_point));
    if let Some(index) = cpu.find(view.skb(), hook_point) {
        let skb = cpu.owners[index & 3];
        finish(cpu, index, skb, false);
    }
}

/// A packet was dropped by netfilter. Returns the hook, or [`HOOK_UNKNOWN`] if it was not seen there, and in
/// `path_hash` which path it took, if it was traced.
#[inline(never)]
pub fn dropped(skb: u64, path_hash: &mut u64) -> u8 {
    let Some(cpu) = cpu::this() else { return HOOK_UNKNOWN };
    let hook_point = cpu.hook_point_of(skb);
    cpu.leave();
    let found = if cpu.is_quiet() { None } else { cpu.find_anywhere(skb) };
    let hook_point = found.map_or(hook_point, |index| cpu.frames[index & 3].hook_point);
    if !cpu.is_quiet() && hook_point < NOWHERE {
        nested::leaves(skb, hook_points(hook_point));
    }
    if let Some(index) = found {
        // Conntrack's own function comes behind its first part of a hook, where links close.
        let passed = probes()
            && plan::segment(hook_point) == SEGMENT_EARLY
            && !was_dropped_by_chain(cpu, index);
        let path = finish(cpu, index, skb, !passed);
        if !passed {
            *path_hash = path;
        }
        return plan::hook(hook_point);
    }
    forget(skb, hook_point);
    if hook_point < NOWHERE { plan::hook(hook_point) } else { HOOK_UNKNOWN }
}

/// A packet of a flow with a known path was dropped untraced: the path has changed, so the flow is traced again.
#[inline(always)]
fn forget(skb: u64, hook_point: u32) {
    let Some(nfct) = read(skb + offset!(skb_nfct) as u64) else { return };
    let generation = path_cache::tracing().generation;
    let key = match Nfct::new(nfct).entry() {
        Some(entry) => {
            if mode::mode().0
                && let Some(net) = entry.net()
                && let Some(cookie) = read(net + offset!(net_cookie) as u64)
            {
                let flow = flow_hash(entry.address(), cookie);
                path_sampling::dropped(sampling_tag(flow, hook_point, generation));
            }
            entry.address()
        }
        None => headers_key(skb),
    };
    path_cache::remove(key, generation);
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
    mode::fold_source(&mut tuple.src_l4, tuple.proto);
    let mut hash = Hash::new(netns_cookie);
    hash.add(tuple_hash(&tuple));
    hash.add(u64::from(zone) << 16 | u64::from(tuple.l3num));
    hash.finish()
}

/// The number of the hook that the packet is at, and the hook point.
#[inline(always)]
fn hook_point(view: impl View, segment: u8) -> Option<(u8, u32)> {
    let (hook, family) = view.hook()?;
    Some((hook, plan::hook_point(family == FAMILY_V6, segment, hook)))
}

/// Key of a packet without a conntrack entry, made of its headers; 0 if it is not IP. (An `Option` would be returned
/// through the stack, where the number of a `None` is never written: the verifier of Linux 5.15 refuses to read it.)
#[inline(never)]
fn headers_key(skb: u64) -> u64 {
    let mut tuple = KernelTuple::NONE;
    if headers::tuple(skb, &mut tuple).is_none() {
        return 0;
    }
    let Some(dev) = read(skb + offset!(skb_dev) as u64) else { return 0 };
    let mut hash = Hash::new(u64::from(tuple.l3num));
    hash.add(tuple_hash(&tuple));
    // A device belongs to one namespace: equal tuples in two namespaces have different keys.
    hash.add(dev);
    hash.finish()
}
