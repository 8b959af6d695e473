//! The merge, source by source and in every order.

use proptest::prelude::*;

use super::*;
use crate::model::{
    Cause, DropPoint, Drops, Flow, L4, Mark, ZoneDir,
    counters::Counters,
    event::{DroppedEntry, DroppedPackets, Entry, EntryEnd, EntrySource, EventKind::*},
    flow::Counted,
};

mod headers;
mod limits;
mod orders;
mod spilled;
mod times;

const NS: NetnsId = NetnsId(0);

fn tuple(sport: u16) -> Tuple {
    Tuple {
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        proto: 17,
        l4: L4::Ports { src: sport, dst: 53 },
    }
}

/// The first packet of an entry, or of its reply direction.
fn packet(sport: u16) -> EntryPacket {
    EntryPacket {
        zone: Zone::DEFAULT,
        orig: tuple(sport),
        entry: EntryState {
            reply: tuple(sport).inverted().unwrap(),
            zone_dir: ZoneDir::Both,
            status: Status::default(),
            mark: Some(Mark(0)),
            process: None,
        },
        packet_mark: Mark(0),
        interfaces: Some((2, 3)),
        counted: None,
    }
}

/// A dropped packet.
fn dropped(orig: Tuple, entry: DroppedEntry) -> DroppedPackets {
    let point = DropPoint { cause: Cause::Netfilter, hook: Some(4), iif: 2, oif: 3 };
    DroppedPackets {
        zone: Zone::DEFAULT,
        orig,
        entry,
        point,
        path_hash: 0,
        packets: 1,
        first_ns: 0,
    }
}

fn entry(sport: u16, id: u32, packets: u64) -> Entry {
    Entry {
        orig: tuple(sport),
        reply: tuple(sport).inverted(),
        parent: None,
        zone: Zone::DEFAULT,
        zone_dir: ZoneDir::Both,
        status: Status::CONFIRMED,
        timeout: Some(30),
        mark: Some(Mark(0)),
        secctx: None,
        id: Some(id),
        use_count: Some(1),
        counters: [Some(Counters { packets, bytes: packets * 100 }), None],
        start_ns: None,
        stop_ns: None,
        helper: None,
        labels: Vec::new(),
        state: None,
    }
}

impl FlowTable {
    /// Something is seen in the first namespace.
    fn see(&mut self, at_ns: u64, kind: EventKind) {
        self.take(FlowEvent { netns: NS, at_ns, kind });
    }

    fn see_event(&mut self, at_ns: u64, source: EntrySource, entry: Entry) {
        self.see(at_ns, Entry(source, Box::new(entry)));
    }
}

fn table(fold: bool) -> FlowTable {
    FlowTable::new(fold, 1_000)
}

fn dump(table: &mut FlowTable, entries: &[Entry], at_ns: u64) {
    table.see(at_ns, DumpBegan);
    for entry in entries {
        table.see_event(at_ns + 1, EntrySource::Dump, entry.clone());
    }
    table.see(at_ns + 2, DumpEnded { whole: true });
}

/// The flows, but for packets of which no flow is known.
fn flows(table: &FlowTable) -> Vec<Flow> {
    table.flows.iter().cloned().map(Line::flow).collect()
}

/// Lines of packets of which no flow is known.
fn without_entry(table: &FlowTable) -> Vec<Flow> {
    table.lines_without_entry().into_iter().map(Line::flow).collect()
}

/// The only flow.
fn only(table: &FlowTable) -> Flow {
    let [flow] = &flows(table)[..] else { panic!("{} flows", table.len()) };
    flow.clone()
}

#[test]
fn a_record_and_a_dump_of_one_entry_are_one_flow_in_either_order() {
    let mut first = table(false);
    first.see(101, New(packet(5000)));
    dump(&mut first, &[entry(5000, 1, 1)], 100);
    assert_eq!(only(&first).merged(), 1);

    let mut second = table(false);
    dump(&mut second, &[entry(5000, 1, 1)], 100);
    second.see(101, New(packet(5000)));
    assert_eq!(only(&second).merged(), 1);
    assert!(only(&second).origins.packets && only(&second).origins.dump);
}

#[test]
fn a_tuple_used_again_after_the_first_dump_is_another_conntrack_flow() {
    let mut t = table(false);
    dump(&mut t, &[entry(5000, 1, 1)], 100);
    t.see(500, New(packet(5000)));
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn the_kernels_count_of_a_folded_key_is_not_added_to_by_later_dumps() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1)], 100);
    t.see(0, KernelCounts);
    let counted =
        |count| EntryPacket { counted: Some(Counted { since_ns: 7, count }), ..packet(6000) };
    t.see(200, New(counted(1)));
    t.see(300, New(counted(4)));
    dump(&mut t, &[entry(5001, 2, 1), entry(6000, 3, 1), entry(6003, 4, 1)], 400);
    assert_eq!(only(&t).merged(), 2 + 4);
}

