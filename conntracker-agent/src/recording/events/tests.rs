//! Any events come back as they were, and no bytes panic.

use std::{net::IpAddr, sync::Arc};

use proptest::{option, prelude::*, sample::select};

use super::*;
use crate::recording::columns::column;
use crate::{
    model::{
        Cause, ConntrackCause, DropPoint, L4, Mark, NetnsId, Status, TimeOfDay, Tuple, Zone,
        counters::Counters,
        event::{
            CountedFlows, DroppedEntry, DroppedPackets, Entry, EntryEnd, EntryPacket, EntryState,
            EventKind, FlowEvent, PacketPath,
        },
        flow::Counted,
        hook::Hook,
        path::{
            CtState, Direction, Doubt, MarksBehind, Outcome, Provenance, Site, SiteKind, Step,
            Traversal, Verdict,
        },
        process::Process,
        state::ProtoState,
        table::{Backend, Family},
    },
    recording::{
        body::Columns,
        dictionary::{Dictionaries, Stated},
    },
};

/// One of many paths; some share their steps.
pub(in crate::recording) fn path(n: u32) -> Traversal {
    let site = |chain: &str, kind, position| {
        Arc::new(Site {
            backend: if n.is_multiple_of(5) { Backend::Legacy } else { Backend::Nft },
            family: if n.is_multiple_of(3) { Family::Ip6 } else { Family::Inet },
            table: "filter".to_owned(),
            iptables: n.is_multiple_of(5),
            chain: chain.to_owned(),
            kind,
            position,
            handle: position.map(u64::from),
            text: (kind == SiteKind::Rule).then(|| format!("tcp dport {} drop", n % 7)),
        })
    };
    let step =
        |site, verdict, provenance| Step { site, verdict, provenance, placed: n.is_multiple_of(2) };
    let steps = [
        step(
            site("forward", SiteKind::Rule, Some(1)),
            Verdict::Jump("sub\n".to_owned()),
            Provenance::Exact,
        ),
        step(site("sub\n", SiteKind::Return, Some(2)), Verdict::Return, Provenance::Inferred),
        step(site("forward", SiteKind::Policy, Some(9)), Verdict::Drop, Provenance::Chain),
    ];
    let marks = MarksBehind {
        chain: site("forward", SiteKind::Chain, None),
        alone: true,
        packet: n % 4,
        connection: 7,
    };
    Traversal {
        hook: if n.is_multiple_of(2) { Hook::Forward } else { Hook::Postrouting },
        direction: if n.is_multiple_of(3) { Direction::Reply } else { Direction::Original },
        state: [CtState::New, CtState::Established, CtState::Invalid][n as usize % 3],
        outcome: if n.is_multiple_of(2) { Outcome::Dropped } else { Outcome::Passed },
        epoch: n,
        packet_mark: (0, n),
        marks: if n.is_multiple_of(4) { Arc::new([marks]) } else { Arc::new([]) },
        connmark: (n % 2 == 1).then_some((1, u32::MAX)),
        nat: None,
        fragment: n.is_multiple_of(11),
        steps: if n.is_multiple_of(13) { Arc::new([]) } else { Arc::new(steps) },
        doubt: (n.is_multiple_of(6)).then_some(Doubt::Nested),
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    // Few, so that some come again.
    prop_oneof![
        (0..6_u8).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (0..3_u16).prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let ports = (0..4_u16, any::<u16>());
    let l4 = prop_oneof![
        4 => ports.clone().prop_map(|(src, dst)| L4::Ports { src, dst }),
        1 => ports.prop_map(|(src, dst)| L4::Gre { src, dst }),
        2 => (select(&[0_u8, 3, 8, 128][..]), any::<u8>(), any::<u16>())
            .prop_map(|(kind, code, id)| L4::Icmp { kind, code, id }),
        1 => Just(L4::None),
    ];
    (address(), address(), select(&[1_u8, 6, 17, 58, 253][..]), l4)
        .prop_map(|(src, dst, proto, l4)| Tuple { src, dst, proto, l4 })
}

/// A tuple, and one that is mostly much like it turned round.
fn pair() -> impl Strategy<Value = (Tuple, Tuple)> {
    (tuple(), option::weighted(0.2, tuple()), option::of(address()), option::of(any::<u16>()))
        .prop_map(|(orig, other, nat, port)| {
            let mut reply = other.or_else(|| orig.inverted()).unwrap_or(orig);
            if let Some(nat) = nat {
                reply.dst = nat;
            }
            if let (L4::Ports { dst, .. }, Some(port)) = (&mut reply.l4, port) {
                *dst = port;
            }
            (orig, reply)
        })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("ftp".to_owned()), "\\PC{0,9}", Just("\u{1b}[31m\n".to_owned())]
}

fn process() -> impl Strategy<Value = Option<Box<Process>>> {
    let of = (
        any::<bool>(),
        any::<u32>(),
        option::of(text()),
        option::of(any::<u32>()),
        option::of(text()),
        option::of(any::<u64>()),
        option::of(text()),
        option::of(any::<u64>()),
    );
    let of = of.prop_map(|(reply, uid, user, pid, comm, cgroup_id, cgroup, inode)| {
        let direction = if reply { Direction::Reply } else { Direction::Original };
        Box::new(Process { direction, uid, user, pid, comm, cgroup_id, cgroup, inode })
    });
    option::weighted(0.3, of)
}

fn mark() -> impl Strategy<Value = Option<Mark>> {
    option::of(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]).prop_map(|mark| mark.map(Mark))
}

