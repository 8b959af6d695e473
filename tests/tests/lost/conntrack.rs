//! Packets that conntrack itself drops.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{PATIENCE, Tracer, backend};
use conntracker_tests::traffic::{raw_ip, tcp_connect, tcp_echo_server, udp_send, udp_sink};
use serde_json::Value;

/// Sum of a counter of `conntrack -S` over the CPUs.
fn stat(host: &Host, name: &str) -> u64 {
    let stats = host.run(["conntrack", "-S"]).unwrap();
    let values = stats.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    values.filter(|(key, _)| *key == name).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// Packets of flows to a port that conntrack dropped: how many, at which hook, for what.
fn by_conntrack(report: &Document, port: u16) -> Vec<(u64, String, String)> {
    let of_port = report.flows.iter().filter(|flow| flow["original"]["dport"] == port);
    let places = of_port.filter_map(|flow| flow["dropped"]["places"].as_array()).flatten();
    let text = |place: &Value, key: &str| place[key].as_str().unwrap_or("-").to_owned();
    let mut told: Vec<(u64, String, String)> = Vec::new();
    for place in places {
        let (hook, cause) = (text(place, "hook"), text(place, "conntrack"));
        let packets = place["packets"].as_u64().unwrap();
        match told.iter_mut().find(|(_, h, c)| *h == hook && *c == cause) {
            Some((sum, ..)) => *sum += packets,
            None => told.push((packets, hook, cause)),
        }
    }
    told
}

/// All flows are translated to one port: there is room for one of them.
#[test]
fn a_taken_tuple_is_named_with_whose_it_is() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(&format!(
            "table ip nat {{ chain p {{ type nat hook postrouting priority srcnat;
                oifname toserver meta l4proto udp counter snat to {}:2000; }}; }}",
            lab.router.links[1].v4
        ))
        .unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(2053)).unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json", "--no-fold"]).unwrap();
    for port in [30_001, 30_002, 30_003] {
        udp_send(&lab.client, lab.client.at(port), lab.server.at(2053), b"x", 2).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let counted = stat(&lab.router, "insert_failed");
    assert_eq!(counted, 4);
    assert!(report.notes("insert_failed=4 "), "{}", report.header);
    let expected = vec![(counted, "postrouting".to_owned(), "insert_failed".to_owned())];
    assert_eq!(by_conntrack(&report, 2053), expected, "{:?}", report.flows);
    for flow in report.flows.iter().filter(|flow| flow["original"]["sport"] != 30_001) {
        // It never had an entry.
        assert_eq!(flow["flows"], 0, "{flow}");
        let clash = &flow["dropped"]["clash"];
        assert_eq!(clash["reply"]["dport"], 2000, "{flow}");
        assert_eq!(clash["holder"]["sport"], 30_001, "{flow}");
    }
    assert!(report.lost_besides(&[]).is_empty(), "{}", report.footer);
}

/// TCP flags (RFC 9293, 3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 0x10;

/// Sends a TCP segment without a checksum.
fn segment(lab: &Lab, from: u16, to: u16, flags: u8) {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[2..4].copy_from_slice(&to.to_be_bytes());
    // Five words of header; a window.
    (segment[12], segment[13], segment[15]) = (5 << 4, flags, 64);
    raw_ip(&lab.client, 6, lab.server.v4().into(), &segment).unwrap();
}

