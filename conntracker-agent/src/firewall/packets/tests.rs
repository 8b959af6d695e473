use std::sync::Arc;

use super::*;
use crate::{
    firewall::evaluate::{Decision, packet::Side, routing_tables::RoutingTables, unknown::Unknown},
    model::{
        FlowKey, L4, NetnsId, Status, Tuple, Zone,
        path::{Outcome, Traversal},
    },
};

fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let l4 = L4::Ports { src: sport, dst: dport };
    Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto: 6, l4 }
}

/// A forwarded flow whose destination and source are translated.
fn translated() -> Flow {
    let orig = tuple("10.77.1.2", 40_000, "10.77.1.1", 2222);
    let key = FlowKey { netns: NetnsId(0), zone: Zone(0), orig, entry: true };
    let mut flow = Flow::new(key, 1);
    flow.reply = Some(tuple("10.77.2.2", 443, "10.77.2.1", 6000));
    flow.status = Status(Status::SRC_NAT.0 | Status::DST_NAT.0 | Status::CONFIRMED.0);
    flow.interfaces = Some((1, 2));
    flow.origins.packets = true;
    flow
}

fn path(hook: Hook, direction: Direction, state: CtState) -> Traversal {
    Traversal {
        hook,
        direction,
        state,
        outcome: Outcome::Passed,
        epoch: 1,
        packet_mark: (5, 5),
        marks: Arc::new([]),
        connmark: Some((7, 7)),
        nat: None,
        fragment: false,
        steps: Arc::new([]),
        doubt: None,
    }
}

fn interface(number: u32) -> Option<Interface> {
    Some(Interface::named(["lan", "wan"].get(number as usize - 1)?))
}

fn ends(packet: &Packet) -> String {
    let end = |side| {
        let port = packet.port(side).map_or("?".to_owned(), |port| port.unwrap().to_string());
        format!("{}:{port}", packet.address(side).map_or("?".to_owned(), |of| of.to_string()))
    };
    format!("{} {}", end(Side::Source), end(Side::Destination))
}

#[test]
fn addresses_are_those_before_or_behind_translation_by_hook_and_direction() {
    let flow = translated();
    let recorded = Recorded::new(&flow, false, interface);
    for (hook, direction, wanted) in [
        (Hook::Prerouting, Direction::Original, "10.77.1.2:40000 10.77.1.1:2222"),
        (Hook::Forward, Direction::Original, "10.77.1.2:40000 10.77.2.2:443"),
        (Hook::Postrouting, Direction::Original, "10.77.1.2:40000 10.77.2.2:443"),
        (Hook::Prerouting, Direction::Reply, "10.77.2.2:443 10.77.2.1:6000"),
        (Hook::Forward, Direction::Reply, "10.77.2.2:443 10.77.1.2:40000"),
        (Hook::Postrouting, Direction::Reply, "10.77.2.2:443 10.77.1.2:40000"),
    ] {
        let packets = recorded.at(&path(hook, direction, CtState::Established));
        let [packet] = packets.as_slice() else { panic!("{packets:?}") };
        assert_eq!(ends(packet), wanted, "{hook:?} {direction:?}");
        assert_eq!((packet.mark.get(), packet.tracking.mark.get()), (Ok(5), Ok(7)));
        assert_eq!(packet.tracking.state, Ok(CtState::Established));
    }
}

#[test]
fn what_is_not_recorded_is_unknown() {
    let flow = translated();
    let recorded = Recorded::new(&flow, false, interface);
    let [packet] = &recorded.at(&path(Hook::Forward, Direction::Reply, CtState::Established))[..]
    else {
        panic!("one packet");
    };
    assert_eq!(packet.input, Err(Unknown::Attribute(Attribute::InputInterface)));
    assert_eq!(packet.tcp_flags(), Err(Attribute::TcpFlags.into()));
    assert_eq!(packet.ttl(), Err(Attribute::Ttl.into()));
    // The first packet of a flow, or another one before an answer.
    let new = path(Hook::Forward, Direction::Original, CtState::New);
    let packets = recorded.at(&new);
    assert_eq!(packets.len(), 2);
    let confirmed = Status::CONFIRMED.0;
    let status = packets.iter().map(|packet| packet.tracking.status.has(confirmed, confirmed));
    assert_eq!(status.collect::<Vec<_>>(), [Decision::No, Decision::Yes]);
    assert_eq!(packets[0].input.as_ref().unwrap().as_ref().unwrap().text(), "lan");
}

#[test]
fn ports_of_folded_flows_are_unknown() {
    let mut flow = translated();
    flow.key.orig = flow.key.orig.folded();
    let recorded = Recorded::new(&flow, true, interface);
    let sample = recorded.first(&RoutingTables::default()).unwrap();
    assert_eq!(ends(&sample.packet), "10.77.1.2:? 10.77.1.1:2222");
    assert_eq!(sample.origin, Origin::Received);
    assert_eq!(sample.packet.tcp_flags(), Err(Attribute::TcpFlags.into()));
}

#[test]
fn an_entry_answers_where_it_came_from() {
    let mut flow = translated();
    flow.status = Status(flow.status.0 | Status::SEEN_REPLY.0);
    let recorded = Recorded::new(&flow, false, interface);
    let entry = recorded.entry_now().unwrap();
    let reply = entry.packet(Direction::Reply).unwrap();
    assert_eq!(ends(&reply.packet), "10.77.2.2:443 10.77.2.1:6000");
    assert_eq!(reply.packet.input.unwrap().unwrap().text(), "wan");
    let original = entry.packet(Direction::Original).unwrap();
    assert_eq!(ends(&original.packet), "10.77.1.2:40000 10.77.1.1:2222");
    // One that has ended is not there.
    flow.ended = flow.merged();
    assert!(Recorded::new(&flow, false, interface).entry_now().is_none());
}
