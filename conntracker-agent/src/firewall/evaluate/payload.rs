//! Bytes of the packet: the expression `payload` (net/netfilter/nft_payload.c).

use conntracker_common::{IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_TCP, is_icmp};

use super::{
    effect::Effect,
    header::Header,
    packet::{Layer3, Packet, V6_HEADER},
    registers::{Bits, Registers},
    unknown::{Attribute, Unknown, UnknownSet},
};
use crate::netlink::nftables::{
    expression::{REGISTER_BYTES, Register, Slice},
    key::base,
};

/// Bytes of the header of IPv4 without options, and of Ethernet.
const V4_HEADER: usize = 20;
const ETHERNET: usize = 14;

/// Offset of the ether type in the header of Ethernet.
const ETHER_TYPE: usize = 12;

/// IPPROTO_ESP, IPPROTO_AH, IPPROTO_UDPLITE, IPPROTO_GRE, whose headers have at least so many bytes as here.
const AT_LEAST: [(u8, usize); 3] = [(47, 4), (50, 8), (51, 12)];

/// Loads bytes of the packet.
pub(super) fn load(
    packet: &Packet,
    slice: &Slice,
    to: Register,
    registers: &mut Registers,
) -> Effect {
    let (offset, len) = (slice.offset as usize, (slice.len as usize).min(REGISTER_BYTES));
    let presence = presence(packet, slice.base, offset, len);
    if presence == Effect::Break {
        return presence;
    }
    let (mut value, mut known) = ([0; REGISTER_BYTES], [0; REGISTER_BYTES]);
    let mut why = UnknownSet::NONE;
    for index in 0..len {
        (value[index], known[index]) = byte(packet, slice.base, offset + index);
        if known[index] != 0xff {
            why = why.union(attribute(packet, slice.base, offset + index).into());
        }
    }
    registers.store_bits(to, &value[..len], &known[..len], why);
    presence
}

/// Changes bytes of the packet.
pub(super) fn store(packet: &mut Packet, slice: &Slice, from: &Bits<'_>) -> Effect {
    let (offset, len) = (slice.offset as usize, slice.len as usize);
    let presence = presence(packet, slice.base, offset, len);
    if presence == Effect::Break {
        return presence;
    }
    let header = match slice.base {
        base::LL_HEADER => packet.link.as_mut(),
        base::NETWORK_HEADER => Some(packet.network_mut()),
        base::TRANSPORT_HEADER => Some(packet.transport_mut()),
        _ => None,
    };
    if let Some(header) = header {
        for (index, (value, known)) in (offset..).zip(from.value.iter().zip(from.known)) {
            header.forget(index, 1);
            header.set_bits(index, *value, *known);
        }
    }
    presence
}

/// Whether the packet has these bytes: else the rule ends.
fn presence(packet: &Packet, from: u32, offset: usize, len: usize) -> Effect {
    let end = offset.saturating_add(len);
    let before = match packet.layer3() {
        Layer3::Ip => V4_HEADER,
        Layer3::Ip6 => V6_HEADER,
    };
    match from {
        base::LL_HEADER => match packet.link {
            None => Effect::Break,
            Some(_) if end <= ETHERNET => Effect::Next,
            Some(_) => within(packet, end.saturating_sub(ETHERNET), before),
        },
        base::NETWORK_HEADER => within(packet, end, before),
        base::TRANSPORT_HEADER => {
            let (protocol, fragment) = match (packet.protocol(), packet.fragment_offset()) {
                (Ok(protocol), Ok(fragment)) => (protocol, fragment),
                (Err(unknown), _) | (_, Err(unknown)) => {
                    return Effect::NextOrBreak(unknown.into());
                }
            };
            if fragment != 0 {
                return Effect::Break;
            }
            if end <= header_len(protocol) {
                return Effect::Next;
            }
            // Options of IP may move it further back.
            within(packet, end.saturating_add(before), 0)
        }
        // The header above the one above IP is not followed.
        _ => Effect::NextOrBreak(Attribute::Payload.into()),
    }
}

