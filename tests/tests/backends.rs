//! What sees packets does not show in reports: links and probes tell the same of the same traffic. Where
//! a kernel has only one of them there is nothing to compare. (What counters cannot tell is not in this
//! ruleset: probes know more of it.)

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Tracer, command};
use conntracker_tests::traffic::{
    tcp_connect, tcp_echo_server, udp_echo_server, udp_exchange, udp_send,
};
use serde_json::Value;

/// Every rule has a counter that moves when it matches: links see all that probes see.
const RULES: &str = "
table inet fw {
    chain user {
        ct mark 0x5 counter return
        counter drop
    }
    chain early {
        type filter hook prerouting priority raw; policy accept;
        udp dport 13 counter drop
        udp dport 14 counter notrack
    }
    chain marking {
        type filter hook prerouting priority mangle; policy accept;
        udp dport 7 meta mark set 0x5 counter
        ct mark set mark counter
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        udp dport 7 counter jump user
        udp dport 9 counter drop
        udp dport 7 counter accept
        udp dport { 14, 15 } counter accept
        tcp dport 80 counter accept
    }
    chain late {
        type filter hook postrouting priority mangle; policy accept;
        udp dport 15 counter drop
    }
    chain nat {
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr 10.77.2.2 udp dport 7 counter masquerade
    }
}
";

/// `--backend` and `--attach` of each.
const BACKENDS: [(&str, &str); 3] = [("links", "auto"), ("probes", "fentry"), ("probes", "kprobe")];

/// What a report says that does not depend on when: each flow with its ways.
fn said(report: &Document) -> BTreeMap<String, Value> {
    let mut said = BTreeMap::new();
    for flow in &report.flows {
        let mut flow = flow.clone();
        let object = flow.as_object_mut().unwrap();
        // Times, and those things of conntrack that were dumped at different moments.
        for moment in ["first_seen", "last_seen", "timeout_seconds", "use", "sources", "state"] {
            object.remove(moment);
        }
        let mut ways = object.remove("traversals").unwrap_or_default();
        for way in ways.as_array_mut().into_iter().flatten() {
            // Each tracer has epochs of its own, and one may have seen a change that another slept by.
            way.as_object_mut().unwrap().remove("epoch");
        }
        let mut ways: Vec<String> =
            ways.as_array().into_iter().flatten().map(Value::to_string).collect();
        ways.sort_unstable();
        object.insert("ways".to_owned(), ways.into());
        said.insert(flow["original"].to_string(), flow);
    }
    said
}

#[test]
fn links_and_probes_tell_the_same() {
    let lab = Lab::new().unwrap();
    lab.router.nft(RULES).unwrap();
    let mut tracers = Vec::new();
    for (backend, attach) in BACKENDS {
        let how = ["--backend", backend, "--attach", attach];
        let what =
            ["trace", "--netns", &lab.router.name, "-o", "-", "--no-fold", "--format", "json"];
        match Tracer::spawn(command(what.into_iter().chain(how)).unwrap()) {
            Ok(tracer) => tracers.push((backend, attach, tracer)),
            Err(error) => println!("{backend} {attach} does not work here: {error:#}"),
        }
    }
    let (c, s) = (&lab.client, &lab.server);
    let at = |port| SocketAddr::new("10.77.1.2".parse().unwrap(), port);
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    for port in 40_000..40_004 {
        udp_exchange(c, at(port), s.at(7), b"hello").unwrap();
        for to in [9, 13, 14, 15, 16] {
            udp_send(c, at(port), s.at(to), b"hello", 1).unwrap();
        }
    }
    let _server = tcp_echo_server(s, s.at(80)).unwrap();
    let _open = tcp_connect(c, at(40_100), s.at(80), Duration::from_secs(5)).unwrap();

    let mut reports = Vec::new();
    for (backend, attach, tracer) in tracers {
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        assert_eq!(report.header["backend"], backend);
        reports.push((format!("{backend} {attach}"), said(&report)));
    }
    let ((first, seen), others) = reports.split_first().unwrap();
    assert!(seen.len() >= 20, "{first}: {seen:#?}");
    if others.is_empty() {
        let line =
            format!("test skipped: links_and_probes_tell_the_same: {first} alone works here\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
    for (other, theirs) in others {
        let flows = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(flows(seen), flows(theirs), "{first} and {other}");
        for (flow, ours) in seen {
            assert_eq!(ours, &theirs[flow], "{flow} by {first} and by {other}");
        }
    }
}
