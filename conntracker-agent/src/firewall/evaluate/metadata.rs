//! Metadata of the packet: the expression `meta` (net/netfilter/nft_meta.c).

use std::net::IpAddr;

use super::{
    effect::Effect,
    interface::{IFNAMSIZ, Interface},
    packet::{Layer3, Packet, PacketType, Side},
    registers::Registers,
    unknown::{Attr, Attribute, Unknown},
    word::Word,
};
use crate::{
    model::hook::Hook,
    netlink::nftables::{expression::Register, key::meta},
};

/// NFPROTO_IPV4 and NFPROTO_IPV6; ETH_P_IP and ETH_P_IPV6.
const NFPROTO: [u8; 2] = [2, 10];
const ETHER_TYPE: [u16; 2] = [0x0800, 0x86dd];

/// Bytes of the text of an `…kind` and of most others.
const NUMBER: usize = 4;

/// Loads metadata.
pub(super) fn load(
    packet: &Packet,
    key: u32,
    to: Register,
    registers: &mut Registers,
    hook: Hook,
) -> Effect {
    let v6 = usize::from(packet.layer3() == Layer3::Ip6);
    let unknown = |attribute: Attribute| Unknown::Attribute(attribute);
    match key {
        meta::LEN => registers.attr(to, packet.length().map(u32::to_ne_bytes)),
        meta::PROTOCOL => registers.store(to, &ETHER_TYPE[v6].to_be_bytes()),
        meta::NFPROTO => registers.store(to, &[NFPROTO[v6]]),
        meta::L4PROTO => registers.attr(to, packet.protocol().map(|protocol| [protocol])),
        meta::PRIORITY => registers.word(to, packet.priority),
        meta::MARK => registers.word(to, packet.mark),
        meta::IIF => registers.attr(to, index(&packet.input)),
        meta::OIF => registers.attr(to, index(&packet.output)),
        meta::IIFNAME => registers.attr(to, name(&packet.input)),
        meta::OIFNAME => registers.attr(to, name(&packet.output)),
        meta::IIFTYPE => return hardware(packet, hook, to, registers),
        meta::OIFTYPE | meta::IIFGROUP | meta::OIFGROUP => {
            let interface = if key == meta::IIFGROUP { &packet.input } else { &packet.output };
            match interface {
                Ok(None) => return Effect::Break,
                Ok(Some(interface)) if key == meta::OIFTYPE => {
                    registers.attr(to, interface.hardware.map(u16::to_ne_bytes));
                }
                Ok(Some(interface)) => {
                    registers.attr(to, interface.group.map(u32::to_ne_bytes));
                }
                Err(why) => {
                    registers.store_unknown(to, NUMBER, (*why).into());
                    return Effect::NextOrBreak((*why).into());
                }
            }
        }
        meta::SKUID | meta::SKGID => match packet.owner {
            Ok(None) => return Effect::Break,
            Ok(Some(owner)) => {
                let id = if key == meta::SKUID { owner.uid } else { owner.gid };
                registers.store(to, &id.to_ne_bytes());
            }
            Err(why) => {
                registers.store_unknown(to, NUMBER, why.into());
                return Effect::NextOrBreak(why.into());
            }
        },
        meta::PKTTYPE => registers.attr(to, packet_type(packet).map(|kind| [kind as u8])),
        meta::PRANDOM => registers.store_unknown(to, NUMBER, Unknown::Numgen.into()),
        meta::TIME_NS => registers.store_unknown(to, 8, Unknown::Time.into()),
        meta::TIME_DAY => registers.store_unknown(to, 1, Unknown::Time.into()),
        meta::TIME_HOUR => registers.store_unknown(to, NUMBER, Unknown::Time.into()),
        meta::IIFKIND | meta::OIFKIND | meta::SDIFNAME => {
            let why = unknown(Attribute::InterfaceDetails);
            registers.store_unknown(to, IFNAMSIZ, why.into());
            return Effect::NextOrBreak(why.into());
        }
        meta::SDIF => {
            registers.store_unknown(to, NUMBER, unknown(Attribute::InterfaceDetails).into());
        }
        meta::SECPATH => registers.store_unknown(to, 1, unknown(Attribute::Meta).into()),
        _ => {
            let why = unknown(Attribute::Meta);
            registers.store_unknown(to, IFNAMSIZ, why.into());
            return Effect::NextOrBreak(why.into());
        }
    }
    Effect::Next
}

/// Changes metadata. What else can be set (`nftrace`, `secmark`, …) no rule reads.
pub(super) fn store(packet: &mut Packet, key: u32, from: Register, registers: &Registers) {
    let word = |why: Attribute| {
        let bits = registers.load(from, NUMBER);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
        Word::partly(number(bits.value), number(bits.known), bits.why.first().unwrap_or(why.into()))
    };
    match key {
        meta::MARK => packet.mark = word(Attribute::Mark),
        meta::PRIORITY => packet.priority = word(Attribute::Priority),
        meta::PKTTYPE => {
            packet.packet_type = match registers.array(from) {
                Ok([0]) => Ok(PacketType::Host),
                Ok([1]) => Ok(PacketType::Broadcast),
                Ok([2]) => Ok(PacketType::Multicast),
                Ok([3]) => Ok(PacketType::OtherHost),
                _ => Err(Attribute::PacketType.into()),
            };
        }
        _ => {}
    }
}

/// What `meta iiftype` loads: the type of the interface of input. Behind routing newer kernels load that of the
/// device that the packet has, the interface of output, also for packets of this host (seen on Linux 6.18).
fn hardware(packet: &Packet, hook: Hook, to: Register, registers: &mut Registers) -> Effect {
    let of = |interface: &Attr<Option<Interface>>| match interface {
        Ok(Some(interface)) => interface.hardware.map(Some),
        Ok(None) => Ok(None),
        Err(why) => Err(*why),
    };
    let (input, output) = (of(&packet.input), of(&packet.output));
    let behind = matches!(hook, Hook::Postrouting | Hook::Egress);
    match input {
        Ok(Some(kind)) if !behind || output == input => registers.store(to, &kind.to_ne_bytes()),
        Ok(None) if !behind => return Effect::Break,
        _ => {
            let why = Attribute::InterfaceDetails.into();
            registers.store_unknown(to, NUMBER, why);
            return Effect::NextOrBreak(why);
        }
    }
    Effect::Next
}

/// What `meta pkttype` loads: of packets that `lo` looped back, what their destination is.
fn packet_type(packet: &Packet) -> Attr<PacketType> {
    let kind = packet.packet_type?;
    if kind != PacketType::Loopback {
        return Ok(kind);
    }
    Ok(match packet.address(Side::Destination)? {
        IpAddr::V4(to) if !to.is_multicast() => PacketType::Broadcast,
        _ => PacketType::Multicast,
    })
}

fn index(interface: &Attr<Option<Interface>>) -> Attr<[u8; 4]> {
    match interface {
        Ok(None) => Ok([0; 4]),
        Ok(Some(interface)) => interface.index.map(u32::to_ne_bytes),
        Err(why) => Err(*why),
    }
}

fn name(interface: &Attr<Option<Interface>>) -> Attr<[u8; IFNAMSIZ]> {
    match interface {
        Ok(None) => Ok([0; IFNAMSIZ]),
        Ok(Some(interface)) => Ok(interface.name),
        Err(why) => Err(*why),
    }
}