#[test]
fn invalid_packets_tell_whether_an_entry_has_their_tuple() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(
            "table inet fw { chain forward { type filter hook forward priority filter;
                ct state invalid counter drop; }; }",
        )
        .unwrap();
    let set = ["net.netfilter.nf_conntrack_tcp_loose=0", "net.netfilter.nf_conntrack_checksum=0"];
    for value in set {
        lab.router.run(["sysctl", "-qw", value]).unwrap();
    }
    let _server = tcp_echo_server(&lab.server, lab.server.at(80)).unwrap();
    let args = ["--format", "json", "--no-fold", "--backend", backend()];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    let to = lab.server.at(80);
    let stream = tcp_connect(&lab.client, lab.client.at(40_000), to, PATIENCE).unwrap();
    // Flags that do not go together, and a segment of a connection that nobody has begun.
    segment(&lab, 40_000, 80, SYN | FIN);
    segment(&lab, 40_001, 80, ACK);
    thread::sleep(Duration::from_millis(200));
    drop(stream);
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let listed = lab.router.run(["nft", "list", "ruleset"]).unwrap();
    assert!(listed.contains("ct state invalid counter packets 2 "), "{listed}");
    let mut told: Vec<(u64, String)> = Vec::new();
    for flow in &report.flows {
        let ways = flow["traversals"].as_array().into_iter().flatten();
        for way in ways.filter(|way| way["outcome"] == "dropped") {
            assert_eq!(way["state"], "invalid", "{way}");
            let why = way["invalid"].as_str().unwrap_or("-").to_owned();
            told.push((flow["original"]["sport"].as_u64().unwrap(), why));
        }
    }
    told.sort_unstable();
    let expected = [(40_000, "not_accepted".to_owned()), (40_001, "no_entry".to_owned())];
    assert_eq!(told, expected, "{:?}", report.flows);
}

/// Fills the router's table with entries of this status.
fn fill(lab: &Lab, status: &str) {
    let max = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let max: u32 = max.trim().parse().unwrap();
    let mut entries = String::new();
    for n in 0..max {
        let (a, b) = (n >> 14, n & 0x3fff);
        let client = format!("10.{}.{}.{}", 100 + (a >> 8), a & 255, 1);
        writeln!(
            entries,
            "-A -t 600 -u {status} -s {client} -d 10.77.2.2 -r 10.77.2.2 -q {client} -p udp \
             --sport {port} --dport 9 --reply-port-src 9 --reply-port-dst {port}",
            port = 1024 + b
        )
        .unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("entries");
    std::fs::write(&file, entries).unwrap();
    lab.router.run(["conntrack", "-R", file.to_str().unwrap()]).unwrap();
}

/// As many entries as there may be: without one that may be dropped early there is no room.
#[test]
fn a_full_table_is_told() {
    let Full { dropped, report, .. } = overfill("SEEN_REPLY,ASSURED");
    assert_eq!(dropped, 30);
    let expected = [(30, "prerouting".to_owned(), "table full".to_owned())];
    assert_eq!(by_conntrack(&report, 2054), expected, "{:?}", report.flows);
    assert!(report.notes("drop=30 "), "{}", report.header);
    assert!(report.notes("the conntrack table is full"), "{}", report.header);
}

/// With entries that may be dropped early, these go.
#[test]
fn what_is_dropped_early_is_told() {
    // The kernel's own worker may have made room before the packets come (gc_worker, above 95 % of the table).
    let full = (0..10).map(|_| overfill("SEEN_REPLY")).find(|full| full.early > 0);
    let Full { dropped, early, report } = full.unwrap();
    assert_eq!(dropped, 0);
    assert_eq!(by_conntrack(&report, 2054), [], "{:?}", report.flows);
    assert!(report.notes(&format!("early_drop={early} ")), "{}", report.header);
}

/// What became of packets that met a full table.
struct Full {
    /// By conntrack's counters: packets that were dropped, and entries that were dropped for them.
    dropped: u64,
    early: u64,
    report: Document,
}

/// Fills the table with entries of this status, and sends packets of ten flows.
fn overfill(status: &str) -> Full {
    let lab = Lab::tracking().unwrap();
    fill(&lab, status);
    let (before, early) = (stat(&lab.router, "drop"), stat(&lab.router, "early_drop"));
    let _sink = udp_sink(&lab.server, lab.server.at(2054)).unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json", "--dport", "2054"]).unwrap();
    for port in 0..10 {
        let from = lab.client.at(30_000 + port);
        udp_send(&lab.client, from, lab.server.at(2054), b"x", 3).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let dropped = stat(&lab.router, "drop") - before;
    Full { dropped, early: stat(&lab.router, "early_drop") - early, report }
}
