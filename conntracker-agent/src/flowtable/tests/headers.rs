//! Packets without a conntrack entry: of which flow they are.

use proptest::prelude::*;

use super::*;

/// Dropped packets, as the kernel counts them.
pub(super) fn count(orig: Tuple, entry: DroppedEntry, packets: u64) -> DroppedPackets {
    let point = DropPoint { cause: Cause::Netfilter, hook: Some(0), iif: 7, oif: 0 };
    DroppedPackets { packets, point, first_ns: 20, ..dropped(orig, entry) }
}

/// Without an entry.
pub(super) fn without(orig: Tuple, packets: u64) -> DroppedPackets {
    count(orig, DroppedEntry::None { quotes: None }, packets)
}

fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    Tuple { src, dst, proto: 17, l4: L4::Ports { src: sport, dst: dport } }
}

/// A new flow whose source is translated.
fn masqueraded(client: &str, sport: u16, port: u16) -> EntryPacket {
    to(udp(client, sport, "10.0.0.2", 5353), udp("10.0.0.2", 5353, "192.0.2.1", port))
}

/// A new flow of two tuples.
fn to(orig: Tuple, reply: Tuple) -> EntryPacket {
    let mut packet = packet(0);
    (packet.orig, packet.entry.reply) = (orig, reply);
    packet
}

fn drops(flow: &Flow) -> u64 {
    flow.drops.as_deref().map_or(0, Drops::packets)
}

/// Packets dropped of the flow of a client.
fn dropped_of(t: &FlowTable, client: &str) -> u64 {
    let client: std::net::IpAddr = client.parse().unwrap();
    flows(t).iter().filter(|flow| flow.key.orig.src == client).map(drops).sum()
}

#[test]
fn replies_from_a_high_port_are_of_the_flow_that_they_reply_to() {
    let mut t = table(true);
    for sport in [30_001, 30_002] {
        let (there, back) =
            (udp("10.0.0.1", sport, "10.0.0.2", 5353), udp("10.0.0.2", 5353, "10.0.0.1", sport));
        t.see(10, New(to(there, back)));
    }
    for sport in [30_001, 30_002, 30_003] {
        t.see(30, Dropped(without(udp("10.0.0.2", 5353, "10.0.0.1", sport), 2)));
    }
    assert_eq!((drops(&only(&t)), without_entry(&t).len()), (6, 0));
}

#[test]
fn replies_to_two_masqueraded_clients_are_told_apart_by_their_exact_tuples() {
    let mut t = table(true);
    t.see(10, New(masqueraded("10.0.1.2", 40_001, 40_001)));
    t.see(11, New(masqueraded("10.0.1.3", 40_001, 31_191)));
    let reply = |port| udp("10.0.0.2", 5353, "192.0.2.1", port);
    t.see(30, Dropped(without(reply(40_001), 3)));
    t.see(30, Dropped(without(reply(31_191), 5)));
    // A flow of the first client that was only counted: nobody told its port.
    t.see(30, Dropped(without(reply(40_002), 4)));
    assert_eq!((dropped_of(&t, "10.0.1.2"), dropped_of(&t, "10.0.1.3")), (3, 5));
    let lines = without_entry(&t);
    assert!(lines.len() == 1 && lines[0].fits_several && drops(&lines[0]) == 4);
    assert!(t.wants_dump());
    let dumped = Entry {
        orig: udp("10.0.1.2", 40_002, "10.0.0.2", 5353),
        reply: Some(reply(40_002)),
        ..entry(0, 9, 1)
    };
    dump(&mut t, &[dumped], 100);
    assert_eq!((dropped_of(&t, "10.0.1.2"), without_entry(&t).len()), (7, 0));
}

#[test]
fn what_is_known_when_the_kernel_begins_to_count_holds_when_the_entry_is_gone() {
    let mut t = table(true);
    t.see(10, New(masqueraded("10.0.1.2", 40_001, 40_001)));
    t.see(11, New(masqueraded("10.0.1.3", 40_001, 31_191)));
    let reply = udp("10.0.0.2", 5353, "192.0.2.1", 31_191);
    t.see(20, Dropped(without(reply, 0)));
    // Nothing is there any more.
    dump(&mut t, &[], 100);
    t.see(200, Dropped(without(reply, 6)));
    assert_eq!((dropped_of(&t, "10.0.1.2"), dropped_of(&t, "10.0.1.3")), (0, 6));
}

#[test]
fn the_first_packet_without_an_entry_is_of_the_original_direction() {
    for fold in [true, false] {
        let mut t = table(fold);
        let there = udp("10.0.0.1", 30_001, "10.0.0.2", 5353);
        t.see(60, Dropped(without(there.inverted().unwrap(), 2)));
        t.see(50, Dropped(without(there, 3)));
        let lines = without_entry(&t);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].key.orig.src, there.src);
        assert!(!lines[0].key.entry && drops(&lines[0]) == 5);
    }
}

