//! Which rules each packet met: what the tracer says, compared with what the kernel says of the
//! same packets when it is asked to trace them.
//!
//! `CONNTRACKER_RULESETS` is the number of rulesets of each kind.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod claim;
mod compare;
mod fixtures;
mod run;
mod synthetic;
mod tally;

use std::env;
use std::time::Instant;

use conntracker_tests::rulesets::{Kind, Ruleset};
use conntracker_tests::tracer::Tracer;
use conntracker_tests::tracer::report::Document;
use run::{Bench, settled};
use tally::{Tally, compare};

/// Rulesets of each kind, unless the environment says otherwise.
const RULESETS: u32 = 200;

/// Rulesets of one trace: its report is not to be too long.
const BATCH: u32 = 50;

fn rulesets() -> u32 {
    env::var("CONNTRACKER_RULESETS").map_or(RULESETS, |number| number.parse().unwrap())
}

/// Runs all rulesets of a kind under the tracer. None of its claims may be wrong.
fn attributes(kind: Kind) -> Tally {
    let start = Instant::now();
    let mut bench = Bench::new().unwrap();
    let mut tally = Tally::default();
    for first in (0..rulesets()).step_by(BATCH as usize) {
        let args = ["--no-fold", "--format", "json"];
        let tracer = Tracer::start(&bench.lab.router, &args).unwrap();
        let trials: Vec<_> = (first..rulesets().min(first + BATCH))
            .map(|number| Ruleset::generate(kind, number))
            .map(|ruleset| bench.try_ruleset(ruleset, settled).unwrap())
            .collect();
        let report = Document::json(&tracer.finish().unwrap()).unwrap();
        tally.extend(compare(&trials, &report.flows).unwrap());
        if first + BATCH >= rulesets() {
            println!("{kind}: the footer of the last report: {}", report.footer);
        }
    }
    println!("{kind}: {tally} ({:.1?})", start.elapsed());
    for text in tally.missing.iter().take(20) {
        println!("{kind}: not seen: {text}");
    }
    assert!(tally.wrong == 0, "{kind}: {} claims are wrong: {}", tally.wrong, tally.complaint());
    tally
}

/// Attribution by counters has to be exact, all but always.
fn attributes_exactly(kind: Kind) {
    let tally = attributes(kind);
    assert!(tally.claims > 0 && tally.exact_firsts * 100 >= tally.flows * 99, "{kind}: {tally}");
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
    attributes(Kind::NftBare);
}

#[test]
fn iptables_nft() {
    attributes_exactly(Kind::IptablesNft);
}

#[test]
fn iptables_legacy() {
    attributes_exactly(Kind::IptablesLegacy);
}
