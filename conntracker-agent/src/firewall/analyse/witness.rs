//! A packet out of a region: one that a rule should match, to be evaluated.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use conntracker_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP,
    conntrack::{IPS_CONFIRMED, IPS_SEEN_REPLY},
    has_ports, is_icmp,
};

use super::{
    field::{Fields, Source, Transform},
    region::Region,
    values::Values,
};
use crate::{
    firewall::evaluate::{
        BaseHook, Packet,
        interface::Interface,
        packet::{Layer3, PacketType, Side},
        tracking::Tracking,
        unknown::Attribute,
        word::Word,
    },
    model::{
        L4, Tuple, Zone,
        hook::Hook,
        path::{CtState, Direction},
        table::Family,
    },
    netlink::nftables::key::{base, ct, meta},
};

/// NFPROTO_IPV6 and ETH_P_IPV6.
const IPV6: u128 = 10;
const ETH_IPV6: u128 = 0x86dd;

/// A protocol without ports.
const NO_PORTS: u8 = 4;

/// `ct state new`, `established` and so on.
const STATES: [(u128, CtState); 5] = [
    (8, CtState::New),
    (2, CtState::Established),
    (4, CtState::Related),
    (1, CtState::Invalid),
    (64, CtState::Untracked),
];

/// Values of single fields; a field that is not here may have any.
pub type Point = BTreeMap<Source, u128>;

/// Values of which a packet of a region can be made; `None` where a field is not one that can be set. Fields that rules
/// have written are left to the evaluator.
#[must_use]
pub fn point(region: &Region, fields: &Fields) -> Option<Point> {
    let mut point = Point::new();
    for (number, values) in region.fields() {
        let field = fields.field(*number);
        let source = field.source;
        if field.is_written() {
            continue;
        }
        if values.ranges().is_empty() {
            // It must be missing: of the header above IP that is so with another protocol.
            if let Source::Header(base::TRANSPORT_HEADER, ..) = source {
                point.entry(Source::Meta(meta::L4PROTO)).or_insert(NO_PORTS.into());
            }
            continue;
        }
        let value = chosen(source, values);
        match field.transforms[..] {
            [] => {
                point.insert(source, value);
            }
            // Several masks may be set at once.
            [Transform::Mask(mask, xor)] if (value ^ xor) & !mask == 0 => {
                *point.entry(source).or_default() |= value ^ xor;
            }
            _ => return None,
        }
    }
    Some(point)
}

/// What a packet has of a field where the region leaves a choice.
fn usual(source: Source) -> u128 {
    let v4 = |address: [u8; 4]| u32::from(Ipv4Addr::from(address)).into();
    let v6 = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
    match source {
        Source::Header(base::NETWORK_HEADER, 12, 4) => v4([192, 0, 2, 1]),
        Source::Header(base::NETWORK_HEADER, 16, 4) => v4([198, 51, 100, 1]),
        Source::Header(base::NETWORK_HEADER, 8, 16) => v6(1),
        Source::Header(base::NETWORK_HEADER, 24, 16) => v6(2),
        Source::Header(base::TRANSPORT_HEADER, 0, 2) => 40_000,
        Source::Header(base::TRANSPORT_HEADER, 2, 2) => 9,
        Source::Header(base::TRANSPORT_HEADER, 13, 1) => 2,
        Source::Meta(meta::L4PROTO) => IPPROTO_TCP.into(),
        Source::Meta(meta::NFPROTO) => 2,
        Source::Meta(meta::IIFNAME) => u128::from_be_bytes(Interface::named("in0").name),
        Source::Meta(meta::OIFNAME) => u128::from_be_bytes(Interface::named("out0").name),
        Source::Meta(meta::IIF) => 1001,
        Source::Meta(meta::OIF) => 1002,
        Source::Meta(meta::LEN) => 60,
        Source::Ct(ct::STATE, _) => 8,
        _ => 0,
    }
}

/// Other values of fields of which a packet should not have the lowest one.
fn others(source: Source) -> Vec<u128> {
    let v4 = |first: u8| u32::from(Ipv4Addr::new(first, 0, 0, 1)).into();
    match source {
        Source::Header(base::NETWORK_HEADER, 12 | 16, 4) => [203, 10, 172, 192].map(v4).to_vec(),
        Source::Meta(meta::L4PROTO) => [17, 1, 58, 132, 47].to_vec(),
        Source::Header(base::TRANSPORT_HEADER, 0 | 2, 2) => vec![50_000, 1024],
        _ => Vec::new(),
    }
}

