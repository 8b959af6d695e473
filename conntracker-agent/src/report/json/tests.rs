use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    flowtable::FlowTable,
    model::{
        Flow, NetnsId, Status, Zone,
        counters::Counters,
        event::{EntrySource, EventKind, FlowEvent},
        state::ProtoState,
    },
    netlink::wire::Messages,
    report::fixtures::*,
};

const GOLDEN: &str = include_str!("golden/report.ndjson");

fn document(report: &Report) -> String {
    let mut out = Vec::new();
    render(Style::Document, report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn lines(report: &Report) -> String {
    let mut out = Vec::new();
    render(Style::Lines, report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

#[test]
fn lines_are_the_golden_ones() {
    let lines = lines(&sample());
    for (got, want) in lines.lines().zip(GOLDEN.lines()) {
        assert_eq!(got, want);
    }
    assert_eq!(lines, GOLDEN);
}

#[test]
fn the_document_has_the_same_objects_as_the_lines() {
    let document = document(&sample());
    let objects: Vec<&str> = GOLDEN.lines().collect();
    let [header, flows @ .., footer] = &objects[..] else { panic!("no header and footer") };
    let flows = flows.join(",");
    assert_eq!(
        document,
        format!(
            r#"{{"schema":"{SCHEMA}","header":{header},"flows":[{flows}],"footer":{footer}}}{}"#,
            "\n"
        )
    );
    assert_eq!(parse(&document)["flows"].as_array().unwrap().len(), 6);
}

#[test]
fn a_report_without_flows_is_whole() {
    let report = report(Vec::new());
    let value = parse(&document(&report));
    assert_eq!(value["flows"], Value::Array(Vec::new()));
    assert_eq!(value["footer"]["lost"], false);
    assert_eq!(lines(&report).lines().count(), 2);
}

#[test]
fn every_line_is_an_object_without_nulls() {
    for line in lines(&sample()).lines() {
        let value = parse(line);
        assert!(value["type"].is_string());
        assert!(!has_null(&value), "{line}");
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

#[test]
fn what_has_no_name_stays_a_number() {
    let mut flow = only_dropped(ports(6, "192.0.2.1", 1, "192.0.2.2", 2));
    flow.key.netns = NetnsId(7);
    flow.drops = drops(&[(9, 2, 0)]);
    let value = parse(&document(&report(vec![flow])));
    let flow = &value["flows"][0];
    assert_eq!(flow["netns"], 7);
    assert_eq!(flow["dropped"]["places"][0]["hook"], 9);
    assert_eq!(flow["dropped"]["places"][0]["in"], 2);
    assert_eq!(flow["dropped"]["places"][0].get("out"), None);
}

#[test]
fn epochs_are_there_if_rules_were_traced() {
    let mut report = report(Vec::<Flow>::new());
    assert_eq!(parse(&document(&report))["header"].get("epochs"), None);
    report.header.epochs = Some(0);
    assert_eq!(parse(&document(&report))["header"]["epochs"], 0);
}

/// Takes some writes, then fails as a closed pipe does.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_is_told_as_one() {
    for writes in [0, 5, 50] {
        let error = render(Style::Document, &sample(), &mut Pipe(writes)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

const AT_NS: u64 = 1_800_000_000_000_000_000;

/// The object of the flow that the flow table makes of an entry.
fn by_flow(entry: &Entry<'_>) -> String {
    let mut table = FlowTable::new(false, 10);
    let kind = EventKind::Entry(EntrySource::Dump, Box::new(entry.into()));
    table.take(FlowEvent { netns: NetnsId(0), at_ns: AT_NS, kind });
    let report = report(table.snapshot().into_flows().collect());
    let mut out = Vec::new();
    FlowObject::new(&report.flows[0], &Names::new(&report.header)).write(&mut out).unwrap();
    out.push(b'\n');
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn same_by_entry(entry: &Entry<'_>) {
    let mut out = Vec::new();
    render_entry(&mut out, entry, "-", &Stamp::new(AT_NS)).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), by_flow(entry));
}

/// Variants of an entry of the fixture, with fields that not all entries have.
fn varied<'a>(entry: &Entry<'a>) -> impl Iterator<Item = Entry<'a>> {
    let entry = *entry;
    let counters = |packets| Some(Counters { packets, bytes: u64::MAX });
    [
        entry,
        Entry { labels: Some(&[5; 16]), helper: Some(b"f\xfft\"p"), ..entry },
        Entry { reply: None, secctx: Some(b"system_u:object_r:\n"), use_count: None, ..entry },
        Entry { zone: Zone(7), zone_orig: Some(Zone(7)), counters: [counters(3), None], ..entry },
        Entry {
            zone: Zone(7),
            zone_reply: Some(Zone(7)),
            status: Status(u32::MAX),
            mark: None,
            ..entry
        },
        Entry { start: Some(AT_NS - 1), stop: Some(AT_NS), id: None, timeout: None, ..entry },
        Entry { start: Some(AT_NS + 1), counters: [counters(0), counters(9)], ..entry },
        Entry {
            state: Some(ProtoState::Sctp { state: 200, vtag: [None; 2] }),
            status: Status::DST_NAT,
            ..entry
        },
    ]
    .into_iter()
}

#[test]
fn an_entry_is_the_flow_that_a_table_of_flows_makes_of_it() {
    let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
    let mut compared = 0;
    for message in Messages::new(dump).flatten() {
        let Ok(entry) = Entry::decode(message.payload) else { continue };
        varied(&entry).for_each(|entry| same_by_entry(&entry));
        compared += 1;
    }
    assert_eq!(compared, 17);
}

proptest! {
    #[test]
    fn so_is_every_other_entry(at in 0..2000_usize, byte: u8, which in 0..17_usize) {
        let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
        let message = Messages::new(dump).flatten().nth(which).unwrap();
        let mut payload = message.payload.to_vec();
        let at = at % payload.len();
        payload[at] = byte;
        if let Ok(entry) = Entry::decode(&payload) {
            same_by_entry(&entry);
        }
    }
}

#[test]
fn what_happened_to_an_entry_has_the_entry_in_it() {
    let dump = include_bytes!("../../netlink/ctnetlink/fixtures/dump.bin");
    let entry = Entry::decode(Messages::new(dump).next().unwrap().unwrap().payload).unwrap();
    let event = |event: &str, portid| {
        let mut out = Vec::new();
        render_event(&mut out, event, portid, &entry, "-", &Stamp::new(AT_NS)).unwrap();
        parse(str::from_utf8(&out).unwrap())
    };
    let told = event("destroy", 7);
    assert_eq!((&told["type"], &told["event"]), (&"event".into(), &"destroy".into()));
    assert_eq!(told["portid"], 7);
    assert_eq!(told["flow"]["sources"], Value::Array(vec!["events".into()]));
    let found = event("resync", 0);
    assert_eq!(found.get("portid"), None);
    assert_eq!(found["flow"], parse(&by_flow(&entry)));
}
