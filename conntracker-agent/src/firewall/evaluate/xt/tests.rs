use std::net::IpAddr;

use super::*;
use crate::{
    firewall::evaluate::{
        Packet,
        context::Context,
        header::Header,
        interface::Interface,
        packet::{Layer3, PacketType, Side, SocketOwner},
        routes::{Route, RouteQuery, RouteType, Routes},
        tracking::Tracking,
        translation::TranslationKind,
        unknown::{Attr, Attribute, Unknown},
        word::Word,
    },
    model::{
        L4, Status, Tuple,
        hook::Hook,
        path::{CtState, Direction},
    },
};

mod properties;
mod targets;

/// One address is local.
struct OneLocal(IpAddr);

impl Routes for OneLocal {
    fn depends_on_source(&self) -> bool {
        false
    }

    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        let kind = if query.to == self.0 { RouteType::Local } else { RouteType::Unicast };
        Ok(Route { kind, interface: Some(Interface::named("eth0")), source: None })
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        Ok(self.route(query)?.kind)
    }

    fn address_of(&self, _: &Interface, _: Layer3, _: Option<IpAddr>) -> Attr<Option<IpAddr>> {
        Ok(None)
    }
}

fn local() -> OneLocal {
    OneLocal("192.0.2.1".parse().unwrap())
}

fn tuple(source: &str, destination: &str, proto: u8, l4: L4) -> Tuple {
    Tuple { src: source.parse().unwrap(), dst: destination.parse().unwrap(), proto, l4 }
}

/// A packet of TCP of which everything is known.
fn whole(v6: bool) -> Packet {
    let ports = L4::Ports { src: 40_000, dst: 443 };
    let tuple = if v6 {
        tuple("2001:db8::1", "2001:db8::2", 6, ports)
    } else {
        tuple("192.0.2.1", "198.51.100.7", 6, ports)
    };
    let mut packet = Packet::of(&tuple).unwrap();
    packet.transport_mut().set(0, &40_000_u16.to_be_bytes());
    packet.transport_mut().set(4, &[0; 8]);
    packet.transport_mut().set(12, &[0x60, 0x02]);
    packet.transport_mut().set(14, &[0; 6]);
    packet.transport_mut().set(20, &[2, 4, 0x05, 0xb4]);
    if !v6 {
        packet.network_mut().set(0, &[0x45]);
    }
    packet.set_length(if v6 { 64 } else { 44 });
    packet.set_ttl(64);
    packet.set_dscp_and_ecn(0xb8);
    let mut link = Header::UNKNOWN;
    link.set(0, &[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7, 8, 0]);
    packet.link = Some(link);
    let eth0 = Interface { hardware: Ok(1), group: Ok(5), ..Interface::named("eth0") };
    packet.input = Ok(Some(eth0));
    packet.output = Ok(None);
    packet.packet_type = Ok(PacketType::Host);
    packet.mark = Word::new(0x17, Attribute::Mark.into());
    packet.owner = Ok(None);
    packet.tracking = Tracking {
        state: Ok(CtState::New),
        direction: Ok(Direction::Original),
        status: Word::new(Status::DST_NAT.0, Attribute::CtStatus.into()),
        mark: Word::new(0x2a, Attribute::CtMark.into()),
        original: Ok(tuple),
        reply: Ok(Tuple {
            src: tuple.dst,
            dst: tuple.src,
            proto: 6,
            l4: L4::Ports { src: 443, dst: 40_000 },
        }),
        helper: Ok(String::new()),
        labels: Ok([0; 16]),
        ..Tracking::unknown()
    };
    packet
}

fn result(found: &Match, packet: &Packet) -> MatchResult {
    let routes = local();
    found.result(packet, &Context { hook: Hook::Prerouting, routes: &routes })
}

/// What a match that does not drop says.
fn says(name: &str, revision: u32, info: &[u8], packet: &Packet) -> Decision {
    match result(&Match::decode(name, revision, info), packet) {
        MatchResult::Matches(decision) => decision,
        other => panic!("{name}: {other:?}"),
    }
}

