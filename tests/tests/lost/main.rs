//! Packets that get lost: where no rule drops them, the report says how many of which flow, after which hook and
//! for which of the kernel's reasons; where conntrack itself drops them it says so. The oracles are the kernel's
//! own counters (/proc/net/snmp, netstat, snmp6, `conntrack -S`, the rule's counter) and, where it has none, the
//! packets sent.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod cases;
mod conntrack;
mod counters;
mod related;

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::Tracer;
use conntracker_tests::tracer::report::Document;
use conntracker_tests::traffic::{udp_send, udp_sink};
use serde_json::Value;

use crate::cases::{Case, cases, prepare};

/// Lost packets that the report tells of flows to a port: how many, after which hooks, for what.
fn lost(report: &Document, port: u16) -> (u64, Vec<String>, Vec<String>) {
    let (mut packets, mut hooks, mut words) = (0, Vec::new(), Vec::new());
    let of_port = |flow: &&Value| flow["original"]["dport"] == port;
    for flow in report.flows.iter().filter(of_port) {
        packets += flow["lost"]["packets"].as_u64().unwrap_or(0);
        for place in flow["lost"]["places"].as_array().into_iter().flatten() {
            let text = |key: &str| place[key].as_str().map(str::to_owned);
            hooks.push(text("after").unwrap_or_else(|| "-".to_owned()));
            words.push(text("reason").or_else(|| text("function")).unwrap_or_default());
        }
    }
    for list in [&mut hooks, &mut words] {
        list.sort();
        list.dedup();
    }
    (packets, hooks, words)
}

fn compare(args: &[&str]) {
    let lab = Lab::new().unwrap();
    let cases = cases(&lab);
    prepare(&lab);
    let tracer = Tracer::start(&lab.router, &[&["--format", "json"], args].concat()).unwrap();
    let counted: Vec<Option<u64>> = cases.iter().map(|case| case.run(&lab)).collect();
    // A neighbour that does not answer is given up after a second or so.
    thread::sleep(Duration::from_secs(2));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let mut wrong = String::new();
    println!("| packet | kernel's counter | it has | we tell | after | for |");
    println!("|---|---|---:|---:|---|---|");
    for (case, counted) in cases.iter().zip(counted) {
        let Case { name, port, packets, counter, reasons, after, .. } = case;
        let (told, hooks, words) = lost(&report, *port);
        let has = counted.map_or("-".to_owned(), |counted| counted.to_string());
        let (hooks, words) = (hooks.join("/"), words.join("/"));
        let counter = counter.map_or("-", |counter| counter.name);
        println!("| {name} | {counter} | {has} | {told} | {hooks} | {words} |");
        if told != *packets || counted.is_some_and(|counted| counted != *packets) {
            writeln!(wrong, "{name}: told {told}, sent {packets}, {counter} {has}").unwrap();
        }
        if !reasons.contains(&words.as_str()) {
            writeln!(wrong, "{name}: for {words}, expected one of {reasons:?}").unwrap();
        }
        if hooks != *after {
            writeln!(wrong, "{name}: after {hooks}, expected {after}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{args:?}:\n{wrong}{}", report.footer);
    let totals: u64 = cases.iter().map(|case| case.packets).sum();
    assert_eq!(report.counter("lost_packets").unwrap(), totals, "{}", report.footer);
    assert_eq!(report.counter("dropped_packets").unwrap(), 0, "{}", report.footer);
    // A packet that is lost within a hook leaves its frame behind. Where CPUs are busy, the frame of a queued packet may
    // meet an ICMP error that has the packet's memory: that path is counted as unresolved.
    let besides = report.lost_besides(&["path_frames_lost", "paths_unresolved"]);
    assert!(besides.is_empty(), "{besides:?}: {}", report.footer);
}

#[test]
fn every_lost_packet_is_told_with_the_kernels_reason() {
    compare(&["--no-fold"]);
}

#[test]
fn folded_and_without_rules_the_same_packets_are_told() {
    compare(&["-c"]);
}

#[test]
fn lost_packets_are_left_out_where_only_drops_are_wanted() {
    let lab = Lab::new().unwrap();
    prepare(&lab);
    let args = ["--format", "json", "--drops", "netfilter"];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_send(&lab.client, lab.client.at(0), lab.router.at(1007), b"x", 3).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    assert_eq!(report.counter("lost_packets").unwrap(), 0);
    assert!(report.flows.iter().all(|flow| flow.get("lost").is_none()));
}

/// A program that does not read its socket: each packet is counted, few cost a record.
#[test]
fn a_full_socket_costs_no_record_for_each_packet() {
    const PACKETS: u64 = 50_000;
    let lab = Lab::new().unwrap();
    prepare(&lab);
    let socket = udp_sink(&lab.router, lab.router.at(1009)).unwrap();
    let full = counters::Counter { name: "RcvbufErrors", file: "snmp", section: "Udp:" };
    let before = full.of(&lab.router);
    let tracer = Tracer::start(&lab.router, &["--format", "json"]).unwrap();
    udp_send(&lab.client, lab.client.at(40_000), lab.router.at(1009), &[0; 500], 50_000).unwrap();
    thread::sleep(Duration::from_millis(300));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    drop(socket);
    let counted = full.of(&lab.router) - before;
    let (told, hooks, words) = lost(&report, 1009);
    assert!(counted > PACKETS / 2 && counted < PACKETS, "{counted} did not fit");
    assert_eq!((told, hooks), (counted, vec!["input".to_owned()]), "{words:?}");
    assert!(report.counter("lost_records").unwrap() < 10, "{}", report.footer);
    assert!(report.lost_besides(&[]).is_empty(), "{}", report.footer);
}
