//! Flows in a file are the same flows.

use std::net::IpAddr;

use proptest::{prelude::*, sample::select};

use super::*;

/// Something that a source tells, of few addresses, ports and translations: much of it is of the same flows.
fn event() -> impl Strategy<Value = EventKind> {
    let ports = || 5000u16..5006;
    let state = |status: u32| {
        move |(sport, public): (u16, u16)| {
            let mut packet = packet(sport);
            packet.entry.reply = translated(public);
            packet.entry.status = Status(status);
            packet
        }
    };
    let both = || (ports(), 7000u16..7003);
    prop_oneof![
        4 => both().prop_map(state(0)).prop_map(New),
        2 => both().prop_map(state(Status::SEEN_REPLY.0)).prop_map(Replied),
        2 => both().prop_map(|(sport, public)| {
            let shown = Entry { reply: Some(translated(public)), ..entry(sport, sport.into(), 3) };
            Entry(EntrySource::UpdateEvent, Box::new(shown))
        }),
        2 => both().prop_map(|(sport, public)| Ended(EntryEnd {
            zone: Zone::DEFAULT,
            zone_dir: ZoneDir::Both,
            orig: tuple(sport),
            reply: translated(public),
            status: Status::CONFIRMED,
            mark: Mark(3),
            state: None,
            counters: Some([Counters { packets: 4, bytes: 400 }; 2]),
            start_ns: None,
            stop_ns: 9,
            confirmed: true,
        })),
        3 => (select(vec![0, 1, 2]), ports(), 7000u16..7003).prop_map(|(which, sport, public)| {
            let headers = match which {
                0 => tuple(sport),
                1 => tuple(sport).inverted().unwrap(),
                _ => translated(public),
            };
            Dropped(dropped(headers, DroppedEntry::None { quotes: None }))
        }),
        1 => Just(DumpBegan),
        1 => Just(DumpEnded { whole: true }),
        1 => Just(Reported),
    ]
}

/// What answers a flow whose source was translated.
fn translated(public: u16) -> Tuple {
    let router: IpAddr = "192.0.2.1".parse().unwrap();
    Tuple { dst: router, l4: L4::Ports { src: 53, dst: public }, ..tuple(1).inverted().unwrap() }
}

/// All that is known of all flows.
fn all(table: FlowTable) -> Vec<String> {
    assert!(table.spill_error().is_none());
    let mut all: Vec<String> =
        table.into_flows().map(|flow| format!("{:#?}", flow.unwrap())).collect();
    all.sort();
    all
}

fn spilling(fold: bool, in_memory: usize) -> FlowTable {
    let mut table = FlowTable::new(fold, usize::MAX);
    table.spill_to(tempfile::tempfile().unwrap(), in_memory);
    table
}

proptest! {
    #[test]
    fn flows_in_a_file_are_the_same_flows(
        events in prop::collection::vec(event(), 0..80),
        anew in prop::option::of(0usize..80),
        in_memory in 1usize..4,
        fold in any::<bool>(),
    ) {
        let mut whole = FlowTable::new(fold, usize::MAX);
        let mut spilled = spilling(fold, in_memory);
        for (at, kind) in events.into_iter().enumerate() {
            if anew == Some(at) {
                whole.begin_anew();
                spilled.begin_anew();
            }
            whole.see(at as u64 * 10, kind.clone());
            spilled.see(at as u64 * 10, kind);
            prop_assert_eq!(spilled.len(), whole.len());
        }
        prop_assert_eq!(all(spilled), all(whole));
    }
}

#[test]
fn space_in_the_file_is_used_again() {
    let mut table = FlowTable::new(false, usize::MAX);
    let file = tempfile::tempfile().unwrap();
    table.spill_to(file.try_clone().unwrap(), 10);
    let mut longest = 0;
    for round in 0..40 {
        for sport in 0..20_000 {
            table.see(round * 1_000_000 + u64::from(sport), New(packet(sport)));
        }
        let len = file.metadata().unwrap().len();
        if round == 3 {
            longest = len;
        }
        assert!(round <= 3 || len <= longest + (1 << 20), "{len} bytes in round {round}");
    }
    assert!(longest > 1 << 20);
    assert_eq!(table.len(), 20_000);
}

#[test]
fn an_error_of_the_file_is_told() {
    // It can be read, and not be written.
    let file = std::fs::File::open("/dev/null").unwrap();
    let mut table = FlowTable::new(false, usize::MAX);
    table.spill_to(file, 1);
    for sport in 0..20_000 {
        table.see(sport.into(), New(packet(sport)));
    }
    assert!(table.spill_error().is_some());
    assert!(table.into_flows().any(|flow| flow.is_err()));
}
