//! The merge, source by source and in every order.

use proptest::prelude::*;

use super::*;
use crate::{
    bpf::{
        end::End,
        reasons::RawCause,
        record::{Dropped, Kind},
    },
    model::{L4, flow::Counted},
};

mod headers;
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

fn record(kind: Kind, sport: u16, ktime_ns: u64) -> Record {
    Record {
        kind,
        ktime_ns,
        netns_cookie: 1,
        orig: tuple(sport),
        reply: tuple(sport).inverted(),
        other: None,
        status: Status::default(),
        ct_mark: Some(0),
        packet_mark: 0,
        interfaces: Some((2, 3)),
        zone: 0,
        zone_dir: 3,
        hook: Some(4),
        fragment: false,
        counted: None,
        dropped: (kind == Kind::Drop).then_some(Dropped {
            counted: false,
            path_hash: 0,
            cause: RawCause::NETFILTER,
        }),
        owner: None,
    }
}

fn entry(sport: u16, id: u32, packets: u64) -> ConntrackEntry {
    ConntrackEntry {
        family: 2,
        orig: tuple(sport),
        reply: tuple(sport).inverted(),
        master: None,
        zone: 0,
        zone_orig: None,
        zone_reply: None,
        status: Status::CONFIRMED,
        timeout: Some(30),
        mark: Some(0),
        secmark: None,
        secctx: None,
        id: Some(id),
        use_count: Some(1),
        counters: [Some(Counters { packets, bytes: packets * 100 }), None],
        start: None,
        stop: None,
        timestamp_event: None,
        helper: None,
        helper_info: None,
        labels: Vec::new(),
        state: None,
        seqadj: [None; 2],
        synproxy: None,
        unknown: Vec::new(),
    }
}

fn table(fold: bool) -> FlowTable {
    FlowTable::new(fold)
}

fn dump(table: &mut FlowTable, entries: &[ConntrackEntry], at_ns: u64) {
    let dump = table.begin_dump(NS, at_ns);
    for entry in entries {
        table.dumped(dump, entry, at_ns + 1);
    }
    table.end_dump(dump);
}

/// The only flow.
fn only(table: &FlowTable) -> &Flow {
    assert_eq!(table.len(), 1);
    table.flows().next().unwrap()
}

#[test]
fn a_record_and_a_dump_of_one_entry_are_one_flow_in_either_order() {
    let mut first = table(false);
    first.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 101);
    dump(&mut first, &[entry(5000, 1, 1)], 100);
    assert_eq!(only(&first).merged(), 1);

    let mut second = table(false);
    dump(&mut second, &[entry(5000, 1, 1)], 100);
    second.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 101);
    assert_eq!(only(&second).merged(), 1);
    assert!(only(&second).origins.packets && only(&second).origins.dump);
}

#[test]
fn a_tuple_used_again_after_the_first_dump_is_another_conntrack_flow() {
    let mut t = table(false);
    dump(&mut t, &[entry(5000, 1, 1)], 100);
    t.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 500);
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn the_kernels_count_of_a_folded_key_is_not_added_to_by_later_dumps() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1)], 100);
    t.kernel_counts_from_now_on();
    let counted = |count| Record {
        counted: Some(Counted { since_ns: 7, count }),
        ..record(Kind::New, 6000, 0)
    };
    t.record(NS, &counted(1), Cause::Netfilter, 200);
    t.record(NS, &counted(4), Cause::Netfilter, 300);
    dump(&mut t, &[entry(5001, 2, 1), entry(6000, 3, 1), entry(6003, 4, 1)], 400);
    assert_eq!(only(&t).merged(), 2 + 4);
}

#[test]
fn a_later_dump_brings_to_light_what_no_record_told_and_the_kernels_count_settles_how_many() {
    let mut t = table(true);
    dump(&mut t, &[], 100);
    t.kernel_counts_from_now_on();
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1)], 400);
    assert_eq!(only(&t).merged(), 1, "one at least");
    let seen = Seen {
        netns_cookie: 1,
        orig: tuple(5000).folded(),
        zone: 0,
        counted: Counted { since_ns: 7, count: 2 },
        last_ns: 9,
        replied: false,
    };
    t.seen_flow(NS, &seen, 500);
    t.seen_flow(NS, &seen, 501);
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn confirmed_is_sticky() {
    let mut t = table(true);
    let mut replied = record(Kind::Replied, 5000, 0);
    replied.status = Status::SEEN_REPLY;
    t.record(NS, &replied, Cause::Netfilter, 10);
    t.record(NS, &record(Kind::New, 5001, 0), Cause::Netfilter, 20);
    assert!(only(&t).confirmed());
}

