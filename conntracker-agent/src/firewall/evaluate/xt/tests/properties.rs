use proptest::prelude::*;

use super::{targets::apply, *};

/// Names with their revisions.
const MATCHES: [(&str, u32); 33] = [
    ("addrtype", 0),
    ("addrtype", 1),
    ("ah", 0),
    ("connlabel", 0),
    ("connmark", 1),
    ("conntrack", 1),
    ("conntrack", 2),
    ("conntrack", 3),
    ("dccp", 0),
    ("devgroup", 0),
    ("dscp", 0),
    ("ecn", 0),
    ("esp", 0),
    ("eui64", 0),
    ("helper", 0),
    ("ttl", 0),
    ("icmp", 0),
    ("icmp6", 0),
    ("ipcomp", 0),
    ("iprange", 1),
    ("length", 0),
    ("mac", 0),
    ("mark", 1),
    ("mh", 0),
    ("multiport", 1),
    ("owner", 1),
    ("pkttype", 0),
    ("sctp", 0),
    ("state", 0),
    ("statistic", 0),
    ("tcp", 0),
    ("tcpmss", 0),
    ("u32", 0),
];

const TARGETS: [(&str, u32); 13] = [
    ("SNAT", 0),
    ("DNAT", 2),
    ("MASQUERADE", 0),
    ("NETMAP", 0),
    ("MARK", 2),
    ("CONNMARK", 1),
    ("CONNMARK", 2),
    ("CT", 2),
    ("TTL", 0),
    ("DSCP", 0),
    ("TOS", 1),
    ("SET", 3),
    ("TCPMSS", 0),
];

/// Makes one attribute unknown.
fn forget(packet: &mut Packet, what: usize) {
    match what {
        0 => packet.forget_address(Side::Source),
        1 => packet.forget_port(Side::Destination),
        2 => packet.transport_mut().forget(13, 1),
        3 => packet.transport_mut().forget(20, 40),
        4 => packet.network_mut().forget(1, 1),
        5 => packet.network_mut().forget(7, 2),
        6 => packet.mark = Word::partly(packet.mark.value(), 0xf, Unknown::Limit),
        7 => packet.tracking.state = Err(Unknown::Limit),
        8 => packet.tracking.original = Err(Unknown::Limit),
        9 => packet.tracking.status = Word::unknown(Unknown::Limit),
        10 => packet.tracking.mark = Word::partly(packet.tracking.mark.value(), 3, Unknown::Limit),
        11 => packet.input = Err(Unknown::Limit),
        12 => packet.link = Some(Header::UNKNOWN),
        13 => packet.owner = Err(Unknown::Limit),
        14 => packet.packet_type = Err(Unknown::Limit),
        15 => packet.tracking.direction = Err(Unknown::Limit),
        _ => packet.tracking.labels = Err(Unknown::Limit),
    }
}

proptest! {
    /// Whatever is made unknown, an answer that is still given is the same.
    #[test]
    fn what_is_unknown_changes_no_answer(
        at in 0..MATCHES.len(),
        info in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..2000),
        forgotten in proptest::collection::vec(0..17_usize, 1..4),
        v6: bool,
    ) {
        let (name, revision) = MATCHES[at];
        let found = Match::decode(name, revision, &info);
        let packet = whole(v6);
        let MatchResult::Matches(known) = result(&found, &packet) else { return Ok(()) };
        let mut less = packet;
        for what in forgotten {
            forget(&mut less, what);
        }
        let now = result(&found, &less);
        let open =
            matches!(now, MatchResult::Unknown(_) | MatchResult::Matches(Decision::Undecided(_)));
        prop_assert!(open || now == MatchResult::Matches(known), "{known:?} {now:?}");
    }

    #[test]
    fn targets_take_any_bytes(
        at in 0..TARGETS.len(),
        info in proptest::collection::vec(any::<u8>(), 0..100),
        v6: bool,
    ) {
        let (name, revision) = TARGETS[at];
        apply(name, revision, &info, &mut whole(v6));
    }
}
