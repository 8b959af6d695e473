//! A daemon of all namespaces lives through what happens on a busy machine: namespaces in bursts, rulesets that
//! change, hangups, interfaces that are renamed. Its descriptors and its memory do not grow.
//!
//! Short by default; `CONNTRACKER_SOAK_SECONDS=1800 cargo xtask test --no-vm -- --test soak` takes half an hour.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Guarded, Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Daemon, PATIENCE, backend, output};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;

/// How long, in seconds.
const SECONDS: &str = "CONNTRACKER_SOAK_SECONDS";

/// Namespaces of a burst.
const BURST: usize = 20;

/// What a daemon takes.
#[derive(Clone, Copy, Debug)]
struct Taken {
    descriptors: usize,
    threads: u64,
    /// Resident memory in KiB.
    memory: u64,
}

impl Taken {
    fn by(daemon: &Daemon) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
        let value = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            descriptors: fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count(),
            threads: value("Threads:"),
            memory: value("VmRSS:"),
        }
    }
}

/// One round of everything.
fn round(number: u16, lab: &Lab, daemon: &Daemon) {
    let one = |_| Guarded::spawn(Command::new("unshare").args(["--net", "sleep", "1"])).unwrap();
    let burst: Vec<Guarded> = (0..BURST).map(one).collect();
    let (router, client) = (&lab.router, &lab.client);
    // The same flows each time: what they take must not grow.
    udp_exchange(client, client.at(40_000 + number % 4), lab.server.at(7), b"hello").unwrap();
    let rules = format!(
        "add table ip soak
         delete table ip soak
         table ip soak {{
             chain forward {{
                 type filter hook forward priority 10;
                 udp dport {} counter drop
                 ct state new counter
             }}
         }}",
        1000 + number % 50
    );
    router.nft(&rules).unwrap();
    let names = if number.is_multiple_of(2) { ["spare", "renamed"] } else { ["renamed", "spare"] };
    router.run(["ip", "link", "set", names[0], "name", names[1]]).unwrap();
    let signal = if number.is_multiple_of(3) { Signal::SIGUSR1 } else { Signal::SIGHUP };
    daemon.signal(signal).unwrap();
    thread::sleep(Duration::from_millis(1100));
    drop(burst);
    assert!(daemon.running(), "it has ended in round {number}");
}

#[test]
fn a_daemon_lives_through_a_busy_day_and_does_not_grow() {
    let seconds = env::var(SECONDS).ok().and_then(|value| value.parse().ok()).unwrap_or(20);
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    lab.router
        .run(["ip", "link", "add", "spare", "type", "veth", "peer", "name", "other"])
        .unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pidfile, report) = (path("ct.pid"), path("report.json"));
    let args = ["trace", "-d", "--netns", "all", "--backend", backend(), "--interval", "5"];
    let to = ["--pidfile", &pidfile, "-o", &report, "--format", "json"];
    let started = output(args.iter().chain(&to)).unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let daemon = Daemon::of(Path::new(&pidfile)).unwrap();

    let start = Instant::now();
    let run = Duration::from_secs(seconds);
    // Caches fill first.
    let mut warm = None;
    for number in 0.. {
        round(number, &lab, &daemon);
        if warm.is_none() && start.elapsed() > run / 3 {
            warm = Some(Taken::by(&daemon));
        }
        if start.elapsed() > run {
            break;
        }
    }
    let warm = warm.unwrap();
    // What the last burst has left is let go.
    let mut last = Taken::by(&daemon);
    let settled = |last: &Taken| {
        last.descriptors <= warm.descriptors + 50 && last.threads <= warm.threads + 2
    };
    let waiting = Instant::now();
    while !settled(&last) && waiting.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(200));
        last = Taken::by(&daemon);
    }
    eprintln!("soak: after a third {warm:?}, at the end {last:?}");
    assert!(settled(&last), "{warm:?}, then {last:?}");
    // Other tests may run on this machine: their namespaces and flows are among those of all.
    let room = 16 * 1024 + warm.memory / 10;
    assert!(last.memory <= warm.memory + room, "{warm:?}, then {last:?}");

    daemon.terminate().unwrap();
    let document = Document::json(&fs::read_to_string(&report).unwrap()).unwrap();
    let of_lab = document.flows.iter().filter(|flow| flow["netns"] == lab.router.name.as_str());
    assert!(of_lab.count() > 0, "{:?}", document.header);
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "something lies beside the report");
}