fn undecided(why: impl Into<Unknown>) -> Decision {
    Decision::Undecided(why.into().into())
}

/// `struct xt_tcp`.
fn tcp(source: (u16, u16), destination: (u16, u16), flags: (u8, u8), inverted: u8) -> Vec<u8> {
    let ports = [source.0, source.1, destination.0, destination.1];
    let mut info: Vec<u8> = ports.into_iter().flat_map(u16::to_ne_bytes).collect();
    info.extend([0, flags.0, flags.1, inverted]);
    info
}

const ANY: (u16, u16) = (0, 0xffff);

#[test]
fn tcp_compares_ports_and_flags_each_inverted_or_not() {
    let packet = whole(false);
    for (info, holds) in [
        (tcp(ANY, (443, 443), (0, 0), 0), true),
        (tcp(ANY, (443, 443), (0, 0), 2), false),
        (tcp((0, 1023), ANY, (0, 0), 0), false),
        (tcp((0, 1023), ANY, (0, 0), 1), true),
        (tcp(ANY, ANY, (0x17, 0x02), 0), true),
        (tcp(ANY, ANY, (0x17, 0x12), 4), true),
        (tcp(ANY, ANY, (0x17, 0x02), 4), false),
    ] {
        assert_eq!(says("tcp", 0, &info, &packet), holds.into(), "{info:?}");
    }
}

#[test]
fn fragments_have_no_ports_and_the_one_that_overwrites_flags_is_dropped() {
    let info = tcp(ANY, ANY, (0, 0), 3);
    let mut packet = whole(false);
    packet.set_fragment_offset(1);
    assert_eq!(result(&Match::decode("tcp", 0, &info), &packet), MatchResult::Drops);
    packet.set_fragment_offset(2);
    assert_eq!(says("tcp", 0, &info, &packet), Decision::No);
    let multiport = [&[1, 1][..], &[0; 46]].concat();
    assert_eq!(says("multiport", 1, &multiport, &packet), Decision::No);
    assert_eq!(says("udp", 0, &[0; 10], &packet), Decision::No);
}

#[test]
fn a_known_part_decides_where_another_one_is_unknown() {
    let mut packet = whole(false);
    packet.forget_port(Side::Source);
    let narrow = tcp((1, 1), (443, 443), (0, 0), 0);
    assert_eq!(says("tcp", 0, &narrow, &packet), undecided(Attribute::SourcePort));
    let wrong = tcp((1, 1), (80, 80), (0, 0), 0);
    assert_eq!(says("tcp", 0, &wrong, &packet), Decision::No);
    assert_eq!(says("tcp", 0, &tcp(ANY, (443, 443), (0, 0), 0), &packet), Decision::Yes);
    // Bits of flags, each by itself.
    packet.transport_mut().forget(13, 1);
    packet.set_tcp_flags(0x10, 0x10);
    assert_eq!(says("tcp", 0, &tcp(ANY, ANY, (0x12, 0x02), 0), &packet), Decision::No);
    let open = says("tcp", 0, &tcp(ANY, ANY, (0x12, 0x12), 0), &packet);
    assert_eq!(open, undecided(Attribute::TcpFlags));
}

#[test]
fn options_of_tcp_are_found_in_the_header() {
    let mut info = tcp(ANY, ANY, (0, 0), 0);
    let mut packet = whole(false);
    for (option, inverted, holds) in [(2, 0, true), (2, 8, false), (3, 0, false), (3, 8, true)] {
        (info[8], info[11]) = (option, inverted);
        assert_eq!(says("tcp", 0, &info, &packet), holds.into());
    }
    let mss = |first: u16, last: u16, inverted: u8| {
        [&first.to_ne_bytes()[..], &last.to_ne_bytes(), &[inverted]].concat()
    };
    assert_eq!(says("tcpmss", 0, &mss(1460, 1460, 0), &packet), Decision::Yes);
    assert_eq!(says("tcpmss", 0, &mss(1400, 1459, 0), &packet), Decision::No);
    packet.transport_mut().set(12, &[0x50]);
    assert_eq!(says("tcpmss", 0, &mss(0, 1, 1), &packet), Decision::Yes, "none, inverted");
    packet.transport_mut().forget(12, 1);
    assert_eq!(says("tcpmss", 0, &mss(0, 1, 1), &packet), undecided(Attribute::TcpOptions));
}