fn entry_state(reply: Tuple) -> impl Strategy<Value = EntryState> {
    (select(&ZONE_DIRS[..]), any::<u32>(), mark(), process()).prop_map(
        move |(zone_dir, status, mark, process)| EntryState {
            reply,
            zone_dir,
            status: Status(status),
            mark,
            process,
        },
    )
}

fn counted() -> impl Strategy<Value = Counted> {
    (any::<u64>(), any::<u64>()).prop_map(|(since_ns, count)| Counted { since_ns, count })
}

fn interfaces() -> impl Strategy<Value = (u32, u32)> {
    (0..9_u32, any::<u32>())
}

fn zone() -> impl Strategy<Value = Zone> {
    prop_oneof![Just(Zone(0)), any::<u16>().prop_map(Zone)]
}

fn entry_packet() -> impl Strategy<Value = EntryPacket> {
    (zone(), pair(), any::<u32>(), option::of(interfaces()), option::of(counted())).prop_flat_map(
        |(zone, (orig, reply), packet_mark, interfaces, counted)| {
            entry_state(reply).prop_map(move |entry| EntryPacket {
                zone,
                orig,
                entry,
                packet_mark: Mark(packet_mark),
                interfaces,
                counted,
            })
        },
    )
}

fn dropped() -> impl Strategy<Value = DroppedPackets> {
    let cause = select(vec![
        Cause::Netfilter,
        Cause::Conntrack(ConntrackCause::Full),
        Cause::Conntrack(ConntrackCause::InsertFailed),
        Cause::Conntrack(ConntrackCause::ChainTooLong),
        Cause::Conntrack(ConntrackCause::Other),
        Cause::Reason("NO_SOCKET"),
        Cause::Function("dst_discard"),
    ]);
    let point = (cause, option::of(any::<u8>()), interfaces())
        .prop_map(|(cause, hook, (iif, oif))| DropPoint { cause, hook, iif, oif });
    let entry = |reply| {
        prop_oneof![
            option::of(tuple()).prop_map(|quotes| DroppedEntry::None { quotes }),
            Just(DroppedEntry::Tuple),
            entry_state(reply).prop_map(DroppedEntry::State),
        ]
    };
    let hash = prop_oneof![0..5_u64, any::<u64>()];
    (zone(), pair(), point, hash, any::<u64>(), any::<u64>()).prop_flat_map(
        move |(zone, (orig, reply), point, path_hash, packets, first_ns)| {
            entry(reply).prop_map(move |entry| DroppedPackets {
                zone,
                orig,
                entry,
                point,
                path_hash,
                packets,
                first_ns,
            })
        },
    )
}

