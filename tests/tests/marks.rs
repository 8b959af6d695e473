//! Marks: which chain, or rule, set or restored which mark of a packet or of its connection, of
//! fragmented packets too, whoever wrote the rules.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{Document, Text};
use conntracker_tests::tracer::{Tracer, backend, skipped_without_counters};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange, udp_send, udp_sink};
use serde_json::{Value, json};

/// The port marks the packets of a flow, its connection takes the mark over when they leave, and gives
/// it to packets that come in.
const NFT: &str = "
table ip fw {
    chain incoming {
        type filter hook prerouting priority mangle;
        counter meta mark set ct mark
    }
    chain forward {
        type filter hook forward priority filter;
        udp dport 7 counter meta mark set 0x7
        udp dport 9 counter ct mark set 0x99
    }
    chain outgoing {
        type filter hook postrouting priority mangle;
        udp dport 7 counter ct mark set meta mark
    }
}
";

/// The same for iptables-restore, of nft and legacy.
const IPTABLES: &str = "*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -j CONNMARK --restore-mark
-A POSTROUTING -p udp -m udp --dport 7 -j CONNMARK --save-mark
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 7 -j MARK --set-mark 0x7
-A FORWARD -p udp -m udp --dport 9 -j CONNMARK --set-mark 0x99
COMMIT
";

/// Who writes the rules, and what is said of them: places of changes.
struct Firewall {
    name: &'static str,
    load: fn(&Host),
    /// Where the first packet is marked, and where its connection takes that over.
    marked: &'static str,
    saved: &'static str,
    /// Where the connection of the other flow is marked.
    set: &'static str,
    /// Where an answer gets the mark of its connection.
    restored: &'static str,
}

const BY_NFT: Firewall = Firewall {
    name: "nft",
    load: |router| router.nft(NFT).unwrap(),
    marked: "in ip fw/forward",
    saved: "in ip fw/outgoing",
    set: "in ip fw/forward",
    restored: "in ip fw/incoming",
};

const BY_IPTABLES: Firewall = Firewall {
    name: "iptables-nft",
    load: |router| drop(router.run_with_input(["iptables-nft-restore"], IPTABLES).unwrap()),
    marked: "by rule 1 of filter/FORWARD",
    saved: "by rule 1 of mangle/POSTROUTING",
    set: "by rule 2 of filter/FORWARD",
    restored: "by rule 1 of mangle/PREROUTING",
};

const BY_LEGACY: Firewall = Firewall {
    name: "iptables-legacy",
    load: |router| drop(router.run_with_input(["iptables-legacy-restore"], IPTABLES).unwrap()),
    marked: "by rule 1 of filter (legacy)/FORWARD",
    saved: "by rule 1 of mangle (legacy)/POSTROUTING",
    set: "by rule 2 of filter (legacy)/FORWARD",
    restored: "by rule 1 of mangle (legacy)/PREROUTING",
};

/// Longer than the link's MTU: two fragments.
const LONG: [u8; 2000] = [7; 2000];

/// Two flows that are answered, in one piece and in fragments, and a ping in fragments.
fn traffic(lab: &Lab, payload: &[u8]) {
    let (c, s) = (&lab.client, &lab.server);
    let _servers = [7, 9].map(|port| udp_echo_server(s, s.at(port)).unwrap());
    for port in [7, 9] {
        udp_exchange(c, c.at(40_000), s.at(port), payload).unwrap();
    }
    let (size, to) = (payload.len().to_string(), s.v4().to_string());
    c.run(["ping", "-n", "-c", "1", "-s", &size, &to]).unwrap();
}

/// What the traversals of a flow say of marks: hook, direction, packet mark and connmark, each before
/// and after.
fn marks(flow: &Value) -> Vec<(String, String, [u64; 2], [u64; 2])> {
    let ways = flow["traversals"].as_array().unwrap().iter();
    ways.map(|way| {
        let text = |key: &str| way[key].as_str().unwrap().to_owned();
        let pair = |key: &str| ["before", "after"].map(|at| way[key][at].as_u64().unwrap());
        (text("hook"), text("direction"), pair("packet_mark"), pair("connmark"))
    })
    .collect()
}

