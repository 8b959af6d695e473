//! `--follow-drops`: each dropped packet as it happens, compared with the kernel's own traces; limits of lines, readers
//! that are slow or gone, filters. That what is printed adds up to what rules count is in the suite `drops`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::oracle::Verdict;
use conntracker_tests::rulesets::{Kind, Ruleset};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{PATIENCE, Tracer, backend, command, output};
use conntracker_tests::traffic::udp_send;
use conntracker_tests::trial::Bench;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A rule that drops, and others before it.
const FIREWALL: &str = "table inet fw {
    chain forward {
        type filter hook forward priority filter;
        ct state established counter accept
        udp dport 53 counter accept
        udp dport 600-699 counter jump blocked
    }
    chain blocked { udp sport 1-65535 counter drop comment \"all of it\"; }
}";

fn firewall() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    lab
}

/// A command line that follows drops.
fn follow(lab: &Lab, args: &[&str]) -> std::process::Command {
    let all = ["trace", "--netns", &lab.router.name, "--backend", backend(), "--follow-drops"];
    command(all.iter().chain(args)).unwrap()
}

fn send(lab: &Lab, sport: u16, dport: u16, count: usize) {
    udp_send(&lab.client, lab.client.at(sport), lab.server.at(dport), b"x", count).unwrap();
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Packets of the lines of a type.
fn packets(objects: &[Value], kind: &str) -> u64 {
    let of_kind = objects.iter().filter(|object| object["type"] == kind);
    of_kind.map(|object| object["packets"].as_u64().unwrap()).sum()
}

/// Table, chain, position and handle of what dropped packets, and its verdict.
type Dropper = (String, String, u64, Option<u64>, String);

/// Dropped packets by what dropped them, as the kernel's traces and as lines have it, for one ruleset.
fn compared(number: u32) -> (BTreeMap<Dropper, u64>, BTreeMap<Dropper, u64>, u64) {
    let mut bench = Bench::new().unwrap();
    let args = ["--no-fold", "--format", "ndjson", "--drops-rate", "0", "--drops", "netfilter"];
    let mut trace = follow(&bench.lab, &args);
    trace.env("CONNTRACKER_LOG", "debug");
    let mut tracer = Tracer::spawn(trace).unwrap();
    let ruleset = Ruleset::generate(Kind::Nft, number);
    let trial = bench.try_ruleset(ruleset, Some(&mut tracer)).unwrap();
    thread::sleep(Duration::from_millis(300));
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);

    let mut traced: BTreeMap<Dropper, u64> = BTreeMap::new();
    for run in trial.traced.packets.iter().flat_map(|packet| &packet.runs).filter(|run| run.drops())
    {
        let step = run.steps.last().unwrap();
        let verdict = if step.verdict == Verdict::Reject { "reject" } else { "drop" };
        let chain = &step.chain;
        let dropper = (
            format!("{} {}", chain.family, chain.table),
            chain.name.clone(),
            step.position.into(),
            step.handle,
            verdict.to_owned(),
        );
        *traced.entry(dropper).or_default() += 1;
    }
    let (mut told, mut unknown): (BTreeMap<Dropper, u64>, _) = (BTreeMap::new(), 0);
    for drop in objects(&finished.stdout) {
        assert_eq!(drop["type"], "drop", "{drop}");
        let time = humantime::parse_rfc3339(drop["time"].as_str().unwrap()).unwrap();
        if time < trial.since {
            continue;
        }
        let packets = drop["packets"].as_u64().unwrap();
        let Some(by) = drop.get("by").filter(|by| by["type"] != "chain") else {
            unknown += packets;
            continue;
        };
        let text = |key: &str| by[key].as_str().unwrap().to_owned();
        let table = format!("{} {}", text("family"), text("table"));
        let position = by["position"].as_u64().unwrap();
        let dropper = (table, text("chain"), position, by["handle"].as_u64(), text("verdict"));
        *told.entry(dropper).or_default() += packets;
    }
    (traced, told, unknown)
}

