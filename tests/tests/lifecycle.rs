//! A tracer leaves nothing behind, however it ends, disturbs nothing while it runs, and writes its
//! report when it is told to.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::{self, Document, Text};
use conntracker_tests::tracer::{Flow, PATIENCE, Tracer};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;
use serde_json::Value;

fn tracking() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    lab
}

/// One flow through the router, from this port of the client.
fn exchange(lab: &Lab, port: u16) {
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    udp_exchange(&lab.client, lab.client.at(port), lab.server.at(7), b"hello").unwrap();
}

/// Identifiers in the descriptors of a process: of its BPF links and of its BPF programs.
fn bpf_objects(pid: u32) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let (mut links, mut programs) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Descriptors come and go while they are read.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        for line in info.lines() {
            let mut words = line.split_whitespace();
            let ids = match words.next() {
                Some("link_id:") => &mut links,
                Some("prog_id:") => &mut programs,
                _ => continue,
            };
            ids.insert(words.next().context("no identifier")?.parse()?);
        }
    }
    Ok((links, programs))
}

/// Identifiers of all links or programs (`link`, `prog`) that the kernel has, by bpftool.
fn in_kernel(kind: &str) -> BTreeSet<u64> {
    let output = std::process::Command::new("bpftool").args(["-j", kind, "list"]).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    list.as_array().unwrap().iter().filter_map(|object| object["id"].as_u64()).collect()
}

/// Waits until the kernel has let go of links and programs; it may do so a moment after the process
/// has ended. Identifiers are never given out twice.
fn gone(links: &BTreeSet<u64>, programs: &BTreeSet<u64>) {
    let start = Instant::now();
    loop {
        let left: Vec<_> = links.intersection(&in_kernel("link")).copied().collect();
        let loaded: Vec<_> = programs.intersection(&in_kernel("prog")).copied().collect();
        if left.is_empty() && loaded.is_empty() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "links {left:?}, programs {loaded:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_stays_attached_after_sigkill_and_the_previous_report_is_intact() {
    let lab = tracking();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    fs::write(&file, "the previous report\n").unwrap();
    let args = ["--backend", "links", "-o", file.to_str().unwrap()];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    exchange(&lab, 40_000);
    let (links, programs) = bpf_objects(tracer.id()).unwrap();
    // LOCAL_IN and POSTROUTING, IPv4 and IPv6, and the tracepoint.
    assert_eq!(links.len(), 5, "{links:?}");
    assert!(links.is_subset(&in_kernel("link")), "bpftool does not show our links");
    assert!(programs.is_subset(&in_kernel("prog")));
    let finished = tracer.stop(Signal::SIGKILL).unwrap();
    assert_eq!(finished.status.code(), None);
    gone(&links, &programs);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the previous report\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something lies beside it");
    // The hooks are free again, and traffic passes.
    exchange(&lab, 40_001);
}

#[test]
fn sigint_and_sigterm_write_the_report_and_detach() {
    let lab = tracking();
    for (port, signal) in [(40_000, Signal::SIGINT), (40_001, Signal::SIGTERM)] {
        let args = ["--backend", "links", "--no-fold"];
        let tracer = Tracer::start(&lab.router, &args).unwrap();
        exchange(&lab, port);
        let (links, programs) = bpf_objects(tracer.id()).unwrap();
        let finished = tracer.stop(signal).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        assert!(finished.stdout.contains(&format!("(port={port}) to dst = 10.77.2.2 (port=7)")));
        gone(&links, &programs);
    }
}

#[test]
fn a_second_instance_in_the_same_namespace_sees_the_same_flows() {
    let lab = tracking();
    let args = ["--backend", "links", "--format", "json", "--no-fold"];
    let start = || Tracer::start(&lab.router, &args).unwrap();
    let first = start();
    exchange(&lab, 40_000);
    let [second, third] = [start(), start()];
    exchange(&lab, 40_001);
    // The one at the last priority goes; the others stay.
    let flows = |tracer: Tracer| -> Vec<Flow> {
        let document = Document::json(&tracer.finish().unwrap()).unwrap();
        assert_eq!(document.footer["lost"], false);
        assert!(document.flows.iter().all(|flow| flow["flows"] == 1), "{:?}", document.flows);
        document.flows.iter().map(|flow| report::flow(flow).unwrap()).collect()
    };
    let of_first = flows(first);
    assert_eq!(of_first.len(), 2);
    exchange(&lab, 40_002);
    let of_second = flows(second);
    assert_eq!(of_second[..2], of_first[..]);
    assert_eq!(of_second.len(), 3);
    assert_eq!(flows(third), of_second);
}

#[test]
fn sigusr1_writes_a_report_and_the_trace_goes_on() {
    let lab = tracking();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    let args = ["--no-fold", "-o", file.to_str().unwrap()];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();
    exchange(&lab, 40_000);
    tracer.process().signal(Signal::SIGUSR1).unwrap();
    tracer.process().wait_for("1 flows (0 dropped) written to ", PATIENCE).unwrap();
    let lines = || Text::parse(&fs::read_to_string(&file).unwrap()).unwrap().lines.len();
    assert_eq!(lines(), 1);
    exchange(&lab, 40_001);
    tracer.finish().unwrap();
    assert_eq!(lines(), 2);
}

#[test]
fn an_interval_writes_reports_and_a_duration_ends_the_trace() {
    let lab = tracking();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    let args = ["--interval", "1s", "-o", file.to_str().unwrap()];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();
    exchange(&lab, 40_000);
    tracer.process().wait_for("1 flows (0 dropped) written to ", PATIENCE).unwrap();
    assert_eq!(Text::parse(&fs::read_to_string(&file).unwrap()).unwrap().lines.len(), 1);
    assert!(tracer.process().running().unwrap());
    tracer.finish().unwrap();

    let start = Instant::now();
    let finished = Tracer::start(&lab.router, &["--duration", "1.5"]).unwrap().wait().unwrap();
    assert_eq!(finished.status.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(1500));
    assert_eq!(Text::parse(&finished.stdout).unwrap().lines.len(), 1);
}

#[test]
fn the_ruleset_is_the_same_before_during_and_after() {
    let lab = tracking();
    let ruleset = || {
        let tables = lab.router.run(["nft", "-a", "list", "ruleset"]).unwrap();
        let sysctls = lab.router.run([
            "sysctl",
            "-a",
            "--pattern",
            "^net.netfilter.*_(acct|events|timestamp)$",
        ]);
        (tables, sysctls.unwrap())
    };
    let before = ruleset();
    assert!(before.0.contains("ct state established accept"), "{before:?}");
    for backend in ["links", "netlink"] {
        let tracer = Tracer::start(&lab.router, &["--backend", backend]).unwrap();
        exchange(&lab, 40_000);
        assert_eq!(ruleset(), before, "during, {backend}");
        tracer.finish().unwrap();
        assert_eq!(ruleset(), before, "after, {backend}");
    }
}