/// What set and restored a mark is told.
fn tells_marks(firewall: &Firewall) {
    let Firewall { name, load, marked, saved, set, restored } = *firewall;
    let lab = Lab::new().unwrap();
    load(&lab.router);
    for payload in [&b"hello"[..], &LONG] {
        let what = format!("{name}, {} bytes", payload.len());
        lab.router.run(["conntrack", "-F"]).unwrap();
        let tracer = Tracer::start(&lab.router, &["--backend", backend(), "--explain"]).unwrap();
        traffic(&lab, payload);
        let report = Text::parse(&tracer.finish().unwrap()).unwrap();
        let [seven, nine, ping] = &report.lines[..] else { panic!("{what}: {report:?}") };
        let told = |line: &conntracker_tests::tracer::report::Line, key: &str| {
            let values = line.explained.iter().filter(|(found, _)| found == key);
            values.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let at = |change: &str, hook: &str, of: &str, by: &str| {
            format!("{change} set at {hook} ({of}) {by}")
        };
        let (new, reply) = ("original, new", "reply, established");
        let saves = [at("0x0 -> 0x7", "postrouting", new, saved)];
        assert_eq!(told(seven, "connmark"), saves, "{what}");
        let own = "0x7".to_owned();
        let marks = [
            at("0x0 -> 0x7", "forward", new, marked),
            at("0x0 -> 0x7", "prerouting", reply, restored),
        ];
        assert_eq!(told(seven, "packet mark"), [&[own][..], &marks].concat(), "{what}");
        assert_eq!(told(seven, "mark"), ["0x7"], "{what}");

        let sets = [at("0x0 -> 0x99", "forward", new, set)];
        assert_eq!(told(nine, "connmark"), sets, "{what}");
        let marks = [at("0x0 -> 0x99", "prerouting", reply, restored)];
        assert_eq!(told(nine, "packet mark"), marks, "{what}");
        assert_eq!(told(nine, "mark"), ["0x99"], "{what}");

        for key in ["mark", "packet mark", "connmark"] {
            assert!(told(ping, key).is_empty(), "{what}: {ping:?}");
        }
        assert!(ping.trace.len() >= 2, "{what}: {ping:?}");
    }
}

#[test]
fn what_set_and_restored_a_mark_is_told() {
    tells_marks(&BY_NFT);
    tells_marks(&BY_IPTABLES);
}

#[test]
fn what_set_and_restored_a_mark_is_told_of_iptables_legacy() {
    if !skipped_without_counters() {
        tells_marks(&BY_LEGACY);
    }
}

#[test]
fn json_has_the_marks_before_and_after_each_hook() {
    let lab = Lab::new().unwrap();
    lab.router.nft(NFT).unwrap();
    let tracer = Tracer::start(&lab.router, &["--backend", backend(), "--format", "json"]).unwrap();
    traffic(&lab, &LONG);
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let way = |hook: &str, direction: &str, packet, connection| {
        (hook.to_owned(), direction.to_owned(), packet, connection)
    };
    let [seven, nine, ping] = &report.flows[..] else { panic!("{:?}", report.flows) };
    assert_eq!(
        marks(seven),
        [
            way("prerouting", "original", [0, 0], [0, 0]),
            way("forward", "original", [0, 7], [0, 0]),
            way("postrouting", "original", [7, 7], [0, 7]),
            way("prerouting", "reply", [0, 7], [7, 7]),
            way("forward", "reply", [7, 7], [7, 7]),
            way("postrouting", "reply", [7, 7], [7, 7]),
        ]
    );
    assert_eq!(
        marks(nine),
        [
            way("prerouting", "original", [0, 0], [0, 0]),
            way("forward", "original", [0, 0], [0, 0x99]),
            way("postrouting", "original", [0, 0], [0x99, 0x99]),
            way("prerouting", "reply", [0, 0x99], [0x99, 0x99]),
            way("forward", "reply", [0x99, 0x99], [0x99, 0x99]),
            way("postrouting", "reply", [0x99, 0x99], [0x99, 0x99]),
        ]
    );
    assert!(
        marks(ping).iter().all(|(.., packet, connection)| [packet, connection] == [&[0, 0]; 2])
    );
    // conntrack puts fragments together before any rule sees them.
    for flow in &report.flows {
        assert!(
            flow["traversals"].as_array().unwrap().iter().all(|way| way.get("fragment").is_none())
        );
    }
}

#[test]
fn fragments_that_nobody_puts_together_are_told_as_such() {
    let lab = Lab::new().unwrap();
    // No rule needs conntrack: it is not active.
    let rules = "table ip fw { chain forward {
        type filter hook forward priority filter;
        ip frag-off & 0x1fff != 0 counter meta mark set 0x2
        udp dport 9 counter meta mark set 0x1
    }; }";
    lab.router.nft(rules).unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let args = ["--backend", backend(), "--format", "json", "--no-fold"];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), &LONG, 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    assert!(report.lost_besides(&[]).is_empty(), "{}", report.footer);
    let of = |flow: &Value| -> Vec<Value> {
        let ways = flow["traversals"].as_array().unwrap().iter();
        ways.map(|way| {
            let steps = way["steps"].as_array().unwrap().iter();
            let rules: Vec<_> = steps.map(|step| step["position"].as_u64().unwrap()).collect();
            json!([way["state"], way.get("fragment"), way["packet_mark"]["after"], rules])
        })
        .collect()
    };
    let mut ways: Vec<Value> = report.flows.iter().flat_map(of).collect();
    ways.sort_by_key(Value::to_string);
    assert_eq!(
        ways,
        [json!(["untracked", null, 1, [2, 3]]), json!(["untracked", true, 2, [1, 3]])],
        "{:#?}",
        report.flows
    );
}
