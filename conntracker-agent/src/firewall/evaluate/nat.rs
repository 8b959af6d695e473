//! Translation of addresses (net/netfilter/nf_nat_core.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker_common::{
    conntrack::{IPS_CONFIRMED, IPS_DST_NAT, IPS_DST_NAT_DONE, IPS_SRC_NAT, IPS_SRC_NAT_DONE},
    is_icmp,
};

use super::{
    context::Context,
    decision::Decision,
    interface::Interface,
    packet::{Layer3, Packet, Side},
    tracking::Tracking,
    translation::{Translation, TranslationKind},
    unknown::{Attr, Attribute, Unknown},
};
use crate::model::{
    L4, Tuple,
    hook::Hook,
    path::{CtState, Direction},
};

/// NF_NAT_RANGE_ flags.
const PROTO_RANDOM: u32 = 4;
const PROTO_RANDOM_FULLY: u32 = 16;
const NETMAP: u32 = 64;

/// The part of a packet that NAT changes at a hook (HOOK2MANIP).
pub(super) fn side(hook: Hook) -> Side {
    match hook {
        Hook::Input | Hook::Postrouting => Side::Source,
        _ => Side::Destination,
    }
}

/// The status bit that says that NAT has decided about a side.
const fn done(side: Side) -> u32 {
    match side {
        Side::Source => IPS_SRC_NAT_DONE,
        Side::Destination => IPS_DST_NAT_DONE,
    }
}

/// The status bit that says that it is translated.
const fn translated(side: Side) -> u32 {
    match side {
        Side::Source => IPS_SRC_NAT,
        Side::Destination => IPS_DST_NAT,
    }
}

/// Whether the chains of type nat see a packet: one of a flow that is not answered, while nothing is decided about its
/// side (`nf_nat_inet_fn`). So does the reset by which this host refuses the first packet; of errors of ICMP only the
/// addresses are translated.
pub(super) fn is_undecided(packet: &Packet, side: Side) -> Decision {
    let undecided = packet.tracking.status.has(0, done(side));
    match (packet.tracking.state, packet.protocol()) {
        (Ok(CtState::New), _) => undecided,
        (Ok(CtState::Related), Ok(protocol)) if is_icmp(protocol) => Decision::No,
        (Ok(CtState::Related), Ok(_)) => undecided,
        (Ok(CtState::Related), Err(why)) => Decision::Undecided(why.into()).and(undecided),
        _ => Decision::No,
    }
}

/// Notes what NAT decided about a side: nothing (`nf_nat_alloc_null_binding`).
pub(super) fn decide_nothing(tracking: &mut Tracking, side: Side) {
    tracking.status = tracking.status.with(done(side));
}

/// Sets a translation up and applies it (`nf_nat_setup_info`); false: the packet is dropped, because there is no
/// address for it.
pub(super) fn setup(packet: &mut Packet, translation: &Translation, context: &Context<'_>) -> bool {
    if packet.tracking.status.value() & IPS_CONFIRMED != 0 {
        return true;
    }
    let side = match translation.kind {
        TranslationKind::Source | TranslationKind::Masquerade => Side::Source,
        TranslationKind::Destination | TranslationKind::Redirect => Side::Destination,
    };
    let before = (packet.address(side), packet.port(side));
    let address = match new_address(packet, side, translation, context) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => return false,
        Err(why) => Err(why),
    };
    match address {
        Ok(address) => packet.set_address(side, address),
        Err(_) => packet.forget_address(side),
    }
    let port = new_port(side, before.1, translation);
    match port {
        Ok(Some(port)) => packet.set_port(side, port),
        Ok(None) => {}
        Err(_) => packet.forget_port(side),
    }
    let tracking = &mut packet.tracking;
    let bit = translated(side);
    tracking.status = tracking.status.with(done(side));
    if address.is_ok() && port.is_ok() {
        if before != (address, port) {
            tracking.status = tracking.status.with(bit);
        }
    } else if before.0 != address && address.is_ok() {
        tracking.status = tracking.status.with(bit);
    } else {
        tracking.status = tracking.status.forget(bit);
    }
    tracking.reply = match (tracking.reply, address, port) {
        (Ok(reply), Ok(address), Ok(port)) => Ok(replaced(reply, side, address, port)),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => Err(why),
    };
    true
}

/// The reply tuple after a translation: the new source is its destination, the new destination its source.
fn replaced(reply: Tuple, side: Side, address: IpAddr, port: Option<u16>) -> Tuple {
    let l4 = match (reply.l4, port, side) {
        (L4::Ports { src, .. }, Some(port), Side::Source) => L4::Ports { src, dst: port },
        (L4::Ports { dst, .. }, Some(port), Side::Destination) => L4::Ports { src: port, dst },
        (other, ..) => other,
    };
    match side {
        Side::Source => Tuple { dst: address, l4, ..reply },
        Side::Destination => Tuple { src: address, l4, ..reply },
    }
}