fn counters() -> impl Strategy<Value = Counters> {
    (any::<u64>(), any::<u64>()).prop_map(|(packets, bytes)| Counters { packets, bytes })
}

fn state() -> impl Strategy<Value = ProtoState> {
    let byte = || option::of(any::<u8>());
    prop_oneof![
        (any::<u8>(), [byte(), byte()], [byte(), byte()])
            .prop_map(|(state, wscale, flags)| ProtoState::Tcp { state, wscale, flags }),
        (any::<u8>(), [option::of(any::<u32>()), option::of(any::<u32>())])
            .prop_map(|(state, vtag)| ProtoState::Sctp { state, vtag }),
        (any::<u8>(), byte(), option::of(any::<u64>())).prop_map(|(state, role, handshake_seq)| {
            ProtoState::Dccp { state, role, handshake_seq }
        }),
    ]
}

fn ended() -> impl Strategy<Value = EntryEnd> {
    let stamps = (option::of(any::<u64>()), any::<u64>());
    let counters = option::of([counters(), counters()]);
    let bits = (select(&ZONE_DIRS[..]), any::<u32>(), any::<u32>(), any::<bool>());
    (zone(), pair(), bits, counters, stamps, option::of(state())).prop_map(
        |(zone, (orig, reply), bits, counters, (start_ns, stop_ns), state)| {
            let (zone_dir, status, mark, confirmed) = bits;
            EntryEnd {
                zone,
                orig,
                reply,
                zone_dir,
                status: Status(status),
                mark: Mark(mark),
                confirmed,
                counters,
                start_ns,
                stop_ns,
                state,
            }
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let number = || option::of(any::<u32>());
    let time = || option::of(any::<u64>());
    let tuples = (pair(), any::<bool>(), option::of(tuple()));
    let bits = (zone(), select(&ZONE_DIRS[..]), any::<u32>(), mark(), option::of(state()));
    let counters = [option::of(counters()), option::of(counters())];
    let texts =
        (option::of(text()), option::of(text()), proptest::collection::vec(any::<u16>(), 0..5));
    (tuples, bits, counters, [number(), number(), number()], texts, [time(), time()]).prop_map(
        |(tuples, bits, counters, [timeout, id, use_count], texts, [start_ns, stop_ns])| {
            let ((orig, reply), has_reply, parent) = tuples;
            let (zone, zone_dir, status, mark, state) = bits;
            let (helper, secctx, labels) = texts;
            Entry {
                zone,
                orig,
                reply: has_reply.then_some(reply),
                parent,
                zone_dir,
                status: Status(status),
                state,
                mark,
                timeout,
                counters,
                id,
                use_count,
                helper,
                labels,
                secctx,
                start_ns,
                stop_ns,
            }
        },
    )
}

fn packet_path() -> impl Strategy<Value = PacketPath> {
    let nat = option::weighted(0.3, (tuple(), tuple()));
    (zone(), tuple(), any::<bool>(), interfaces(), 0..9_u64, 0..90_u32, nat).prop_map(
        |(zone, orig, has_entry, interfaces, path_hash, number, nat)| {
            let traversal = Arc::new(Traversal { nat, ..path(number) });
            PacketPath { zone, orig, has_entry, interfaces, path_hash, traversal }
        },
    )
}

fn kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        4 => entry_packet().prop_map(EventKind::New),
        3 => entry_packet().prop_map(EventKind::Replied),
        1 => (zone(), tuple(), tuple())
            .prop_map(|(zone, orig, parent)| EventKind::Related { zone, orig, parent }),
        3 => dropped().prop_map(EventKind::Dropped),
        1 => Just(EventKind::DropCountsTaken),
        1 => (zone(), tuple(), counted(), any::<bool>()).prop_map(|(zone, orig, counted, replied)| {
            EventKind::Counted(CountedFlows { zone, orig, counted, replied })
        }),
        3 => ended().prop_map(EventKind::Ended),
        3 => (select(&SOURCES[..]), entry())
            .prop_map(|(source, entry)| EventKind::Entry(source, Box::new(entry))),
        1 => Just(EventKind::DumpBegan),
        1 => any::<bool>().prop_map(|whole| EventKind::DumpEnded { whole }),
        5 => packet_path().prop_map(EventKind::Path),
        1 => Just(EventKind::KernelCounts),
        1 => any::<bool>().prop_map(EventKind::PacketsSeen),
        1 => (any::<u32>(), any::<u64>())
            .prop_map(|(boot, epoch)| EventKind::Clock(TimeOfDay::at(boot.into(), epoch))),
        1 => Just(EventKind::Reported),
    ]
}