fn chosen(source: Source, values: &Values) -> u128 {
    let wished = [usual(source)].into_iter().chain(others(source));
    if let Some(value) = wished.into_iter().find(|value| values.has(*value)) {
        return value;
    }
    // Names of interfaces are not empty.
    let name = matches!(source, Source::Meta(meta::IIFNAME | meta::OIFNAME));
    let (first, last) = values.ranges().first().copied().unwrap_or_default();
    if name && first == 0 { last } else { first }
}

/// A packet with these values, as it comes to a base chain of a family; `None` if it cannot have them.
#[must_use]
pub fn packet(point: &Point, family: Family, base: BaseHook) -> Option<Packet> {
    let get = |source: Source| point.get(&source).copied();
    let of = |source: Source| get(source).unwrap_or_else(|| usual(source));
    let v6_fields = [Source::address(false, true), Source::address(true, true)];
    let v6 = family == Family::Ip6
        || family != Family::Ip
            && (get(Source::Meta(meta::NFPROTO)) == Some(IPV6)
                || get(Source::Meta(meta::PROTOCOL)) == Some(ETH_IPV6)
                || v6_fields.iter().any(|source| point.contains_key(source)));
    let address = |destination: bool| -> Option<IpAddr> {
        let value = of(Source::address(destination, v6));
        Some(if v6 {
            Ipv6Addr::from(value).into()
        } else {
            Ipv4Addr::from(u32::try_from(value).ok()?).into()
        })
    };
    let protocol = get(Source::Meta(meta::L4PROTO)).unwrap_or_else(|| {
        let offset = if v6 { 6 } else { 9 };
        of_header(point, offset).unwrap_or(IPPROTO_TCP.into())
    });
    let protocol = u8::try_from(protocol).ok()?;
    let mut packet = Packet::new(address(false)?, address(true)?, protocol)?;
    packet.set_port(Side::Source, of(Source::port(false)) as u16);
    packet.set_port(Side::Destination, of(Source::port(true)) as u16);
    if protocol == IPPROTO_TCP {
        packet.set_tcp_flags(of(Source::transport(13)) as u8, 0xff);
    }
    if is_icmp(protocol) {
        let echo = if protocol == IPPROTO_ICMPV6 { 128 } else { 8 };
        packet.set_icmp(
            get(Source::transport(0)).map_or(echo, |kind| kind as u8),
            of(Source::transport(1)) as u8,
        );
        packet.transport_mut().set(4, &[0; 4]);
    }
    packet.set_ttl(64);
    let header = if v6 { 40 } else { 20 };
    let bare = !has_ports(protocol) && !is_icmp(protocol);
    packet.set_length(
        get(Source::Meta(meta::LEN)).map_or(if bare { header } else { 60 }, |length| length as u32),
    );
    packet.vlan = Ok(None);
    packet.packet_type = Ok(PacketType::Host);
    packet.owner = Ok(None);
    packet.mark = Word::new(0, Attribute::Mark.into());
    packet.priority = Word::new(0, Attribute::Priority.into());
    interfaces(&mut packet, base.hook, &of);
    packet.tracking = tracking(&packet, of(Source::Ct(ct::STATE, None)))?;
    point.iter().try_for_each(|(source, value)| set(&mut packet, *source, *value))?;
    Some(packet)
}

/// A byte of the header of IP.
fn of_header(point: &Point, offset: u32) -> Option<u128> {
    point.get(&Source::Header(base::NETWORK_HEADER, offset, 1)).copied()
}

/// The interfaces that a packet has at a hook.
fn interfaces(packet: &mut Packet, hook: Hook, of: &dyn Fn(Source) -> u128) {
    let interface = |name, index| {
        let name = of(Source::Meta(name)).to_be_bytes();
        let interface = Interface { name, ..Interface::named("") };
        (name != [0; 16]).then(|| interface.with_index(of(Source::Meta(index)) as u32))
    };
    let received = !matches!(hook, Hook::Output);
    let leaves = matches!(hook, Hook::Forward | Hook::Output | Hook::Postrouting | Hook::Egress);
    packet.input = Ok(if received { interface(meta::IIFNAME, meta::IIF) } else { None });
    packet.output = Ok(if leaves { interface(meta::OIFNAME, meta::OIF) } else { None });
}