#[test]
fn each_drop_is_told_by_the_rule_that_the_kernels_trace_names() {
    let (mut all, mut open) = (0, 0);
    for number in 0..6 {
        let (traced, told, unknown) = compared(number);
        let sum: u64 = traced.values().sum();
        for (dropper, packets) in &told {
            let there = traced.get(dropper).copied().unwrap_or(0);
            assert!(
                *packets <= there,
                "ruleset {number}: {dropper:?}: {packets}, not {there}\n{traced:#?}\n{told:#?}"
            );
        }
        // What is not told by its rule is told all the same.
        assert_eq!(
            told.values().sum::<u64>() + unknown,
            sum,
            "ruleset {number}\n{traced:#?}\n{told:#?}"
        );
        (all, open) = (all + sum, open + unknown);
    }
    println!("{all} dropped packets, {open} of them by a rule that is not known");
    assert!(all > 100 && open * 20 < all, "{open} of {all}");
}

#[test]
fn a_line_comes_while_the_trace_runs_and_no_report_is_written() {
    let lab = firewall();
    let directory = tempfile::tempdir().unwrap();
    let mut trace = follow(&lab, &[]);
    trace.current_dir(directory.path());
    let mut tracer = Tracer::spawn(trace).unwrap();
    let start = Instant::now();
    send(&lab, 40_000, 666, 1);
    tracer.process().wait_for("10.77.1.2:40000", PATIENCE).unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    send(&lab, 40_001, 667, 1);
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (time, rest) = lines[0].split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
    assert!(rest.starts_with("udp 10.77.1.2:40000 -> 10.77.2.2:666 at forward (toclient -> toserver): table: inet fw, chain: blocked, type: rule, position: 1, verdict: drop, handle: "), "{rest}");
    assert!(rest.ends_with("rule: udp sport 1-65535 counter drop comment \"all of it\""), "{rest}");
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "a report that nobody asked for"
    );
}