#[test]
fn events_and_a_dump_of_the_same_entries_count_each_once() {
    let mut t = table(true);
    t.event(NS, EventKind::New, &entry(5000, 1, 0), 90);
    dump(&mut t, &[entry(5000, 1, 2), entry(5001, 2, 1)], 100);
    t.event(NS, EventKind::New, &entry(5001, 2, 0), 101);
    t.event(NS, EventKind::Update, &entry(5001, 2, 0), 102);
    assert_eq!(only(&t).merged(), 2);
    t.event(NS, EventKind::Destroy, &entry(5001, 2, 3), 200);
    t.event(NS, EventKind::New, &entry(5001, 9, 0), 300);
    assert_eq!(only(&t).merged(), 3);
}

#[test]
fn accounting_adds_what_grew_and_survives_the_end_of_an_entry() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 10)], 100);
    dump(&mut t, &[entry(5000, 1, 15)], 200);
    t.event(NS, EventKind::Destroy, &entry(5000, 1, 18), 300);
    t.event(NS, EventKind::Destroy, &entry(5002, 2, 7), 300);
    assert_eq!(only(&t).counters.unwrap()[0], Counters { packets: 25, bytes: 2500 });
}

#[test]
fn a_dropped_reply_known_by_its_headers_belongs_to_the_flow_it_replies_to() {
    let mut t = table(true);
    // Translated: the reply comes from another address than the original went to.
    let mut new = record(Kind::New, 5000, 0);
    new.reply =
        Some(Tuple { src: "192.0.2.9".parse().unwrap(), ..tuple(5000).inverted().unwrap() });
    t.record(NS, &new, Cause::Netfilter, 10);
    let mut dropped = record(Kind::Drop, 0, 0);
    dropped.orig = new.reply.unwrap();
    dropped.reply = None;
    dropped.ct_mark = None;
    t.record(NS, &dropped, Cause::Netfilter, 20);
    assert_eq!(only(&t).drops.as_ref().unwrap().packets(), 1);
    assert_eq!(only(&t).merged(), 1);
}

#[test]
fn a_flow_only_ever_dropped_has_packets_but_no_conntrack_flow() {
    let mut t = table(true);
    let mut dropped = record(Kind::Drop, 5000, 0);
    dropped.dropped = Some(Dropped { counted: true, path_hash: 0, cause: RawCause::NETFILTER });
    t.record(NS, &dropped, Cause::Netfilter, 20);
    t.dropped(NS, &headers::count(tuple(5000), false, 8), Cause::Netfilter, (20, 30));
    let flow = only(&t);
    assert!(flow.dropped() && !flow.confirmed());
    assert_eq!((flow.merged(), flow.drops.as_ref().unwrap().packets()), (0, 8));
}

#[test]
fn zones_and_namespaces_keep_equal_tuples_apart() {
    let mut t = table(true);
    t.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 10);
    t.record(NS, &Record { zone: 7, ..record(Kind::New, 5000, 0) }, Cause::Netfilter, 10);
    t.record(NetnsId(1), &record(Kind::New, 5000, 0), Cause::Netfilter, 10);
    assert_eq!(t.len(), 3);
}

#[test]
fn before_the_kernel_counts_a_second_dump_finds_the_flows_of_lost_records() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 1)], 100);
    t.record(NS, &record(Kind::New, 5001, 0), Cause::Netfilter, 150);
    dump(&mut t, &[entry(5000, 1, 1), entry(5001, 2, 1), entry(5002, 3, 1)], 200);
    t.kernel_counts_from_now_on();
    assert_eq!(only(&t).merged(), 3);
}

fn end(sport: u16, packets: u64) -> End {
    let counters = |packets| Counters { packets, bytes: packets * 100 };
    End {
        ktime_ns: 0,
        netns_cookie: 1,
        orig: tuple(sport),
        reply: tuple(sport).inverted().unwrap(),
        status: Status::CONFIRMED,
        mark: 3,
        zone: 0,
        zone_dir: 3,
        confirmed: true,
        counters: Some([counters(packets), counters(2 * packets)]),
        start_ns: None,
        overdue: 0,
        state: None,
    }
}

