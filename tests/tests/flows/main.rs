//! The report lists exactly the flows that the packet plan, `conntrack -L` and `conntrack -E` say,
//! and the drops that the plan says, in every format and from both backends: TCP, UDP, ICMP, SCTP,
//! GRE and an unknown protocol over IPv4 and IPv6; through, to and from the router; translated,
//! marked, in zones; begun before and during the run, ended during it, unanswered, dropped.

#![expect(clippy::expect_used, reason = "in a test a panic is the failure")]

mod expect;
mod plan;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::thread;

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::conntrack::Events;
use conntracker_tests::tracer::report::{self, Document, Line, Text};
use conntracker_tests::tracer::{self, Tracer, Tuple, conntrack};
use conntracker_tests::traffic::tcp_connect;
use serde_json::Value;

use crate::expect::{
    TextLine, describe_object, described, drops, drops_without_rules, reported, same, text_lines,
    tracked,
};
use crate::plan::When;
use crate::run::{Outcome, netlink, packets};

/// Both runs; the first test to want them has them made side by side.
fn both() -> [&'static Outcome; 2] {
    thread::scope(|scope| {
        // A failure is told below, where the test's own output is.
        let _ = scope.spawn(|| catch_unwind(netlink));
        packets()
    });
    [packets(), netlink()]
}

#[test]
fn conntrack_sees_what_the_plan_says() {
    for outcome in both() {
        let seen = outcome.conntrack.iter().copied().collect();
        same(outcome.backend, &seen, &tracked(outcome));
    }
}

#[test]
fn json_and_ndjson_list_exactly_the_flows_of_plan_and_conntrack() {
    for outcome in both() {
        let Outcome { json, ndjson, flows_only, .. } = outcome;
        for (format, document) in [("json", json), ("ndjson", ndjson), ("json -c", flows_only)] {
            let what = format!("{} {format}", outcome.backend);
            let drops = if format == "json -c" { drops_without_rules } else { drops };
            let flows: Vec<_> = document.flows.iter().map(|o| report::flow(o).unwrap()).collect();
            let of_conntrack: BTreeSet<_> =
                (flows.iter().zip(&document.flows).filter(|(_, o)| o["flows"] != 0))
                    .map(|(flow, _)| *flow)
                    .collect();
            same(&what, &of_conntrack, &outcome.conntrack.iter().copied().collect());

            let described_all: Vec<_> =
                document.flows.iter().map(|o| describe_object(o).unwrap()).collect();
            let distinct: BTreeSet<_> = described_all.iter().cloned().collect();
            assert_eq!(distinct.len(), described_all.len(), "{what}: a flow is listed twice");
            let planned = reported(outcome)
                .map(|row| described(&row.flow, drops(outcome, row).as_ref()))
                .collect();
            same(&what, &distinct, &planned);
            for object in &document.flows {
                let flows = object["flows"].as_u64().unwrap();
                assert!(flows <= 1, "{what}: one flow is counted {flows} times: {object}");
            }
        }
    }
}

#[test]
fn text_lists_exactly_the_lines_of_the_plan_in_their_order() {
    for outcome in both() {
        let Outcome { backend, text, folded_text, .. } = outcome;
        for (text, fold) in [(text, false), (folded_text, true)] {
            let what = format!("{backend}, folded: {fold}");
            let line =
                |Line { label, body, .. }: &Line| -> TextLine { (label.clone(), body.clone()) };
            let got: Vec<TextLine> = text.lines.iter().map(line).collect();
            let want = text_lines(outcome, fold);
            let as_set = |lines: &[TextLine]| -> BTreeSet<String> {
                lines.iter().map(|(label, body)| format!("{label} {body}")).collect()
            };
            same(&what, &as_set(&got), &as_set(&want));
            assert_eq!(got, want, "{what}: the order");
            let mut next: BTreeMap<&str, usize> = BTreeMap::new();
            for line in &text.lines {
                let index = next.entry(&line.label).or_default();
                assert_eq!(line.index, *index, "{what}: {line:?}");
                *index += 1;
            }
        }
    }
}

#[test]
fn explanations_tell_marks_translations_and_drops() {
    for outcome in both() {
        for row in reported(outcome) {
            let orig = row.flow.orig;
            if orig.proto != plan::UDP && orig.proto != plan::TCP {
                continue;
            }
            let source = format!("src = {} (port={}) ", orig.src, row.from.port());
            let target = format!("dst = {} (port={})", orig.dst, row.to.port());
            let zone = format!("[zone {}]", row.flow.zone);
            let line = outcome.text.lines.iter().find(|line| {
                line.body.contains(&source)
                    && line.body.contains(&target)
                    && line.label.starts_with(if orig.proto == plan::UDP { "UDP" } else { "TCP" })
                    && line.body.contains(&zone) == (row.flow.zone != 0)
            });
            let line = line.unwrap_or_else(|| panic!("{}: no line of {row:?}", outcome.backend));
            let mark = (row.flow.mark != 0).then(|| format!("{:#x}", row.flow.mark));
            assert_eq!(line.explanation("mark"), mark.as_deref(), "{line:?}");
            let reply = expect::translated_reply(&row.flow);
            assert_eq!(line.explanation("reply"), reply.as_deref(), "{line:?}");
            let dropped = drops(outcome, row).map(|dropped| {
                let interface = |name: Option<&str>| name.unwrap_or("-").to_owned();
                format!(
                    "{} packet{} at {} ({} -> {})",
                    dropped.packets,
                    if dropped.packets == 1 { "" } else { "s" },
                    dropped.hook.unwrap_or("unknown hook"),
                    interface(dropped.iif),
                    interface(dropped.oif),
                )
            });
            assert_eq!(line.explanation("dropped"), dropped.as_deref(), "{line:?}");
        }
    }
}

