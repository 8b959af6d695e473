//! Whose packets they are: which direction, which zone, which entry, which interface, and that nothing is
//! counted twice. The oracle is the plan, `conntrack -L` and the counters of rules.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{PATIENCE, Tracer, backend};
use conntracker_tests::traffic::{tcp_connect, udp_echo_server, udp_exchange, udp_send, udp_sink};
use nix::sys::signal::Signal;
use serde_json::Value;

fn text<'a>(flow: &'a Value, field: &str) -> &'a str {
    flow["original"][field].as_str().unwrap()
}

/// Steps of all traversals of a flow, as `chain position`.
fn steps(flow: &Value) -> BTreeSet<String> {
    let traversals = flow["traversals"].as_array().into_iter().flatten();
    traversals
        .flat_map(|traversal| traversal["steps"].as_array().unwrap())
        .map(|step| {
            format!(
                "{} {} {}",
                step["chain"].as_str().unwrap(),
                step["position"],
                step["provenance"].as_str().unwrap()
            )
        })
        .collect()
}

/// What a rule's counter says.
fn counter(host: &Host, rule: &str) -> u64 {
    let listing = host.run(["nft", "list", "ruleset"]).unwrap();
    let line = listing.lines().find(|line| line.contains(rule)).unwrap();
    let (_, packets) = line.split_once("packets ").unwrap();
    packets.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn without_conntrack_the_first_packet_is_of_the_original_direction() {
    for fold in [true, false] {
        let lab = Lab::new().unwrap();
        lab.router
            .nft("table inet t { chain f { type filter hook forward priority 0; meta l4proto udp counter; }; }")
            .unwrap();
        let _echo = udp_echo_server(&lab.server, lab.server.at(5353)).unwrap();
        let mut args = vec!["--format", "json"];
        args.extend((!fold).then_some("--no-fold"));
        let tracer = Tracer::start(&lab.router, &args).unwrap();
        for port in 40_000..40_030 {
            udp_exchange(&lab.client, lab.client.at(port), lab.server.at(5353), b"hello").unwrap();
        }
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        assert_eq!(report.flows.len(), if fold { 1 } else { 30 });
        for flow in &report.flows {
            assert_eq!(text(flow, "src"), lab.client.v4().to_string(), "{flow}");
            assert_eq!(flow["no_entry"], true, "{flow}");
        }
        assert_eq!(report.footer["totals"]["flows"], 0);
        assert_eq!(report.footer["totals"]["no_entry"], report.flows.len());
        assert_eq!(counter(&lab.router, "l4proto udp"), 60);
    }
}

/// Two clients with one address, told apart by the interface: zones of the original direction alone, and ports
/// that are translated so that the answers differ.
#[test]
fn equal_tuples_of_two_zones_have_a_line_each_and_no_other() {
    let lab = Lab::new().unwrap();
    let (client, router) = (&lab.client, &lab.router);
    let ip = |host: &Host, command: &str| {
        host.run(["ip"].into_iter().chain(command.split(' '))).unwrap();
    };
    ip(router, &format!("link add second type veth peer name eth1 netns {}", client.name));
    ip(router, "link set second up");
    ip(client, "link set eth1 up");
    let mac = router.run(["cat", "/sys/class/net/second/address"]).unwrap();
    ip(client, "route add 10.77.9.0/24 dev eth1");
    ip(client, &format!("neigh replace 10.77.9.1 lladdr {} dev eth1", mac.trim()));
    ip(client, "route add 10.77.2.99/32 via 10.77.9.1 dev eth1");
    router.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
    router.sysctl("net.ipv4.conf.second.rp_filter", "0").unwrap();
    router
        .nft(
            "table ip z {
                chain raw { type filter hook prerouting priority raw;
                    iifname toclient ct original zone set 1
                    iifname second ct original zone set 2
                    udp dport 7 counter
                }
                chain pre { type nat hook prerouting priority dstnat;
                    iifname second ip daddr 10.77.2.99 dnat to 10.77.2.2
                }
                chain f { type filter hook forward priority 0; ct state new counter; udp dport 9 counter drop; }
                chain post { type nat hook postrouting priority srcnat; oifname toserver counter masquerade; }
            }",
        )
        .unwrap();
    let _sinks = [7, 9].map(|port| udp_sink(&lab.server, lab.server.at(port)).unwrap());
    let tracer = Tracer::start(router, &["--format", "json", "--no-fold"]).unwrap();
    for port in [7, 9] {
        udp_send(client, client.at(40_000), lab.server.at(port), b"hello", 1).unwrap();
        let far = format!("10.77.2.99:{port}").parse().unwrap();
        udp_send(client, client.at(40_000), far, b"hello", 2).unwrap();
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let mut lines: Vec<String> = report
        .flows
        .iter()
        .map(|flow| {
            let dropped = flow["dropped"]["packets"].as_u64().unwrap_or(0);
            format!(
                "{} to {}:{} zone {} dropped {dropped}",
                text(flow, "src"),
                text(flow, "dst"),
                flow["original"]["dport"],
                flow["zone"]
            )
        })
        .collect();
    lines.sort();
    let want = [
        "10.77.1.2 to 10.77.2.2:7 zone 1 dropped 0",
        "10.77.1.2 to 10.77.2.2:9 zone 1 dropped 1",
        "10.77.1.2 to 10.77.2.99:7 zone 2 dropped 0",
        "10.77.1.2 to 10.77.2.99:9 zone 2 dropped 2",
    ];
    assert_eq!(lines, want, "{:#?}", report.flows);
    assert_eq!(counter(router, "dport 9"), 3);
}

/// The number of packets that conntrack has counted of the only entry to port 7.
fn accounted(router: &Host) -> u64 {
    let list = router.run(["conntrack", "-L", "-p", "udp", "--dport", "7"]).unwrap();
    let (_, packets) = list.split_once("packets=").unwrap();
    packets.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_entry_that_matches_a_filter_now_and_then_is_counted_once() {
    for backend in [backend(), "netlink"] {
        let lab = Lab::new().unwrap();
        lab.router
            .nft(
                "table inet m { chain f { type filter hook forward priority 0;
                    udp length 13 ct mark set 7
                    udp length 14 ct mark set 0; }; }",
            )
            .unwrap();
        lab.router.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
        let _echo = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report");
        let path = file.to_str().unwrap();
        let args = ["--backend", backend, "--format", "json", "-o", path, "-m", "7", "--no-fold"];
        let mut tracer = Tracer::start(&lab.router, &args).unwrap();
        for round in 1..=5u32 {
            // The rules mark the flow by the length of the packet, and end with mark 7.
            let payload: &[u8] = if round % 2 == 1 { b"hello" } else { b"hello!" };
            udp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(7), payload).unwrap();
            let before = std::fs::metadata(&file).and_then(|file| file.modified()).ok();
            tracer.process().signal(Signal::SIGUSR1).unwrap();
            let start = Instant::now();
            while std::fs::metadata(&file).and_then(|file| file.modified()).ok() == before {
                assert!(start.elapsed() < PATIENCE, "no report");
                thread::sleep(Duration::from_millis(10));
            }
        }
        tracer.finish().unwrap();
        let report = Document::json(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let [flow] = &report.flows[..] else { panic!("{backend}: {:?}", report.flows) };
        assert_eq!(flow["flows"], 1, "{backend}: {flow}");
        assert_eq!(flow["counters"]["original"]["packets"], accounted(&lab.router), "{backend}");
    }
}

