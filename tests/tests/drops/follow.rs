//! The same packets as they happen: what is printed of them is what the rules have counted.

use std::collections::BTreeMap;
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::{Tracer, command};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{counted, quiet};
use crate::cases::{At, cases, ruleset};
use crate::send::send;

/// The port in the comment of the rule that dropped the packets of a line.
fn of_rule(drop: &Value) -> Option<u16> {
    let text = drop["by"]["text"].as_str()?;
    text.split_once("comment \"")?.1.split('"').next()?.parse().ok()
}

fn compare(args: &[&str]) {
    let lab = Lab::new().unwrap();
    let cases = cases();
    lab.router.nft(&ruleset(&lab, &cases)).unwrap();
    quiet(&lab);
    let all = ["trace", "--netns", &lab.router.name];
    let follow = ["--follow-drops", "--format", "ndjson", "--drops-rate", "0"];
    let tracer = Tracer::spawn(command(all.iter().chain(&follow).chain(args)).unwrap()).unwrap();
    for case in &cases {
        send(&lab, case);
    }
    std::thread::sleep(Duration::from_millis(200));
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let drops: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let mut told: BTreeMap<u16, u64> = BTreeMap::new();
    for drop in &drops {
        assert_eq!(drop["type"], "drop", "{drop}");
        let packets = drop["packets"].as_u64().unwrap();
        assert!(packets > 0 && (packets > 1) == drop.get("first").is_some(), "{drop}");
        if let Some(port) = of_rule(drop) {
            *told.entry(port).or_default() += packets;
            let case = cases.iter().find(|case| case.port == port).unwrap();
            let family = if case.v4 { "ipv4" } else { "ipv6" };
            assert_eq!(drop["family"], family, "{drop}");
            assert_eq!(drop["by"]["chain"], case.at.chain(), "{drop}");
            let hook = match case.at {
                At::Raw | At::RawReply | At::Prerouting => "prerouting",
                At::Untracked | At::Forward => "forward",
                At::Input => "input",
                At::Postrouting => "postrouting",
                At::Output | At::RawOutput => "output",
            };
            assert_eq!(drop["hook"], hook, "{drop}");
        } else {
            // Nobody but the rules drops anything here, besides what no port takes.
            assert!(drop.get("reason").is_some(), "{drop}");
        }
    }
    assert_eq!(told, counted(&lab.router), "{args:?}: {}", finished.stderr);
}

#[test]
fn what_is_printed_as_it_happens_is_what_the_rules_count_folded() {
    compare(&[]);
}

#[test]
fn what_is_printed_as_it_happens_is_what_the_rules_count_unfolded() {
    compare(&["--no-fold"]);
}
