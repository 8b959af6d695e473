//! Debian's firewall programs write their own rulesets; which rules packets met is compared with what
//! the kernel says of the same packets.
//!
//! Each program runs in the network namespace of the lab's router and in a mount namespace of its own, by
//! a script of `programs/`. All of them are tried, but for shorewall and firewalld where
//! `CONNTRACKER_TESTS=quick`, as in CI. A program that is not installed, as in the guests of `test-vm`,
//! is skipped.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::time::Instant;

use conntracker_tests::is_quick;
use conntracker_tests::lab::Lab;
use conntracker_tests::programs::{Program, banned};
use conntracker_tests::rulesets::{Kind, Ruleset};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::skip;
use conntracker_tests::trial::surroundings::{flows, surroundings};
use conntracker_tests::trial::tally::compare;
use conntracker_tests::trial::{self, Bench};

/// The share of drops, in percent, that must be named.
const NAMED: usize = 95;

/// The trial of one program, in a lab of its own.
fn names_drops(name: &str) {
    let program = Program::named(name).unwrap();
    if !program.quick && is_quick() {
        return skip(&format!("{name}: CONNTRACKER_TESTS is «quick»"));
    }
    if !program.is_installed() {
        return skip(&format!("{name} is not installed"));
    }
    let start = Instant::now();
    let mut bench = Bench::new().unwrap();
    surroundings(&bench.lab).unwrap();
    let mut tracer = trial::trace(&bench.lab.router).unwrap();
    let flows = flows(&bench.lab, 0);
    let clients = banned(&flows);
    let ruleset = Ruleset { kind: Kind::NftBare, number: 0, loads: Vec::new(), chains: Vec::new() };
    let load = |_: &Ruleset, lab: &Lab| program.load(lab, &clients);
    let trial = bench.try_loaded(ruleset, flows, Some(&mut tracer), load).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let tally = compare(&[trial], &report.flows).unwrap();
    println!("{name}: {tally} ({:.1?})", start.elapsed());
    for drop in &tally.unnamed {
        println!("{name}: not named: {drop}");
    }
    assert!(tally.wrong == 0, "{name}: {}", tally.complaint());
    assert!(tally.unseen == 0 && tally.claims > 20, "{name}: {:#?}", tally.missing);
    assert!(tally.drops > 5 || name == "fail2ban" && tally.drops > 0, "{name}: {tally}");
    assert!(tally.drops_named * 100 >= tally.drops * NAMED, "{name}: {:#?}", tally.unnamed);
}

#[test]
fn ufw() {
    names_drops("ufw");
}

#[test]
fn ferm() {
    names_drops("ferm");
}

#[test]
fn fail2ban() {
    names_drops("fail2ban");
}

#[test]
fn shorewall() {
    names_drops("shorewall");
}

#[test]
fn firewalld() {
    names_drops("firewalld");
}
