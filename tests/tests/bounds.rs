//! Floods of more flows than there is room for: memory stays flat, sums are exact, counters tell; and a control group
//! that limits memory does not cost the report.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::memory::Resident;
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Finished, Tracer, backend, skip};
use conntracker_tests::traffic::{udp_sink, udp_storm_of};
use nix::sys::signal::Signal;

/// Where the flood goes.
const PORT: u16 = 9;

/// Flows that are sent before the table may settle.
const AT_ONCE: usize = 20_000;

/// Flows of a flood, and room for flows.
fn sizes() -> (usize, usize) {
    if is_quick() { (120_000, 5_000) } else { (3_000_000, 100_000) }
}

/// A lab whose entries end soon: conntrack's table holds them all.
fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").unwrap();
    lab
}

/// Sends one packet in each of so many flows, no faster than entries end and the agent (`id`) takes their records;
/// calls `meanwhile` with how many were sent.
fn flood(lab: &Lab, id: u32, flows: usize, mut meanwhile: impl FnMut(usize)) {
    let to = SocketAddrV4::new(lab.server.v4(), PORT);
    let mut sent = 0;
    while sent < flows {
        let next = (sent + AT_ONCE).min(flows);
        assert_eq!(udp_storm_of(&lab.client, to, sent..next, 2).unwrap(), next - sent);
        sent = next;
        let mut before = 0;
        while ticks(id) > before + 2 || entries(lab) > 120_000 {
            before = ticks(id);
            thread::sleep(Duration::from_millis(100));
        }
        meanwhile(sent);
    }
}

/// Entries of the router's table.
fn entries(lab: &Lab) -> usize {
    lab.router.run(["conntrack", "-C"]).unwrap().trim().parse().unwrap()
}

/// CPU time of a process so far, in ticks of 10 ms.
fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name, in parentheses, may have anything in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Resident memory of a process in KiB.
fn resident(id: u32) -> u64 {
    Resident::of(id).unwrap().now / 1024
}

/// The report without its flows, and how many these are.
fn read(report: &str) -> (Document, u64) {
    let lines: Vec<&str> = report.lines().collect();
    let [header, flows @ .., footer] = &lines[..] else { panic!("no header or no footer") };
    (Document::ndjson(&format!("{header}\n{footer}")).unwrap(), flows.len() as u64)
}

/// Sums of flows that are not listed.
fn other(report: &Document, name: &str) -> u64 {
    report.footer["other"][name].as_u64().unwrap()
}

fn trace(lab: &Lab, max_flows: usize) -> Tracer {
    let max_flows = max_flows.to_string();
    let args = ["--format", "ndjson", "--backend", backend(), "--no-fold", "--max-flows"];
    Tracer::start(&lab.router, &[&args[..], &[&max_flows]].concat()).unwrap()
}

#[test]
fn more_flows_than_there_is_room_for_are_summed_up_in_flat_memory() {
    let (flows, room) = sizes();
    let lab = lab();
    let _sink = udp_sink(&lab.server, lab.server.at(PORT)).unwrap();
    let tracer = trace(&lab, room);
    let id = tracer.id();
    let mut early = 0;
    flood(&lab, id, flows, |sent| {
        // By now there is no more room.
        if sent <= flows / 3 {
            early = resident(id);
        }
    });
    let late = resident(id);
    let Finished { stdout, stderr, .. } = tracer.stop(Signal::SIGINT).unwrap();
    let (report, listed) = read(&stdout);
    println!("{flows} flows, room for {room}: {early} KiB after a third, {late} KiB at the end");
    assert_eq!(report.counter("new_flow_records_lost").unwrap(), 0, "{}", report.footer);
    assert_eq!((listed, other(&report, "flows")), (room as u64, (flows - room) as u64), "{stderr}");
    let merged = report.counter("merged").unwrap() + other(&report, "conntrack_flows");
    assert_eq!(merged, flows as u64, "{}", report.footer);
    assert_eq!(report.counter("flows_evicted").unwrap(), (flows - room) as u64);
    let protocols = report.footer["other"]["protocols"].as_array().unwrap();
    assert_eq!((protocols.len(), &protocols[0]["protocol"]["name"]), (1, &"udp".into()));
    assert!(late < early + early / 10 + 8_192, "{early} KiB, then {late} KiB");
}

#[test]
fn no_dropped_packet_is_missing_from_the_sums() {
    let (flows, room) = sizes();
    let flows = flows / 3;
    let lab = lab();
    let rules =
        "table inet drops { chain f { type filter hook forward priority 0; policy drop; }; }";
    lab.router.nft(rules).unwrap();
    let tracer = trace(&lab, room);
    flood(&lab, tracer.id(), flows, |_| {});
    let Finished { stdout, .. } = tracer.stop(Signal::SIGINT).unwrap();
    let (report, listed) = read(&stdout);
    assert_eq!(report.counter("drop_packets").unwrap(), flows as u64, "{}", report.footer);
    let uncounted = report.counter("drops_uncounted").unwrap();
    let told = report.counter("dropped_packets").unwrap() + other(&report, "dropped_packets");
    assert_eq!(told + uncounted, flows as u64, "{}", report.footer);
    assert!(listed <= room as u64 && other(&report, "flows") > 0, "{listed}: {}", report.footer);
}

/// A control group that limits memory, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Result<Self> {
        let (root, file) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        };
        let group = Self(PathBuf::from(root).join(format!("conntracker-test-{}", process::id())));
        fs::create_dir(&group.0).with_context(|| group.0.display().to_string())?;
        fs::write(group.0.join(file), limit.to_string()).context(file)?;
        Ok(group)
    }

    fn add(&self, process: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).context("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn where_memory_is_limited_the_report_is_written_all_the_same() {
    const LIMIT: u64 = 300 << 20;
    if is_quick() {
        return skip("a flood that fills the memory takes minutes");
    }
    let group = match Group::new(LIMIT) {
        Ok(group) => group,
        Err(error) => return skip(&format!("no control group can limit memory: {error:#}")),
    };
    let flows = sizes().0;
    let lab = lab();
    let _sink = udp_sink(&lab.server, lab.server.at(PORT)).unwrap();
    // Far more than fit.
    let tracer = trace(&lab, 10_000_000);
    group.add(tracer.id()).unwrap();
    flood(&lab, tracer.id(), flows, |_| {});
    let Finished { status, stdout, stderr } = tracer.stop(Signal::SIGINT).unwrap();
    assert!(status.success(), "{status}: {stderr}");
    let (report, listed) = read(&stdout);
    let merged = report.counter("merged").unwrap() + other(&report, "conntrack_flows");
    let lost = report.counter("new_flow_records_lost").unwrap();
    assert_eq!(merged + lost, flows as u64, "{}", report.footer);
    println!("{flows} flows in {} MiB: {listed} listed; {stderr}", LIMIT >> 20);
    assert!(stderr.contains("memory is scarce"), "{stderr}");
    assert!(listed < flows as u64);
}
