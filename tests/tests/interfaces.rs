//! Interfaces have the names that they had when packets met them: not those of later, and not none when they
//! are gone.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{Document, Text};
use conntracker_tests::tracer::{Tracer, backend};
use conntracker_tests::traffic::udp_send;
use serde_json::Value;

/// Drops what comes to port 666, and lets in what comes to 667.
const RULES: &str = "
table ip f {
    chain i {
        type filter hook input priority 0;
        ct state new udp dport 666 counter drop
        udp dport 667 counter accept
    }
}
";

fn ip(host: &Host, command: &str) {
    host.run(["ip"].into_iter().chain(command.split(' '))).unwrap();
}

/// Packets that came to a port, by the kernel's counter.
fn counted(router: &Host, port: u16) -> u64 {
    let list = router.run(["nft", "list", "table", "ip", "f"]).unwrap();
    let rule = list.lines().find(|line| line.contains(&format!("dport {port} "))).unwrap();
    rule.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// A link of the router to the client, in 10.79.0.0/24, as the interface of this index and name.
fn link(lab: &Lab, index: u32, name: &str) {
    let (c, r) = (&lab.client, &lab.router);
    ip(r, &format!("link add {name} index {index} type veth peer name lan netns {}", c.name));
    ip(r, &format!("addr add 10.79.0.1/24 dev {name}"));
    ip(c, "addr add 10.79.0.2/24 dev lan");
    ip(c, "link set lan up");
    ip(r, &format!("link set {name} up"));
}

/// Sends a packet to each port of the router, and waits until they have come.
fn send(lab: &Lab, to: &str) {
    for port in [666, 667] {
        let before = counted(&lab.router, port);
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let from = SocketAddr::new("0.0.0.0".parse().unwrap(), 40_000 + port);
        udp_send(&lab.client, from, to, b"hello", 1).unwrap();
        let since = Instant::now();
        while counted(&lab.router, port) == before {
            assert!(since.elapsed() < Duration::from_secs(10), "{to}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Interfaces of input of the flows to a port, as JSON has them.
fn inputs(document: &Document, port: u16) -> Vec<Value> {
    let flows = document.flows.iter().filter(|flow| flow["original"]["dport"] == port);
    let inputs = flows.flat_map(|flow| match flow["dropped"]["places"].as_array() {
        Some(places) => places.iter().map(|place| place["in"].clone()).collect(),
        None => vec![flow["interfaces"]["in"].clone()],
    });
    inputs.collect()
}

/// Observes while a packet comes in by `eth`, which is renamed to `wan` then, and one by `wan`.
fn renamed(lab: &Lab, args: &[&str]) -> String {
    let r = &lab.router;
    link(lab, 50, "eth");
    r.run(["conntrack", "-F"]).unwrap();
    let tracer = Tracer::start(r, &[&["--backend", backend()], args].concat()).unwrap();
    send(lab, "10.79.0.1");
    for command in ["link set eth down", "link set eth name wan", "link set wan up"] {
        ip(r, command);
    }
    r.run(["conntrack", "-F"]).unwrap();
    send(lab, "10.79.0.1");
    let report = tracer.finish().unwrap();
    ip(r, "link del wan");
    report
}

#[test]
fn a_renamed_interface_has_the_name_that_it_had() {
    let lab = Lab::new().unwrap();
    lab.router.nft(RULES).unwrap();
    let document = Document::json(&renamed(&lab, &["--format", "json", "--no-fold"])).unwrap();
    let mut dropped = inputs(&document, 666);
    dropped.sort_by_key(Value::to_string);
    assert_eq!(dropped, ["eth", "wan"], "{document:?}");
    // It is the same flow to conntrack's eyes: that of its first packet.
    assert_eq!(inputs(&document, 667), ["eth"], "{document:?}");
    let listed = document.header["namespaces"][0]["interfaces"].as_array().unwrap();
    let mut names: Vec<(u64, &str)> = listed
        .iter()
        .map(|of| (of["index"].as_u64().unwrap(), of["name"].as_str().unwrap()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [(50, "eth"), (50, "wan")]);

    let text = Text::parse(&renamed(&lab, &["--explain"])).unwrap();
    let dropped: Vec<&str> =
        text.lines.iter().filter_map(|line| line.explanation("dropped")).collect();
    assert_eq!(dropped, ["2 packets at input (eth -> -), input (wan -> -)"]);

    for (filter, ports) in
        [("eth", vec![666, 667]), ("wan", vec![666, 667]), ("!eth", vec![]), ("old", vec![])]
    {
        let said = renamed(&lab, &["--format", "json", "--iif", filter]);
        let flows = Document::json(&said).unwrap().flows;
        let found: Vec<u64> =
            flows.iter().map(|flow| flow["original"]["dport"].as_u64().unwrap()).collect();
        assert_eq!(found, ports, "{filter}");
    }
}

#[test]
fn an_interface_that_is_gone_keeps_its_name_though_another_has_its_index() {
    let lab = Lab::new().unwrap();
    let r = &lab.router;
    r.nft(RULES).unwrap();
    let args = ["--backend", backend(), "--format", "json", "--no-fold"];
    let tracer = Tracer::start(r, &args).unwrap();
    for name in ["one", "two"] {
        link(&lab, 60, name);
        send(&lab, "10.79.0.1");
        ip(r, &format!("link del {name}"));
        r.run(["conntrack", "-F"]).unwrap();
    }
    let document = Document::json(&tracer.finish().unwrap()).unwrap();
    let mut dropped = inputs(&document, 666);
    dropped.sort_by_key(Value::to_string);
    assert_eq!(dropped, ["one", "two"], "{document:?}");
}
