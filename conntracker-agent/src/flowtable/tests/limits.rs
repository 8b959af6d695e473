//! Little room: what is not listed is summed up, and nothing is counted twice.

use proptest::{prelude::*, sample::Index};

use super::{headers::without, *};
use crate::model::other::FlowSums;

/// A table with room for so many flows.
fn small(fold: bool, max_flows: usize) -> FlowTable {
    FlowTable::new(fold, max_flows)
}

/// Sums of what is listed and of what is not.
fn all(t: &FlowTable) -> FlowSums {
    let mut all = t.others().total();
    for flow in t.snapshot().into_flows() {
        let packets = |n: usize| flow.counters.map_or(0, |counters| counters[n].packets);
        all.flows += 1;
        all.conntrack_flows += flow.merged();
        all.packets += packets(0) + packets(1);
        all.dropped_packets += flow.drops.as_deref().map_or(0, Drops::packets);
    }
    all
}

#[test]
fn the_flow_that_was_quiet_for_the_longest_time_is_summed_up() {
    let mut t = small(false, 2);
    t.see(10, New(packet(5000)));
    t.see(20, New(packet(5001)));
    // The first one goes on.
    let mut replied = packet(5000);
    replied.entry.status = Status::SEEN_REPLY;
    t.see(30, Replied(replied));
    t.see(40, New(packet(5002)));
    let mut ports: Vec<_> = flows(&t).iter().map(|flow| flow.key.orig.l4).collect();
    ports.sort();
    assert_eq!(ports, [5000, 5002].map(|src| L4::Ports { src, dst: 53 }));
    let sums = FlowSums { flows: 1, conntrack_flows: 1, ..FlowSums::default() };
    assert_eq!((t.others().total(), t.flows_evicted()), (sums, 1));
    assert_eq!(t.others().by_protocol().collect::<Vec<_>>(), [(17, sums)]);
    // Its entry went with it.
    assert_eq!(t.members.len(), 2);
}

#[test]
fn less_room_sums_up_what_is_there() {
    let mut t = small(false, 10);
    for sport in 5000..5010 {
        t.see(sport.into(), New(packet(sport)));
    }
    t.set_max_flows(3);
    assert_eq!((t.len(), t.flows_evicted(), all(&t).conntrack_flows), (3, 7, 10));
    assert!(t.unused_bytes() > 7 * 100);
}

#[test]
fn a_dump_and_the_end_of_what_was_summed_up_count_nothing_twice() {
    let mut t = small(false, 2);
    dump(&mut t, &[entry(5000, 1, 10), entry(5001, 2, 20)], 100);
    for sport in 5002..5005 {
        t.see(200, New(packet(sport)));
    }
    assert_eq!((all(&t).conntrack_flows, all(&t).packets), (5, 30));
    let shown: Vec<_> = [(5000, 12), (5001, 20), (5002, 1), (5003, 1), (5004, 1)]
        .into_iter()
        .map(|(sport, packets)| entry(sport, u32::from(sport) - 4999, packets))
        .collect();
    dump(&mut t, &shown, 300);
    assert_eq!((all(&t).flows, all(&t).conntrack_flows), (5, 5));
    // There is room for four entries: of the fifth it is told when it ends.
    assert_eq!(all(&t).packets, 12 + 20 + 2);
    for (sport, packets) in [(5000, 15), (5002, 4), (5003, 2), (5004, 1)] {
        let counters = Some([Counters { packets, bytes: 0 }, Counters::default()]);
        t.see(400, Ended(EntryEnd { counters, ..end(sport, 0) }));
    }
    assert_eq!((all(&t).flows, all(&t).conntrack_flows), (5, 5));
    assert_eq!(all(&t).packets, 15 + 20 + 4 + 2 + 1);
    // Another entry of the same tuple is another flow.
    t.see(500, New(packet(5000)));
    assert_eq!(all(&t).conntrack_flows, 6);
}