#[test]
fn multiport_has_ranges_and_either_side() {
    let info = |side: u8, inverted: u8| {
        let mut info = vec![side, 3];
        info.extend([22_u16, 440, 450].into_iter().flat_map(u16::to_ne_bytes));
        info.resize(32, 0);
        // 440:450.
        info.extend([0, 1, 0]);
        info.resize(47, 0);
        info.push(inverted);
        info
    };
    let mut packet = whole(false);
    for (side, inverted, holds) in
        [(0, 0, false), (1, 0, true), (2, 0, true), (1, 1, false), (0, 1, true)]
    {
        assert_eq!(says("multiport", 1, &info(side, inverted), &packet), holds.into());
    }
    packet.forget_port(Side::Source);
    assert_eq!(says("multiport", 1, &info(2, 0), &packet), Decision::Yes, "the other one decides");
}

/// `struct xt_conntrack_mtinfo3` with states alone, or with a direction.
fn conntrack(flags: u16, inverted: u16, states: u16) -> Vec<u8> {
    let mut info = vec![0; 146];
    info.extend([flags, inverted, states].into_iter().flat_map(u16::to_ne_bytes));
    info.resize(168, 0);
    info
}

const STATE: u16 = 1;
const DIRECTION: u16 = 1 << 12;

#[test]
fn conntrack_compares_the_state_of_packets_with_and_without_an_entry() {
    use super::conntrack::{DNAT, ESTABLISHED, INVALID, NEW, SNAT, UNTRACKED};
    let mut packet = whole(false);
    let state = |mask, packet: &Packet| says("conntrack", 3, &conntrack(STATE, 0, mask), packet);
    assert_eq!(state(NEW | ESTABLISHED, &packet), Decision::Yes);
    assert_eq!(state(DNAT, &packet), Decision::Yes);
    assert_eq!(state(SNAT | INVALID, &packet), Decision::No);
    assert_eq!(says("conntrack", 3, &conntrack(STATE, STATE, NEW), &packet), Decision::No);
    for (none, bit) in
        [(CtState::Untracked, UNTRACKED), (CtState::Invalid, INVALID), (CtState::Early, INVALID)]
    {
        packet.tracking = Tracking::without_entry(none);
        assert_eq!(state(bit, &packet), Decision::Yes, "{none:?}");
        assert_eq!(state(!bit, &packet), Decision::No, "{none:?}");
        // The direction is not compared, and alone it does not match.
        let with = conntrack(STATE | DIRECTION, DIRECTION, bit);
        assert_eq!(says("conntrack", 3, &with, &packet), Decision::Yes);
        assert_eq!(says("conntrack", 3, &conntrack(DIRECTION, 0, 0), &packet), Decision::No);
        assert_eq!(says("connmark", 1, &[0; 12], &packet), Decision::No);
        assert_eq!(says("connmark", 1, &[0, 0, 0, 0, 0, 0, 0, 0, 1], &packet), Decision::No);
    }
    packet.tracking = Tracking::unknown();
    assert_eq!(state(NEW, &packet), undecided(Attribute::CtState));
}

