//! The packet that a question is about, where it begins.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use conntracker_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP,
    conntrack::{IPS_CONFIRMED, IPS_DST_NAT_DONE, IPS_NAT, IPS_SEEN_REPLY, IPS_SRC_NAT_DONE},
    has_ports, is_icmp,
};

use super::AskedPacket;
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

/// The packet that is asked about. `known`: what conntrack's entry says of it. `host`: routes are known.
pub(super) fn start(
    asked: &AskedPacket,
    known: Option<Tracking>,
    routes: &RoutingTables,
    host: bool,
) -> Result<Start> {
    let [source, destination] = asked.addresses;
    let mut packet = Packet::new(source, destination, asked.proto)
        .context("source and destination must both be of IPv4 or both of IPv6")?;
    if matches!(
        (asked.proto, source),
        (IPPROTO_ICMP, IpAddr::V6(_)) | (IPPROTO_ICMPV6, IpAddr::V4(_))
    ) {
        bail!("ICMP is of IPv4, ICMPv6 of IPv6");
    }
    for (side, port) in [Side::Source, Side::Destination].into_iter().zip(asked.ports) {
        if let Some(port) = port {
            packet.set_port(side, port);
        }
    }
    if is_icmp(asked.proto) {
        packet.set_icmp(ECHO[usize::from(source.is_ipv6())], 0);
    }
    if asked.proto == IPPROTO_TCP {
        let usual = if asked.state == CtState::New { SYN } else { ACK };
        packet.set_tcp_flags(asked.flags.unwrap_or(usual), 0xff);
    }
    packet.set_ttl(TTL);
    packet.mark = Word::new(asked.mark, Attribute::Mark.into());
    packet.packet_type = Ok(PacketType::Host);
    packet.vlan = Ok(None);
    packet.tracking = known.unwrap_or_else(|| tracking(asked));
    let origin = match input(asked, routes, host)? {
        Some(interface) => {
            packet.input = Ok(Some(interface));
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
fn input(asked: &AskedPacket, routes: &RoutingTables, host: bool) -> Result<Option<Interface>> {
    match &asked.input {
        Some(name) => named(name, routes, host).map(Some),
        None if host => input_of(asked.addresses[0], routes).map(Option::<&Interface>::cloned),
        None => Ok(None),
    }
}

/// The interface through which packets of an address come; `None` if this host has it.
pub(super) fn input_of(source: IpAddr, routes: &RoutingTables) -> Result<Option<&Interface>> {
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

/// The interface that the packet is said to leave through.
pub(super) fn output(
    asked: &AskedPacket,
    routes: &RoutingTables,
    host: bool,
) -> Result<Option<Interface>> {
    let Some(name) = &asked.output else { return Ok(None) };
    let to = RouteQuery::to(asked.addresses[1]);
    if routes.address_type(&to) == Ok(RouteType::Local) {
        bail!("packets for {} leave through no interface: this host has that address", to.to);
    }
    named(name, routes, host).map(Some)
}

/// An interface. If no host is known, any may be there.
fn named(name: &str, routes: &RoutingTables, host: bool) -> Result<Interface> {
    let found = routes.interface(name).cloned();
    let found = found.or_else(|| (!host).then(|| Interface::named(name)));
    found.with_context(|| format!("there is no interface `{name}`"))
}

/// What conntrack says about the packet.
fn tracking(asked: &AskedPacket) -> Tracking {
    let [src, dst] = asked.addresses;
    let proto = asked.proto;
    let l4 = match asked.ports {
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
    match asked.state {
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
