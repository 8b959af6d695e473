//! Rulesets without counters as real programs write them: which rule dropped a packet follows from the
//! packet alone, or is said not to be known. With links; probes see the rules themselves.

use conntracker_tests::rulesets::{Kind, Ruleset, tracing};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::trial::surroundings::{flows, surroundings};
use conntracker_tests::trial::tally::{Tally, compare};
use conntracker_tests::trial::{self, Bench, Trial};

use crate::fixtures::{FIREWALLD, KUBE_PROXY};

/// Each with the share of drops, in percent, that must be named. Of fw4's, some have a rate limit to blame
/// as well (`syn_flood`): that a reset was sent meanwhile tells that a rule rejected the packet.
const RULESETS: [(&str, &str, usize); 5] = [
    ("firewalld", FIREWALLD, 95),
    ("fw4", include_str!("rulesets/fw4.nft"), 95),
    ("kube-proxy", KUBE_PROXY, 95),
    ("server", include_str!("rulesets/server.nft"), 95),
    ("fail2ban", include_str!("rulesets/fail2ban.nft"), 95),
];

/// The same of all of them.
const OVERALL: usize = 90;

#[test]
fn drops_are_named_without_counters() {
    let mut bench = Bench::new().unwrap();
    surroundings(&bench.lab).unwrap();
    let mut tracer = trial::trace(&bench.lab.router).unwrap();
    let trials: Vec<Trial> = (0..)
        .zip(RULESETS)
        .map(|(number, (_, text, _))| {
            let text = format!("flush ruleset\n{}{text}", tracing());
            let loads = vec![("nft", text)];
            let ruleset = Ruleset { kind: Kind::NftBare, number, loads, chains: Vec::new() };
            let flows = flows(&bench.lab, number);
            bench.try_flows(ruleset, flows, Some(&mut tracer)).unwrap()
        })
        .collect();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let tallies: Vec<(&str, usize, Tally)> = RULESETS
        .into_iter()
        .zip(trials)
        .map(|((name, _, least), trial)| (name, least, compare(&[trial], &report.flows).unwrap()))
        .collect();
    let (mut drops, mut named) = (0, 0);
    for (name, _, tally) in &tallies {
        println!("{name}: {tally}");
        for drop in &tally.unnamed {
            println!("{name}: not named: {drop}");
        }
        drops += tally.drops;
        named += tally.drops_named;
    }
    println!("rulesets without counters: {named} of {drops} drops named");
    for (name, least, tally) in &tallies {
        assert!(tally.wrong == 0, "{name}: {}", tally.complaint());
        assert!(tally.unseen == 0 && tally.claims > 0, "{name}: {:#?}", tally.missing);
        assert!(tally.drops > 5, "{name} drops nothing: {tally}");
        assert!(tally.drops_named * 100 >= tally.drops * least, "{name}: {:#?}", tally.unnamed);
    }
    assert!(named * 100 >= drops * OVERALL, "{named} of {drops}");
}
