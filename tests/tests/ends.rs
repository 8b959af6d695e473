//! Ends of flows, with the last counts that conntrack has of them, and the processes at their local ends:
//! as conntrack(8) and /proc have them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Guarded, Host, Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{PATIENCE, Tracer, backend, by_probes};
use conntracker_tests::traffic::{
    ping4, tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange, udp_send, udp_sink,
};
use serde_json::Value;

/// Timeouts of a second, and accounting.
const SETTINGS: [(&str, &str); 5] = [
    ("acct", "1"),
    ("udp_timeout", "1"),
    ("icmp_timeout", "1"),
    ("tcp_timeout_time_wait", "1"),
    ("tcp_timeout_close", "1"),
];

/// A lab whose router tracks, and forgets soon.
fn forgetful() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    for (key, value) in SETTINGS {
        lab.router.sysctl(&format!("net.netfilter.nf_conntrack_{key}"), value).unwrap();
    }
    lab
}

/// What there is of a flow at its end: state, and packets and bytes of both directions.
type Last = (Option<String>, [u64; 4]);

/// What `conntrack -E -e DESTROY` has said, by protocol, source port and destination port or, of ICMP,
/// type and code.
fn said(events: &Guarded) -> BTreeMap<(u64, String, String), Last> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let values = |key: &str| -> Vec<String> {
            let value = |word: &&str| word.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            words.iter().filter_map(value).collect()
        };
        let first = |keys: [&str; 2]| keys.iter().find_map(|key| values(key).first().cloned());
        let numbers = |key| values(key).iter().map(|n| n.parse().unwrap()).collect::<Vec<u64>>();
        let (packets, bytes) = (numbers("packets"), numbers("bytes"));
        // [DESTROY] ipv4 2 tcp 6 TIME_WAIT src=…; some versions print the timeout first.
        let state =
            words[5..].iter().find(|word| word.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'_')));
        let key = (words[4].parse().unwrap(), first(["sport", "type"])?, first(["dport", "code"])?);
        let counts = [packets[0], packets[1], bytes[0], bytes[1]];
        Some((key, (state.map(|state| state.to_lowercase()), counts)))
    };
    events.stdout().lines().filter_map(parse).collect()
}

/// The same of a flow of the report.
fn reported(flow: &Value) -> ((u64, String, String), Last) {
    let original = &flow["original"];
    let text = |keys: [&str; 2]| {
        keys.iter().find_map(|key| original.get(key)).unwrap().as_u64().unwrap().to_string()
    };
    let count = |direction: &str, what: &str| flow["counters"][direction][what].as_u64().unwrap();
    let key = (
        flow["protocol"]["number"].as_u64().unwrap(),
        text(["sport", "type"]),
        text(["dport", "code"]),
    );
    let counts = [
        count("original", "packets"),
        count("reply", "packets"),
        count("original", "bytes"),
        count("reply", "bytes"),
    ];
    (key, (flow["state"].as_str().map(str::to_owned), counts))
}

/// A listener for ends of flows in a namespace.
fn destroys(host: &Host) -> Guarded {
    let events = host.spawn(["conntrack", "-E", "-e", "DESTROY", "-o", "extended"]).unwrap();
    // It says nothing when it has begun.
    thread::sleep(Duration::from_millis(500));
    events
}