#[test]
fn conntrack_compares_tuples_and_direction() {
    let packet = whole(false);
    let direction = |inverted| conntrack(DIRECTION, inverted, 0);
    assert_eq!(says("conntrack", 3, &direction(0), &packet), Decision::Yes);
    assert_eq!(says("conntrack", 3, &direction(DIRECTION), &packet), Decision::No);
    // The source of the reply, 198.51.100.0/24; and its port.
    let mut info = conntrack(1 << 4 | 1 << 10, 0, 0);
    info[64..68].copy_from_slice(&[198, 51, 100, 99]);
    info[80..84].copy_from_slice(&[255, 255, 255, 0]);
    info[142..144].copy_from_slice(&440_u16.to_ne_bytes());
    info[158..160].copy_from_slice(&450_u16.to_ne_bytes());
    assert_eq!(says("conntrack", 3, &info, &packet), Decision::Yes);
    info[158..160].copy_from_slice(&442_u16.to_ne_bytes());
    assert_eq!(says("conntrack", 3, &info, &packet), Decision::No);
    let mut open = packet;
    open.tracking.reply = Err(Attribute::CtTuple.into());
    assert_eq!(says("conntrack", 3, &info, &open), undecided(Attribute::CtTuple));
}

#[test]
fn marks_are_compared_bit_by_bit() {
    let mut packet = whole(false);
    let info = |mark: u32, mask: u32, inverted: u8| {
        [&mark.to_ne_bytes()[..], &mask.to_ne_bytes(), &[inverted]].concat()
    };
    assert_eq!(says("mark", 1, &info(0x7, 0xf, 0), &packet), Decision::Yes);
    assert_eq!(says("mark", 1, &info(0x7, 0xff, 0), &packet), Decision::No);
    assert_eq!(says("mark", 1, &info(0x7, 0xff, 1), &packet), Decision::Yes);
    assert_eq!(says("connmark", 1, &info(0x2a, u32::MAX, 0), &packet), Decision::Yes);
    packet.mark = Word::partly(1, 1, Unknown::Limit);
    assert_eq!(says("mark", 1, &info(0, 0xf, 0), &packet), Decision::No);
    assert_eq!(says("mark", 1, &info(1, 0xf, 0), &packet), undecided(Unknown::Limit));
}

#[test]
fn the_type_of_an_address_is_asked_of_the_routes() {
    let packet = whole(false);
    let info = |source: u16, destination: u16, flags: u32| {
        [&source.to_ne_bytes()[..], &destination.to_ne_bytes(), &flags.to_ne_bytes()].concat()
    };
    assert_eq!(says("addrtype", 1, &info(1 << 2, 0, 0), &packet), Decision::Yes);
    assert_eq!(says("addrtype", 1, &info(1 << 2, 1 << 2, 0), &packet), Decision::No);
    assert_eq!(says("addrtype", 1, &info(1 << 2, 1 << 2, 2), &packet), Decision::Yes);
    let group = Packet::new("192.0.2.9".parse().unwrap(), "224.0.0.5".parse().unwrap(), 17);
    let multicast = says("addrtype", 1, &info(0, 1 << 5, 0), &group.unwrap());
    assert_eq!(multicast, Decision::Yes);
}

#[test]
fn owners_are_of_packets_that_have_a_socket() {
    let mut packet = whole(false);
    let info = |matches: u8, inverts: u8| {
        let ids = [1000_u32, 1999, 100, 100].into_iter().flat_map(u32::to_ne_bytes);
        ids.chain([matches, inverts]).collect::<Vec<u8>>()
    };
    assert_eq!(says("owner", 1, &info(1, 0), &packet), Decision::No);
    assert_eq!(says("owner", 1, &info(1, 1), &packet), Decision::Yes);
    assert_eq!(says("owner", 1, &info(4, 4), &packet), Decision::Yes);
    packet.owner = Ok(Some(SocketOwner { uid: 1500, gid: 5 }));
    assert_eq!(says("owner", 1, &info(1, 0), &packet), Decision::Yes);
    assert_eq!(says("owner", 1, &info(3, 0), &packet), Decision::No);
    assert_eq!(says("owner", 1, &info(3, 2), &packet), Decision::Yes);
    assert_eq!(says("owner", 1, &info(11, 0), &packet), undecided(Attribute::Owner));
    assert_eq!(says("owner", 1, &info(4, 4), &packet), Decision::No);
}

