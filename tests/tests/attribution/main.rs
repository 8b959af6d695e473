//! Which rules each packet met: what the tracer says, compared with what the kernel says of the
//! same packets when it is asked to trace them.
//!
//! `CONNTRACKER_RULESETS` is the number of rulesets of each kind, or says which ones: `190..200`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod bare;
mod fixtures;
mod synthetic;

use std::env;
use std::ops::Range;
use std::thread;
use std::time::Instant;

use conntracker_tests::is_quick;
use conntracker_tests::rulesets::{Kind, Ruleset};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{backend, skipped_without_counters};
use conntracker_tests::trial::tally::{Tally, compare};
use conntracker_tests::trial::{self, Bench};

/// Rulesets of each kind, unless the environment says otherwise; and with `CONNTRACKER_TESTS=quick`.
const RULESETS: u32 = 200;
const QUICK_RULESETS: u32 = 80;

/// Labs that share the rulesets of a kind: most of the time is spent waiting.
const LABS: u32 = 3;

fn rulesets() -> Range<u32> {
    let Ok(rulesets) = env::var("CONNTRACKER_RULESETS") else {
        return 0..if is_quick() { QUICK_RULESETS } else { RULESETS };
    };
    let (first, end) = rulesets.split_once("..").unwrap_or(("0", &rulesets));
    first.parse().unwrap()..end.parse().unwrap()
}

/// Runs all rulesets of a kind under the tracer. None of its claims may be wrong.
fn attributes(kind: Kind) -> Tally {
    let start = Instant::now();
    let rulesets = rulesets();
    let share = (rulesets.len() as u32).div_ceil(LABS).max(1);
    let tally = thread::scope(|scope| {
        let labs: Vec<_> = rulesets
            .clone()
            .step_by(share as usize)
            .map(|first| scope.spawn(move || try_all(kind, first..rulesets.end.min(first + share))))
            .collect();
        let mut all = Tally::default();
        for lab in labs {
            all.extend(lab.join().unwrap());
        }
        all
    });
    println!("{kind}: {tally} ({:.1?})", start.elapsed());
    for text in tally.missing.iter().take(20) {
        println!("{kind}: not seen: {text}");
    }
    assert!(tally.wrong == 0, "{kind}: {} claims are wrong: {}", tally.wrong, tally.complaint());
    assert!(tally.hooks_seen * 100 >= tally.hooks * 99, "{kind}: too little is seen: {tally}");
    // Probes see each rule of nf_tables itself, whatever counters it has.
    if backend() == "probes" && kind != Kind::IptablesLegacy {
        assert!(tally.steps.told() == tally.steps.exact, "{kind}: not all is exact: {tally}");
    }
    tally
}

/// Runs some of the rulesets of a kind in a lab of their own.
fn try_all(kind: Kind, numbers: Range<u32>) -> Tally {
    let mut bench = Bench::new().unwrap();
    let mut tracer = trial::trace(&bench.lab.router).unwrap();
    let trials: Vec<_> = numbers
        .map(|number| Ruleset::generate(kind, number))
        .map(|ruleset| bench.try_ruleset(ruleset, Some(&mut tracer)).unwrap())
        .collect();
    for line in tracer.process().stderr().lines().filter(|line| line.contains("contradict")) {
        println!("{kind}: {line}");
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    println!("{kind}: {} and {}", report.footer["losses"], report.footer["sources"]);
    println!("{kind}: notes {}", report.header["notes"]);
    compare(&trials, &report.flows).unwrap()
}

/// Attribution by counters has to be exact, all but always, where they tell.
fn attributes_exactly(kind: Kind) {
    let tally = attributes(kind);
    assert!(tally.told * 4 > tally.flows, "{kind}: rules that do not tell: {tally}");
    assert!(tally.exact_told * 100 >= tally.told * 99, "{kind}: too little is exact: {tally}");
}

#[test]
fn nft_with_counters() {
    attributes_exactly(Kind::Nft);
}

#[test]
fn nft_with_some_counters() {
    attributes(Kind::NftMixed);
}

#[test]
fn nft_without_counters() {
    let steps = attributes(Kind::NftBare).steps;
    // These rulesets read more than is known of packets (TTL, length, flags of TCP, routes) than others do: those of
    // programs are in `fixtures`.
    let known = steps.exact + steps.evaluated;
    assert!(known * 100 >= steps.told() * 80, "too little is evaluated: {steps:?}");
}

#[test]
fn iptables_nft() {
    attributes_exactly(Kind::IptablesNft);
}

#[test]
fn iptables_legacy() {
    if skipped_without_counters() {
        return;
    }
    attributes_exactly(Kind::IptablesLegacy);
}