#[test]
fn an_end_counts_no_flow_twice_and_its_counters_are_the_last() {
    let mut t = table(true);
    dump(&mut t, &[entry(5000, 1, 10)], 100);
    t.record(NS, &record(Kind::New, 5001, 0), Cause::Netfilter, 150);
    t.end(NS, &end(5000, 15), 200, 190);
    t.end(NS, &end(5001, 4), 210, 205);
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.ended, flow.mark), (2, 2, Some(3)));
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
    t.end(NS, &end(5000, 1), 100, 100);
    t.end(NS, &end(5001, 1), 100, 100);
    assert_eq!(only(&t).merged(), 2);

    let mut t = table(true);
    t.kernel_counts_from_now_on();
    let counted = Some(Counted { since_ns: 7, count: 2 });
    t.record(NS, &Record { counted, ..record(Kind::New, 5000, 0) }, Cause::Netfilter, 100);
    t.end(NS, &end(5000, 1), 200, 200);
    t.end(NS, &end(5001, 1), 200, 200);
    assert_eq!((only(&t).merged(), only(&t).ended), (2, 2));
    assert_eq!(only(&t).counters.unwrap()[0].packets, 2);
}

#[test]
fn a_tuple_used_again_is_another_flow_with_counters_of_its_own() {
    let mut t = table(false);
    t.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 100);
    t.end(NS, &end(5000, 5), 200, 200);
    t.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 300);
    dump(&mut t, &[entry(5000, 2, 1)], 400);
    t.end(NS, &end(5000, 3), 500, 500);
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.ended), (2, 2));
    assert_eq!(flow.counters.unwrap()[0].packets, 8);
}

#[test]
fn what_a_dump_shows_of_an_entry_that_has_ended_meanwhile_changes_nothing() {
    let mut t = table(true);
    t.record(NS, &record(Kind::New, 5000, 0), Cause::Netfilter, 50);
    let under_way = t.begin_dump(NS, 100);
    t.end(NS, &end(5000, 5), 150, 150);
    t.dumped(under_way, &entry(5000, 1, 4), 160);
    // Another flow, at the time of the next dump.
    t.end_dump(under_way);
    assert_eq!((only(&t).merged(), only(&t).counters.unwrap()[0].packets), (1, 5));
    dump(&mut t, &[entry(5000, 2, 7)], 200);
    assert_eq!((only(&t).merged(), only(&t).counters.unwrap()[0].packets), (2, 12));
}

#[test]
fn a_dump_that_fails_leaves_no_ended_entries_behind() {
    let mut t = table(true);
    let failing = t.begin_dump(NS, 100);
    t.end(NS, &end(5000, 5), 150, 150);
    t.give_up_dump(failing);
    let next = t.begin_dump(NS, 120);
    t.dumped(next, &entry(5000, 2, 7), 160);
    assert_eq!(only(&t).merged(), 2);
}

#[test]
fn a_flow_that_was_never_confirmed_is_one_only_if_nothing_else_told_of_it() {
    let unconfirmed = |sport| End {
        confirmed: false,
        status: Status::default(),
        counters: None,
        ..end(sport, 0)
    };
    let mut t = table(true);
    t.end(NS, &unconfirmed(5000), 100, 100);
    t.end(NS, &unconfirmed(5001), 110, 110);
    let flow = only(&t);
    assert_eq!((flow.merged(), flow.never_confirmed(), flow.ended), (0, Some(2), 0));
    assert!(flow.reply.is_some() && flow.details.is_none() && !flow.confirmed());
    // Two packets of one query found each other's entry: one of them was confirmed.
    t.record(NS, &record(Kind::New, 5001, 0), Cause::Netfilter, 120);
    assert_eq!((only(&t).merged(), only(&t).never_confirmed()), (1, None));

    let mut t = table(true);
    t.record(NS, &record(Kind::Drop, 5000, 0), Cause::Netfilter, 90);
    t.end(NS, &unconfirmed(5000), 100, 100);
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
            t.record(NS, &record(Kind::New, 5000 + sport, 0), Cause::Netfilter, now);
            if *shown {
                dump(&mut t, &[entry(5000 + sport, id, *early)], now + 1);
            }
            t.end(NS, &end(5000 + sport, early + late), now + 10, now + 10);
            packets += early + late;
            now += 100;
        }
        let flow = only(&t);
        prop_assert_eq!(flow.merged(), lives.len() as u64);
        prop_assert_eq!(flow.ended, lives.len() as u64);
        prop_assert_eq!(flow.counters.unwrap()[0].packets, packets);
    }
}
