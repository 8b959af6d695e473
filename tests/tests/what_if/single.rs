//! One firewall and what is changed in it: the words, the counts and the exit status.

use std::{fs, net::SocketAddr, path::PathBuf, thread, time::Duration};

use conntracker_tests::{
    lab::Lab,
    tracer::{Tracer, backend, command, output, recording::recording},
    traffic::{tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange, udp_send},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::observed::Predicted;

const FIREWALL: &str = r#"
table inet fw {
    set web { type inet_service; elements = { 80, 443 }; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        iifname "toclient" tcp dport @web counter accept
        udp dport 53 counter meta mark set 0x7 accept
        udp dport 123 limit rate 1/hour burst 5 packets counter accept
    }
}
table ip nat {
    chain post { type nat hook postrouting priority srcnat; oifname "toserver" counter masquerade; }
}
"#;

/// The other rules: what is replaced, and with what.
fn changed(from: &str, to: &str) -> String {
    assert!(FIREWALL.contains(from), "{from}");
    format!("flush ruleset\n{}", FIREWALL.replace(from, to))
}

/// A recording, and files beside it.
struct Recorded {
    directory: TempDir,
    lab: Lab,
}

impl Recorded {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        lab.router.nft(FIREWALL).unwrap();
        let tracer = recording(&lab.router, &directory.path().join("a.rec"), &[]).unwrap();
        let (client, server) = (&lab.client, &lab.server);
        let _echo = [80, 443].map(|port| tcp_echo_server(server, server.at(port)).unwrap());
        let _datagrams = udp_echo_server(server, server.at(53)).unwrap();
        for port in [80, 443] {
            tcp_exchange(client, client.at(0), server.at(port), b"x").unwrap();
        }
        udp_exchange(client, client.at(4053), server.at(53), b"x").unwrap();
        let send =
            |from: SocketAddr, port| udp_send(client, from, server.at(port), b"x", 1).unwrap();
        send(client.at(4123), 123);
        send(client.at(4199), 99);
        thread::sleep(Duration::from_millis(500));
        tracer.stop(Signal::SIGINT).unwrap();
        Self { directory, lab }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What is said about rules.
    fn against(&self, rules: &str, options: &[&str]) -> Predicted {
        let file = self.path("b.nft");
        fs::write(&file, rules).unwrap();
        Predicted::of(&self.path("a.rec"), &[file], options)
    }

    fn text(&self, args: &[&str]) -> (String, String, Option<i32>) {
        let (recording, rules) = (self.path("a.rec"), self.path("b.nft"));
        let all = ["report", recording.to_str().unwrap(), "--against", rules.to_str().unwrap()];
        let said = output(all.iter().chain(args)).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(said.stdout), text(said.stderr), said.status.code())
    }
}

#[test]
fn each_change_is_predicted_by_its_rule() {
    let recorded = Recorded::new();
    // Nothing but what hangs on the rate limit may differ, and that is the same rule.
    let same = recorded.against(&format!("flush ruleset\n{FIREWALL}"), &[]);
    let (observed, agree) = same.agreement();
    assert!(observed > 10 && observed == agree, "{:#}", same.document);
    assert_eq!((same.status, &same.prediction()["changed"]), (0, &0.into()), "{:#}", same.document);
    for (from, to, what, before, after) in [
        ("{ 80, 443 }", "{ 80 }", "fate", "accepted", "dropped"),
        ("policy drop", "policy accept", "fate", "dropped", "accepted"),
        ("0x7", "0x8", "mark", "packet mark 0x7", "packet mark 0x8"),
        ("masquerade", "snat to 10.77.2.9", "translation", "source 10.77.2.1", "source 10.77.2.9"),
        (
            "tcp dport @web",
            "ip saddr 10.77.0.0/16 tcp dport @web",
            "path",
            "inet fw/forward 2",
            "inet fw/forward 2",
        ),
        ("ct state established,related counter accept", "", "fate", "accepted", "replies dropped"),
    ] {
        let said = recorded.against(&changed(from, to), &[]);
        assert_eq!(said.status, 1, "{to}: {:#}", said.document);
        let changes = said.changes(what);
        assert!(!changes.is_empty(), "{to}: {:#}", said.document);
        for (was, is) in changes.values() {
            assert!(was.starts_with(before) && is.starts_with(after), "{to}: {was}, {is}");
        }
    }
    // What hangs on another rate limit is open.
    let limit = recorded.against(&changed("rate 1/hour", "rate 1/day"), &[]);
    assert_eq!(limit.status, 4, "{:#}", limit.document);
    let open = limit.prediction()["open"].as_array().unwrap();
    assert_eq!((&open[0]["best"], &open[0]["worst"]), (&"accepted".into(), &"dropped".into()));
    assert_eq!(open[0]["reasons"][0], "limit");
}