#[test]
fn folded_flows_are_counted_and_merged() {
    for outcome in both() {
        let mut want: BTreeMap<(Tuple, u16), (bool, u64, u64)> = BTreeMap::new();
        for row in reported(outcome) {
            let merged = want.entry((row.flow.orig.folded(), row.flow.zone)).or_default();
            merged.0 |= row.flow.replied;
            merged.1 += u64::from(row.tracked);
            merged.2 += drops(outcome, row).map_or(0, |dropped| dropped.packets);
        }
        let text = |((orig, zone), (replied, flows, dropped)): ((Tuple, u16), (bool, u64, u64))| {
            format!("{orig} zone {zone}: replied {replied}, {flows} flows, {dropped} dropped")
        };
        let got = outcome.folded_json.flows.iter().map(|object| {
            let flow = report::flow(object).unwrap();
            let dropped = object.get("dropped").map_or(0, |d| d["packets"].as_u64().unwrap());
            let flows = object["flows"].as_u64().unwrap();
            text(((flow.orig, flow.zone), (flow.replied, flows, dropped)))
        });
        same(outcome.backend, &got.collect(), &want.into_iter().map(text).collect());
    }
}

#[test]
fn links_tell_packet_marks_and_interfaces_of_flows_they_saw_begin() {
    let outcome = packets();
    let objects: BTreeMap<_, &Value> = (outcome.json.flows.iter())
        .map(|object| {
            let flow = report::flow(object).unwrap();
            ((flow.orig, flow.zone), object)
        })
        .collect();
    for row in outcome.plan.iter().filter(|row| row.when == When::During && row.tracked) {
        let object = objects[&(row.flow.orig, row.flow.zone)];
        assert_eq!(object["packet_mark"], row.packet_mark, "{object}");
        let interface = |key: &str| object["interfaces"].get(key).and_then(Value::as_str);
        assert_eq!([interface("in"), interface("out")], row.way, "{object}");
    }
}