#[test]
fn what_the_kernel_counts_of_a_summed_up_flow_is_counted_once() {
    let counted = |src: u8, count| {
        let mut packet = packet(6000);
        packet.orig.src = [10, 0, 1, src].into();
        packet.entry.reply = packet.orig.inverted().unwrap();
        packet.counted = Some(Counted { since_ns: 7, count });
        packet
    };
    let in_map = |src: u8, since_ns, count| {
        let EntryPacket { zone, orig, .. } = counted(src, 0);
        let counted = Counted { since_ns, count };
        Counted(CountedFlows { zone, orig: orig.folded(), counted, replied: false })
    };
    let mut t = small(true, 2);
    t.see(0, KernelCounts);
    for src in 0..5 {
        t.see(10, New(counted(src, 1)));
    }
    assert_eq!((t.len(), t.flows_evicted(), all(&t).conntrack_flows), (2, 3, 5));
    for _ in 0..2 {
        for src in 0..5 {
            t.see(20, in_map(src, 7, 10));
        }
    }
    assert_eq!((t.len(), t.flows_evicted(), all(&t).conntrack_flows), (2, 3, 50));
    assert_eq!(t.counted_by_kernel(), 50);
    // Of the counts that come late nothing is counted again.
    t.see(25, in_map(2, 7, 4));
    t.see(25, in_map(2, 7, 10));
    assert_eq!(all(&t).conntrack_flows, 50);
    // One comes back, by a record in the same life of the kernel's count, and one in another.
    t.see(30, New(counted(0, 11)));
    let mut again = counted(1, 2);
    again.counted = Some(Counted { since_ns: 25, count: 2 });
    t.see(30, New(again));
    assert_eq!((all(&t).conntrack_flows, t.counted_by_kernel()), (53, 53));
}

#[test]
fn flows_whose_lines_are_written_leave_once_they_have_ended() {
    let mut t = small(false, 10);
    for sport in 5000..5003 {
        t.see(100, New(packet(sport)));
    }
    t.see(150, Ended(end(5000, 5)));
    t.see(250, Ended(end(5001, 7)));
    // The report is of the moment 200: the end of the second one is not in it.
    t.leave_written(200);
    assert_eq!((t.len(), t.flows_evicted()), (2, 0));
    t.leave_written(300);
    assert_eq!((t.len(), t.others().total().flows), (1, 2));
    assert_eq!((all(&t).conntrack_flows, all(&t).packets), (3, 12 * 3));
}

#[test]
fn more_entries_than_there_is_room_for_are_counted() {
    let mut t = small(true, 4);
    for sport in 5000..5010 {
        t.see(sport.into(), New(packet(sport)));
    }
    assert_eq!((t.len(), t.members.len(), t.entries_forgotten()), (1, 8, 2));
    assert_eq!(only(&t).merged(), 10);
}

proptest! {
    /// Whatever the room, all together is the same, and there are never more flows than there is room for.
    #[test]
    fn sums_are_the_same_in_any_room(
        what in prop::collection::vec((any::<Index>(), 0u8..5), 1..200),
        max_flows in 1usize..12,
        fold in any::<bool>(),
    ) {
        let (mut wide, mut narrow) = (small(fold, 1_000), small(fold, max_flows));
        let mut lives = [0u64; 20];
        for (at, (which, kind)) in (100u64..).step_by(10).zip(what) {
            let n = which.index(lives.len());
            let sport = 5000 + n as u16;
            let event = match kind {
                // An entry lives, or begins.
                0 | 1 if lives[n] == 0 => {
                    lives[n] = 1;
                    New(packet(sport))
                }
                0 | 1 => Replied(packet(sport)),
                2 if lives[n] > 0 => {
                    let counters = Some([Counters { packets: lives[n], bytes: 0 }, Counters::default()]);
                    lives[n] = 0;
                    Ended(EntryEnd { counters, ..end(sport, 0) })
                }
                3 => {
                    let shown: Vec<_> = (0..)
                        .zip(&mut lives)
                        .filter(|(_, life)| **life > 0)
                        .map(|(n, life)| {
                            *life += 3;
                            Entry { id: None, ..entry(5000 + n, 0, *life) }
                        })
                        .collect();
                    dump(&mut wide, &shown, at);
                    dump(&mut narrow, &shown, at);
                    continue;
                }
                _ => Dropped(without(tuple(7000 + u16::from(kind)), 2)),
            };
            wide.see(at, event.clone());
            narrow.see(at, event);
            prop_assert!(narrow.len() <= max_flows);
        }
        let (wide, narrow) = (all(&wide), all(&narrow));
        prop_assert_eq!(narrow.dropped_packets, wide.dropped_packets);
        prop_assert_eq!(narrow.conntrack_flows, wide.conntrack_flows);
    }
}
