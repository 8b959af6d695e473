//! The hook at which a packet was dropped. `kfree_skb` does not tell it, the packet's routing state does, except in a
//! few cases: these are reported as unknown.

use conntracker_common::hook::{FORWARD, LOCAL_IN, LOCAL_OUT, POST_ROUTING, PRE_ROUTING};

use crate::{
    base::{
        globals::offset,
        memory::{read, read_into},
    },
    packet::{facts::Facts, view::probed_index},
};

/// RTCF_LOCAL of `rtable.rt_flags` and RTF_LOCAL of `rt6_info.rt6i_flags`: delivered locally.
const ROUTE_LOCAL: u32 = 0x8000_0000;

/// `sk_buff._skb_refdst` bit: no reference held (SKB_DST_NOREF).
pub const DST_NOREF: u64 = 1;

/// Interface index of `lo` in every namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// Whether a packet that goes out has its link layer's header already: then it is behind POSTROUTING, at the egress
/// hook of a device.
#[inline(always)]
pub fn has_left_postrouting(skb: u64) -> bool {
    let head: Option<u64> = read(skb + offset!(skb_head) as u64);
    let start: Option<u16> = read(skb + offset!(skb_network_header) as u64);
    let data: Option<u64> = read(skb + offset!(skb_data) as u64);
    match (head, start, data) {
        (Some(head), Some(start), Some(data)) => data < head + u64::from(start),
        _ => false,
    }
}

/// Fills in hook and interfaces from the routing state of `skb`, whose device is at `dev` (0 for
/// none); false if it could not be read.
#[inline(always)]
pub fn place(facts: &mut Facts, skb: u64, dev: u64, has_entry: bool) -> bool {
    let is_v4 = facts.is_v4();
    let body = &mut facts.body;
    if !read_into(skb + offset!(skb_iif) as u64, &mut body.iif) {
        return false;
    }
    let Some(refdst) = read::<u64>(skb + offset!(skb_refdst) as u64) else { return false };
    let dst = refdst & !DST_NOREF;
    if dst == 0 {
        // Not routed yet: PREROUTING, or the ingress hook before it, where no packet has a
        // conntrack entry yet.
        if has_entry {
            body.hook = PRE_ROUTING;
        }
        return true;
    }
    let Some(out_dev) = read::<u64>(dst + offset!(dst_dev) as u64) else { return false };
    let out = probed_index(out_dev);
    if body.iif == 0 {
        // Made here. ip_output() sets the device just before POSTROUTING.
        body.hook = if dev == 0 { LOCAL_OUT } else { POST_ROUTING };
        body.oif = out;
        return true;
    }
    let flags_at = if is_v4 { offset!(rt_flags) } else { offset!(rt6_flags) };
    let Some(flags) = read::<u32>(dst + flags_at as u64) else { return false };
    if flags & ROUTE_LOCAL != 0 {
        // Packets over lo keep the sender's route, so that PREROUTING looks like LOCAL_IN.
        if body.iif != LOOPBACK {
            body.hook = LOCAL_IN;
        }
        return true;
    }
    // Forwarded: the device is the input's until ip_output() makes it the output's. A packet sent
    // back out of its own interface looks the same on both hooks.
    // Routes that lead nowhere have lo for a device.
    body.oif = if out == LOOPBACK && body.iif != LOOPBACK { 0 } else { out };
    let current = probed_index(dev);
    if current == body.iif && current != out {
        body.hook = FORWARD;
    } else if current == out && current != body.iif {
        body.hook = POST_ROUTING;
    }
    true
}
