//! Conntrack's entry: the expression `ct` (net/netfilter/nft_ct.c).

use std::net::IpAddr;

use conntracker_common::conntrack::IPS_TEMPLATE;

use super::{
    effect::Effect,
    packet::{Layer3, Packet},
    registers::Registers,
    tracking::Tracking,
    unknown::{Attr, Attribute, Unknown},
    word::Word,
};
use crate::{
    model::{
        L4, Tuple, Zone,
        path::{CtState, Direction},
    },
    netlink::nftables::{expression::Register, key::ct},
};

/// NFPROTO_IPV4 and NFPROTO_IPV6.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Bytes of labels, and of the name of a helper (NF_CT_HELPER_NAME_LEN).
const LONG: usize = 16;

/// Loads from the entry, or says that there is none.
pub(super) fn load(
    packet: &Packet,
    key: u32,
    direction: Option<u8>,
    to: Register,
    registers: &mut Registers,
) -> Effect {
    let tracking = &packet.tracking;
    if key == ct::STATE {
        registers.attr(to, tracking.state_bit().map(u32::to_ne_bytes));
        return Effect::Next;
    }
    let presence = match tracking.has_entry() {
        Ok(true) => Effect::Next,
        Ok(false) => return Effect::Break,
        Err(why) => Effect::NextOrBreak(why.into()),
    };
    let tuple = if direction == Some(1) { &tracking.reply } else { &tracking.original };
    match key {
        ct::DIRECTION => {
            let number = |direction| [u8::from(direction == Direction::Reply)];
            registers.attr(to, tracking.direction.map(number));
        }
        ct::STATUS => registers.word(to, tracking.status),
        ct::MARK => registers.word(to, tracking.mark),
        ct::ZONE => registers.attr(to, tracking.zone.map(|Zone(zone)| zone.to_ne_bytes())),
        ct::LABELS => registers.attr(to, tracking.labels),
        ct::HELPER => match &tracking.helper {
            Ok(name) if name.is_empty() => return Effect::Break,
            Ok(name) => {
                let mut bytes = [0; LONG];
                bytes.iter_mut().take(LONG - 1).zip(name.bytes()).for_each(|(to, from)| *to = from);
                registers.store(to, &bytes);
            }
            Err(why) => {
                registers.store_unknown(to, LONG, (*why).into());
                return Effect::NextOrBreak((*why).into());
            }
        },
        ct::L3PROTOCOL => {
            let number = if packet.layer3() == Layer3::Ip { IPV4 } else { IPV6 };
            registers.store(to, &[number]);
        }
        ct::PROTOCOL => registers.attr(to, tuple.map(|tuple| [tuple.proto])),
        ct::SRC | ct::DST | ct::SRC_IP | ct::DST_IP | ct::SRC_IP6 | ct::DST_IP6 => {
            // An entry is of the family of its packets.
            let wrong = match packet.layer3() {
                Layer3::Ip => matches!(key, ct::SRC_IP6 | ct::DST_IP6),
                Layer3::Ip6 => matches!(key, ct::SRC_IP | ct::DST_IP),
            };
            if wrong {
                return Effect::Break;
            }
            let source = matches!(key, ct::SRC | ct::SRC_IP | ct::SRC_IP6);
            match tuple.map(|tuple| if source { tuple.src } else { tuple.dst }) {
                Ok(IpAddr::V4(address)) => registers.store(to, &address.octets()),
                Ok(IpAddr::V6(address)) => registers.store(to, &address.octets()),
                Err(why) => registers.store_unknown(to, LONG, why.into()),
            }
        }
        ct::PROTO_SRC => registers.attr(to, tuple.map(|tuple| ports(&tuple)[0])),
        ct::PROTO_DST => registers.attr(to, tuple.map(|tuple| ports(&tuple)[1])),
        ct::PKTS | ct::BYTES | ct::AVGPKT => {
            registers.store_unknown(to, 8, Unknown::LaterPackets.into());
        }
        ct::EXPIRATION => registers.store_unknown(to, 4, Unknown::LaterPackets.into()),
        _ => registers.store_unknown(to, LONG, Attribute::CtEntry.into()),
    }
    presence
}

/// What a tuple has for ports, as it stands in memory (`union nf_conntrack_man_proto`).
fn ports(tuple: &Tuple) -> [[u8; 2]; 2] {
    match tuple.l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => [src.to_be_bytes(), dst.to_be_bytes()],
        L4::Icmp { kind, code, id } => [id.to_be_bytes(), [kind, code]],
        L4::None => [[0; 2]; 2],
    }
}

/// Changes the entry. Where there is none, nothing happens, and the rule goes on; but a zone is set before there is
/// one.
pub(super) fn store(packet: &mut Packet, key: u32, from: Register, registers: &Registers) {
    if key == ct::ZONE {
        let zone = registers.array(from).map(u16::from_ne_bytes).map(Zone);
        set_zone(&mut packet.tracking, zone.map_err(|_| Attribute::CtZone.into()));
        return;
    }
    let tracking = &mut packet.tracking;
    let is_template = tracking.status.value() & IPS_TEMPLATE != 0;
    if tracking.has_entry() == Ok(false) || is_template {
        return;
    }
    let unsure = tracking.has_entry().err();
    match key {
        ct::MARK => {
            let bits = registers.load(from, 4);
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
            let why = bits.why.first().unwrap_or(Attribute::CtMark.into());
            tracking.mark = match unsure {
                None => Word::partly(number(bits.value), number(bits.known), why),
                Some(why) => Word::unknown(why),
            };
        }
        ct::LABELS => {
            let labels = registers.array::<LONG>(from);
            tracking.labels = match (tracking.labels, labels, unsure) {
                // Bits are set, none is cleared (`nf_connlabels_replace` with the value as its own mask).
                (Ok(own), Ok(new), None) => Ok(std::array::from_fn(|at| own[at] | new[at])),
                _ => Err(Attribute::CtLabels.into()),
            };
        }
        _ => {}
    }
}

/// A zone that is set before conntrack sees the packet: a template carries it, which `ct state` takes for a new
/// entry (`nft_ct_set_zone_eval`).
pub(super) fn set_zone(tracking: &mut Tracking, zone: Attr<Zone>) {
    match tracking.state {
        Ok(CtState::Early) => {
            *tracking = Tracking {
                state: Ok(CtState::New),
                direction: Ok(Direction::Original),
                status: Word::new(IPS_TEMPLATE, Attribute::CtStatus.into()),
                mark: Word::new(0, Attribute::CtMark.into()),
                zone,
                ..Tracking::unknown()
            };
        }
        Ok(_) if tracking.status.value() & IPS_TEMPLATE != 0 => tracking.zone = zone,
        _ => {}
    }
}
