//! Which rules the packets of a flow met: trace lines, their explanation and the filter by rule, of a
//! small ruleset with known packets.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{Document, Line, RULES_CHANGED, Text};
use conntracker_tests::tracer::{PATIENCE, Tracer, backend, by_probes, skipped_without_counters};
use conntracker_tests::traffic::{
    tcp_connect, udp_echo_server, udp_exchange, udp_send, udp_sink, udp_socket,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A verdict of each kind; the policy drops.
const RULES: &str = r#"
table inet fw {
    chain user {
        udp dport 7 counter accept
        udp dport 9 counter return
        counter
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established counter accept
        udp dport 7100 counter drop comment "no, 1: 7100"
        udp dport 7101 counter reject
        meta l4proto udp counter jump user
        udp dport 9 counter meta mark set 0x9 accept
    }
}
"#;

fn lab(rules: &str) -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(rules).unwrap();
    lab
}

/// One flow for each rule that decides, and one for the policy.
fn traffic(lab: &Lab) {
    let (c, s) = (&lab.client, &lab.server);
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    let _sink = udp_sink(s, s.at(9)).unwrap();
    udp_exchange(c, c.at(40_000), s.at(7), b"hello").unwrap();
    udp_send(c, c.at(40_001), s.at(9), b"hello", 1).unwrap();
    udp_send(c, c.at(40_002), s.at(7100), b"hello", 2).unwrap();
    udp_send(c, c.at(40_003), s.at(7101), b"hello", 1).unwrap();
    // Shorter than the time until the first retransmission: one packet.
    tcp_connect(c, c.at(40_004), s.at(81), Duration::from_millis(300)).unwrap_err();
}

/// The report of a trace of [`traffic`].
fn trace(lab: &Lab, args: &[&str]) -> String {
    lab.router.run(["conntrack", "-F"]).unwrap();
    let tracer = Tracer::start(&lab.router, &[&["--backend", backend()], args].concat()).unwrap();
    traffic(lab);
    tracer.finish().unwrap()
}

/// nft's handle of the rule of which this is the text, but for the handle.
fn handle(router: &Host, rule: &str) -> u64 {
    let listed = router.run(["nft", "-a", "-s", "list", "ruleset"]).unwrap();
    let handle =
        listed.lines().find_map(|line| line.trim().strip_prefix(rule)?.strip_prefix(" # handle "));
    handle.unwrap_or_else(|| panic!("no rule {rule:?}:\n{listed}")).parse().unwrap()
}

/// A text without some of its lines.
fn without(text: &str, unwanted: impl Fn(&str) -> bool) -> String {
    text.split_inclusive('\n').filter(|line| !unwanted(line)).collect()
}

/// A report without its comments.
fn flows(report: &str) -> String {
    without(report, |line| line.starts_with('#'))
}

/// The line of the flow to a port.
fn to_port(report: &Text, port: u16) -> &Line {
    let end = format!("to dst = 10.77.2.2 (port={port})");
    let found = report.lines.iter().find(|line| line.body.contains(&end));
    found.unwrap_or_else(|| panic!("no flow to port {port}: {report:?}"))
}

/// Destination ports of a report's flows.
fn ports(report: &Document) -> Vec<u64> {
    report.flows.iter().map(|flow| flow["original"]["dport"].as_u64().unwrap()).collect()
}

#[test]
fn the_rules_that_packets_met_stand_below_each_flow() {
    const TCP: &str = " TCPv4 [           0] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=81) (dropped)
                                table: inet fw, chain: forward, type: policy, position: 6, verdict: drop
";
    const PASSED: &str =
        " UDPv4 [           0] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=7) (confirmed)
                                table: inet fw, chain: forward, type: rule, position: 1
                                table: inet fw, chain: forward, type: rule, position: 4
                                table: inet fw, chain: user, type: rule, position: 1
 UDPv4 [           1] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=9)
                                table: inet fw, chain: forward, type: rule, position: 4
                                table: inet fw, chain: forward, type: rule, position: 5
                                table: inet fw, chain: user, type: rule, position: 2
