//! The flow key of a packet that has no conntrack entry, read from its headers.

use conntracker_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, has_ports, is_icmp,
    record::{FAMILY_V4, FAMILY_V6, FLAG_FRAGMENT, FLAG_FROM_HEADERS},
};

use crate::{
    base::{
        globals::offset,
        memory::{read, read_bytes, read_into},
    },
    packet::{facts::Facts, tuple::KernelTuple},
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// Bytes of an ICMP header, and of an IPv6 header.
const ICMP_HEADER: u64 = 8;
const IPV6_HEADER: u64 = 40;

/// IPv6 extension headers followed before giving up; the kernel's own limit is of this order.
const MAX_EXTENSIONS: usize = 8;

/// Fills in what the headers tell of a packet without a conntrack entry; false if it is not IP.
#[inline(always)]
pub fn describe(skb: u64, facts: &mut Facts) -> bool {
    let Some(incomplete) = tuple(skb, &mut facts.orig) else { return false };
    facts.body.flags |= FLAG_FROM_HEADERS;
    if incomplete {
        facts.body.flags |= FLAG_FRAGMENT;
    }
    facts.body.proto = facts.orig.proto;
    facts.body.family = facts.orig.l3num as u8;
    true
}

/// Whether the headers are of a message that has another packet's beginning in it (RFC 792, RFC 4443).
#[inline(always)]
fn is_icmp_error(tuple: &KernelTuple) -> bool {
    let [kind, _] = tuple.dst_l4;
    match tuple.proto {
        IPPROTO_ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        IPPROTO_ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Adds the flow that an ICMP error quotes, of which the headers alone are known. Without a loop: extension headers
/// of IPv6 are not followed.
#[inline(never)]
pub fn quote(skb: u64, facts: &mut Facts) {
    let known = facts.body.flags & (FLAG_FROM_HEADERS | FLAG_FRAGMENT);
    if known != FLAG_FROM_HEADERS || !is_icmp_error(&facts.orig) {
        return;
    }
    let Some(packet) = Packet::of(skb) else { return };
    let mut first = 0u8;
    if !packet.at(0, &mut first) {
        return;
    }
    let to = &mut facts.reply;
    let whole = if first >> 4 == 4 {
        packet.behind(u64::from(first & 15) * 4 + ICMP_HEADER).v4(to) == Some(false)
    } else {
        let inner = packet.behind(IPV6_HEADER + ICMP_HEADER);
        inner.v6_header(to) && inner.l4(to, IPV6_HEADER)
    };
    if whole {
        facts.body.other_proto = to.proto;
    }
}

/// Whether the kernel took a packet for one of IP.
#[inline(always)]
pub fn is_ip(skb: u64) -> bool {
    let protocol: Option<u16> = read(skb + offset!(skb_protocol) as u64);
    protocol.is_some_and(|protocol| matches!(u16::from_be(protocol), ETH_P_IP | ETH_P_IPV6))
}

/// Parses the network header of `skb`. The flag says that there was no transport header to read
/// (a later fragment, or a packet cut short): ports are zero then. `None` if it is not IP.
#[inline(always)]
pub fn tuple(skb: u64, to: &mut KernelTuple) -> Option<bool> {
    let packet = Packet::of(skb)?;
    let protocol: u16 = read(skb + offset!(skb_protocol) as u64)?;
    match u16::from_be(protocol) {
        ETH_P_IP => packet.v4(to),
        ETH_P_IPV6 => packet.v6(to),
        _ => None,
    }
}

/// The linear part of a packet from its network header on.
struct Packet {
    data: u64,
    end: u64,
}

impl Packet {
    #[inline(always)]
    fn of(skb: u64) -> Option<Self> {
        let head: u64 = read(skb + offset!(skb_head) as u64)?;
        let start: u16 = read(skb + offset!(skb_network_header) as u64)?;
        let tail: u32 = read(skb + offset!(skb_tail) as u64)?;
        Some(Self { data: head + u64::from(start), end: head + u64::from(tail) })
    }

    /// The packet that begins so many bytes later.
    #[inline(always)]
    fn behind(&self, bytes: u64) -> Self {
        Self { data: self.data + bytes, end: self.end }
    }

    /// Copies what stands at `at` bytes, if it lies within the linear part.
    #[inline(always)]
    fn at<T: Copy>(&self, at: u64, to: &mut T) -> bool {
        let address = self.data + at;
        address + size_of::<T>() as u64 <= self.end && read_into(address, to)
    }

    /// As [`Self::at`], into a part of something.
    #[inline(always)]
    fn part<const N: usize>(&self, at: u64, to: &mut [u8; 16]) -> bool {
        let address = self.data + at;
        address + N as u64 <= self.end && read_bytes(address, to.as_mut_ptr(), N)
    }

    #[inline(never)]
    fn v4(&self, tuple: &mut KernelTuple) -> Option<bool> {
        let (mut first, mut fragment) = (0u8, [0u8; 2]);
        // One field after the other, each to its place: there is little room on the stack.
        let whole = self.at(0, &mut first)
            && self.at(6, &mut fragment)
            && self.at(9, &mut tuple.proto)
            && self.part::<4>(12, &mut tuple.src)
            && self.part::<4>(16, &mut tuple.dst);
        if !whole || first >> 4 != 4 {
            return None;
        }
        tuple.l3num = u16::from(FAMILY_V4);
        let fragment_offset = u16::from_be_bytes(fragment) & 0x1fff;
        Some(fragment_offset != 0 || !self.l4(tuple, u64::from(first & 15) * 4))
    }

    /// Addresses and next header of IPv6; false if it is not whole.
    #[inline(always)]
    fn v6_header(&self, tuple: &mut KernelTuple) -> bool {
        let mut first = 0u8;
        let whole = self.at(0, &mut first)
            && self.at(6, &mut tuple.proto)
            && self.at(8, &mut tuple.src)
            && self.at(24, &mut tuple.dst);
        tuple.l3num = u16::from(FAMILY_V6);
        whole && first >> 4 == 6
    }

    #[inline(never)]
    fn v6(&self, tuple: &mut KernelTuple) -> Option<bool> {
        if !self.v6_header(tuple) {
            return None;
        }
        let mut at = IPV6_HEADER;
        for _ in 0..MAX_EXTENSIONS {
            let mut extension = [0u8; 4];
            if !self.at(at, &mut extension) {
                break;
            }
            match tuple.proto {
                // Hop-by-hop, routing, destination options: length in 8 bytes, less the first 8.
                0 | 43 | 60 => at += (u64::from(extension[1]) + 1) * 8,
                // Fragment header: only offset 0 has the transport header behind it.
                44 => {
                    if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                        tuple.proto = extension[0];
                        return Some(true);
                    }
                    at += 8;
                }
                // Authentication header: length in 4 bytes, less 2.
                51 => at += (u64::from(extension[1]) + 2) * 4,
                _ => break,
            }
            tuple.proto = extension[0];
        }
        Some(!self.l4(tuple, at))
    }

    /// Ports, or ICMP type, code and identifier, as conntrack has them; false if they are cut off.
    #[inline(always)]
    fn l4(&self, tuple: &mut KernelTuple, at: u64) -> bool {
        if has_ports(tuple.proto) {
            let mut ports = [0u8; 4];
            if !self.at(at, &mut ports) {
                return false;
            }
            let [a, b, c, d] = ports;
            tuple.src_l4 = [a, b];
            tuple.dst_l4 = [c, d];
        } else if is_icmp(tuple.proto) {
            let mut h = [0u8; 8];
            if !self.at(at, &mut h) {
                return false;
            }
            tuple.dst_l4 = [h[0], h[1]];
            // Queries and their answers carry an identifier, errors do not.
            if matches!(h[0], 0 | 8 | 13..=18 | 128 | 129 | 139 | 140) {
                tuple.src_l4 = [h[4], h[5]];
            }
        }
        true
    }
}
