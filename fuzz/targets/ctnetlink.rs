//! A datagram of ctnetlink, decoded in every way that there is and printed in every format: nothing panics,
//! what is counted is there, and what is saved is a command line that is understood.

#![no_main]

use std::mem::discriminant;

use conntracker::{
    conntrack::{
        ConntrackEntry, ConntrackExpectation, Entry, EntryKey, ExpectKey, Expectation, Kind,
        ProtoState,
    },
    conntrack8::{Command, Names},
    flowtable::FlowTable,
    model::{
        NetnsId,
        event::{EntrySource, EventKind, FlowEvent},
    },
    netlink::wire::Messages,
    report::{
        conntrack::{Calendar, EventInfo, Format, LabelMap, Options, Origin, Renderer, Timestamp},
        csv,
        json::{self, Stamp},
    },
};
use libfuzzer_sys::fuzz_target;

const LABELS: &str = "1 one\n2 two <&>\n";
const NOW_NS: u64 = 1_800_000_000_000_000_000;

fuzz_target!(|datagram: &[u8]| {
    let mut framed = false;
    for message in Messages::new(datagram).flatten() {
        framed = true;
        look_at(message.payload);
    }
    // Random bytes hardly ever frame a message.
    if !framed {
        look_at(datagram);
    }
});

fn look_at(payload: &[u8]) {
    if let Ok(entry) = Entry::decode(payload) {
        let owned = ConntrackEntry::from(&entry);
        assert_eq!(entry.unknown_attributes().count(), entry.unknown as usize);
        assert_eq!(entry.label_numbers().count(), owned.labels.len());
        let _key = EntryKey::from(&entry);
        let again = Entry::of_attributes(entry.family, entry.raw);
        assert_eq!(again.as_ref(), Ok(&entry));
        print_entry(&entry);
        table(&entry);
    }
    if let Ok(expectation) = Expectation::decode(payload) {
        let _owned = ConntrackExpectation::from(&expectation);
        let _key = ExpectKey::from(&expectation);
        print_expectation(&expectation);
    }
}

/// All formats of conntrack(8), with nothing and with everything besides.
fn with_renderers(mut print: impl FnMut(&Renderer<'_>)) {
    let calendar = Calendar::utc();
    let labels = LabelMap::parse(LABELS);
    let bare = Options::new(&calendar);
    let all = Options {
        extended: true,
        id: true,
        ktimestamp: true,
        labels: Some(&labels),
        calendar: &calendar,
    };
    for format in [Format::Plain, Format::Xml, Format::Save] {
        for options in [bare, all] {
            print(&Renderer { format, options, now: NOW_NS / 1_000_000_000 });
        }
    }
}

fn happenings() -> impl Iterator<Item = EventInfo<'static>> {
    [Kind::New, Kind::Update, Kind::Destroy].into_iter().map(|kind| EventInfo {
        kind,
        at: Some(Timestamp { seconds: 1, micros: 2 }),
        by: Some(Origin { portid: 3, program: Some(b"program") }),
    })
}

fn print_entry(entry: &Entry<'_>) {
    let mut out = Vec::new();
    with_renderers(|renderer| {
        out.clear();
        renderer.entry(&mut out, entry);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "an entry is a line");
        if renderer.format == Format::Save {
            saved(&out, entry);
        }
        for happening in happenings() {
            renderer.event(&mut out, &happening, entry);
        }
    });
    csv::entry(&mut out, "-", entry);
    let now = Stamp::new(NOW_NS);
    json::render_event(&mut out, "new", 1, entry, "-", &now).unwrap();
    out.clear();
    json::render_entry(&mut out, entry, "-", &now).unwrap();
    assert!(out.starts_with(b"{") && out.ends_with(b"}\n"));
}

/// What is saved is a command line that makes an entry, if the kernel could have made it: with a state of its
/// own protocol, and a reply direction of the same protocol.
fn saved(line: &[u8], entry: &Entry<'_>) {
    let state = entry.state.filter(|state| state.name().is_some());
    let possible = match entry.orig.proto {
        6 => matches!(state, Some(ProtoState::Tcp { .. })),
        132 => matches!(state, Some(ProtoState::Sctp { vtag: [Some(_), Some(_)], .. })),
        33 => matches!(state, None | Some(ProtoState::Dccp { role: Some(_), .. })),
        _ => entry.state.is_none(),
    };
    let inverse = entry.orig.inverted().map(|inverse| discriminant(&inverse.l4));
    let reply = entry.reply.filter(|reply| reply.proto == entry.orig.proto);
    if !possible || inverse.is_none() || reply.map(|reply| discriminant(&reply.l4)) != inverse {
        return;
    }
    let line = String::from_utf8_lossy(line);
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let command = Command::parse(&words, &Names::parse(LABELS, ""));
    assert!(matches!(command, Ok(Command::Create { .. })), "{line}{command:?}\n{entry:?}");
}

fn table(entry: &Entry<'_>) {
    let mut table = FlowTable::new(true, 8);
    let shown = EventKind::Entry(EntrySource::Dump, Box::new(entry.into()));
    for kind in [EventKind::DumpBegan, shown, EventKind::DumpEnded { whole: true }] {
        table.take(FlowEvent { netns: NetnsId(0), at_ns: NOW_NS, kind });
    }
    assert_eq!(table.len(), 1);
}

fn print_expectation(expectation: &Expectation<'_>) {
    let mut out = Vec::new();
    with_renderers(|renderer| {
        out.clear();
        renderer.expectation(&mut out, None, expectation);
        for happening in happenings() {
            renderer.expectation_event(&mut out, &happening, expectation);
        }
    });
}