#[test]
fn a_later_dump_brings_to_light_what_no_record_told_and_the_kernels_count_settles_how_many() {
    let mut t = table(true);
    dump(&mut t, &[], 100);
    t.see(0, KernelCounts);
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1)], 400);
    assert_eq!(only(&t).merged(), 1, "one at least");
    let counted = CountedFlows {
        orig: tuple(5000).folded(),
        zone: Zone::DEFAULT,
        counted: Counted { since_ns: 7, count: 2 },
        replied: false,
    };
    t.see(500, Counted(counted));
    t.see(501, Counted(counted));
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn confirmed_is_sticky() {
    let mut t = table(true);
    let mut replied = packet(5000);
    replied.entry.status = Status::SEEN_REPLY;
    t.see(10, Replied(replied));
    t.see(20, New(packet(5001)));
    assert!(only(&t).confirmed());
}

#[test]
fn events_and_a_dump_of_the_same_entries_count_each_once() {
    let mut t = table(true);
    t.see_event(90, EntrySource::UpdateEvent, entry(5000, 1, 0));
    dump(&mut t, &[entry(5000, 1, 2), entry(5001, 2, 1)], 100);
    t.see_event(101, EntrySource::UpdateEvent, entry(5001, 2, 0));
    t.see_event(102, EntrySource::UpdateEvent, entry(5001, 2, 0));
    assert_eq!(only(&t).merged(), 2);
    t.see_event(200, EntrySource::EndEvent, entry(5001, 2, 3));
    t.see_event(300, EntrySource::UpdateEvent, entry(5001, 9, 0));
    assert_eq!(only(&t).merged(), 3);
}

#[test]
fn accounting_adds_what_grew_and_survives_the_end_of_an_entry() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 10)], 100);
    dump(&mut t, &[entry(5000, 1, 15)], 200);
    t.see_event(300, EntrySource::EndEvent, entry(5000, 1, 18));
    t.see_event(300, EntrySource::EndEvent, entry(5002, 2, 7));
    assert_eq!(only(&t).counters.unwrap()[0], Counters { packets: 25, bytes: 2500 });
}

#[test]
fn a_dropped_reply_known_by_its_headers_belongs_to_the_flow_it_replies_to() {
    let mut t = table(true);
    // Translated: the reply comes from another address than the original went to.
    let mut new = packet(5000);
    let reply = Tuple { src: "192.0.2.9".parse().unwrap(), ..tuple(5000).inverted().unwrap() };
    new.entry.reply = reply;
    t.see(10, New(new));
    t.see(20, Dropped(dropped(reply, DroppedEntry::None { quotes: None })));
    assert_eq!(only(&t).drops.as_ref().unwrap().packets(), 1);
    assert_eq!(only(&t).merged(), 1);
}

#[test]
fn a_flow_only_ever_dropped_has_packets_but_no_conntrack_flow() {
    let mut t = table(true);
    let first = dropped(tuple(5000), DroppedEntry::State(packet(5000).entry));
    t.see(20, Dropped(DroppedPackets { packets: 0, ..first }));
    t.see(30, Dropped(headers::count(tuple(5000), DroppedEntry::Tuple, 8)));
    let flow = only(&t);
    assert!(flow.dropped() && !flow.confirmed());
    assert_eq!((flow.merged(), flow.drops.as_ref().unwrap().packets()), (0, 8));
}

#[test]
fn zones_and_namespaces_keep_equal_tuples_apart() {
    let mut t = table(true);
    t.see(10, New(packet(5000)));
    t.see(10, New(EntryPacket { zone: Zone(7), ..packet(5000) }));
    t.take(FlowEvent { netns: NetnsId(1), at_ns: 10, kind: New(packet(5000)) });
    assert_eq!(t.len(), 3);
}

#[test]
fn before_the_kernel_counts_a_second_dump_finds_the_flows_of_lost_records() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 1)], 100);
    t.see(150, New(packet(5001)));
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1), entry(5002, 3, 1)], 200);
    t.see(0, KernelCounts);
    assert_eq!(only(&t).merged(), 3);
}

fn end(sport: u16, packets: u64) -> EntryEnd {
    let counters = |packets| Counters { packets, bytes: packets * 100 };
    EntryEnd {
        zone: Zone::DEFAULT,
        orig: tuple(sport),
        reply: tuple(sport).inverted().unwrap(),
        zone_dir: ZoneDir::Both,
        status: Status::CONFIRMED,
        mark: Mark(3),
        confirmed: true,
        counters: Some([counters(packets), counters(2 * packets)]),
        start_ns: None,
        stop_ns: 0,
        state: None,
    }
}

#[test]
fn an_end_counts_no_flow_twice_and_its_counters_are_the_last() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 10)], 100);
    t.see(150, New(packet(5001)));
    t.see(200, Ended(EntryEnd { stop_ns: 190, ..end(5000, 15) }));
    t.see(210, Ended(EntryEnd { stop_ns: 205, ..end(5001, 4) }));
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.ended, flow.mark), (2, 2, Some(Mark(3))));
    assert_eq!(
        flow.counters.unwrap(),
        [Counters { packets: 19, bytes: 1900 }, Counters { packets: 38, bytes: 3800 }]
    );
    let details = flow.details.as_deref().unwrap();
    assert_eq!((details.id, details.stop_ns), (Some(1), Some(205)));
}

