//! Chains where packets are not traced, of bridges and devices: they are named, and what they may have dropped
//! is not said to have been dropped elsewhere.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::net::SocketAddr;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{Document, Text};
use conntracker_tests::tracer::{Tracer, backend};
use conntracker_tests::traffic::udp_send;

fn ip(host: &Host, command: &str) {
    host.run(["ip"].into_iter().chain(command.split(' '))).unwrap();
}

/// The packets that rules with this text have counted.
fn counted(router: &Host, text: &str) -> u64 {
    let list = router.run(["nft", "list", "ruleset"]).unwrap();
    let lines = list.lines().filter(|line| line.contains(text));
    lines
        .filter_map(|line| line.split_once("packets ")?.1.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// A second way from the client to the router: by a bridge.
fn with_bridge(lab: &Lab) -> SocketAddr {
    let (c, r) = (&lab.client, &lab.router);
    ip(r, &format!("link add lanport type veth peer name lan netns {}", c.name));
    ip(r, "link add br0 type bridge");
    for command in
        ["link set lanport master br0 up", "link set br0 up", "addr add 10.79.0.1/24 dev br0"]
    {
        ip(r, command);
    }
    ip(c, "link set lan up");
    ip(c, "addr add 10.79.0.2/24 dev lan");
    SocketAddr::new("10.79.0.1".parse().unwrap(), 53)
}

const RULES: &str = "
table bridge b { chain i { type filter hook input priority 0; udp dport 53 counter drop; }; }
table netdev out { chain e { type filter hook egress device toserver priority 0; udp dport 54 counter drop; }; }
table arp a { chain i { type filter hook input priority 0; policy drop; accept; }; }
table inet fw {
    chain input { type filter hook input priority 0; ct state new counter; }
    chain forward { type filter hook forward priority 0; ct state new udp dport 55 counter drop; }
}
";

#[test]
fn what_may_have_been_dropped_where_packets_are_not_traced_says_so() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    let bridged = with_bridge(&lab);
    r.nft(RULES).unwrap();
    let run = |args: &[&str]| {
        let tracer = Tracer::start(r, &[&["--backend", backend()], args].concat()).unwrap();
        udp_send(c, SocketAddr::new("10.79.0.2".parse().unwrap(), 40_000), bridged, b"hello", 1)
            .unwrap();
        for port in [54, 55] {
            udp_send(c, c.at(40_000), s.at(port), b"hello", 1).unwrap();
        }
        tracer.finish().unwrap()
    };
    let text = Text::parse(&run(&["--explain"])).unwrap();
    let document = Document::json(&run(&["--format", "json"])).unwrap();
    assert_eq!(["dport 53", "dport 54", "dport 55"].map(|rule| counted(r, rule)), [2, 2, 2]);

    let notes: Vec<&String> =
        text.header.iter().filter(|line| line.contains("chains of bridges")).collect();
    let [note] = &notes[..] else { panic!("{:?}", text.header) };
    for chain in ["bridge b/i", "netdev out/e", "arp a/i"] {
        assert!(note.contains(chain), "{note}");
    }
    let said = |port: u16| {
        let line =
            text.lines.iter().find(|line| line.body.contains(&format!("port={port})"))).unwrap();
        line.explanation("dropped").unwrap().to_owned()
    };
    let suspects = "; chains that are not traced may have dropped them: bridge b/i, netdev out/e";
    assert!(said(53).starts_with("1 packet at unknown hook ("), "{}", said(53));
    assert!(said(53).ends_with(suspects), "{}", said(53));
    assert!(said(54).starts_with("1 packet at unknown hook ("), "{}", said(54));
    assert!(said(54).ends_with(suspects), "{}", said(54));
    assert_eq!(said(55), "1 packet at forward (toclient -> toserver)");

    let place = |port: u16| {
        let flow = document.flows.iter().find(|flow| flow["original"]["dport"] == port).unwrap();
        flow["dropped"]["places"][0].clone()
    };
    let maybe = serde_json::json!(["bridge b/i", "netdev out/e"]);
    for port in [53, 54] {
        assert_eq!(
            (&place(port)["hook"], &place(port)["maybe"]),
            (&serde_json::Value::Null, &maybe)
        );
    }
    assert_eq!(
        (&place(55)["hook"], &place(55)["maybe"]),
        (&"forward".into(), &serde_json::Value::Null)
    );
}

/// Without rules nobody knows of the chains, but the packet does not look like one at POSTROUTING.
#[test]
fn a_drop_behind_postrouting_is_not_told_as_one_at_it() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    r.nft(
        "table netdev out { chain e { type filter hook egress device toserver priority 0; udp dport 54 counter drop; }; }
         table inet fw { chain p { type filter hook postrouting priority 0; ct state new udp dport 56 counter drop; }; }",
    )
    .unwrap();
    let tracer = Tracer::start(r, &["-c", "--format", "json"]).unwrap();
    for port in [54, 56] {
        udp_send(c, c.at(40_000), s.at(port), b"hello", 1).unwrap();
    }
    let document = Document::json(&tracer.finish().unwrap()).unwrap();
    let hook = |port: u16| {
        let flow = document.flows.iter().find(|flow| flow["original"]["dport"] == port).unwrap();
        flow["dropped"]["places"][0]["hook"].clone()
    };
    assert_eq!((hook(54), hook(56)), (serde_json::Value::Null, "postrouting".into()));
}
