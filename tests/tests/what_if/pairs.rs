//! Random pairs of rulesets. `CONNTRACKER_PAIRS` is how many of each kind, or which of them: `9..10`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    thread,
    time::Duration,
};

use conntracker_tests::{
    burst::{self, Planned, Services},
    is_quick,
    lab::Lab,
    rulesets::{Kind, Ruleset},
    tracer::recording::{self, recording},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::observed::{FlowName, Observed, Predicted, reported};

/// Pairs of each kind, and with `CONNTRACKER_TESTS=quick`.
const PAIRS: u32 = 20;
const QUICK_PAIRS: u32 = 3;

/// Nothing happens for so long after a burst: all packets are through.
const QUIET: Duration = Duration::from_millis(700);

/// What came of it.
#[derive(Default)]
struct Tally {
    observed: u64,
    agree: u64,
    flows: u64,
    changed: u64,
    open: u64,
    wrong: Vec<String>,
}

fn record(lab: &Lab, ruleset: &Ruleset, flows: &[Planned], file: &Path) {
    ruleset.load(&lab.router).unwrap();
    let _ = lab.router.run(["conntrack", "-F"]);
    let tracer = recording(&lab.router, file, &[]).unwrap();
    let open = burst::send(lab, flows).unwrap();
    thread::sleep(QUIET);
    drop(open);
    thread::sleep(QUIET);
    tracer.stop(Signal::SIGINT).unwrap();
}

fn compare(kind: Kind) {
    let said = env::var("CONNTRACKER_PAIRS").ok();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let pairs = match said.as_deref().map(|text| text.split_once("..").ok_or(text)) {
        Some(Ok((first, end))) => number(first)..number(end),
        Some(Err(all)) => 0..number(all),
        None => 0..if is_quick() { QUICK_PAIRS } else { PAIRS },
    };
    let lab = Lab::new().unwrap();
    let _services = Services::start(&lab).unwrap();
    let mut tally = Tally::default();
    for number in pairs.clone() {
        pair(&lab, kind, number, &mut tally);
    }
    let Tally { observed, agree, flows, changed, open, wrong } = &tally;
    println!(
        "{kind}: pairs {pairs:?}, {flows} flows, {changed} change, {open} undecided, {} wrong; the model agrees with {agree} of {observed} paths",
        wrong.len()
    );
    for text in wrong.iter().take(10) {
        println!("{text}");
    }
    assert!(wrong.is_empty(), "{kind}: {} wrong", wrong.len());
    assert_eq!(agree, observed, "{kind}: the model does not agree with each path");
    assert!(changed * 20 > *flows, "{kind}: too little changes");
    assert!(open * 4 < *flows, "{kind}: too little is decided");
}

fn pair(lab: &Lab, kind: Kind, number: u32, tally: &mut Tally) {
    let mut directory = tempfile::tempdir().unwrap();
    // For who looks into a failure.
    if env::var_os("CONNTRACKER_KEEP").is_some() {
        directory.disable_cleanup(true);
        println!("{kind} {number}: {}", directory.path().display());
    }
    let path = |name: &str| directory.path().join(name);
    let (old, new) = (Ruleset::generate(kind, number), Ruleset::generate(kind, number + 1000));
    let flows = burst::flows(lab, number);
    record(lab, &old, &flows, &path("a.rec"));
    // Files are loaded as the rulesets are.
    let files: Vec<_> = new
        .loads
        .iter()
        .enumerate()
        .map(|(index, (program, text))| {
            let name =
                path(&format!("{index}.{}", if program.starts_with("ip6") { "v6" } else { "v4" }));
            fs::write(&name, text).unwrap();
            name
        })
        .collect();
    let predicted = Predicted::of(&path("a.rec"), &files, &[]);
    let (observed, agree) = predicted.agreement();
    (tally.observed, tally.agree) = (tally.observed + observed, tally.agree + agree);
    if observed != agree {
        tally.wrong.push(format!("{number}: {:#}", predicted.document["self_check"]));
        return;
    }
    record(lab, &new, &flows, &path("b.rec"));
    let seen = Observed::of(&path("a.rec"), &path("b.rec"));
    let prediction = predicted.prediction();
    let count = |of: &str| prediction[of].as_u64().unwrap();
    tally.flows += count("changed") + count("undecided") + count("same");
    tally.changed += count("changed");
    tally.open += count("undecided");
    let open = predicted.open();
    let (said, fates) = (predicted.changes("fate"), seen.changes("fates"));
    let both = [flows_of(&path("a.rec")), flows_of(&path("b.rec"))];
    for flow in said.keys().chain(fates.keys()).collect::<BTreeSet<_>>() {
        let [Some(before), Some(after)] = both.each_ref().map(|of| of.get(flow)) else { continue };
        // What is lost elsewhere in the kernel no rule decides.
        let lost = fates.get(flow).is_some_and(|(was, is)| was == "lost" || is == "lost");
        if lost || open.contains(flow) || is_stray(flow) {
            continue;
        }
        let change = |of: Option<&(String, String)>| {
            let (was, is) = of?;
            let (was, is) = (before.comparable(was), after.comparable(is));
            (was != is).then(|| (was.to_owned(), is.to_owned()))
        };
        let (predicted, observed) = (change(said.get(flow)), change(fates.get(flow)));
        // A packet to this host itself is dropped behind the point where conntrack counts it as passed.
        let dropped = |(was, is): &(String, String)| {
            was == "dropped" && before.is_silent() || is == "dropped" && after.is_silent()
        };
        let unseen = observed.is_none() && predicted.as_ref().is_some_and(dropped);
        if predicted != observed && !unseen {
            tally
                .wrong
                .push(format!("{kind} {number}: {flow} {observed:?}, predicted {predicted:?}"));
        }
    }
}

/// What of a recorded flow decides how `diff` sees it.
struct Seen {
    /// It has an entry.
    entry: bool,
    /// Somebody answered.
    answered: bool,
    /// Packets were dropped.
    dropped: bool,
}

impl Seen {
    fn is_silent(&self) -> bool {
        self.dropped && !self.answered
    }

    /// A fate as far as `diff` tells it: nothing drops an answer that nobody gives, and without an entry the answers
    /// are packets of the flow as all others are.
    fn comparable<'a>(&self, fate: &'a str) -> &'a str {
        match fate {
            "replies dropped" if !self.entry => "dropped",
            "replies dropped" if !self.answered => "accepted",
            "later packets dropped" => "accepted",
            "no route" => "lost",
            fate => fate,
        }
    }
}

/// The flows of a recording.
fn flows_of(recording: &Path) -> BTreeMap<FlowName, Seen> {
    let report = recording::report(&[recording.to_str().unwrap()]).unwrap();
    let seen = |flow: &Value| Seen {
        entry: flow["no_entry"] != true,
        answered: flow["confirmed"] == true,
        dropped: flow["dropped"].is_object(),
    };
    // An entry says more than a line of packets without one.
    let mut flows: Vec<&Value> = report.flows.iter().collect();
    flows.sort_by_key(|flow| seen(flow).entry);
    flows.into_iter().map(|flow| (reported(flow), seen(flow))).collect()
}

/// An echo reply that nobody asked for, which `diff` does not compare, and an error, which is about another flow.
fn is_stray(flow: &str) -> bool {
    flow.ends_with(']') && !flow.ends_with("[8,0]") && !flow.ends_with("[128,0]")
}

#[test]
fn nft() {
    compare(Kind::Nft);
}

#[test]
fn iptables_nft() {
    compare(Kind::IptablesNft);
}

#[test]
fn iptables_legacy() {
    compare(Kind::IptablesLegacy);
}