/// Any events, in any order.
pub(in crate::recording) fn events() -> impl Strategy<Value = Vec<FlowEvent>> {
    let event = (0..3_u32, any::<u64>(), kind()).prop_map(|(netns, at_ns, kind)| FlowEvent {
        netns: NetnsId(netns),
        at_ns,
        kind,
    });
    proptest::collection::vec(event, 0..60)
}

/// Events as a block, and what it refers to.
fn written(events: &[FlowEvent]) -> (Columns, Stated) {
    let (mut writer, mut dictionaries) = (EventWriter::new(), Dictionaries::default());
    for event in events {
        writer.add(event, &mut dictionaries);
    }
    assert_eq!(writer.len(), events.len());
    let mut stated = Stated::default();
    if let Some(strings) = dictionaries.new_strings() {
        stated.add_strings(&serde_json::to_vec(&strings).unwrap()).unwrap();
    }
    if let Some(paths) = dictionaries.new_paths() {
        stated.add_paths(&serde_json::to_vec(&paths).unwrap()).unwrap();
    }
    (writer.take(), stated)
}

fn read(columns: Columns, count: usize, stated: &Stated) -> Option<Vec<FlowEvent>> {
    let mut reader = EventReader::new(columns, count as u32, stated);
    let mut events = Vec::new();
    while let Some(event) = reader.next().ok()? {
        events.push(event);
    }
    Some(events)
}

proptest! {
    #[test]
    fn events_come_back_as_they_were(events in events()) {
        let (columns, stated) = written(&events);
        prop_assert_eq!(read(columns, events.len(), &stated), Some(events));
    }

    #[test]
    fn changed_columns_do_not_panic(
        events in events(), which: prop::sample::Index, at: prop::sample::Index, to: u8, cut: bool
    ) {
        let (mut columns, stated) = written(&events);
        if let Some(column) = (!columns.is_empty()).then(|| which.index(columns.len()))
            .and_then(|n| columns.values_mut().nth(n))
        {
            let at = at.index(column.len());
            if cut { column.truncate(at) } else { column[at] = to }
        }
        let _ = read(columns, events.len() + 9, &stated);
    }

    #[test]
    fn what_a_later_version_adds_is_left_out(events in events(), number in 100..=u8::MAX) {
        let (mut columns, stated) = written(&events);
        let netns = columns.entry(column::NETNS).or_default();
        netns.insert(0, 0);
        // The first event of a block has its whole time.
        let times = columns.entry(column::TIME).or_default();
        times.insert(0, 0);
        columns.entry(column::KIND).or_default().insert(0, number);
        columns.insert(9_999, vec![1, 2, 3]);
        let mut reader = EventReader::new(columns, events.len() as u32 + 1, &stated);
        for event in &events {
            prop_assert_eq!(reader.next(), Ok(Some(event.clone())));
        }
        prop_assert_eq!((reader.next(), reader.left_out.kinds), (Ok(None), 1));
    }
}