/// What conntrack says of the packet in a state.
fn tracking(packet: &Packet, state: u128) -> Option<Tracking> {
    let (_, state) = STATES.into_iter().find(|(bit, _)| *bit == state)?;
    let [Ok(src), Ok(dst), Ok(proto)] = [
        packet.address(Side::Source).map(|of| (of, 0)),
        packet.address(Side::Destination).map(|of| (of, 0)),
        packet.protocol().map(|of| (IpAddr::V4(Ipv4Addr::UNSPECIFIED), of)),
    ] else {
        return None;
    };
    let (src, dst, proto) = (src.0, dst.0, proto.1);
    let l4 = match (packet.port(Side::Source), packet.port(Side::Destination)) {
        (Ok(Some(src)), Ok(Some(dst))) => L4::Ports { src, dst },
        _ if is_icmp(proto) => {
            let echo = if proto == IPPROTO_ICMP { 8 } else { 128 };
            L4::Icmp { kind: echo, code: 0, id: 0 }
        }
        _ => L4::None,
    };
    let tuple = Tuple { src, dst, proto, l4 };
    let first = Tracking::first(&tuple);
    Some(match state {
        CtState::New => Tracking { state: Ok(CtState::New), ..first },
        CtState::Established | CtState::Related => {
            let seen = IPS_CONFIRMED | IPS_SEEN_REPLY;
            Tracking {
                state: Ok(state),
                direction: Ok(Direction::Original),
                status: Word::new(seen, Attribute::CtStatus.into()),
                ..first
            }
        }
        state => Tracking::without_entry(state),
    })
}

/// Sets one field; `None` if it cannot be set.
fn set(packet: &mut Packet, source: Source, value: u128) -> Option<()> {
    let v6 = packet.layer3() == Layer3::Ip6;
    match source {
        Source::Header(header, offset, length) => {
            let bytes = value.to_be_bytes();
            let bytes = &bytes[bytes.len() - length as usize..];
            match header {
                base::NETWORK_HEADER => packet.network_mut().set(offset as usize, bytes),
                base::TRANSPORT_HEADER => packet.transport_mut().set(offset as usize, bytes),
                _ => return None,
            }
        }
        Source::Meta(key) => match key {
            meta::NFPROTO => return ((value == IPV6) == v6).then_some(()),
            meta::PROTOCOL => return ((value == ETH_IPV6) == v6).then_some(()),
            meta::MARK => packet.mark = Word::new(value as u32, Attribute::Mark.into()),
            meta::PRIORITY => packet.priority = Word::new(value as u32, Attribute::Priority.into()),
            meta::PKTTYPE => {
                packet.packet_type = Ok(match value {
                    0 => PacketType::Host,
                    1 => PacketType::Broadcast,
                    2 => PacketType::Multicast,
                    3 => PacketType::OtherHost,
                    _ => return None,
                });
            }
            meta::IIFGROUP | meta::OIFGROUP | meta::IIFTYPE | meta::OIFTYPE => {
                let input = matches!(key, meta::IIFGROUP | meta::IIFTYPE);
                let interface = if input { &mut packet.input } else { &mut packet.output };
                let interface = interface.as_mut().ok()?.as_mut()?;
                if matches!(key, meta::IIFGROUP | meta::OIFGROUP) {
                    interface.group = Ok(value as u32);
                } else {
                    interface.hardware = Ok(value as u16);
                }
            }
            // They are set already.
            meta::LEN | meta::L4PROTO | meta::IIF | meta::OIF | meta::IIFNAME | meta::OIFNAME => {}
            _ => return None,
        },
        Source::Ct(key, _) => match key {
            ct::STATE => {}
            ct::DIRECTION => {
                let reply = value == 1;
                packet.tracking.direction =
                    Ok(if reply { Direction::Reply } else { Direction::Original });
            }
            ct::ZONE => packet.tracking.zone = Ok(Zone(value as u16)),
            _ => return None,
        },
        Source::LaterFragment => packet.set_fragment_offset(if value == 1 { 185 } else { 0 }),
    }
    Some(())
}
