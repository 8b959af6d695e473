//! `conntracker explain`: verdict, steps and exit status, compared with what became of the same packets. That the
//! evaluator's paths are the kernel's is in the suites `evaluate` and `xtables`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::process::Stdio;

use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::tracer::recording::recording;
use conntracker_tests::tracer::{PATIENCE, command, output};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange, udp_send};
use nix::sys::signal::Signal;
use serde_json::Value;

const FIREWALL: &str = r#"table inet fw {
    set servers { type ipv4_addr . inet_service; elements = { 10.77.2.2 . 443, 10.77.2.2 . 53 }; }
    counter passed { }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip daddr . udp dport @servers accept
        udp dport 100-199 jump lan
        udp dport 300 limit rate 1/second accept
        udp dport 400 reject
    }
    chain lan {
        udp dport 150 drop comment "never"
        ip saddr 10.77.1.0/24 meta mark set 0x7 accept
    }
    chain out { type filter hook postrouting priority 0; udp dport 1-1000 counter name passed; }
}"#;

/// What is said of a packet from the client to a port of the server, and the exit status.
fn explain(lab: &Lab, port: u16) -> (Value, i32) {
    let to = format!("{}:{port}", lab.server.v4());
    let from = format!("{}:4000", lab.client.v4());
    let netns = &lab.router.name;
    let said =
        output(["explain", "udp", &from, &to, "--netns", netns, "--format", "json"]).unwrap();
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    (serde_json::from_slice(&said.stdout).unwrap(), said.status.code().unwrap())
}

