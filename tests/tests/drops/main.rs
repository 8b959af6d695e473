//! Dropped packets are counted as the kernel counts them: whoever dropped them, with and without a conntrack
//! entry, in both directions, folded or not, behind address translation. The oracle is the counter of the rule
//! that drops, and the plan where one rule drops packets of two clients.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod cases;
mod follow;
mod send;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::Tracer;
use conntracker_tests::tracer::report::{Document, RULES_CHANGED};
use conntracker_tests::traffic::{udp_send, udp_sink};
use serde_json::Value;

use crate::cases::{Case, Protocol, cases, ruleset};
use crate::send::send;

/// Packets that each case's rule has counted.
fn counted(router: &Host) -> BTreeMap<u16, u64> {
    let listing = router.run(["nft", "-j", "list", "table", "inet", "drops"]).unwrap();
    let listing: Value = serde_json::from_str(&listing).unwrap();
    let rules = listing["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("rule"));
    rules
        .filter_map(|rule| {
            let port = rule.get("comment")?.as_str()?.parse().ok()?;
            let mut counters = rule["expr"].as_array()?.iter().filter_map(|e| e.get("counter"));
            Some((port, counters.next()?["packets"].as_u64()?))
        })
        .collect()
}

/// Stands for the identifiers of all echo requests.
const FOLDED: u16 = 0;

/// Dropped packets by port that was sent to, or identifier of echo requests, and client.
fn told(report: &Document) -> BTreeMap<(u16, IpAddr), u64> {
    let mut told = BTreeMap::new();
    for flow in &report.flows {
        let Some(packets) = flow["dropped"]["packets"].as_u64() else { continue };
        let original = &flow["original"];
        // Identifiers fold, and are not told then.
        let number = if original["type"].is_u64() { &original["id"] } else { &original["dport"] };
        let port = number.as_u64().unwrap_or(FOLDED.into());
        let client: IpAddr = original["src"].as_str().unwrap().parse().unwrap();
        *told.entry((port as u16, client)).or_default() += packets;
    }
    told
}

/// Nothing but what the plan says: no errors about ports that nobody listens at.
fn quiet(lab: &Lab) {
    let rules = "table inet quiet { chain out { type filter hook output priority 0;
        icmp type destination-unreachable drop
        icmpv6 type destination-unreachable drop; }; }";
    for host in [&lab.client, &lab.server] {
        host.nft(rules).unwrap();
    }
}

/// Runs all cases and compares.
fn compare(args: &[&str]) {
    let lab = Lab::new().unwrap();
    let cases = cases();
    lab.router.nft(&ruleset(&lab, &cases)).unwrap();
    quiet(&lab);
    let tracer = Tracer::start(&lab.router, &[&["--format", "json"], args].concat()).unwrap();
    let folds = !args.contains(&"--no-fold");
    let number = |case: &Case| {
        if folds && case.protocol == Protocol::Echo { FOLDED } else { case.port }
    };
    let mut planned: BTreeMap<_, u64> = BTreeMap::new();
    for case in &cases {
        for (client, lost) in send(&lab, case) {
            *planned.entry((number(case), client)).or_default() += lost;
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let (counted, told) = (counted(&lab.router), told(&report));
    let mut wrong = String::new();
    let mut of_rules: BTreeMap<u16, u64> = BTreeMap::new();
    for case in &cases {
        *of_rules.entry(number(case)).or_default() += counted[&case.port];
    }
    for (&port, &dropped) in &of_rules {
        let of_port = told.iter().filter(|((of, _), _)| *of == port);
        let sum: u64 = of_port.map(|(_, packets)| packets).sum();
        if sum != dropped || sum == 0 {
            let case = cases.iter().find(|case| number(case) == port);
            writeln!(wrong, "{case:?}: told {sum}, the rule has {dropped}").unwrap();
        }
    }
    for (&(port, client), &lost) in &planned {
        let got = told.get(&(port, client)).copied().unwrap_or(0);
        if got != lost {
            writeln!(wrong, "port {port}, {client}: told {got}, sent {lost}").unwrap();
        }
    }
    for ((port, client), packets) in &told {
        let tcp = cases.iter().any(|case| case.port == *port && case.protocol == Protocol::Tcp);
        if !tcp && !planned.contains_key(&(*port, *client)) {
            writeln!(wrong, "nobody sent {packets} packets from {client} to port {port}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{args:?}:\n{wrong}{}", report.footer);
    let all: u64 = counted.values().sum();
    assert!(report.counter("drop_packets").unwrap() >= all, "{}", report.footer);
    assert_eq!(report.counter("drop_packets").unwrap(), report.counter("dropped_packets").unwrap());
    assert!(report.lost_besides(&RULES_CHANGED).is_empty(), "{}", report.footer);
}

#[test]
fn every_count_is_the_kernels_folded() {
    compare(&[]);
}

#[test]
fn every_count_is_the_kernels_unfolded() {
    compare(&["--no-fold"]);
}

#[test]
fn every_count_is_the_kernels_without_rules() {
    compare(&["-c"]);
}

/// More keys within a second than the kernel's maps hold.
#[test]
fn a_flood_of_many_sources_is_counted_to_the_packet() {
    let lab = Lab::new().unwrap();
    let rules = "table ip f { chain p { type filter hook prerouting priority 0;
        ct state new udp dport 666 counter drop comment \"666\"; }; }";
    lab.router.nft(&rules.replace("ip f", "inet drops")).unwrap();
    let tracer =
        Tracer::start(&lab.router, &["--format", "ndjson", "--dropped", "--no-fold"]).unwrap();
    // Sources of 10.78.0.0/16, ports beside: what is folded is told apart.
    for third in 0..100u8 {
        for port in [20_000, 30_000, 40_000] {
            for fourth in 1..=250u8 {
                let from = SocketAddr::new(IpAddr::from([10, 78, third, fourth]), port);
                udp_send(&lab.client, from, lab.router.at(666), b"x", 2).unwrap();
            }
        }
    }
    let report = Document::ndjson(&tracer.finish().unwrap()).unwrap();
    let counted = counted(&lab.router)[&666];
    assert_eq!(counted, 100 * 3 * 250 * 2);
    assert_eq!(report.counter("dropped_packets").unwrap(), counted, "{}", report.footer);
    assert_eq!(report.counter("flows").unwrap(), 100 * 3 * 250);
    assert!(report.lost_besides(&RULES_CHANGED).is_empty(), "{}", report.footer);
}

/// Rules of which several drop packets of one folded flow: each has its own count.
#[test]
fn drops_are_counted_for_each_rule() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(
            "table ip f { chain p { type filter hook prerouting priority 0;
                ct state established counter accept
                udp dport 2001 udp sport 20000-29999 counter drop
                udp dport 2001 udp sport 40000 counter drop; }; }",
        )
        .unwrap();
    let _sink = udp_sink(&lab.router, lab.router.at(2001)).unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json"]).unwrap();
    for port in (20_000..20_100).chain([40_000]) {
        udp_send(&lab.client, lab.client.at(port), lab.router.at(2001), b"x", 1).unwrap();
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let [flow] = &report.flows[..] else { panic!("{:?}", report.flows) };
    let by: BTreeMap<u64, u64> = flow["dropped"]["places"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| (at["by"]["position"].as_u64().unwrap(), at["packets"].as_u64().unwrap()))
        .collect();
    assert_eq!(by, BTreeMap::from([(2, 100), (3, 1)]));
}