/// Rules at INPUT alone, connections that go out and are refused: entries come to lie where dead ones lay.
#[test]
fn a_flow_whose_entry_lies_where_a_dead_one_lay_is_traced() {
    const FLOWS: u16 = 60;
    let lab = Lab::new().unwrap();
    lab.client
        .nft("table inet f { chain i { type filter hook input priority 0; ct state established counter accept; }; }")
        .unwrap();
    let tracer =
        Tracer::start(&lab.client, &["--format", "json", "--no-fold", "--backend", backend()])
            .unwrap();
    for port in 7000..7000 + FLOWS {
        // Port 0: the kernel chooses.
        let refused =
            tcp_connect(&lab.client, lab.client.at(0), lab.server.at(port), Duration::from_secs(5));
        assert!(refused.is_err());
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    assert_eq!(counter(&lab.client, "established"), u64::from(FLOWS));
    let told = report.flows.iter().filter(|flow| steps(flow).contains("i 1 exact")).count();
    assert_eq!((report.flows.len(), told), (FLOWS.into(), FLOWS.into()), "{}", report.footer);
}

/// A rule that rejects, in a chain that OUTPUT uses as well: the reset comes by in the middle of the packet that
/// is refused.
#[test]
fn a_reject_in_a_chain_that_output_shares_is_named() {
    let lab = Lab::new().unwrap();
    let rules = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:reject -
-A FORWARD -p tcp --dport 25 -j reject\n-A OUTPUT -p tcp --dport 26 -j reject
-A reject -p tcp -j REJECT --reject-with tcp-reset\n-A reject -j REJECT\nCOMMIT\n";
    lab.router.run_with_input(["iptables-legacy-restore"], rules).unwrap();
    lab.router
        .nft(
            "table inet n {
                chain refuse { meta l4proto tcp counter reject with tcp reset; }
                chain f { type filter hook forward priority 10; tcp dport 27 counter jump refuse; }
                chain o { type filter hook output priority 10; tcp dport 28 counter jump refuse; }
            }",
        )
        .unwrap();
    let tracer =
        Tracer::start(&lab.router, &["--format", "json", "--no-fold", "--backend", backend()])
            .unwrap();
    for port in [25, 27] {
        for from in 41_000..41_005 {
            let to = lab.server.at(port);
            assert!(
                tcp_connect(&lab.client, lab.client.at(from), to, Duration::from_secs(5)).is_err()
            );
        }
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    for (port, chain, rejects) in [(25, "FORWARD", "reject"), (27, "f", "refuse")] {
        let flows: Vec<&Value> =
            report.flows.iter().filter(|flow| flow["original"]["dport"] == port).collect();
        assert_eq!(flows.len(), 5, "{port}: {:#?}", report.flows);
        for flow in flows {
            assert_eq!(text(flow, "src"), lab.client.v4().to_string());
            let steps = steps(flow);
            assert!(steps.contains(&format!("{chain} 1 exact")), "{port}: {steps:?}");
            assert!(steps.contains(&format!("{rejects} 1 exact")), "{port}: {steps:?}");
            let [place] = &flow["dropped"]["places"].as_array().unwrap()[..] else {
                panic!("{flow}")
            };
            assert_eq!(
                (place["packets"].as_u64(), place["by"]["chain"].as_str()),
                (Some(1), Some(rejects))
            );
        }
    }
    assert_eq!(report.counter("paths_nested").unwrap(), 0, "{}", report.footer);
}

#[test]
fn interfaces_of_a_flow_older_than_the_trace_pass_the_filter_by_interface() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let _echo = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    let exchange =
        || udp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(7), b"hello").unwrap();
    exchange();
    for (filter, lines) in [("toclient", 1), ("!toclient", 0), ("toserver", 0)] {
        let args = ["--format", "json", "--iif", filter, "--backend", backend()];
        let tracer = Tracer::start(&lab.router, &args).unwrap();
        exchange();
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        assert_eq!(report.flows.len(), lines, "--iif {filter}: {:?}", report.flows);
    }
}

#[test]
fn interfaces_of_dropped_packets_pass_the_filter_by_interface() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft("table ip f { chain i { type filter hook input priority 0; ct state new udp dport 666 counter drop; }; }")
        .unwrap();
    for (filter, lines) in [("toclient", 1), ("!toclient", 0), ("toserver", 0), ("!toserver", 1)] {
        let tracer =
            Tracer::start(&lab.router, &["--format", "json", "--dropped", "--iif", filter])
                .unwrap();
        udp_send(&lab.client, lab.client.at(40_000), lab.router.at(666), b"x", 3).unwrap();
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        assert_eq!(report.flows.len(), lines, "--iif {filter}: {:?}", report.flows);
        assert!(report.flows.iter().all(|flow| flow["dropped"]["packets"] == 3));
    }
    assert_eq!(counter(&lab.router, "dport 666"), 4 * 3);
}
