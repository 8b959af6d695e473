//! A trace leaves the rules alone: what nft and iptables list is the same before, during and after.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use conntracker_tests::burst;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::{Kind, Ruleset};
use conntracker_tests::tracer::Tracer;

/// All that the tools say of rules, but for what counters have counted, and which tables of ip_tables
/// there are.
fn listed(router: &Host) -> Vec<String> {
    let mut all = vec![
        router.run(["nft", "-a", "-s", "list", "ruleset"]).unwrap(),
        router.run(["cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]).unwrap(),
    ];
    // Listing them makes tables of ip_tables: only where there are some.
    if !all[1].is_empty() {
        for save in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            let text = router.run([save]).unwrap();
            // With the time in comments.
            let lines: Vec<_> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| line.split_once(" [").map_or(line, |(chain, _)| chain))
                .collect();
            all.push(lines.join("\n"));
        }
    }
    all
}

fn stays_the_same(load: impl FnOnce(&Host)) {
    let lab = Lab::new().unwrap();
    load(&lab.router);
    let before = listed(&lab.router);
    let tracer = Tracer::start(&lab.router, &["--format", "json"]).unwrap();
    drop(burst::send(&lab, &burst::flows(&lab, 0)).unwrap());
    assert_eq!(listed(&lab.router), before, "during the trace");
    tracer.finish().unwrap();
    assert_eq!(listed(&lab.router), before, "after the trace");
}

#[test]
fn nothing_stays_nothing() {
    stays_the_same(|_| {});
}

#[test]
fn rules_of_nft_stay_the_same() {
    for number in 0..5 {
        stays_the_same(|router| Ruleset::generate(Kind::Nft, number).load(router).unwrap());
    }
}

#[test]
fn rules_of_iptables_nft_stay_the_same() {
    for number in 0..5 {
        stays_the_same(|router| Ruleset::generate(Kind::IptablesNft, number).load(router).unwrap());
    }
}

#[test]
fn rules_of_iptables_legacy_stay_the_same() {
    for number in 0..5 {
        stays_the_same(|router| {
            Ruleset::generate(Kind::IptablesLegacy, number).load(router).unwrap();
        });
    }
}