";
    const DROPPED: &str = " UDPv4 [           2] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=7100) (dropped)
                                table: inet fw, chain: forward, type: rule, position: 2, verdict: drop
 UDPv4 [           3] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=7101) (dropped)
                                table: inet fw, chain: forward, type: rule, position: 3, verdict: reject
";
    let lab = lab(RULES);
    assert_eq!(flows(&trace(&lab, &[])), [TCP, PASSED, DROPPED].concat());
    let dropped = DROPPED.replace("[           2]", "[           0]");
    let dropped = dropped.replace("[           3]", "[           1]");
    assert_eq!(flows(&trace(&lab, &["--dropped"])), [TCP, &dropped].concat());
    let flows_only = trace(&lab, &["-c"]);
    assert!(flows_only.contains("# rules: not traced\n"), "{flows_only}");
    let want = without(&[TCP, PASSED, DROPPED].concat(), |line| line.contains("table: "));
    assert_eq!(flows(&flows_only), want);
}

#[test]
fn explanations_tell_handle_verdict_marks_provenance_and_text() {
    let lab = lab(RULES);
    let report = Text::parse(&trace(&lab, &["--explain"])).unwrap();
    let step = |chain: &str, position: u32, verdict: &str, how: &str, rule: &str| {
        let handle = handle(&lab.router, rule);
        format!(
            "table: inet fw, chain: {chain}, type: rule, position: {position}, handle: {handle}, \
             verdict: {verdict}, {how}, rule: {rule}"
        )
    };
    let new = "provenance: exact, state: new";
    let established = "provenance: exact, direction: reply, state: established";
    assert_eq!(
        to_port(&report, 7).trace,
        [
            step("forward", 1, "accept", established, "ct state established counter accept"),
            step("forward", 4, "jump user", new, "meta l4proto udp counter jump user"),
            step("user", 1, "accept", new, "udp dport 7 counter accept"),
        ]
    );
    let marked = &format!("packet mark: 0x0 -> 0x9, {new}");
    let line = to_port(&report, 9);
    assert_eq!(
        line.trace,
        [
            step("forward", 4, "jump user", marked, "meta l4proto udp counter jump user"),
            step(
                "forward",
                5,
                "accept",
                marked,
                "udp dport 9 counter meta mark set 0x00000009 accept"
            ),
            step("user", 2, "return", marked, "udp dport 9 counter return"),
        ]
    );
    assert_eq!(line.explanation("packet mark"), Some("0x9"));
    let marks = "0x0 -> 0x9 set at forward (original, new) in inet fw";
    assert!(line.explained.contains(&("packet mark".to_owned(), marks.to_owned())), "{line:?}");

    // A text is told as nft writes it, whatever it holds.
    let rule = r#"udp dport 7100 counter drop comment "no, 1: 7100""#;
    let line = to_port(&report, 7100);
    assert_eq!(line.trace, [step("forward", 2, "drop", new, rule)]);
    assert_eq!(line.explanation("dropped"), Some("2 packets at forward (toclient -> toserver)"));
    let rule = "udp dport 7101 counter reject";
    assert_eq!(to_port(&report, 7101).trace, [step("forward", 3, "reject", new, rule)]);
    let policy = "table: inet fw, chain: forward, type: policy, position: 6, verdict: drop, \
                  provenance: exact, state: new";
    assert_eq!(to_port(&report, 81).trace, [policy]);
}

