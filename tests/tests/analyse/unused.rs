//! Rules that no packet matched, by counters and in a recording; and none of which that was not observed.

use std::collections::BTreeMap;
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::output;
use conntracker_tests::tracer::recording::recording;
use conntracker_tests::traffic::{udp_echo_server, udp_exchange, udp_send};
use nix::sys::signal::Signal;
use serde_json::Value;

const FIREWALL: &str = "table inet fw {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established counter accept
        udp dport 7 counter accept
        udp dport 9 counter drop
        udp dport 22 counter accept
        udp dport 23 counter drop
        udp dport 24 accept
        meta l4proto sctp counter jump lan
    }
    chain lan { ip saddr 10.77.1.0/24 counter accept; }
    chain input { type filter hook input priority filter; udp dport 1234 counter drop; }
}";

/// What is said of the rules of a document, by chain and position, with the reason.
fn uses(document: &Value) -> BTreeMap<(String, u64), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules = document["rules"].as_array().unwrap();
    let of = |rule: &Value| {
        let at = (text(&rule["chain"]), rule["position"].as_u64().unwrap());
        (at, format!("{} {}", text(&rule["use"]), text(&rule["reason"])).trim().to_owned())
    };
    rules.iter().map(of).collect()
}

fn unused(args: &[&str]) -> String {
    let said = output([&["rules", "unused"], args].concat()).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

fn document(args: &[&str]) -> Value {
    serde_json::from_str(&unused(&[args, &["--format", "json"]].concat())).unwrap()
}

#[test]
fn only_what_was_observed_is_called_unused() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let (c, s) = (&lab.client, &lab.server);
    // The counter of a rule that the recording does not see move.
    udp_send(c, c.at(4000), s.at(23), b"x", 2).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    udp_exchange(c, c.at(4001), s.at(7), b"hello").unwrap();
    udp_send(c, c.at(4002), s.at(9), b"x", 3).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    tracer.stop(Signal::SIGINT).unwrap();
    let rule = |chain: &str, position| (chain.to_owned(), position);
    let live = uses(&document(&["--netns", &lab.router.name]));
    let expected =
        ["matched", "matched", "matched", "unused", "matched", "not_observed no_counter", "unused"];
    for (position, expected) in (1..).zip(expected) {
        assert_eq!(live[&rule("forward", position)], expected, "{position}: {live:?}");
    }
    assert_eq!(live[&rule("input", 1)], "unused", "{live:?}");
    let file = file.to_str().unwrap();
    let said = document(&[file]);
    let recorded = uses(&said);
    for (position, expected) in (1..).zip(["matched", "matched", "matched", "unused", "unused"]) {
        assert_eq!(recorded[&rule("forward", position)], expected, "{position}: {said}");
    }
    // Probes see matches without counters; links do not.
    let without = &recorded[&rule("forward", 6)];
    assert!(["unused", "not_observed no_counter"].contains(&without.as_str()), "{said}");
    assert_eq!(recorded[&rule("lan", 1)], "unused", "{said}");
    assert_eq!(recorded[&rule("input", 1)], "not_observed chain_not_met", "{said}");
    let rules = said["rules"].as_array().unwrap();
    let at = |chain: &str, position: u64| {
        let same = |rule: &&Value| rule["chain"] == chain && rule["position"] == position;
        rules.iter().find(same).unwrap()
    };
    assert_eq!(at("forward", 5)["counter"], 2, "{said}");
    assert_eq!(
        (&at("forward", 5)["effect"], &at("forward", 4)["effect"]),
        (&"drop".into(), &"accept".into())
    );
    assert!(at("forward", 3)["last"].is_string() && at("forward", 4)["last"].is_null(), "{said}");
    assert_eq!(said["window"]["epochs"].as_array().unwrap().len(), 1, "{said}");
    let text = unused(&[file]);
    assert!(
        text.contains("rules that drop, and that no packet matched:\n  inet fw/forward 5:"),
        "{text}"
    );
    assert!(text.contains("counter at the beginning: 2") && !text.contains("safe"), "{text}");
}

#[test]
fn a_recording_of_some_flows_proves_nothing_of_rules() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let tracer = recording(&lab.router, &file, &["--dport", "53"]).unwrap();
    udp_send(&lab.client, lab.client.at(4002), lab.server.at(9), b"x", 3).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    tracer.stop(Signal::SIGINT).unwrap();
    let said = document(&[file.to_str().unwrap()]);
    for (rule, of) in uses(&said) {
        assert!(of == "not_observed filtered" || of == "matched", "{rule:?} {of}");
    }
}
