//! A tracer leaves nothing behind, however it ends, disturbs nothing while it runs, and writes its
//! report when it is told to.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::report::{self, Document, RULES_CHANGED, Text};
use conntracker_tests::tracer::{Flow, PATIENCE, Tracer, backend, skipped_without_links};
use conntracker_tests::traffic::udp_through;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Identifiers in the descriptors of a process: of its BPF links and of its BPF programs.
fn bpf_objects(pid: u32) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let ids = |key| -> Result<BTreeSet<u64>> {
        fdinfo(pid, key)?.iter().map(|value| Ok(value.parse()?)).collect()
    };
    Ok((ids("link_id:")?, ids("prog_id:")?))
}

/// What the descriptors of a process say under a key.
fn fdinfo(pid: u32, key: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Descriptors come and go while they are read.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        values.extend(info.lines().filter_map(|line| line.strip_prefix(key)).map(|value| {
            let words: Vec<&str> = value.split_whitespace().collect();
            words.join(" ")
        }));
    }
    Ok(values)
}

/// All links or programs (`link`, `prog`) that the kernel has, by bpftool.
fn bpftool(kind: &str) -> Vec<Value> {
    let output = std::process::Command::new("bpftool").args(["-j", kind, "list"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Their identifiers.
fn in_kernel(kind: &str) -> BTreeSet<u64> {
    bpftool(kind).iter().filter_map(|object| object["id"].as_u64()).collect()
}

/// Where a process has links, as (family, hook), and the names of the programs that it has loaded.
fn attached(pid: u32) -> (Vec<(u8, u8)>, BTreeSet<String>) {
    let hook = |value: &String| -> (u8, u8) {
        // 2 hooknum: 1 prio: 2147483646
        let words: Vec<&str> = value.split(' ').collect();
        (words[0].parse().unwrap(), words[2].parse().unwrap())
    };
    let mut hooks: Vec<_> = fdinfo(pid, "pf:").unwrap().iter().map(hook).collect();
    hooks.sort_unstable();
    let (_, programs) = bpf_objects(pid).unwrap();
    let ours = |object: &Value| programs.contains(&object["id"].as_u64().unwrap_or_default());
    let loaded = bpftool("prog");
    let names = loaded.iter().filter(|object| ours(object));
    (hooks, names.map(|object| object["name"].as_str().unwrap().to_owned()).collect())
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
    if skipped_without_links() {
        return;
    }
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    fs::write(&file, "the previous report\n").unwrap();
    let args = ["--backend", "links", "-o", file.to_str().unwrap()];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_through(&lab, 40_000).unwrap();
    let (links, programs) = bpf_objects(tracer.id()).unwrap();
    // LOCAL_IN and POSTROUTING, IPv4 and IPv6, and the tracepoint; before and after the chain at
    // FORWARD, IPv4 and IPv6.
    assert_eq!(links.len(), 5 + 4, "{links:?}");
    assert!(links.is_subset(&in_kernel("link")), "bpftool does not show our links");
    assert!(programs.is_subset(&in_kernel("prog")));
    let finished = tracer.stop(Signal::SIGKILL).unwrap();
    assert_eq!(finished.status.code(), None);
    gone(&links, &programs);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the previous report\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something lies beside it");
    // The hooks are free again, and traffic passes.
    udp_through(&lab, 40_001).unwrap();
}

#[test]
fn flows_alone_need_four_links_a_tracepoint_and_none_of_the_programs_around_chains() {
    const FLOWS: [(u8, u8); 4] = [(2, 1), (2, 4), (10, 1), (10, 4)];
    const PROGRAMS: [&str; 3] = ["flow_end", "packet_dropped", "read_memory"];
    if skipped_without_links() {
        return;
    }
    let lab = Lab::tracking().unwrap();
    let chains = "table inet more {
        chain raw { type filter hook prerouting priority raw; udp dport 7 counter; }
        chain input { type filter hook input priority filter; udp dport 7 counter; }
    }";
    lab.router.nft(chains).unwrap();
    let start = |args: &[&str]| {
        let tracer = Tracer::start(&lab.router, &[&["--backend", "links"], args].concat()).unwrap();
        let (links, _) = bpf_objects(tracer.id()).unwrap();
        let (hooks, programs) = attached(tracer.id());
        // One link is that of the tracepoint.
        assert_eq!(links.len(), hooks.len() + 1);
        (tracer, hooks, programs)
    };
    let (tracer, hooks, programs) = start(&["-c"]);
    assert_eq!(hooks, FLOWS);
    assert_eq!(programs, PROGRAMS.map(str::to_owned).into());
    udp_through(&lab, 40_000).unwrap();
    let report = tracer.finish().unwrap();
    assert!(report.contains("# rules: not traced"), "{report}");
    assert!(!report.contains("table: "), "{report}");
    assert!(!report.contains("path_"), "{report}");

    // Before and after the chains of PREROUTING and FORWARD; at INPUT the link at the end closes.
    let (tracer, hooks, programs) = start(&[]);
    let around =
        [2, 10].map(|family| [(family, 0), (family, 0), (family, 1), (family, 2), (family, 2)]);
    let mut want = [&FLOWS[..], around.as_flattened()].concat();
    want.sort_unstable();
    assert_eq!(hooks, want);
    let around =
        ["hook", "early"].map(|part| ["open", "gap", "close"].map(|at| format!("{part}_{at}")));
    let names = PROGRAMS.map(str::to_owned).into_iter().chain(around.into_iter().flatten());
    assert_eq!(programs, names.collect());
    assert_eq!(Text::parse(&tracer.finish().unwrap()).unwrap().counter("rule_links").unwrap(), 10);
}

#[test]
fn sigint_and_sigterm_write_the_report_and_detach() {
    let lab = Lab::tracking().unwrap();
    for (port, signal) in [(40_000, Signal::SIGINT), (40_001, Signal::SIGTERM)] {
        let args = ["--backend", backend(), "--no-fold"];
        let tracer = Tracer::start(&lab.router, &args).unwrap();
        udp_through(&lab, port).unwrap();
        let (links, programs) = bpf_objects(tracer.id()).unwrap();
        let finished = tracer.stop(signal).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        assert!(finished.stdout.contains(&format!("(port={port}) to dst = 10.77.2.2 (port=7)")));
        gone(&links, &programs);
    }
}

#[test]
fn a_second_instance_in_the_same_namespace_sees_the_same_flows() {
    let lab = Lab::tracking().unwrap();
    let args = ["--backend", backend(), "--format", "json", "--no-fold"];
    let start = || Tracer::start(&lab.router, &args).unwrap();
    let first = start();
    udp_through(&lab, 40_000).unwrap();
    let [second, third] = [start(), start()];
    udp_through(&lab, 40_001).unwrap();
    // The one at the last priority goes; the others stay.
    let flows = |tracer: Tracer| -> Vec<Flow> {
        let document = Document::json(&tracer.finish().unwrap()).unwrap();
        // The others' links are new to the first one, and it may not have looked at them yet.
        assert!(document.lost_besides(&RULES_CHANGED).is_empty(), "{}", document.footer);
        assert!(document.flows.iter().all(|flow| flow["flows"] == 1), "{:?}", document.flows);
        document.flows.iter().map(|flow| report::flow(flow).unwrap()).collect()
    };
    let of_first = flows(first);
    assert_eq!(of_first.len(), 2);
    udp_through(&lab, 40_002).unwrap();
    let of_second = flows(second);
    assert_eq!(of_second[..2], of_first[..]);
    assert_eq!(of_second.len(), 3);
    assert_eq!(flows(third), of_second);
}

#[test]
fn sigusr1_writes_a_report_and_the_trace_goes_on() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    let args = ["--no-fold", "-o", file.to_str().unwrap()];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_through(&lab, 40_000).unwrap();
    tracer.process().signal(Signal::SIGUSR1).unwrap();
    tracer.process().wait_for("1 flows (0 dropped) written to ", PATIENCE).unwrap();
    let lines = || Text::parse(&fs::read_to_string(&file).unwrap()).unwrap().lines.len();
    assert_eq!(lines(), 1);
    udp_through(&lab, 40_001).unwrap();
    tracer.finish().unwrap();
    assert_eq!(lines(), 2);
}

#[test]
fn an_interval_writes_reports_and_a_duration_ends_the_trace() {
    let lab = Lab::tracking().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    let args = ["--interval", "1s", "-o", file.to_str().unwrap()];
    let mut tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_through(&lab, 40_000).unwrap();
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

/// Rules of nft, iptables-nft and iptables-legacy at once.
fn three_firewalls(lab: &Lab) {
    const RULES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:user - [0:0]
-A FORWARD -p udp -j user
-A user -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A user -p udp -m udp --dport 7 -j CONNMARK --set-mark 0x7
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -p udp -m udp --dport 9999 -j MASQUERADE
COMMIT
";
    let nft = "table ip fw {
        chain forward {
            type filter hook forward priority -10;
            udp dport 7 counter accept
            udp sport 7 accept
        }
    }";
    lab.router.nft(nft).unwrap();
    lab.router.run_with_input(["iptables-nft-restore"], RULES).unwrap();
    lab.router.run_with_input(["iptables-legacy-restore"], RULES).unwrap();
}

#[test]
fn the_ruleset_is_the_same_before_during_and_after() {
    let lab = Lab::tracking().unwrap();
    three_firewalls(&lab);
    let run = |command: &[&str]| lab.router.run(command).unwrap();
    // Packets count in the rules that they meet, whoever looks on: of counters, only that they stand
    // still while no packet comes.
    let counters = || {
        let legacy = run(&["iptables-legacy-save", "-c"]);
        let legacy = legacy.lines().filter(|line| !line.starts_with('#'));
        let legacy: Vec<_> = legacy.map(str::to_owned).collect();
        (run(&["nft", "-a", "list", "ruleset"]), legacy)
    };
    let ruleset = || {
        let legacy = run(&["iptables-legacy-save"]);
        let chains = legacy.lines().filter(|line| !line.starts_with('#'));
        let legacy: Vec<_> =
            chains.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect();
        let nft = run(&["nft", "-a", "-s", "list", "ruleset"]);
        let sysctls = ["sysctl", "-a", "--pattern", "^net.netfilter.*_(acct|events|timestamp)$"];
        (nft, legacy, run(&sysctls), run(&["cat", "/proc/net/ip_tables_names"]))
    };
    let before = ruleset();
    assert!(before.0.contains("ct state established accept"), "{before:?}");
    assert!(before.0.contains("chain user") && before.0.contains("udp dport 7 counter accept"));
    assert!(before.1.contains(&"-A FORWARD -p udp -j user".to_owned()), "{before:?}");
    for args in [&["--backend", backend(), "--per-chain"][..], &["--backend", "netlink"]] {
        let counted = counters();
        let tracer = Tracer::start(&lab.router, args).unwrap();
        assert_eq!(counters(), counted, "started, {args:?}");
        udp_through(&lab, 40_000).unwrap();
        assert_eq!(ruleset(), before, "during, {args:?}");
        let counted = counters();
        let report = tracer.finish().unwrap();
        assert_eq!(ruleset(), before, "after, {args:?}");
        assert_eq!(counters(), counted, "after, {args:?}");
        // It did look at all of them.
        for table in ["ip fw, chain: forward", "filter, chain: user", "inet lab_tracking"] {
            assert_eq!(
                report.contains(&format!("table: {table}")),
                args[1] == backend(),
                "{report}"
            );
        }
    }
}