/// Waits until conntrack has said that many ends; a dump makes it look for what is over.
fn wait_for_ends(host: &Host, events: &Guarded, many: usize) {
    let start = Instant::now();
    while events.stdout().lines().count() < many {
        assert!(start.elapsed() < PATIENCE, "{}", events.stdout());
        host.run(["conntrack", "-L"]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_last_counts_and_states_are_those_of_the_destroy_events() {
    let lab = forgetful();
    let Some(tracer) = by_probes(&lab.router, &["--no-fold"]) else { return };
    let events = destroys(&lab.router);
    let _tcp = tcp_echo_server(&lab.server, lab.server.at(80)).unwrap();
    let _udp = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    tcp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(80), b"hello").unwrap();
    for port in [40_001, 40_002] {
        let to = lab.server.at(7);
        udp_exchange(&lab.client, lab.client.at(port), to, &[1; 200]).unwrap();
    }
    udp_send(&lab.client, lab.client.at(40_003), lab.server.at(9), b"x", 1).unwrap();
    ping4(&lab.client, lab.server.v4().into(), 77, 1).unwrap();
    wait_for_ends(&lab.router, &events, 5);
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let want = said(&events);
    let got: BTreeMap<_, _> = report.flows.iter().map(reported).collect();
    assert_eq!(got, want);
    for flow in &report.flows {
        assert_eq!((&flow["flows"], &flow["ended"]), (&Value::from(1), &Value::from(1)), "{flow}");
        assert!(flow["stop"].is_string(), "{flow}");
    }
    assert_eq!(report.counter("flow_ends").unwrap(), 5);
    assert_eq!(report.counter("end_records_lost").unwrap(), 0);
}

#[test]
fn ends_of_folded_flows_sum() {
    let lab = forgetful();
    let Some(tracer) = by_probes(&lab.router, &[]) else { return };
    let events = destroys(&lab.router);
    let _udp = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    for port in 40_000..40_009 {
        udp_exchange(&lab.client, lab.client.at(port), lab.server.at(7), &[1; 72]).unwrap();
    }
    wait_for_ends(&lab.router, &events, 9);
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let [flow] = &report.flows[..] else { panic!("{:#?}", report.flows) };
    assert_eq!((&flow["flows"], &flow["ended"]), (&Value::from(9), &Value::from(9)), "{flow}");
    let counts = serde_json::json!({"packets": 9, "bytes": 900});
    assert_eq!((&flow["counters"]["original"], &flow["counters"]["reply"]), (&counts, &counts));
}

#[test]
fn a_flow_that_is_never_confirmed_is_told_and_a_dropped_one_is_dropped() {
    let Some((dropped, lost)) = never_confirmed(&["--drops", "netfilter"]) else { return };
    assert_eq!(dropped["dropped"]["packets"], 1);
    assert!(dropped.get("unconfirmed").is_none(), "{dropped}");
    assert_eq!(
        (&lost["unconfirmed"], &lost["flows"]),
        (&Value::from(1), &Value::from(0)),
        "{lost}"
    );
    assert!(lost.get("dropped").is_none() && lost["confirmed"] == false, "{lost}");
    assert_eq!(lost["sources"], serde_json::json!(["ends"]));
}

#[test]
fn of_a_lost_packet_it_is_known_why_its_flow_is_never_confirmed() {
    let Some((dropped, lost)) = never_confirmed(&[]) else { return };
    assert_eq!((&dropped["dropped"]["packets"], &lost["lost"]["packets"]), (&1.into(), &1.into()));
    assert!(lost.get("unconfirmed").is_none() && lost["flows"] == 0, "{lost}");
}

/// A flow whose packet a rule drops, and one that has no route.
fn never_confirmed(args: &[&str]) -> Option<(Value, Value)> {
    let lab = forgetful();
    let drops = "
        table inet lab {
            chain f { type filter hook forward priority 0; udp dport 9 drop; }
        }
    ";
    lab.router.nft(drops).unwrap();
    lab.router.run(["ip", "route", "add", "unreachable", "10.99.0.0/16"]).unwrap();
    lab.client.run(["ip", "route", "replace", "10.99.0.0/16", "via", "10.77.1.1"]).unwrap();
    let tracer = by_probes(&lab.router, &[&["--no-fold"], args].concat())?;
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(9), b"x", 1).unwrap();
    let nowhere = "10.99.1.1:9".parse().unwrap();
    udp_send(&lab.client, lab.client.at(40_001), nowhere, b"x", 1).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let from =
        |port: u16| report.flows.iter().find(|flow| flow["original"]["sport"] == port).unwrap();
    Some((from(40_000).clone(), from(40_001).clone()))
}

/// What /proc tells of a process and of one of its descriptors.
fn process(pid: u32, descriptor: u32) -> Value {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let link = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
    let inode = link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit());
    let status = read("status");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let uid: u32 = uid.split_whitespace().next().unwrap().parse().unwrap();
    serde_json::json!({
        "pid": pid,
        "comm": read("comm").trim_end(),
        "uid": uid,
        "inode": inode.parse::<u64>().unwrap(),
    })
}

/// Whether all that is wanted is there, and the same.
fn has(got: &Value, want: &Value) -> bool {
    want.as_object().unwrap().iter().all(|(key, value)| got.get(key) == Some(value))
}

#[test]
fn processes_at_both_ends_are_those_of_proc() {
    let lab = Lab::new().unwrap();
    lab.client.nft(TRACKING).unwrap();
    lab.server.nft(TRACKING).unwrap();
    let args = ["--backend", backend(), "-c", "--format", "json"];
    let client_side = Tracer::start(&lab.client, &args).unwrap();
    let server_side = Tracer::start(&lab.server, &args).unwrap();
    // Descriptor 3 is what it listens at.
    let mut server = lab.server.spawn(["nc.openbsd", "-nv", "-l", "-k", "8080"]).unwrap();
    server.wait_for("Listening", PATIENCE).unwrap();
    let to = format!("{}/8080", lab.server.v4());
    let connects =
        format!("exec 3<>/dev/tcp/{to}; echo hello >&3; echo connected; read -t 60 line <&3");
    let mut client = lab.client.spawn(["bash", "-c", &connects]).unwrap();
    client.wait_for("connected", PATIENCE).unwrap();
    // Who listens is looked up after the record has come.
    thread::sleep(Duration::from_secs(1));
    let (connecting, listening) = (process(client.id(), 3), process(server.id(), 3));
    let of = |tracer: Tracer| {
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        let flow = report.flows.iter().find(|flow| flow["original"]["dport"] == 8080).unwrap();
        flow["process"].clone()
    };
    let (sent, answered) = (of(client_side), of(server_side));
    assert_eq!((&sent["direction"], &answered["direction"]), (&"original".into(), &"reply".into()));
    assert!(has(&sent, &connecting), "{sent} is not {connecting}");
    assert!(has(&answered, &listening), "{answered} is not {listening}");
}

#[test]
fn a_process_that_is_gone_is_told_and_forwarded_flows_have_none() {
    let lab = Lab::new().unwrap();
    for host in lab.hosts() {
        host.nft(TRACKING).unwrap();
    }
    let args = ["--backend", backend(), "-c", "--format", "json"];
    let [local, forwarding] = [&lab.client, &lab.router].map(|h| Tracer::start(h, &args).unwrap());
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let send = format!("echo $$; echo x >/dev/udp/{}/9", lab.server.v4());
    let pid: u32 = lab.client.run(["bash", "-c", &send]).unwrap().trim().parse().unwrap();
    let of = |tracer: Tracer| {
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        report.flows.iter().find(|flow| flow["original"]["dport"] == 9).unwrap().clone()
    };
    let (sent, passed) = (of(local), of(forwarding));
    assert_eq!((&sent["process"]["pid"], &sent["process"]["comm"]), (&pid.into(), &"bash".into()));
    assert!(passed.get("process").is_none(), "{passed}");
}
