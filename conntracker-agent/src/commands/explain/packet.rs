//! The packet that a question is about, where it begins.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use conntracker_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP,
    conntrack::{IPS_CONFIRMED, IPS_DST_NAT_DONE, IPS_NAT, IPS_SEEN_REPLY, IPS_SRC_NAT_DONE},
    has_ports, is_icmp,
};

use super::Question;
use crate::{
    firewall::evaluate::{
        Origin, Packet,
        interface::Interface,
        packet::{PacketType, Side},
        routes::{RouteQuery, RouteType, Routes},
        routing_tables::RoutingTables,
        tracking::Tracking,
        unknown::Attribute,
        word::Word,
    },
    model::{
        L4, Tuple,
        path::{CtState, Direction},
    },
};

/// TTL of packets that were just sent.
const TTL: u8 = 64;

/// Echo requests of ICMP and ICMPv6.
const ECHO: [u8; 2] = [8, 128];

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A packet and where it comes from.
pub(super) struct Start {
    pub packet: Packet,
    pub origin: Origin,
    /// The same for people.
    pub arrives: String,
}

/// The packet of a question.
pub(super) fn start(question: &Question, routes: &RoutingTables) -> Result<Start> {
    let [source, destination] = question.addresses;
    let mut packet = Packet::new(source, destination, question.proto)
        .context("source and destination must both be of IPv4 or both of IPv6")?;
    if matches!(
        (question.proto, source),
        (IPPROTO_ICMP, IpAddr::V6(_)) | (IPPROTO_ICMPV6, IpAddr::V4(_))
    ) {
        bail!("ICMP is of IPv4, ICMPv6 of IPv6");
    }
    for (side, port) in [Side::Source, Side::Destination].into_iter().zip(question.ports) {
        if let Some(port) = port {
            packet.set_port(side, port);
        }
    }
    if is_icmp(question.proto) {
        packet.set_icmp(ECHO[usize::from(source.is_ipv6())], 0);
    }
    if question.proto == IPPROTO_TCP {
        let usual = if question.state == CtState::New { SYN } else { ACK };
        packet.set_tcp_flags(question.flags.unwrap_or(usual), 0xff);
    }
    packet.set_ttl(TTL);
    packet.mark = Word::new(question.mark, Attribute::Mark.into());
    packet.packet_type = Ok(PacketType::Host);
    packet.vlan = Ok(None);
    packet.tracking = tracking(question);
    let origin = match interface(question, routes)? {
        Some(interface) => {
            packet.input = Ok(Some(interface.clone()));
            packet.output = Ok(None);
            packet.owner = Ok(None);
            Origin::Received
        }
        None => Origin::Local,
    };
    let arrives = match &packet.input {
        Ok(Some(interface)) => format!("received through {}", interface.text()),
        _ => "sent by this host".to_owned(),
    };
    Ok(Start { packet, origin, arrives })
}

/// The interface that receives the packet; `None` if this host sends it.
fn interface<'a>(question: &Question, routes: &'a RoutingTables) -> Result<Option<&'a Interface>> {
    if let Some(name) = &question.input {
        let found = routes.interface(name);
        return Ok(Some(found.with_context(|| format!("there is no interface `{name}`"))?));
    }
    let [source, _] = question.addresses;
    let query = RouteQuery::to(source);
    if routes.address_type(&query) == Ok(RouteType::Local) {
        return Ok(None);
    }
    let route = routes.route(&query).ok().filter(|route| route.kind == RouteType::Unicast);
    let found = route.and_then(|route| routes.interface(route.interface?.text().as_str()));
    let unknown =
        || format!("through which interface packets of {source} come is not known: add --iif NAME");
    Ok(Some(found.with_context(unknown)?))
}

/// What conntrack says about the packet.
fn tracking(question: &Question) -> Tracking {
    let [src, dst] = question.addresses;
    let proto = question.proto;
    let l4 = match question.ports {
        [Some(src), Some(dst)] => L4::Ports { src, dst },
        _ if is_icmp(proto) => L4::Icmp { kind: ECHO[usize::from(src.is_ipv6())], code: 0, id: 0 },
        _ => L4::None,
    };
    let first = Tracking::first(&Tuple { src, dst, proto, l4 });
    // Without its ports, or its identifier, the tuple is not known.
    let whole = !is_icmp(proto) && (!has_ports(proto) || l4 != L4::None);
    let unknown = || Err(Attribute::CtTuple.into());
    let (original, reply) =
        if whole { (first.original, first.reply) } else { (unknown(), unknown()) };
    match question.state {
        CtState::New => Tracking { original, reply, ..first },
        CtState::Established => {
            // Of a flow that is not translated.
            let done = IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE;
            Tracking {
                state: Ok(CtState::Established),
                direction: Ok(Direction::Original),
                status: Word::partly(done, done | IPS_NAT, Attribute::CtStatus.into()),
                original,
                reply,
                ..Tracking::unknown()
            }
        }
        CtState::Related => Tracking {
            state: Ok(CtState::Related),
            direction: Ok(Direction::Original),
            original,
            reply,
            ..Tracking::unknown()
        },
        state => Tracking::without_entry(state),
    }
}