/// Packets that passed the firewall.
fn passed(lab: &Lab) -> u64 {
    let listed = lab.router.run(["nft", "-j", "list", "counter", "inet", "fw", "passed"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    listed["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|of| of["counter"]["packets"].as_u64())
        .unwrap()
}

#[test]
fn packets_do_what_is_said_of_them() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    // Port, verdict, exit status, chain and position of the last step at the hook FORWARD.
    for (port, verdict, status, chain, position) in [
        (53, "accept", 0, "forward", 2),
        (443, "accept", 0, "forward", 2),
        (80, "drop", 1, "forward", 6),
        (120, "accept", 0, "lan", 2),
        (150, "drop", 1, "lan", 1),
        (400, "reject", 1, "forward", 5),
    ] {
        let (answer, code) = explain(&lab, port);
        assert_eq!((&answer["verdict"], code), (&verdict.into(), status), "{port}: {answer}");
        let steps = answer["steps"].as_array().unwrap();
        let last = steps.iter().rfind(|step| step["hook"] == "forward").unwrap();
        let at = (last["chain"].as_str().unwrap(), last["position"].as_u64().unwrap());
        assert_eq!(at, (chain, position), "{port}: {answer}");
        // As reports have them.
        for step in steps {
            let table = [&step["backend"], &step["family"], &step["table"], &step["label"]];
            assert_eq!(table, ["nft", "inet", "fw", "inet fw"], "{step}");
            assert_eq!(step["provenance"], "evaluated", "{step}");
            assert_eq!(step["text"].is_string(), step["type"] == "rule", "{step}");
        }
        let before = passed(&lab);
        udp_send(&lab.client, lab.client.at(4_000 + port), lab.server.at(port), b"x", 1).unwrap();
        assert_eq!(passed(&lab) - before, u64::from(verdict == "accept"), "{port}");
    }
    let (answer, code) = explain(&lab, 300);
    assert_eq!((&answer["verdict"], code), (&"undecided".into(), 4), "{answer}");
    assert_eq!(answer["reason"], "limit", "{answer}");
    let fates: Vec<&str> = answer["alternatives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["verdict"].as_str().unwrap())
        .collect();
    assert!(fates.contains(&"accept") && fates.contains(&"drop"), "{answer}");
}

#[test]
fn people_read_the_rule_that_decides() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let said = |args: &[&str]| {
        let all = [&["explain"], args, &["--netns", &lab.router.name]].concat();
        let said = output(all).unwrap();
        (
            String::from_utf8(said.stdout).unwrap(),
            String::from_utf8(said.stderr).unwrap(),
            said.status.code(),
        )
    };
    let (text, _, code) = said(&["udp", "10.77.1.2", "10.77.2.2:150"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("received through toclient"), "{text}");
    assert!(text.contains("lan 1") && text.contains("DROP"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("verdict: drop by inet fw/lan 1"), "{text}");
    let (text, _, code) = said(&["udp", "10.77.1.2", "10.77.2.2:80", "--state", "established"]);
    assert_eq!(code, Some(0), "{text}");
    let (text, _, code) = said(&["tcp", "10.77.2.1", "10.77.2.2:80"]);
    assert!(code == Some(0) && text.contains("sent by this host"), "{text}");
    for wrong in [
        &["udp", "10.77.1.2", "fd77:2::2"][..],
        &["udp", "10.77.1.2", "10.77.2.2:http"],
        &["nothing", "10.77.1.2", "10.77.2.2"],
        &["tcp", "10.77.1.2", "10.77.2.2", "--flags", "fun"],
    ] {
        let (text, error, code) = said(wrong);
        assert_eq!((text.as_str(), code), ("", Some(2)), "{wrong:?}: {error}");
    }
    let (_, error, code) = said(&["udp", "10.77.1.2", "10.77.2.2", "--iif", "nothere"]);
    assert_eq!((error.lines().count(), code), (1, Some(1)), "{error}");
    assert!(error.contains("nothere"), "{error}");
}

#[test]
fn a_recording_says_what_its_rules_would_have_done() {
    let lab = Lab::tracking().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    let tracer = recording(&lab.router, &file, &[]).unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(53)).unwrap();
    udp_exchange(&lab.client, lab.client.at(4000), lab.server.at(53), b"x").unwrap();
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    lab.router.nft("flush ruleset").unwrap();
    let name = file.to_str().unwrap();
    let said = |args: &[&str]| {
        let said = output([&["explain"], args, &["--recording", name]].concat()).unwrap();
        (String::from_utf8(said.stdout).unwrap(), said.status.code())
    };
    for (port, code, end) in
        [(53, 0, "verdict: accept"), (150, 1, "verdict: drop by inet fw/lan 1")]
    {
        let (text, status) = said(&["udp", "10.77.1.2", &format!("10.77.2.2:{port}")]);
        assert_eq!((status, text.lines().last()), (Some(code), Some(end)), "{text}");
    }
    // The flow that was recorded: its answer is of the original flow, established.
    let (text, code) = said(&["udp", "10.77.2.2:53", "10.77.1.2", "--flow"]);
    assert!(code == Some(0) && text.contains("10.77.1.2:4000, established"), "{text}");
    assert!(text.contains("inet fw/forward 1"), "{text}");
    // Before it began there were no rules.
    let (text, code) = said(&["udp", "10.77.1.2", "10.77.2.2:53", "--at", "-9h"]);
    assert_eq!((text.as_str(), code), ("", Some(1)));
}

#[test]
fn what_is_observed_stands_beside_what_was_predicted() {
    let lab = Lab::tracking().unwrap();
    lab.router
        .nft(
            "table inet fw {
                chain pre { type filter hook prerouting priority mangle; udp dport 7 meta mark set 0x9 counter; }
                chain forward {
                    type filter hook forward priority filter;
                    meta mark 0x9 counter accept
                    udp dport 7-9 counter drop
                }
            }",
        )
        .unwrap();
    let netns = lab.router.name.as_str();
    let watch = |to: &str, more: &[&str]| {
        let args = ["explain", "udp", "10.77.1.2", to, "--netns", netns, "--watch", "4s"];
        let mut command = command([&args, more].concat()).unwrap();
        let mut child =
            Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        child.wait_for("observing", PATIENCE).unwrap();
        for port in [7, 8] {
            udp_send(&lab.client, lab.client.at(4000), lab.server.at(port), b"x", 2).unwrap();
        }
        let status = child.wait(PATIENCE).unwrap();
        (child.stdout(), status.code().unwrap())
    };
    let (text, code) = watch("10.77.2.2:7", &[]);
    assert!(code == 0 && text.contains("forward: 1 packet, as predicted"), "{text}");
    let (text, code) = watch("10.77.2.2:8", &["--format", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["verdict"], code), (&"drop".into(), 1), "{answer}");
    let observed = answer["observed"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&observed["hook"], &observed["packets"]),
        (&"forward".into(), &2.into()),
        "{answer}"
    );
    assert_eq!(
        (&observed["dropped"], &observed["agrees"]),
        (&true.into(), &true.into()),
        "{answer}"
    );
    // Asked about with a mark that these packets do not have.
    let (text, code) = watch("10.77.2.2:8", &["--mark", "9"]);
    assert!(code == 0 && text.contains("dropped, not as predicted (!)"), "{text}");
    assert!(text.contains("! inet fw/forward 2"), "{text}");
    let (text, _) = watch("10.77.2.2:9", &[]);
    assert!(text.ends_with("observed: no such packet\n"), "{text}");
}
