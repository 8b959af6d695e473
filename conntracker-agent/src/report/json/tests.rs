use serde_json::Value;

use super::*;
use crate::{
    flow::{Flow, FlowTable, NetnsId},
    kernel::netlink::wire::Messages,
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

#[test]
fn an_entry_is_the_flow_that_a_table_of_flows_makes_of_it() {
    const AT_NS: u64 = 1_800_000_000_000_000_000;
    let dump = include_bytes!("../../kernel/netlink/ctnetlink/fixtures/dump.bin");
    let mut compared = 0;
    for message in Messages::new(dump).flatten() {
        let Ok(entry) = Entry::decode(message.payload) else { continue };
        // A label and a helper too, which not all of the dump have.
        for entry in [entry, Entry { labels: Some(&[5; 16]), helper: Some(b"f\xfftp"), ..entry }] {
            let mut table = FlowTable::new(false);
            let dump = table.begin_dump(NetnsId(0), AT_NS);
            table.dumped(dump, &(&entry).into(), AT_NS);
            table.end_dump(dump);
            let mut want = Vec::new();
            let report = report(table.flows().cloned().collect());
            let names = Names::new(&report.header);
            line(&mut want, &FlowObject::new(&report.flows[0], &names)).unwrap();
            let mut got = Vec::new();
            render_entry(&mut got, &entry, "-", AT_NS).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), String::from_utf8(want).unwrap());
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 17);
}