/// Whether the packet has so many bytes from the header of IP on, where so many are there for sure.
fn within(packet: &Packet, end: usize, sure: usize) -> Effect {
    match packet.length() {
        _ if end <= sure => Effect::Next,
        Ok(length) if end > length as usize => Effect::Break,
        Ok(_) => Effect::Next,
        Err(unknown) => Effect::NextOrBreak(unknown.into()),
    }
}

/// Bytes that the header of a protocol has for sure.
fn header_len(protocol: u8) -> usize {
    match protocol {
        IPPROTO_TCP => 20,
        IPPROTO_SCTP | IPPROTO_DCCP => 12,
        _ if is_icmp(protocol) || conntracker_common::has_ports(protocol) => 8,
        _ => AT_LEAST.iter().find(|(of, _)| *of == protocol).map_or(0, |(_, len)| *len),
    }
}

/// A byte and its known bits.
fn byte(packet: &Packet, from: u32, offset: usize) -> (u8, u8) {
    let of = |header: &Header| header.byte(offset);
    match from {
        base::LL_HEADER => match &packet.link {
            Some(link) if offset < ETHERNET => match (of(link), ether_type(packet)) {
                // The protocol tells it, where no tag of a VLAN stands there.
                ((_, 0), Some(bytes)) if offset >= ETHER_TYPE => (bytes[offset - ETHER_TYPE], 0xff),
                (byte, _) => byte,
            },
            _ => (0, 0),
        },
        base::NETWORK_HEADER => of(packet.network()),
        base::TRANSPORT_HEADER => of(packet.transport()),
        _ => (0, 0),
    }
}

/// The ether type of a frame without tag.
fn ether_type(packet: &Packet) -> Option<[u8; 2]> {
    let number: u16 = match packet.layer3() {
        Layer3::Ip => 0x0800,
        Layer3::Ip6 => 0x86dd,
    };
    (packet.vlan == Ok(None)).then(|| number.to_be_bytes())
}

/// The attribute that a byte belongs to.
fn attribute(packet: &Packet, from: u32, offset: usize) -> Unknown {
    Unknown::Attribute(match from {
        base::LL_HEADER if offset < ETHER_TYPE => Attribute::LinkAddresses,
        base::LL_HEADER => Attribute::EtherType,
        base::NETWORK_HEADER => network(packet.layer3(), offset),
        base::TRANSPORT_HEADER => transport(packet.protocol().unwrap_or_default(), offset),
        _ => Attribute::Payload,
    })
}

fn network(layer3: Layer3, offset: usize) -> Attribute {
    match (layer3, offset) {
        (Layer3::Ip, 1) | (Layer3::Ip6, 0 | 1) => Attribute::Dscp,
        (Layer3::Ip, 2 | 3) | (Layer3::Ip6, 4 | 5) => Attribute::Length,
        (Layer3::Ip, 6 | 7) => Attribute::Fragment,
        (Layer3::Ip, 8) | (Layer3::Ip6, 7) => Attribute::Ttl,
        (Layer3::Ip, 9) | (Layer3::Ip6, 6) => Attribute::Protocol,
        (Layer3::Ip, 12..16) | (Layer3::Ip6, 8..24) => Attribute::Source,
        (Layer3::Ip, 16..20) | (Layer3::Ip6, 24..40) => Attribute::Destination,
        (_, 0..20) => Attribute::IpHeader,
        _ => Attribute::IpOptions,
    }
}

fn transport(protocol: u8, offset: usize) -> Attribute {
    match (protocol, offset) {
        _ if offset >= header_len(protocol) => match protocol {
            IPPROTO_TCP => Attribute::TcpOptions,
            _ => Attribute::Payload,
        },
        (IPPROTO_TCP, 13) => Attribute::TcpFlags,
        (protocol, 0 | 1) if is_icmp(protocol) => Attribute::IcmpType,
        (protocol, 0 | 1) if conntracker_common::has_ports(protocol) => Attribute::SourcePort,
        (protocol, 2 | 3) if conntracker_common::has_ports(protocol) => Attribute::DestinationPort,
        _ => Attribute::TransportHeader,
    }
}
