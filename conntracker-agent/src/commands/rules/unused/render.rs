//! The use of rules as text and as JSON. docs/rules.md describes the objects.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{Doubt, RuleEffect, RuleUsage, RuleUse, UseEvidence, observed::Observed};
use crate::{
    commands::rules::listed::{RuleObject, named},
    model::harmless::{self, OneLine, one_line},
    report::time,
};

/// Name and version of the format.
const SCHEMA: &str = "conntracker-unused/1";

/// What every answer hangs on.
const LIMITS: &str = "a rule that no packet matched until now may match the next one, and dropping rules are often \
                      there for packets that seldom come";

/// How long the rules may be loaded, in seconds: the kernel does not say it, but it is not longer than it runs.
fn uptime() -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split(['.', ' ']).next()?.parse().ok()
}

/// What a counter says, for people.
fn counter(observed: Option<&Observed>, evidence: &UseEvidence) -> String {
    match (observed, evidence.counter) {
        (Some(_), Some(packets)) => format!("counter at the beginning: {packets}"),
        (None, Some(packets)) => format!("counter: {packets}"),
        (_, None) => "no counter".to_owned(),
    }
}

pub(super) fn text(
    name: &str,
    notes: &[String],
    observed: Option<&Observed>,
    uses: &[RuleUse],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "# rules of {}", OneLine(name))?;
    match observed {
        Some(Observed { start_ns, end_ns, epochs, paths, .. }) => {
            let window = Duration::from_secs(end_ns.saturating_sub(*start_ns) / 1_000_000_000);
            let (start, end) = (time(*start_ns), time(*end_ns));
            writeln!(out, "# window: {start} to {end}, {}", humantime::format_duration(window))?;
            writeln!(out, "# packets whose path was traced: {paths}, at each hook")?;
            for (epoch, at_ns) in epochs {
                writeln!(out, "# epoch {epoch} of the ruleset: since {}", time(*at_ns))?;
            }
        }
        None => {
            writeln!(
                out,
                "# window: since each counter began; the kernel does not tell when that was"
            )?;
            if let Some(seconds) = uptime() {
                let most = humantime::format_duration(Duration::from_secs(seconds)).to_string();
                writeln!(out, "# this kernel runs for {most}: no counter is older")?;
            }
        }
    }
    for effect in RuleEffect::ALL {
        let unused = uses
            .iter()
            .filter(|of| of.effect == effect && of.evidence.verdict == RuleUsage::Unused);
        let mut unused = unused.peekable();
        if unused.peek().is_some() {
            writeln!(out, "rules that {}, and that no packet matched:", verb(effect))?;
        }
        for RuleUse { site, evidence, .. } in unused {
            write!(out, "  {} ({}", named(site), counter(observed, evidence))?;
            match evidence.since_ns {
                Some(since_ns) => writeln!(out, ", observed since {})", time(since_ns))?,
                None => writeln!(out, ")")?,
            }
        }
    }
    let mut doubts: BTreeMap<Doubt, Vec<&RuleUse>> = BTreeMap::new();
    for of in uses {
        if let RuleUsage::NotObserved(why) = of.evidence.verdict {
            doubts.entry(why).or_default().push(of);
        }
    }
    for (why, rules) in doubts {
        writeln!(out, "rules of which it is not observed: {}:", why.text())?;
        for RuleUse { site, .. } in rules {
            writeln!(out, "  {}", named(site))?;
        }
    }
    let met = uses.iter().filter(|of| matches!(of.evidence.verdict, RuleUsage::Met(_)));
    writeln!(out, "# rules that packets matched: {} of {}", met.count(), uses.len())?;
    writeln!(out, "# limits: {LIMITS}")?;
    notes.iter().try_for_each(|note| writeln!(out, "# note: {}", one_line(note)))
}

fn verb(effect: RuleEffect) -> &'static str {
    match effect {
        RuleEffect::Accept => "accept",
        RuleEffect::Drop => "drop",
        RuleEffect::Other => "do something else",
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    /// Seconds for which this kernel runs: no counter of it is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime: Option<u64>,
    rules: Vec<UseObject<'a>>,
    limits: &'static str,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Window {
    start: String,
    end: String,
    paths: u64,
    epochs: Vec<EpochObject>,
}

#[derive(Serialize)]
struct EpochObject {
    epoch: u32,
    since: String,
}

#[derive(Serialize)]
struct UseObject<'a> {
    #[serde(flatten)]
    rule: RuleObject<'a>,
    effect: &'static str,
    /// `matched`, `unused` or `not_observed`.
    #[serde(rename = "use")]
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Doubt>,
    /// When the last traced packet matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    /// Since when the recording has the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

pub(super) fn json(
    name: &str,
    notes: &[String],
    observed: Option<&Observed>,
    uses: &[RuleUse],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rules = uses.iter().map(|RuleUse { site, effect, evidence }| {
        let (verdict, reason, last) = match evidence.verdict {
            RuleUsage::Met(last) => ("matched", None, last),
            RuleUsage::Unused => ("unused", None, None),
            RuleUsage::NotObserved(why) => ("not_observed", Some(why), None),
        };
        UseObject {
            rule: RuleObject::of(site),
            effect: effect.name(),
            verdict,
            reason,
            last: last.map(|at_ns| time(at_ns).to_string()),
            counter: evidence.counter,
            since: evidence.since_ns.map(|at_ns| time(at_ns).to_string()),
        }
    });
    let window = observed.map(|Observed { start_ns, end_ns, epochs, paths, .. }| Window {
        start: time(*start_ns).to_string(),
        end: time(*end_ns).to_string(),
        paths: *paths,
        epochs: epochs
            .iter()
            .map(|(epoch, at_ns)| EpochObject { epoch: *epoch, since: time(*at_ns).to_string() })
            .collect(),
    });
    let document = Document {
        schema: SCHEMA,
        origin: name,
        uptime: if window.is_none() { uptime() } else { None },
        window,
        rules: rules.collect(),
        limits: LIMITS,
        notes,
    };
    harmless::json(&mut *out, &document)?;
    out.write_all(b"\n")
}
