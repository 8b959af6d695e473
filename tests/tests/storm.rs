//! 100,000 new flows as fast as the machine makes them: each is reported, or counted as lost and
//! then found in the conntrack table. So is the way of each first packet through the rules, but that
//! no table has.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::{Document, RULES_CHANGED};
use conntracker_tests::tracer::{Finished, PATIENCE, Tracer, backend};
use conntracker_tests::traffic::{udp_sink, udp_storm};
use nix::sys::signal::Signal;

const FLOWS: usize = 100_000;
/// Where the storm goes.
const PORT: u16 = 9;

/// A lab for a storm, one at a time.
struct Weather {
    lab: Lab,
    _sink: std::net::UdpSocket,
    _alone: MutexGuard<'static, ()>,
}

fn weather() -> Result<Weather> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new()?;
    lab.router.nft(TRACKING)?;
    // Nothing ends by itself while the test looks.
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "600")?;
    // The kernel's own packets of IPv6 (multicast groups) have records too, and each record is counted here.
    for host in [&lab.client, &lab.router, &lab.server] {
        host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    }
    let sink = udp_sink(&lab.server, lab.server.at(PORT))?;
    Ok(Weather { lab, _sink: sink, _alone: alone })
}

impl Weather {
    /// Makes the flows, all of them, and waits until the router has them.
    fn storm(&self) -> Result<()> {
        let to = SocketAddrV4::new(self.lab.server.v4(), PORT);
        let threads = thread::available_parallelism()?.get();
        ensure!(udp_storm(&self.lab.client, to, FLOWS, threads)? == FLOWS);
        let start = Instant::now();
        while self.count()? != FLOWS {
            ensure!(start.elapsed() < PATIENCE, "{} flows of {FLOWS}", self.count()?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Entries in the router's table.
    fn count(&self) -> Result<usize> {
        Ok(self.lab.router.run(["conntrack", "-C"])?.trim().parse()?)
    }

    /// Source addresses and ports in the router's table.
    fn table(&self) -> Result<HashSet<(Ipv4Addr, u16)>> {
        let list = self.lab.router.run(["conntrack", "-L", "-p", "udp"])?;
        list.lines().map(|line| source(line, "src=", ' ', "sport=")).collect()
    }
}

/// Source address and port in a line. A JSON parser for 100,000 objects would cost the test more
/// than all the rest.
fn source(line: &str, address: &str, end: char, port: &str) -> Result<(Ipv4Addr, u16)> {
    let after = |key: &str, end: &[char]| -> Option<&str> {
        let (_, rest) = line.split_once(key)?;
        rest.split(end).next()
    };
    let both = after(address, &[end]).zip(after(port, &[' ', ',']));
    let (address, port) = both.with_context(|| format!("no source in {line}"))?;
    Ok((address.parse()?, port.parse()?))
}

/// An NDJSON report without its flows, and the sources of its flows.
fn read(report: &str) -> Result<(Document, HashSet<(Ipv4Addr, u16)>)> {
    let lines: Vec<&str> = report.lines().collect();
    let [header, flows @ .., footer] = &lines[..] else { anyhow::bail!("no header or no footer") };
    let sources: HashSet<_> = flows
        .iter()
        .map(|line| source(line, r#""original":{"src":""#, '"', r#""sport":"#))
        .collect::<Result<_>>()?;
    ensure!(sources.len() == flows.len(), "{} lines, {} flows", flows.len(), sources.len());
    Ok((Document::ndjson(&format!("{header}\n{footer}"))?, sources))
}

fn trace(lab: &Lab, args: &[&str]) -> Result<Tracer> {
    Tracer::start(&lab.router, &[&["--format", "ndjson"], args].concat())
}

#[test]
fn links_report_every_flow_and_lose_none_at_default_sizes() {
    let weather = weather().unwrap();
    let args = ["--backend", backend(), "--no-fold", "--strict"];
    let tracer = trace(&weather.lab, &args).unwrap();
    weather.storm().unwrap();
    // With --strict this says by its success that nothing was lost.
    let finished = tracer.finish().unwrap();
    let (report, flows) = read(&finished).unwrap();
    assert_eq!(finished.matches(r#""traversals":[{"hook":"forward""#).count(), FLOWS);
    assert_eq!(report.counter("new_flows").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("new_flow_records").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("new_flow_records_lost").unwrap(), 0);
    assert_eq!(report.counter("traced_packets").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("path_records").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("records").unwrap(), 2 * FLOWS as u64);
    assert_eq!(report.footer["lost"], false, "{}", report.footer);
    assert_eq!(report.counter("flows").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("merged").unwrap(), FLOWS as u64);
    assert_eq!(flows, weather.table().unwrap());
}

#[test]
fn links_count_what_a_small_ring_loses_and_find_it_in_the_table() {
    let weather = weather().unwrap();
    let args = ["--backend", backend(), "--no-fold", "--strict", "--ring-size", "64K"];
    let tracer = trace(&weather.lab, &args).unwrap();
    weather.storm().unwrap();
    let Finished { status, stdout, stderr } = tracer.stop(Signal::SIGINT).unwrap();
    let (report, flows) = read(&stdout).unwrap();
    let (records, lost) = (
        report.counter("new_flow_records").unwrap(),
        report.counter("new_flow_records_lost").unwrap(),
    );
    assert_eq!(records + lost, FLOWS as u64, "{}", report.footer);
    let (paths, paths_lost) =
        (report.counter("path_records").unwrap(), report.counter("path_records_lost").unwrap());
    assert_eq!(paths + paths_lost, FLOWS as u64, "{}", report.footer);
    assert_eq!(report.counter("traced_packets").unwrap(), FLOWS as u64, "{}", report.footer);
    assert_eq!(report.counter("records").unwrap(), records + paths, "{}", report.footer);
    let any = lost + paths_lost > 0;
    assert_eq!(status.code(), Some(if any { 3 } else { 0 }), "{stderr}");
    assert_eq!(report.footer["lost"], any);
    let besides = report.lost_besides(&["new_flow_records_lost", "path_records_lost"]);
    assert!(besides.is_empty(), "{besides:?}");
    assert_eq!(report.counter("flows").unwrap(), FLOWS as u64);
    assert_eq!(report.counter("merged").unwrap(), FLOWS as u64);
    assert_eq!(flows, weather.table().unwrap());
}

/// A dump would show nothing of them: it would only keep the agent from draining the ring.
#[test]
fn lost_records_of_dropped_packets_start_no_dump() {
    let weather = weather().unwrap();
    let rules =
        "table inet drops { chain f { type filter hook forward priority 0; policy drop; }; }";
    weather.lab.router.nft(rules).unwrap();
    let args = ["--backend", backend(), "--no-fold", "--ring-size", "64K"];
    let tracer = trace(&weather.lab, &args).unwrap();
    let to = SocketAddrV4::new(weather.lab.server.v4(), PORT);
    assert_eq!(udp_storm(&weather.lab.client, to, FLOWS, 2).unwrap(), FLOWS);
    // Losses are looked for each second.
    thread::sleep(Duration::from_millis(2500));
    let Finished { stdout, .. } = tracer.stop(Signal::SIGINT).unwrap();
    let (report, _) = read(&stdout).unwrap();
    assert!(report.counter("drop_records_lost").unwrap() > 0, "{}", report.footer);
    assert_eq!(report.counter("drop_packets").unwrap(), FLOWS as u64, "{}", report.footer);
    assert_eq!(report.counter("resyncs").unwrap(), 0, "{}", report.footer);
}

#[test]
fn netlink_counts_overruns_and_a_resync_finds_every_flow() {
    let weather = weather().unwrap();
    let args = ["--backend", "netlink", "--no-fold", "--strict", "--event-buffer", "4K"];
    let tracer = trace(&weather.lab, &args).unwrap();
    weather.storm().unwrap();
    let table = weather.table().unwrap();
    assert_eq!(table.len(), FLOWS);
    idle(tracer.id()).unwrap();
    // From now on no dump can find them: only the resync can have.
    weather.lab.router.run(["conntrack", "-F"]).unwrap();
    let Finished { status, stdout, stderr } = tracer.stop(Signal::SIGINT).unwrap();
    let (report, flows) = read(&stdout).unwrap();
    assert!(report.counter("event_overruns").unwrap() > 0, "{}", report.footer);
    assert!(report.counter("resyncs").unwrap() > 0, "{}", report.footer);
    assert_eq!(report.footer["lost"], true);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("the event socket full"), "{stderr}");
    assert_eq!(flows.len(), FLOWS);
    assert_eq!(flows, table);
}

/// Waits until a process has done nothing for longer than it takes to answer a loss.
fn idle(pid: u32) -> Result<()> {
    let ticks = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which ends with the last parenthesis: utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let start = Instant::now();
    let mut before = ticks()?;
    loop {
        ensure!(start.elapsed() < PATIENCE, "process {pid} is not idle");
        thread::sleep(Duration::from_millis(2_500));
        let now = ticks()?;
        if now - before < 10 {
            return Ok(());
        }
        before = now;
    }
}

#[test]
fn folded_flows_are_counted_whatever_the_size_of_the_ring() {
    let weather = weather().unwrap();
    let tracers = ["32M", "4K"].map(|size| {
        let args = ["--backend", backend(), "--ring-size", size];
        (size, trace(&weather.lab, &args).unwrap())
    });
    weather.storm().unwrap();
    // 64512 unprivileged ports of one address, the rest of the next.
    let ports = 65_536 - 1024;
    let want = BTreeMap::from([
        ("10.78.0.0".to_owned(), ports),
        ("10.78.0.1".to_owned(), FLOWS as u64 - ports),
    ]);
    for (size, tracer) in tracers {
        let report = Document::ndjson(&tracer.finish().unwrap()).unwrap();
        let got: BTreeMap<String, u64> = (report.flows.iter())
            .map(|flow| {
                assert_eq!(flow["original"]["sport"], 1024);
                let source = flow["original"]["src"].as_str().unwrap().to_owned();
                (source, flow["flows"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(got, want, "ring of {size}: {}", report.footer);
        assert_eq!(report.counter("merged").unwrap(), FLOWS as u64);
        assert_eq!(report.counter("new_flows").unwrap(), FLOWS as u64);
        let lost = report.counter("new_flow_records_lost").unwrap();
        let sum = report.counter("new_flow_records").unwrap()
            + report.counter("new_flows_folded").unwrap()
            + lost;
        assert_eq!(sum, FLOWS as u64, "ring of {size}: {}", report.footer);
        paths_add_up(&report).unwrap();
        assert_eq!(report.counter("new_flows_uncounted").unwrap(), 0, "ring of {size}");
    }
}

/// Each first packet was traced, or its key trusted, or it came while the other instance's links were
/// new; each traced packet has a record, or was counted as what it is.
fn paths_add_up(report: &Document) -> Result<()> {
    let count = |name| report.counter(name);
    let traced = count("traced_packets")?;
    let (trusted, races) = (count("paths_trusted")?, count("path_races")?);
    let told = count("path_records")? + count("paths_folded")? + count("path_records_lost")?;
    // A race before the counters are read is none of a traced packet.
    assert!((traced..=traced + races).contains(&(told + races)), "{}", report.footer);
    let flows = FLOWS as u64;
    assert!((flows..=flows + races).contains(&(traced + trusted + races)), "{}", report.footer);
    // Many flows of two keys that take the same way: few need a look, once the kernel folds.
    let folds = count("new_flows_folded")? > flows * 3 / 4;
    assert!(!folds || trusted + races > traced, "{}", report.footer);
    let besides = report.lost_besides(
        &[&RULES_CHANGED[..], &["new_flow_records_lost", "path_records_lost"]].concat(),
    );
    assert!(besides.is_empty(), "{besides:?}");
    Ok(())
}
