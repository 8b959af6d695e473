//! `conntracker report`: a recording that is still being written, and temporary files for what does not fit into memory.
//! That reports with nearly all flows in temporary files equal live reports is compared in every suite
//! (tests/src/tracer/recording.rs).

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::disk::SmallDisk;
use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::tracer::recording::{ports, recording, report};
use conntracker_tests::tracer::{PATIENCE, Tracer, command};
use conntracker_tests::traffic::{udp_send, udp_sink};
use nix::sys::signal::Signal;
use serde_json::Value;

fn send(lab: &Lab, ports: std::ops::Range<u16>) {
    for port in ports {
        udp_send(&lab.client, lab.client.at(port), lab.server.at(9), b"x", 1).unwrap();
    }
}

#[test]
fn a_recording_is_followed_from_part_to_part_until_it_ends() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("r.rec");
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let tracer: Tracer = recording(&lab.router, &base, &["--rotate", "2s"]).unwrap();
    send(&lab, 2_000..2_010);
    let name = base.to_str().unwrap();
    let first = format!("{name}.000001");
    let start = Instant::now();
    while std::fs::metadata(&first).map_or(0, |meta| meta.len()) < 1_000 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    let args = ["report", "--follow", "--interval", "1", "--format", "ndjson", name];
    let mut child = command(args).unwrap();
    let (stdout, writer) = std::io::pipe().unwrap();
    let mut child = Guarded::spawn(child.stdout(writer)).unwrap();
    let (sender, lines) = mpsc::channel::<Value>();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let _ = sender.send(serde_json::from_str(&line.unwrap()).unwrap());
        }
    });
    // Each report is a header, the flows of which something was seen since the one before, and a footer.
    let mut reports: Vec<BTreeSet<u64>> = Vec::new();
    let mut wait = |until: &BTreeSet<u64>| {
        let start = Instant::now();
        let mut seen = BTreeSet::new();
        while !seen.is_superset(until) {
            let line = lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed())).unwrap();
            match line["type"].as_str().unwrap() {
                "header" => reports.push(BTreeSet::new()),
                "flow" => {
                    let port = line["original"]["sport"].as_u64().unwrap();
                    seen.insert(port);
                    reports.last_mut().unwrap().insert(port);
                }
                _ => {}
            }
        }
    };
    wait(&(2_000..2_010).collect());
    // Nothing to report for a while.
    thread::sleep(Duration::from_millis(2_500));
    // Enough for a second part, and a third.
    for round in 0..4 {
        let from = 10_000 + round * 2_000;
        send(&lab, from..from + 1_500);
        wait(&(u64::from(from)..u64::from(from) + 1_500).collect());
    }
    assert!(std::fs::exists(format!("{name}.000002")).unwrap());
    tracer.stop(Signal::SIGINT).unwrap();
    // It ends with the recording.
    assert!(child.wait(PATIENCE).unwrap().success());
    assert!(reports.len() >= 5, "{} reports", reports.len());
    // What is not seen again is not reported again, but for the dump at the beginning of a part.
    let again = reports[1..].iter().filter(|ports| ports.contains(&2_001)).count();
    assert!(again < reports.len() - 1, "{again} of {}", reports.len());
    let all: BTreeSet<u64> = reports.iter().flatten().copied().collect();
    assert_eq!(all, ports(&report(&[name]).unwrap()));
}

#[test]
fn a_full_disk_for_temporary_files_is_an_error() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    send(&lab, 2_000..8_000);
    tracer.stop(Signal::SIGINT).unwrap();
    let disk = SmallDisk::new().unwrap();
    let report = |tmpdir: &str| {
        let mut report =
            command(["report", "--memory", "64K", "--format", "csv", "--by", "dport"]).unwrap();
        report.arg(&file).env("TMPDIR", tmpdir).output().unwrap()
    };
    let full = report(disk.path().to_str().unwrap());
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!((full.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("TMPDIR"), "{said}");
    assert!(full.stdout.is_empty());
    let missing = report("/nonexistent");
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!((missing.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("/nonexistent"), "{said}");
    let fits = report(directory.path().to_str().unwrap());
    assert!(fits.status.success());
    assert!(String::from_utf8(fits.stdout).unwrap().contains("group,9/udp,6000,"));
}
