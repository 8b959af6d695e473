//! Debian's firewall programs write their own rulesets; which rules packets met is compared with what
//! the kernel says of the same packets.
//!
//! Each program runs in the network namespace of the lab's router and in a mount namespace of its own, by
//! a script of `programs/`. All of them are tried, but for shorewall and firewalld where
//! `CONNTRACKER_TESTS=quick`, as in CI. A program that is not installed, as in the guests of `test-vm`,
//! is skipped.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use conntracker_tests::is_quick;
use conntracker_tests::lab::Lab;
use conntracker_tests::rulesets::{Kind, Ruleset, tracing};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::skip;
use conntracker_tests::trial::surroundings::{flows, surroundings};
use conntracker_tests::trial::tally::compare;
use conntracker_tests::trial::{self, Bench};

/// A program, and what is asked of its trial.
struct Program {
    name: &'static str,
    /// What is installed if it is.
    binary: &'static str,
    /// Tried in CI as well.
    quick: bool,
    /// The share of drops, in percent, that must be named.
    named: usize,
}

#[rustfmt::skip]
const PROGRAMS: [Program; 5] = [
    Program { name: "ufw", binary: "ufw", quick: true, named: 95 },
    Program { name: "ferm", binary: "ferm", quick: true, named: 95 },
    Program { name: "fail2ban", binary: "fail2ban-server", quick: true, named: 95 },
    Program { name: "shorewall", binary: "shorewall", quick: false, named: 95 },
    Program { name: "firewalld", binary: "firewalld", quick: false, named: 95 },
];

/// Lets a program replace whatever the router has, then adds what makes the kernel trace.
fn load(lab: &Lab, program: &str, banned: &[String]) -> Result<()> {
    let router = &lab.router;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firewalls/programs");
    let script = scripts.join(program).with_extension("sh");
    let unshare = ["unshare", "--mount", "--propagation", "private", "sh"].map(OsString::from);
    let words = unshare.into_iter().chain([script.into()]);
    router.run(words.chain(banned.iter().map(OsString::from))).context("the program's script")?;
    let loaded = router.run(["nft", "list", "ruleset"])?;
    ensure!(loaded.contains("hook forward"), "{program} has loaded nothing:\n{loaded}");
    router.nft(&tracing())
}

/// The trial of one program, in a lab of its own.
fn names_drops(name: &str) {
    let program = PROGRAMS.iter().find(|program| program.name == name).unwrap();
    if !program.quick && is_quick() {
        return skip(&format!("{name}: CONNTRACKER_TESTS is «quick»"));
    }
    if !["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(program.binary).exists()) {
        return skip(&format!("{name} is not installed"));
    }
    let start = Instant::now();
    let mut bench = Bench::new().unwrap();
    surroundings(&bench.lab).unwrap();
    let mut tracer = trial::trace(&bench.lab.router).unwrap();
    let flows = flows(&bench.lab, 0);
    // fail2ban is told of both addresses of the client.
    let mut clients: Vec<String> = flows.iter().map(|flow| flow.from.ip().to_string()).collect();
    clients.retain(|address| address.starts_with("10.78."));
    clients.dedup();
    clients.truncate(2);
    let ruleset = Ruleset { kind: Kind::NftBare, number: 0, loads: Vec::new(), chains: Vec::new() };
    let load = |_: &Ruleset, lab: &Lab| load(lab, name, &clients);
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
    assert!(tally.drops_named * 100 >= tally.drops * program.named, "{name}: {:#?}", tally.unnamed);
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