#[test]
fn an_end_of_which_no_record_told_the_beginning_is_a_flow_unless_the_kernel_counts_it() {
    let mut t = table(true);
    t.see(100, Ended(EntryEnd { stop_ns: 100, ..end(5000, 1) }));
    t.see(100, Ended(EntryEnd { stop_ns: 100, ..end(5001, 1) }));
    assert_eq!(only(&t).merged(), 2);

    let mut t = table(true);
    t.see(0, KernelCounts);
    let counted = Some(Counted { since_ns: 7, count: 2 });
    t.see(100, New(EntryPacket { counted, ..packet(5000) }));
    t.see(200, Ended(EntryEnd { stop_ns: 200, ..end(5000, 1) }));
    t.see(200, Ended(EntryEnd { stop_ns: 200, ..end(5001, 1) }));
    assert_eq!((only(&t).merged(), only(&t).ended), (2, 2));
    assert_eq!(only(&t).counters.unwrap()[0].packets, 2);
}

#[test]
fn a_tuple_used_again_is_another_flow_with_counters_of_its_own() {
    let mut t = table(false);
    t.see(100, New(packet(5000)));
    t.see(200, Ended(EntryEnd { stop_ns: 200, ..end(5000, 5) }));
    t.see(300, New(packet(5000)));
    dump(&mut t, &[entry(5000, 2, 1)], 400);
    t.see(500, Ended(EntryEnd { stop_ns: 500, ..end(5000, 3) }));
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.ended), (2, 2));
    assert_eq!(flow.counters.unwrap()[0].packets, 8);
}

#[test]
fn what_a_dump_shows_of_an_entry_that_has_ended_meanwhile_changes_nothing() {
    let mut t = table(true);
    t.see(50, New(packet(5000)));
    t.see(100, DumpBegan);
    t.see(150, Ended(EntryEnd { stop_ns: 150, ..end(5000, 5) }));
    t.see_event(160, EntrySource::Dump, entry(5000, 1, 4));
    // Another flow, at the time of the next dump.
    t.see(170, DumpEnded { whole: true });
    assert_eq!((only(&t).merged(), only(&t).counters.unwrap()[0].packets), (1, 5));
    dump(&mut t, &[entry(5000, 2, 7)], 200);
    assert_eq!((only(&t).merged(), only(&t).counters.unwrap()[0].packets), (2, 12));
}

#[test]
fn a_dump_that_fails_leaves_no_ended_entries_behind() {
    let mut t = table(true);
    t.see(100, DumpBegan);
    t.see(150, Ended(EntryEnd { stop_ns: 150, ..end(5000, 5) }));
    t.see(110, DumpEnded { whole: false });
    t.see(120, DumpBegan);
    t.see_event(160, EntrySource::Dump, entry(5000, 2, 7));
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn a_flow_that_was_never_confirmed_is_one_only_if_nothing_else_told_of_it() {
    let unconfirmed = |sport| EntryEnd {
        confirmed: false,
        status: Status::default(),
        counters: None,
        ..end(sport, 0)
    };
    let mut t = table(true);
    t.see(100, Ended(EntryEnd { stop_ns: 100, ..unconfirmed(5000) }));
    t.see(110, Ended(EntryEnd { stop_ns: 110, ..unconfirmed(5001) }));
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.never_confirmed(), flow.ended), (0, Some(2), 0));
    assert!(flow.reply.is_some() && flow.details.is_none() && !flow.confirmed());
    // Two packets of one query found each other's entry: one of them was confirmed.
    t.see(120, New(packet(5001)));
    assert_eq!((only(&t).merged(), only(&t).never_confirmed()), (1, None));

    let mut t = table(true);
    t.see(90, Dropped(dropped(tuple(5000), DroppedEntry::State(packet(5000).entry))));
    t.see(100, Ended(EntryEnd { stop_ns: 100, ..unconfirmed(5000) }));
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.never_confirmed()), (0, None));
    assert_eq!(flow.drops.as_ref().unwrap().packets(), 1);
}

proptest! {
    /// Ends, records and dumps of a few tuples, each entry's life in order: the flows that began are the
    /// flows that are counted, and each packet is counted once.
    #[test]
    fn each_entry_counts_once_and_all_its_packets_do(
        lives in prop::collection::vec((0u16..3, 0u64..50, 0u64..50, any::<bool>()), 1..30),
    ) {
        let mut t = table(true);
        let mut now = 1_000;
        let mut packets = 0;
        for (id, (sport, early, late, shown)) in (1u32..).zip(&lives) {
            t.see(now, New(packet(5000 + sport)));
            if *shown {
                dump(&mut t, &[entry(5000 + sport, id, *early)], now + 1);
            }
            t.see(now + 10, Ended(EntryEnd { stop_ns: now + 10, ..end(5000 + sport, early + late) }));
            packets += early + late;
            now += 100;
        }
        let flow = only(&t);
        prop_assert_eq!(flow.merged(), lives.len() as u64);
        prop_assert_eq!(flow.ended, lives.len() as u64);
        prop_assert_eq!(flow.counters.unwrap()[0].packets, packets);
    }
}