#[test]
fn established_flows_are_another_question() {
    let recorded = Recorded::new();
    let closed = changed("iifname \"toclient\" tcp dport @web counter accept", "");
    let new = recorded.against(&closed, &[]);
    assert_eq!((new.status, new.changes("fate").len()), (1, 2), "{:#}", new.document);
    // Entries of flows that exist are accepted by their state.
    let established = recorded.against(&closed, &["--established"]);
    assert!(established.changes("fate").is_empty(), "{:#}", established.document);
    let deaf = changed("ct state established,related counter accept", "");
    let established = recorded.against(&deaf, &["--established"]);
    assert!(!established.changes("fate").is_empty(), "{:#}", established.document);
}

#[test]
fn people_read_counts_groups_and_errors() {
    let recorded = Recorded::new();
    fs::write(recorded.path("b.nft"), changed("{ 80, 443 }", "{ 80 }")).unwrap();
    let (text, error, code) = recorded.text(&[]);
    assert_eq!((error.as_str(), code), ("", Some(1)), "{text}");
    assert!(text.contains("# the model agrees with "), "{text}");
    assert!(text.contains("1 flows change, 0 are undecided"), "{text}");
    let line = text.lines().find(|line| line.contains("port 443")).unwrap();
    assert!(line.trim().starts_with("1 flow tcp 10.77.1.2 -> 10.77.2.2 port 443"), "{text}");
    assert!(line.contains(": accepted by inet fw/forward 2 (accept): iifname"), "{text}");
    assert!(line.contains("; then dropped by inet fw/forward 5 (drop), policy"), "{text}");
    // The filters of reports count, and another recording is compared by its rules.
    let (text, _, code) = recorded.text(&["--dport", "80"]);
    assert!(code == Some(0) && text.contains("0 flows change"), "{text}");
    let same = recorded.path("a.rec");
    let (recording, options) = (same.to_str().unwrap(), ["--against", same.to_str().unwrap()]);
    let said = output(["report", recording].iter().chain(&options)).unwrap();
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    fs::write(recorded.path("b.nft"), "table inet fw { chain x { no such words; } }").unwrap();
    let (text, error, code) = recorded.text(&[]);
    assert_eq!((text.as_str(), error.lines().count(), code), ("", 1, Some(1)), "{error}");
    let (text, error, code) = recorded.text(&["--format", "html"]);
    assert_eq!((text.as_str(), code), ("", Some(2)), "{error}");
    assert!(error.starts_with("error: `--against` has the formats text and json"), "{error}");
    drop(recorded.lab);
}

#[test]
fn a_trace_ends_with_a_prediction_and_loads_nothing() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("b.nft");
    fs::write(&rules, changed("{ 80, 443 }", "{ 80 }")).unwrap();
    let before = lab.router.run(["nft", "-s", "list", "ruleset"]).unwrap();
    let (client, server) = (&lab.client, &lab.server);
    let _echo = [80, 443].map(|port| tcp_echo_server(server, server.at(port)).unwrap());
    let rules = rules.to_str().unwrap();
    let args = ["trace", "--netns", &lab.router.name, "--backend", backend(), "--no-fold"];
    let args = args.into_iter().chain(["--against", rules, "--format", "json"]);
    let mut trace = command(args).unwrap();
    // The recording is gone afterwards.
    let aside = directory.path().join("aside");
    fs::create_dir(&aside).unwrap();
    trace.current_dir(directory.path()).env("TMPDIR", &aside);
    let tracer = Tracer::spawn(trace).unwrap();
    for port in [80, 443] {
        tcp_exchange(client, client.at(0), server.at(port), b"x").unwrap();
    }
    thread::sleep(Duration::from_millis(500));
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    let text = document.to_string();
    assert!(text.contains("dropped") && text.contains("443"), "{document:#}");
    assert_eq!(lab.router.run(["nft", "-s", "list", "ruleset"]).unwrap(), before);
    let left: Vec<_> = fs::read_dir(&aside).unwrap().collect();
    assert!(left.is_empty() && !directory.path().join("conntracker.log").exists(), "{left:?}");
}