#[test]
fn a_limit_of_lines_tells_what_it_leaves_out_and_the_report_has_all() {
    let lab = firewall();
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let report = report.to_str().unwrap();
    let args = ["--format", "ndjson", "--drops-rate", "5", "--no-fold", "-o", report];
    let tracer = Tracer::spawn(follow(&lab, &args)).unwrap();
    let start = Instant::now();
    for port in 0..300 {
        send(&lab, 20_000 + port, 600 + port % 100, 2);
        thread::sleep(Duration::from_millis(10));
    }
    let seconds = start.elapsed().as_secs() + 3;
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let objects = objects(&finished.stdout);
    let lines = objects.iter().filter(|object| object["type"] == "drop").count() as u64;
    let (printed, left_out) = (packets(&objects, "drop"), packets(&objects, "drops_not_printed"));
    assert_eq!(printed + left_out, 600, "{printed} printed, {left_out} not");
    assert!(lines >= 10 && lines <= 5 * seconds, "{lines} lines in {seconds} seconds");
    assert!(objects.len() as u64 - lines <= seconds, "more than one such line in a second");
    let document = Document::ndjson(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(document.counter("dropped_packets").unwrap(), 600);
    // A limit that was asked for is no loss.
    assert_eq!(document.footer["losses"]["drops_unprinted"], 0);
}

#[test]
fn a_reader_that_is_slow_holds_up_nothing_and_what_it_missed_is_counted() {
    let lab = firewall();
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let args =
        ["--format", "ndjson", "--drops-rate", "0", "--no-fold", "-o", report.to_str().unwrap()];
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut trace = follow(&lab, &args);
    let mut tracer = Guarded::spawn(trace.stdout(writer).stderr(Stdio::piped())).unwrap();
    drop(trace);
    tracer.wait_for("conntracker: observing", PATIENCE).unwrap();
    let flows = 12_000;
    for port in 0..flows {
        send(&lab, 20_000 + port, 600, 1);
    }
    // Nobody reads, and the loop goes on all the same: it writes a report.
    tracer.signal(Signal::SIGUSR1).unwrap();
    tracer.wait_for("written to ", PATIENCE).unwrap();
    tracer.signal(Signal::SIGINT).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let status = tracer.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", tracer.stderr());
    let objects = objects(&text);
    let (printed, left_out) = (packets(&objects, "drop"), packets(&objects, "drops_not_printed"));
    assert_eq!(printed + left_out, u64::from(flows));
    assert!(left_out > 0 && printed > 0, "{printed} printed, {left_out} not");
    let document = Document::ndjson(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(document.footer["losses"]["drops_unprinted"], left_out);
    assert_eq!(document.counter("dropped_packets").unwrap(), u64::from(flows));
}

#[test]
fn a_closed_pipe_ends_it_as_success() {
    let lab = firewall();
    let start = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut trace = follow(&lab, args);
        let mut tracer = Guarded::spawn(trace.stdout(writer).stderr(Stdio::piped())).unwrap();
        drop(trace);
        tracer.wait_for("conntracker: observing", PATIENCE).unwrap();
        (tracer, reader)
    };
    // As `head -1` does it.
    let (mut tracer, reader) = start(&[]);
    send(&lab, 40_000, 666, 1);
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("10.77.1.2:40000"), "{line}");
    drop(reader);
    // More lines come, and find nobody.
    for port in 0..200 {
        send(&lab, 41_000 + port, 666, 1);
        thread::sleep(Duration::from_millis(10));
        if !tracer.running().unwrap() {
            break;
        }
    }
    assert_eq!(tracer.wait(PATIENCE).unwrap().code(), Some(0), "{}", tracer.stderr());
    assert!(!tracer.stderr().contains("panicked"), "{}", tracer.stderr());
}

#[test]
fn filters_apply_as_in_reports() {
    let lab = firewall();
    let lines = |args: &[&str]| {
        let all = [&["--format", "ndjson", "--no-fold", "--drops-rate", "0"], args].concat();
        let tracer = Tracer::spawn(follow(&lab, &all)).unwrap();
        send(&lab, 40_000, 666, 1);
        send(&lab, 40_001, 667, 3);
        thread::sleep(Duration::from_millis(100));
        let finished = tracer.stop(Signal::SIGINT).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        let objects = objects(&finished.stdout);
        let mut ports: BTreeMap<u64, u64> = BTreeMap::new();
        for object in &objects {
            let packets = object["packets"].as_u64().unwrap();
            *ports.entry(object["original"]["dport"].as_u64().unwrap()).or_default() += packets;
        }
        ports
    };
    let both = BTreeMap::from([(666, 1), (667, 3)]);
    let one = BTreeMap::from([(667, 3)]);
    assert_eq!(lines(&["--dport", "667"]), one);
    assert_eq!(lines(&["--sport", "40001"]), one);
    assert_eq!(lines(&["--dropped", "--iif", "toclient"]), both);
    assert_eq!(lines(&["--oif", "toclient"]), BTreeMap::new());
    assert_eq!(lines(&["--rule", "inet fw/blocked"]), both);
    assert_eq!(lines(&["--rule", "!inet fw/blocked"]), BTreeMap::new());
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    let refused = |args: &[&str], why: &str| {
        let output = output(["trace", "--follow-drops"].iter().chain(args)).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    };
    refused(&["-o", "-"], "prints to standard output");
    refused(&["-d"], "cannot be used with");
    refused(&["--format", "json"], "text` or `ndjson");
    let lab = firewall();
    let args = ["trace", "--netns", &lab.router.name, "--follow-drops", "--backend", "netlink"];
    let output = output(args).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("drops cannot be followed: backend netlink does not see them"), "{said}");
}