#[test]
fn address_translation_is_named() {
    for outcome in both() {
        for (object, flow) in outcome.json.flows.iter().map(|o| (o, report::flow(o).unwrap())) {
            let Some(reply) = flow.reply else { continue };
            let plain = flow.orig.turned();
            // A source port that was translated shows as the reply's destination port.
            let mut want = Vec::new();
            if (plain.dst, port(&plain, 1)) != (reply.dst, port(&reply, 1)) {
                want.push("src");
            }
            if (plain.src, port(&plain, 0)) != (reply.src, port(&reply, 0)) {
                want.push("dst");
            }
            let got: Vec<&str> =
                object["nat"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(got, want, "{}: {object}", outcome.backend);
        }
    }
}

fn port(tuple: &Tuple, which: usize) -> u16 {
    match tuple.l4 {
        tracer::L4::Ports(src, dst) => [src, dst][which],
        _ => 0,
    }
}

#[test]
fn accounting_equals_that_of_conntrack() {
    for outcome in both() {
        let objects: BTreeMap<_, &Value> = (outcome.json.flows.iter())
            .map(|object| {
                let flow = report::flow(object).unwrap();
                ((flow.orig, flow.zone), object)
            })
            .collect();
        assert!(outcome.table.len() > 50, "a table of {} lines", outcome.table.len());
        for line in &outcome.table {
            let flow = conntrack::parse(line).unwrap();
            let object = objects[&(flow.orig, flow.zone)];
            let numbers = |key: &str| -> Vec<u64> {
                line.split_whitespace()
                    .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
                    .collect()
            };
            let counters = &object["counters"];
            for key in ["packets", "bytes"] {
                let got = ["original", "reply"].map(|way| counters[way][key].as_u64().unwrap());
                assert_eq!(got[..], numbers(key)[..], "{}: {object}\n{line}", outcome.backend);
            }
        }
    }
}

#[test]
fn header_totals_and_footer_are_there_and_nothing_was_lost() {
    for outcome in both() {
        let Outcome { backend, json, ndjson, text, folded_json, folded_text, flows_only, .. } =
            outcome;
        // The instances come and go one after the other, each with links of its own.
        let races: &[&str] =
            if *backend == tracer::backend() { &report::RULES_CHANGED } else { &[] };
        let rows: Vec<_> = reported(outcome).collect();
        let lost: Vec<u64> =
            rows.iter().filter_map(|row| Some(drops(outcome, row)?.packets)).collect();
        for document in [json, ndjson, flows_only] {
            let totals = &document.footer["totals"];
            let no_entry = rows.iter().filter(|row| row.no_entry()).count();
            assert_eq!(totals["flows"], rows.len() - no_entry);
            assert_eq!(totals["no_entry"], no_entry);
            assert_eq!(totals["merged"], tracked(outcome).len());
            assert_eq!(totals["confirmed"], rows.iter().filter(|row| row.flow.replied).count());
            assert_eq!(totals["dropped"], lost.len());
            assert_eq!(totals["dropped_packets"], lost.iter().sum::<u64>());
        }
        assert_eq!(folded_json.footer["totals"]["merged"], tracked(outcome).len());
        assert_eq!(flows_only.footer["lost"], false, "{}", flows_only.footer);
        for document in [json, ndjson, folded_json, flows_only] {
            assert!(document.lost_besides(races).is_empty(), "{}", document.footer);
            let lost = !document.lost_besides(&[]).is_empty();
            assert_eq!(document.footer["lost"], lost, "{}", document.footer);
            assert_eq!(document.header["backend"], *backend);
            let note = document.notes("drops are not visible with the netlink backend");
            assert_eq!(note, *backend == "netlink");
            assert!(document.header["start"].as_str() < document.header["end"].as_str());
        }
        for text in [text, folded_text] {
            assert!(text.header[0].starts_with("conntracker "), "{:?}", text.header);
            assert!(text.header("backend").unwrap().starts_with(backend));
            assert!(text.header("start") < text.header("end"));
            assert_eq!(text.counter("lines").unwrap(), text.lines.len() as u64);
            assert_eq!(text.counter("merged").unwrap(), tracked(outcome).len() as u64);
            assert_eq!(text.counter("dropped_packets").unwrap(), lost.iter().sum::<u64>());
            assert!(text.lost_besides(races).is_empty(), "{text:?}");
            let warnings = text.footer.iter().filter(|line| line.starts_with("warning: "));
            assert_eq!(warnings.count(), text.lost_besides(&[]).len(), "{text:?}");
        }
    }
}

#[test]
fn json_reports_are_valid_by_the_schema() {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.schema.json");
    let described =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema.md")).unwrap();
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let mut line = schema.clone();
    let document = jsonschema::validator_for(&schema).unwrap();
    // The same definitions, but for one object.
    let fields = line.as_object_mut().unwrap();
    fields.retain(|key, _| key == "$defs" || key == "$schema");
    fields.insert("$ref".to_owned(), "#/$defs/line".into());
    let line = jsonschema::validator_for(&line).unwrap();
    for outcome in both() {
        let report: Value = serde_json::from_str(&outcome.json_text).unwrap();
        let errors: Vec<_> = document.iter_errors(&report).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", outcome.backend);
        for counters in ["sources", "losses"].map(|group| &outcome.json.footer[group]) {
            for name in counters.as_object().unwrap().keys() {
                assert!(described.contains(&format!("`{name}`")), "docs/schema.md lacks {name}");
            }
        }
        for object in outcome.ndjson_text.lines() {
            let object: Value = serde_json::from_str(object).unwrap();
            let errors: Vec<_> = line.iter_errors(&object).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {object}: {errors:#?}", outcome.backend);
        }
        assert!(!document.is_valid(&serde_json::json!({"schema": "conntracker-report/1"})));
        assert!(!line.is_valid(&serde_json::json!({"type": "flow"})));
    }
}

/// The one known difference between the backends: a reset that answers a SYN ends the entry before
/// the kernel notes in it that a reply was seen. The links see the reply itself.
#[test]
fn a_refused_connection_is_confirmed_by_links_and_not_by_netlink() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let mut events = Events::start(&lab.router).unwrap();
    let start = |backend| {
        let args = ["--backend", backend, "--format", "json", "--no-fold"];
        (backend, Tracer::start(&lab.router, &args).unwrap())
    };
    let tracers = [tracer::backend(), "netlink"].map(start);
    let patience = tracer::PATIENCE;
    let refused = tcp_connect(&lab.client, lab.client.at(40_000), lab.server.at(81), patience);
    refused.unwrap_err();
    events.wait_for("[DESTROY]").unwrap();
    let [seen] = events.finish().unwrap()[..] else { panic!("one flow") };
    assert!(!seen.replied, "conntrack never knew of the reply: {seen}");
    for (backend, tracer) in tracers {
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        let [object] = &report.flows[..] else { panic!("one flow: {:?}", report.flows) };
        let flow = report::flow(object).unwrap();
        assert_eq!((flow.orig, flow.reply), (seen.orig, seen.reply));
        assert_eq!(flow.replied, backend == tracer::backend(), "{backend}: {object}");
    }
}

/// A text report without flows still has all its parts.
#[test]
fn a_report_of_nothing_is_whole() {
    let lab = Lab::new().unwrap();
    let report = Tracer::start(&lab.router, &[]).unwrap().finish().unwrap();
    let text = Text::parse(&report).unwrap();
    assert!(text.lines.is_empty() && text.header.len() > 5 && text.footer.len() == 3, "{report}");
    assert!(report.contains("# note: conntrack is not active"), "{report}");
}