#[test]
fn equal_tuples_of_two_zones_are_told_apart_by_interface_or_not_at_all() {
    let mut t = table(true);
    for (zone, iif) in [(Zone(1), 7), (Zone(2), 8)] {
        let mut new = EntryPacket { zone, interfaces: Some((iif, 9)), ..packet(5000) };
        new.entry.zone_dir = ZoneDir::Original;
        t.see(10, New(new));
    }
    let by = |iif| {
        let mut packets = without(tuple(5000), 1);
        packets.point.iif = iif;
        packets
    };
    t.see(30, Dropped(by(7)));
    t.see(30, Dropped(by(8)));
    t.see(30, Dropped(by(8)));
    let of = |zone| flows(&t).iter().filter(|flow| flow.key.zone == zone).map(drops).sum::<u64>();
    assert_eq!((of(Zone(1)), of(Zone(2)), without_entry(&t).len()), (1, 2, 0));
    let mut unknown = by(5);
    t.see(30, Dropped(unknown.clone()));
    assert!(without_entry(&t)[0].fits_several);
    // A template says which zone it is.
    unknown.zone = Zone(2);
    t.see(30, Dropped(unknown.clone()));
    assert_eq!(flows(&t).iter().filter(|flow| flow.key.zone == Zone(2)).map(drops).sum::<u64>(), 3);
}

#[test]
fn an_entry_that_a_dump_shows_again_after_its_tuple_was_reused_is_counted_by_the_kernel_alone() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 1)], 100);
    let counted = |count| Some(Counted { since_ns: 7, count });
    t.see(0, KernelCounts);
    t.see(150, New(EntryPacket { counted: counted(1), ..packet(6000) }));
    t.see(160, New(EntryPacket { counted: counted(2), ..packet(5000) }));
    dump(&mut t, &[entry(5000, 2, 1), entry(6000, 3, 1)], 200);
    assert_eq!(only(&t).merged(), 3);
}

/// What may happen to a few flows.
#[derive(Clone, Debug)]
enum Happens {
    New(u8),
    DroppedEntry(u8, u8),
    DroppedOriginal(u8, u8),
    DroppedReply(u8, u8),
    Dump,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0u8..6).prop_map(Happens::New),
        (0u8..6, 1u8..4).prop_map(|(flow, n)| Happens::DroppedEntry(flow, n)),
        (0u8..6, 1u8..4).prop_map(|(flow, n)| Happens::DroppedOriginal(flow, n)),
        (0u8..6, 1u8..4).prop_map(|(flow, n)| Happens::DroppedReply(flow, n)),
        Just(Happens::Dump),
    ]
}

proptest! {
    #[test]
    fn no_order_of_events_loses_or_doubles_a_dropped_packet(
        all in prop::collection::vec(happens(), 1..60),
        fold in any::<bool>(),
    ) {
        let mut t = table(fold);
        let mut there = Vec::new();
        let mut sent = 0;
        let flow = |n: u8| {
            let client = if n.is_multiple_of(2) { "10.0.1.2" } else { "10.0.1.3" };
            masqueraded(client, 40_000 + u16::from(n), 50_000 + u16::from(n))
        };
        for (at, what) in (100u64..).step_by(10).zip(&all) {
            match *what {
                Happens::New(n) => {
                    t.see(at, New(flow(n)));
                    there.push(n);
                }
                Happens::DroppedEntry(n, packets) => {
                    let orig = flow(n).orig;
                    let orig = if fold { orig.folded() } else { orig };
                    t.see(at, Dropped(count(orig, DroppedEntry::Tuple, packets.into())));
                    sent += u64::from(packets);
                }
                Happens::DroppedOriginal(n, packets) => {
                    t.see(at, Dropped(without(flow(n).orig, packets.into())));
                    sent += u64::from(packets);
                }
                Happens::DroppedReply(n, packets) => {
                    t.see(at, Dropped(without(flow(n).entry.reply, packets.into())));
                    sent += u64::from(packets);
                }
                Happens::Dump => {
                    let entries: Vec<_> = there
                        .iter()
                        .map(|&n| Entry { orig: flow(n).orig, reply: Some(flow(n).entry.reply), ..entry(0, n.into(), 1) })
                        .collect();
                    dump(&mut t, &entries, at);
                }
            }
        }
        let told: u64 = flows(&t).iter().map(drops).sum::<u64>() + without_entry(&t).iter().map(drops).sum::<u64>();
        prop_assert_eq!(told, sent);
        prop_assert_eq!(t.drops_counted(), sent);
        // What is of a flow that was seen is never told of another client.
        for line in flows(&t).iter().filter(|flow| flow.key.entry) {
            prop_assert!(line.key.orig.src.to_string().starts_with("10.0.1."));
        }
    }
}