/// The new address; `None` if there is none to take.
fn new_address(
    packet: &Packet,
    side: Side,
    translation: &Translation,
    context: &Context<'_>,
) -> Attr<Option<IpAddr>> {
    let interface = |interface: &Attr<Option<Interface>>, to| {
        let interface = interface.as_ref().map_err(|why| *why)?.as_ref();
        let interface = interface.ok_or(Attribute::Routes)?;
        context.routes.address_of(interface, packet.layer3(), to)
    };
    match translation.kind {
        TranslationKind::Masquerade => {
            interface(&packet.output, Some(packet.address(Side::Destination)?))
        }
        TranslationKind::Redirect if context.hook == Hook::Output => {
            Ok(Some(match packet.layer3() {
                Layer3::Ip => Ipv4Addr::LOCALHOST.into(),
                Layer3::Ip6 => Ipv6Addr::LOCALHOST.into(),
            }))
        }
        TranslationKind::Redirect => interface(&packet.input, None),
        TranslationKind::Source | TranslationKind::Destination => match translation.addresses {
            None => packet.address(side).map(Some),
            Some([first, last]) => {
                let (first, last) = (first?, last?);
                if first == last {
                    Ok(Some(first))
                } else if translation.flags & NETMAP != 0 {
                    Ok(netmap(packet.address(side)?, first, last))
                } else {
                    Err(Unknown::TranslationChoice)
                }
            }
        },
    }
}

/// The address with the network of a range, whose first and last address are those of a network.
fn netmap(address: IpAddr, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
    match (address, first, last) {
        (IpAddr::V4(address), IpAddr::V4(first), IpAddr::V4(last)) => {
            let hosts = first.to_bits() ^ last.to_bits();
            let bits = (first.to_bits() & !hosts) | (address.to_bits() & hosts);
            Some(Ipv4Addr::from_bits(bits).into())
        }
        (IpAddr::V6(address), IpAddr::V6(first), IpAddr::V6(last)) => {
            let hosts = first.to_bits() ^ last.to_bits();
            let bits = (first.to_bits() & !hosts) | (address.to_bits() & hosts);
            Some(Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}

/// The new port. Without a range a destination keeps its port, and a source does where no other flow has it.
fn new_port(side: Side, before: Attr<Option<u16>>, translation: &Translation) -> Attr<Option<u16>> {
    let Some(before) = before? else { return Ok(None) };
    let random = translation.flags & (PROTO_RANDOM | PROTO_RANDOM_FULLY) != 0;
    match (translation.ports, side) {
        (Some([first, last]), _) if first? == last? => Ok(Some(first?)),
        (None, Side::Destination) if !random => Ok(Some(before)),
        _ => Err(Unknown::TranslationChoice),
    }
}

/// Whether NAT lets a packet pass, as far as it may be a redirect of ICMP. Such a redirect is dropped if the flow is
/// translated, or if NAT has not decided about it at both ends (`nf_nat_icmp_reply_translation`): this host sends it
/// before the flow's first packet leaves.
pub(super) fn passes_redirect(packet: &Packet) -> Decision {
    const REDIRECT: u8 = 5;
    if packet.tracking.state != Ok(CtState::Related) || packet.layer3() != Layer3::Ip {
        return Decision::Yes;
    }
    let redirect = Decision::from(packet.icmp().map(|icmp| matches!(icmp, Some((REDIRECT, _)))));
    let done = IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE;
    let status = packet.tracking.status;
    let untouched = status.has(done, done).and(status.has(0, IPS_SRC_NAT | IPS_DST_NAT));
    redirect.not().or(untouched)
}

/// Translates a packet of a flow about which NAT has decided (`nf_nat_packet`).
pub(super) fn apply(packet: &mut Packet, side: Side) {
    let tracking = &packet.tracking;
    let reply = tracking.direction == Ok(Direction::Reply);
    // Where packets of the original direction have their source translated, those of the reply direction have their
    // destination translated.
    let bit = match (side, reply) {
        (Side::Source, false) | (Side::Destination, true) => IPS_SRC_NAT,
        _ => IPS_DST_NAT,
    };
    match tracking.status.has(bit, bit) {
        Decision::No => return,
        Decision::Undecided(_) if tracking.direction.is_ok() && both_same(tracking) => return,
        _ => {}
    }
    // The packet becomes what answers the other direction.
    let other = if reply { tracking.original } else { tracking.reply };
    let target = other.ok().filter(|_| tracking.direction.is_ok()).and_then(Tuple::inverted);
    let Some(target) = target else {
        packet.forget_address(side);
        packet.forget_port(side);
        return;
    };
    let (address, port) = match (side, target.l4) {
        (Side::Source, L4::Ports { src, .. }) => (target.src, Some(src)),
        (Side::Destination, L4::Ports { dst, .. }) => (target.dst, Some(dst)),
        (Side::Source, _) => (target.src, None),
        (Side::Destination, _) => (target.dst, None),
    };
    packet.set_address(side, address);
    if let Some(port) = port {
        packet.set_port(side, port);
    }
}

/// Whether the tuples say that nothing is translated.
fn both_same(tracking: &Tracking) -> bool {
    match (tracking.original, tracking.reply) {
        (Ok(original), Ok(reply)) => original.inverted() == Some(reply),
        _ => false,
    }
}