#[test]
fn flows_are_found_by_chain_and_by_rule() {
    let lab = lab(RULES);
    let drops = handle(&lab.router, r#"udp dport 7100 counter drop comment "no, 1: 7100""#);
    let accepts = handle(&lab.router, "udp dport 7 counter accept");
    for (rules, want) in [
        (&["fw/user"][..], &[7, 9][..]),
        (&["inet fw/user"], &[7, 9]),
        (&["fw/forward"], &[81, 7, 9, 7100, 7101]),
        (&["!fw/user"], &[81, 7100, 7101]),
        (&[&format!("fw/forward/{drops}")], &[7100]),
        (&[&format!("inet fw/forward/{drops}"), &format!("fw/user/{accepts}")], &[7, 7100]),
        // Handles are of the table, but each is of one chain.
        (&[&format!("fw/user/{drops}")], &[]),
        (&["ip fw/user"], &[]),
    ] {
        let options: Vec<&str> = rules.iter().flat_map(|rule| ["--rule", rule]).collect();
        for fold in [&[][..], &["--no-fold"]] {
            let args = [&["--format", "json"], &options[..], fold].concat();
            let report = Document::json(&trace(&lab, &args)).unwrap();
            assert_eq!(ports(&report), want, "{args:?}");
            let filters: Vec<_> = rules.iter().map(|rule| format!("--rule {rule}")).collect();
            assert_eq!(report.header["filters"], json!(filters));
        }
    }
}

/// As many datagrams of one flow, each with its answer.
fn exchange(lab: &Lab, times: u64) {
    let (from, to) = (lab.client.at(40_000), lab.server.at(7));
    let work = || {
        let socket = udp_socket(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..times {
            socket.send(b"hello")?;
            socket.recv(&mut [0; 16])?;
        }
        Ok(())
    };
    lab.client.enter(work).unwrap();
}

#[test]
fn a_flow_is_traced_until_its_ways_are_known_and_a_sample_of_one_is_every_packet() {
    const EXCHANGES: u64 = 300;
    let lab = lab(RULES);
    let _echo = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    let packets = |args: &[&str]| {
        lab.router.run(["conntrack", "-F"]).unwrap();
        let args = [&["--backend", backend(), "--format", "json", "--no-fold"], args].concat();
        let tracer = Tracer::start(&lab.router, &args).unwrap();
        exchange(&lab, EXCHANGES);
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        assert!(report.lost_besides(&[]).is_empty(), "{}", report.footer);
        let [flow] = &report.flows[..] else { panic!("one flow: {:?}", report.flows) };
        let ways = flow["traversals"].as_array().unwrap().iter().map(|way| {
            let text = |key: &str| way[key].as_str().unwrap().to_owned();
            (text("direction"), text("state"), way["packets"].as_u64().unwrap())
        });
        let ways: Vec<_> = ways.collect();
        assert_eq!(
            ways.iter().map(|(.., packets)| packets).sum::<u64>(),
            report.counter("traced_packets").unwrap()
        );
        ways
    };
    let ways = |new, reply, original| {
        [
            ("original", "new", new),
            ("reply", "established", reply),
            ("original", "established", original),
        ]
        .map(|(direction, state, packets)| (direction.to_owned(), state.to_owned(), packets))
    };
    assert_eq!(packets(&[]), ways(1, 1, 1));
    assert_eq!(packets(&["--sample", "1"]), ways(1, EXCHANGES, EXCHANGES - 1));
    // One packet in three, by chance.
    let sampled: u64 = packets(&["--sample", "3"]).iter().map(|(.., packets)| packets).sum();
    assert!((EXCHANGES / 3..EXCHANGES * 5 / 3).contains(&sampled), "{sampled} packets");
}

#[test]
fn a_packet_of_a_known_flow_that_is_dropped_makes_its_flow_be_looked_at_again() {
    let lab = lab("
        table inet fw {
            chain forward {
                type filter hook forward priority filter;
                ct state established counter accept
                udp dport 9 limit rate over 1/hour burst 2 packets counter drop
                counter
            }
        }
    ");
    let (c, s) = (&lab.client, &lab.server);
    let _sink = udp_sink(s, s.at(9)).unwrap();
    let args = ["--backend", backend(), "--format", "json", "--no-fold"];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_send(c, c.at(40_000), s.at(9), b"hello", 6).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let [flow] = &report.flows[..] else { panic!("one flow: {:?}", report.flows) };
    // The burst passes, and the rest does not.
    assert_eq!(flow["dropped"]["packets"], 4, "{flow}");
    let ways = flow["traversals"].as_array().unwrap().iter().map(|way| {
        let steps = way["steps"].as_array().unwrap().iter();
        let positions: Vec<_> = steps.map(|step| step["position"].as_u64().unwrap()).collect();
        json!([way["outcome"], way["packets"], positions])
    });
    // The first one of those that were dropped was of a known way.
    let want = [json!(["passed", 1, [3, 4]]), json!(["dropped", 3, [2]])];
    assert_eq!(ways.collect::<Vec<_>>(), want, "{flow}");
}

#[test]
fn drops_before_conntrack_are_told_with_their_hook_and_rule() {
    let lab = lab("
        table inet fw {
            chain prerouting {
                type filter hook prerouting priority raw;
                udp dport 7100 counter drop
            }
            chain output {
                type filter hook output priority raw;
                udp dport 7109 counter drop
            }
            chain forward {
                type filter hook forward priority filter;
                ct state established counter accept
            }
        }
    ");
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    let args = ["--backend", backend(), "--format", "json", "--no-fold"];
    let tracer = Tracer::start(r, &args).unwrap();
    udp_send(c, c.at(40_000), s.at(7100), b"hello", 2).unwrap();
    udp_send(c, c.at6(40_000), s.at6(7100), b"hello", 1).unwrap();
    let outside = SocketAddr::new(r.links[1].v4.into(), 40_000);
    udp_send(r, outside, s.at(7109), b"hello", 1).unwrap_err();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    assert!(report.lost_besides(&[]).is_empty(), "{}", report.footer);
    for (port, source, hook, packets) in [
        (7100, "10.77.1.2", "prerouting", 2),
        (7100, "fd77:1::2", "prerouting", 1),
        (7109, "10.77.2.1", "output", 1),
    ] {
        let is =
            |flow: &&Value| flow["original"]["dport"] == port && flow["original"]["src"] == source;
        let flow = report.flows.iter().find(is).unwrap();
        assert_eq!(flow["dropped"]["packets"], packets, "{flow}");
        assert_eq!(flow["dropped"]["places"][0]["hook"], hook, "{flow}");
        let [way] = &flow["traversals"].as_array().unwrap()[..] else { panic!("one way: {flow}") };
        for (key, value) in [("hook", hook), ("state", "early"), ("outcome", "dropped")] {
            assert_eq!(way[key], value, "{way}");
        }
        // Each of them was looked at.
        assert_eq!(way["packets"], packets, "{way}");
        let [step] = &way["steps"].as_array().unwrap()[..] else { panic!("one step: {way}") };
        let told =
            ["chain", "verdict", "provenance", "text"].map(|key| step[key].as_str().unwrap());
        assert_eq!(told, [hook, "drop", "exact", &format!("udp dport {port} counter drop")]);
    }
}

#[test]
fn a_change_of_rules_begins_an_epoch() {
    let lab = lab(RULES);
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.txt");
    let args = ["--backend", backend(), "--explain", "-o", file.to_str().unwrap()];
    let mut tracer = Tracer::start(r, &args).unwrap();
    let send = || udp_send(c, c.at(40_000), s.at(7100), b"hello", 1).unwrap();
    send();
    let first = handle(r, r#"udp dport 7100 counter drop comment "no, 1: 7100""#);
    r.nft("insert rule inet fw forward udp dport 7100 counter drop").unwrap();
    let second = handle(r, "udp dport 7100 counter drop");
    let report = || Text::parse(&fs::read_to_string(&file).unwrap_or_default()).unwrap();
    let start = Instant::now();
    while report().header("epochs") != Some("2") {
        assert!(start.elapsed() < PATIENCE, "no second epoch");
        tracer.process().signal(Signal::SIGUSR1).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    send();
    tracer.finish().unwrap();
    let report = report();
    assert!(report.lost_besides(&RULES_CHANGED).is_empty(), "{report:?}");
    let trace = &to_port(&report, 7100).trace;
    let of = |handle: u64, epoch: u32| {
        let (handle, epoch) = (format!("handle: {handle},"), format!("epoch: {epoch},"));
        trace.iter().any(|line| line.contains(&handle) && line.contains(&epoch))
    };
    assert!(of(first, 1) && of(second, 2), "{trace:#?}");
    assert_eq!(trace.len(), 2, "{trace:#?}");
}

/// The reject sends an answer through a chain whose counters the packet moves, too. What the answer moved is
/// taken out, and what the targets' own functions tell says the same.
#[test]
fn steps_in_ip_tables_are_exact_when_an_answer_moves_the_same_counters() {
    let lab = Lab::new().unwrap();
    for rule in [
        "-N user",
        "-A user -p udp --dport 9 -j REJECT",
        "-A FORWARD -p udp -j MARK --set-mark 5",
        "-A FORWARD -p udp -j user",
        "-A OUTPUT -p icmp -j user",
    ] {
        lab.router.run(["iptables-legacy"].into_iter().chain(rule.split(' '))).unwrap();
    }
    let Some(tracer) = by_probes(&lab.router, &[]) else { return };
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), b"hello", 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let ways = report.flows.iter().filter_map(|flow| flow["traversals"].as_array()).flatten();
    let way = ways.into_iter().find(|way| way["outcome"] == "dropped").unwrap();
    assert_eq!((&way["hook"], &way["doubt"]), (&"forward".into(), &Value::Null), "{way}");
    let exact: Vec<(&str, u64, &str)> = way["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["provenance"] == "exact")
        .map(|step| {
            let text = |key: &str| step[key].as_str().unwrap();
            (text("chain"), step["position"].as_u64().unwrap(), text("verdict"))
        })
        .collect();
    let steps = [("FORWARD", 1, "continue"), ("FORWARD", 2, "jump"), ("user", 1, "reject")];
    assert_eq!(exact, steps, "{way}");
    assert_eq!(report.counter("paths_contradicting").unwrap(), 0);
}

/// "filter/FORWARD 1" would be two different rules here.
#[test]
fn tables_of_one_name_are_told_apart() {
    if skipped_without_counters() {
        return;
    }
    let lab = Lab::new().unwrap();
    let rules = |program: &str, rules: &[&str]| {
        for rule in rules {
            lab.router.run([program].into_iter().chain(rule.split(' '))).unwrap();
        }
    };
    rules("iptables-legacy", &["-A FORWARD -p udp --dport 54 -j DROP"]);
    rules("iptables-nft", &["-A FORWARD -p udp --dport 53 -j DROP"]);
    let (c, s) = (&lab.client, &lab.server);
    let trace = |args: &[&str]| {
        let all = [&["--backend", backend()], args].concat();
        let tracer = Tracer::start(&lab.router, &all).unwrap();
        for port in [53, 54] {
            udp_send(c, c.at(40_000), s.at(port), b"hello", 1).unwrap();
        }
        tracer.finish().unwrap()
    };
    let report = Text::parse(&trace(&[])).unwrap();
    assert!(report.header.iter().any(|line| line.contains("both loaded")), "{report:?}");
    let of = |port| to_port(&report, port).trace.clone();
    let place = |table: &str, what: &str| format!("table: {table}, chain: FORWARD, type: {what}");
    assert_eq!(of(53), [place("filter", "rule, position: 1, verdict: drop")]);
    let dropped = place("filter (legacy)", "rule, position: 1, verdict: drop");
    assert!(of(54).contains(&dropped), "{:?}", of(54));

    for (place, ports) in [
        ("filter/FORWARD", &[53, 54][..]),
        ("filter (legacy)/FORWARD/1", &[54]),
        ("filter (nft)/FORWARD/1", &[]),
    ] {
        let report = Document::json(&trace(&["--format", "json", "--rule", place])).unwrap();
        let found: Vec<_> =
            report.flows.iter().map(|flow| flow["original"]["dport"].as_u64().unwrap()).collect();
        assert_eq!(found, ports, "{place}");
    }
    let old = trace(&["--compat", "v0.1"]);
    assert!(!old.contains("legacy"), "{old}");
}
