//! A ruleset that is replaced ten times a second under traffic: no step is attributed to a rule of
//! another ruleset than the one that the packet really met.
//!
//! Each ruleset has a number, and each hook sets it as packet mark: what the mark is at the end of a
//! hook is read from the packet, and so tells which rules must have matched, whatever the index of
//! rules says. Rules carry the number in their comment, and their places change from one ruleset to
//! the next.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::Tracer;
use conntracker_tests::tracer::report::Document;
use conntracker_tests::traffic::{udp_send, udp_sink};
use serde_json::Value;

const RUN: Duration = Duration::from_secs(30);
const RELOAD: Duration = Duration::from_millis(100);

/// The most rules that stand before the one that matters.
const PADDING: u32 = 7;

const HOOKS: [(&str, i32); 3] = [("prerouting", -150), ("forward", 0), ("postrouting", 50)];

/// Rules before the one that matters, at the hook of this index.
fn padding(generation: u32, hook: usize) -> u32 {
    (generation + hook as u32) % PADDING
}

/// Every third ruleset has another one before it, so that numbers of chains and tables change too.
fn ruleset(generation: u32) -> String {
    let mut text = "flush ruleset\n".to_owned();
    if generation.is_multiple_of(3) {
        text.push_str("table ip other { chain c { type filter hook input priority 0; }; }\n");
    }
    text.push_str("table inet fw {\n");
    let comment = format!("comment \"gen {generation}\"");
    // Half of them jump, so that user chains change as well.
    let jumps = generation.is_multiple_of(2);
    for (hook, (name, priority)) in HOOKS.into_iter().enumerate() {
        let verdict = if jumps { format!("jump {name}_more") } else { String::new() };
        let rules: Vec<String> = (0..padding(generation, hook))
            .map(|number| format!("tcp dport {} counter {comment}", number + 1))
            .chain([format!(
                "ct state new,established meta mark set {generation} counter {verdict} {comment}"
            )])
            .collect();
        let rules = rules.join("\n");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "chain {name}_more {{\nudp dport 9 counter {comment}\n}}\n\
             chain {name} {{\ntype filter hook {name} priority {priority};\n{rules}\n}}"
        );
    }
    text + "}\n"
}

/// The generation in the comment of a rule.
fn generation_of(step: &Value) -> Option<u32> {
    let text = step["text"].as_str()?;
    text.split_once("gen ")?.1.trim_end_matches('"').parse().ok()
}

#[test]
fn no_step_is_of_another_ruleset() {
    let lab = Lab::new().unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let _sink6 = udp_sink(&lab.server, lab.server.at6(9)).unwrap();
    lab.router.nft(&ruleset(1)).unwrap();
    let args = ["--no-fold", "--format", "json", "--sample", "1"];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();

    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let (generations, packets) = thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&lab, &stop));
        let mut generation = 1;
        while start.elapsed() < RUN {
            generation += 1;
            lab.router.nft(&ruleset(generation)).unwrap();
            let next = RELOAD * (generation - 1);
            thread::sleep(next.saturating_sub(start.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        (generation, traffic.join().unwrap())
    });
    assert!(tracer.process().running().unwrap(), "the tracer ended: {}", tracer.process().stderr());
    let report = Document::json(&tracer.finish().unwrap()).unwrap();

    let mut seen = BTreeSet::new();
    let (mut crossings, mut steps, mut exact) = (0, 0, 0);
    for traversal in report.flows.iter().filter_map(|flow| flow["traversals"].as_array()).flatten()
    {
        let name = traversal["hook"].as_str().unwrap();
        let Some(hook) = HOOKS.iter().position(|(hook, _)| *hook == name) else { continue };
        let mark = traversal["packet_mark"]["after"].as_u64().unwrap() as u32;
        crossings += 1;
        for step in traversal["steps"].as_array().unwrap() {
            steps += 1;
            exact += usize::from(step["provenance"] == "exact");
            if let Some(generation) = generation_of(step) {
                assert_eq!(generation, mark, "a rule of another ruleset: {traversal}");
                seen.insert(generation);
            }
            let expected = match (step["type"].as_str().unwrap(), step["chain"] == name) {
                // No rule matched, as conntrack is not there yet: it is switched on and off with rules.
                _ if mark == 0 => continue,
                ("rule", true) => padding(mark, hook) + 1,
                ("policy", true) => padding(mark, hook) + 2,
                ("return", false) => 2,
                ("rule", false) => 1,
                _ => continue,
            };
            assert_eq!(step["position"], expected, "a place of another ruleset: {traversal}");
        }
    }
    println!(
        "{generations} rulesets, {packets} packets, {crossings} traversals, {steps} steps, {exact} \
         exact, of {} rulesets; footer: {}",
        seen.len(),
        report.footer
    );
    // It is no use to be right by being silent.
    assert!(seen.len() as u32 * 2 > generations && exact * 10 > steps * 9, "too little is seen");
    assert!(report.counter("path_races").is_ok(), "races are not counted: {}", report.footer);
}

/// Flows of one or two packets each; returns the number of packets.
fn traffic(lab: &Lab, stop: &AtomicBool) -> usize {
    let (client, server) = (&lab.client, &lab.server);
    let mut packets = 0;
    for flow in 0_u16.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let port = 20_000 + flow % 40_000;
        let (from, to): (SocketAddr, SocketAddr) = if flow.is_multiple_of(2) {
            (client.at(port), server.at(9))
        } else {
            (client.at6(port), server.at6(9))
        };
        let count = 1 + usize::from(flow % 3);
        udp_send(client, from, to, b"reload", count).unwrap();
        packets += count;
        thread::sleep(Duration::from_millis(3));
    }
    packets
}
