//! Functions of the kernel that are not there: what serves in their place is taken, and what is missing
//! then is told. `--avoid` makes them missing.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{by_probes, output};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange, udp_send};
use serde_json::Value;

/// The notes of a report that are about something.
fn notes<'a>(report: &'a Document, about: &str) -> Vec<&'a str> {
    let notes = report.header["notes"].as_array().unwrap();
    notes.iter().map(|note| note.as_str().unwrap()).filter(|note| note.contains(about)).collect()
}

fn from(report: &Document, port: u16) -> &Value {
    report.flows.iter().find(|flow| flow["original"]["sport"] == port).unwrap()
}

#[test]
fn new_flows_are_seen_where_the_functions_at_the_hooks_are_missing() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let avoid = ["nf_confirm", "ipv4_confirm", "ipv6_confirm"].map(|name| ["--avoid", name]);
    let args = [&["--no-fold"], avoid.as_flattened()].concat();
    let Some(tracer) = by_probes(&lab.router, &args) else { return };
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    udp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(7), b"x").unwrap();
    udp_send(&lab.client, lab.client.at(40_001), lab.server.at(9), b"x", 1).unwrap();
    udp_send(&lab.client, lab.client.at6(40_002), lab.server.at6(9), b"x", 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    for port in [40_000, 40_001, 40_002] {
        let flow = from(&report, port);
        assert!(flow["sources"].as_array().unwrap().contains(&"packets".into()), "{flow}");
        assert!(flow.get("interfaces").is_none() && flow.get("process").is_none(), "{flow}");
    }
    // The last dump tells.
    assert_eq!(from(&report, 40_000)["confirmed"], true);
    assert_eq!(from(&report, 40_001)["confirmed"], false);
    let [note] = notes(&report, "without hook and interfaces")[..] else { panic!("{report:?}") };
    assert!(note.contains("`__nf_conntrack_confirm` is called without"), "{note}");
    assert!(note.contains("`nf_confirm` is to be avoided"), "{note}");
    assert_eq!(report.counter("kernel_reads_failed").unwrap(), 0);
}

#[test]
fn without_a_function_for_ends_there_are_flows_all_the_same() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let avoid = ["--avoid", "nf_ct_destroy", "--avoid", "destroy_conntrack"];
    let Some(tracer) = by_probes(&lab.router, &avoid) else { return };
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), b"x", 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    assert_eq!(report.flows.len(), 1);
    let [note] = notes(&report, "ends of flows are not seen")[..] else { panic!("{report:?}") };
    assert!(note.contains("no function of this kernel destroys flows"), "{note}");
    assert!(note.contains("`nf_ct_destroy` is to be avoided"), "{note}");
}

#[test]
fn rules_whose_evaluator_is_missing_are_not_told_apart_and_others_are() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(
            "table inet t {
                chain f {
                    type filter hook forward priority 0; policy accept;
                    udp dport 8 drop
                }
                chain g {
                    type filter hook postrouting priority 0; policy accept;
                    udp dport 9 meta mark set 5
                }
            }",
        )
        .unwrap();
    let Some(tracer) = by_probes(&lab.router, &["--avoid", "nft_immediate_eval"]) else { return };
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(8), b"x", 1).unwrap();
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), b"x", 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let steps = |port: u16| -> Vec<String> {
        let flow = report.flows.iter().find(|flow| flow["original"]["dport"] == port).unwrap();
        let ways = flow["traversals"].as_array().unwrap().iter();
        let steps = ways.flat_map(|way| way["steps"].as_array().unwrap());
        let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
        steps
            .map(|step| {
                ["chain", "type", "verdict", "provenance"].map(|key| text(step, key)).join(" ")
            })
            .collect()
    };
    assert_eq!(steps(8), ["f chain drop chain"]);
    assert!(steps(9).contains(&"g rule continue exact".to_owned()), "{:?}", steps(9));
    let [note] = notes(&report, "not told apart")[..] else { panic!("{report:?}") };
    assert!(note.contains("`nft_immediate_eval` is to be avoided"), "{note}");
}

#[test]
fn with_none_left_the_backend_does_not_start_and_auto_takes_another() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    // Where probes work at all.
    let Some(tracer) = by_probes(&lab.router, &[]) else { return };
    tracer.finish().unwrap();
    let trace = ["trace", "--netns", &lab.router.name, "--duration", "0.1", "-o", "-"];
    let avoid = ["--avoid", "nf_hook_slow"];
    let refused = output([&trace[..], &avoid, &["--backend", "probes"]].concat()).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("error: backend `probes` does not work here"), "{said}");
    assert!(said.contains("`nf_hook_slow` is to be avoided"), "{said}");
    assert!(said.lines().count() == 1 && refused.stdout.is_empty(), "{said}");

    // The report says it in a clause, `-v` in full.
    let other = output([&trace[..], &avoid, &["--backend", "auto", "-v"]].concat()).unwrap();
    let [report, said] = [other.stdout, other.stderr].map(|text| String::from_utf8(text).unwrap());
    let backend = report.lines().find(|line| line.starts_with("# backend: ")).unwrap();
    assert!(!backend.starts_with("# backend: probes"), "{backend}");
    assert!(backend.contains("probes: not possible here; see conntracker doctor"), "{backend}");
    assert!(said.contains("`nf_hook_slow` is to be avoided"), "{said}");
}