#[test]
fn mac_addresses_are_of_packets_that_came_in() {
    let mut packet = whole(false);
    let info = |last: u8, inverted: u8| [2, 0, 0, 0, 0, last, 0, 0, inverted, 0, 0, 0];
    assert_eq!(says("mac", 0, &info(7, 0), &packet), Decision::Yes);
    assert_eq!(says("mac", 0, &info(7, 1), &packet), Decision::No);
    packet.link = None;
    assert_eq!(says("mac", 0, &info(7, 1), &packet), Decision::No, "neither inverted");
}

#[test]
fn fields_of_the_ip_header() {
    for v6 in [false, true] {
        let packet = whole(v6);
        let holds = |name, revision, info: &[u8]| says(name, revision, info, &packet);
        assert_eq!(holds(if v6 { "hl" } else { "ttl" }, 0, &[0, 64]), Decision::Yes);
        assert_eq!(holds("ttl", 0, &[2, 64]), Decision::No);
        assert_eq!(holds("dscp", 0, &[46, 0]), Decision::Yes);
        assert_eq!(holds("tos", 1, &[0x3f, 0x38, 0]), Decision::Yes);
        assert_eq!(holds("tos", 1, &[0x3f, 0x38, 1]), Decision::No);
        let length = if v6 { [64, 0, 64, 0, 0] } else { [44, 0, 44, 0, 0] };
        assert_eq!(holds("length", 0, &length), Decision::Yes);
        assert_eq!(holds("ecn", 0, &[0x11, 0x10, 0, 0]), Decision::Yes, "no ECE, not ECT");
    }
}

#[test]
fn u32_follows_the_headers() {
    // 6&0xFF=6: the protocol of IPv4, whatever the flags of fragments before it are; 0>>22&0x3C@12>>26=0x18: bits of TCP's header behind it.
    let test = |numbers: &[(u32, u8)], (first, last): (u32, u32)| {
        let mut bytes = vec![0; 180];
        for (index, (number, operation)) in numbers.iter().enumerate() {
            bytes[8 * index..8 * index + 4].copy_from_slice(&number.to_ne_bytes());
            bytes[8 * index + 4] = *operation;
        }
        bytes[88..92].copy_from_slice(&first.to_ne_bytes());
        bytes[92..96].copy_from_slice(&last.to_ne_bytes());
        (bytes[176], bytes[177]) = (numbers.len() as u8, 1);
        bytes
    };
    let info = |tests: Vec<Vec<u8>>, inverted: u8| {
        let count = tests.len() as u8;
        let mut info = tests.concat();
        info.resize(11 * 180, 0);
        info.extend([count, inverted]);
        info
    };
    let protocol = test(&[(6, 0), (0xff, 0)], (6, 6));
    let header = test(&[(0, 0), (22, 2), (0x3c, 0), (12, 3), (26, 2)], (0x18, 0x18));
    let beyond = test(&[(41, 0)], (0, u32::MAX));
    let packet = whole(false);
    assert_eq!(says("u32", 0, &info(vec![protocol.clone(), header], 0), &packet), Decision::Yes);
    assert_eq!(says("u32", 0, &info(vec![protocol.clone()], 1), &packet), Decision::No);
    assert_eq!(says("u32", 0, &info(vec![beyond], 1), &packet), Decision::Yes);
    let bare = Packet::of(&tuple("192.0.2.1", "192.0.2.2", 6, L4::None)).unwrap();
    assert_eq!(says("u32", 0, &info(vec![protocol], 0), &bare), undecided(Attribute::Length));
}

#[test]
fn what_nobody_knows_is_undecided() {
    let packet = whole(false);
    for (name, why) in [
        ("limit", Unknown::Limit),
        ("recent", Unknown::DynamicSet),
        ("time", Unknown::Time),
        ("quota", Unknown::Quota),
        ("nosuch", Unknown::Extension),
    ] {
        assert_eq!(says(name, 0, &[0; 64], &packet), undecided(why));
    }
    // Too short.
    assert_eq!(says("tcp", 0, &[0; 11], &packet), undecided(Unknown::Extension));
    assert_eq!(says("conntrack", 3, &[0; 100], &packet), undecided(Unknown::Extension));
}
