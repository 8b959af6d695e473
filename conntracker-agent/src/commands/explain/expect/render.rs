//! What came of the lines, for people and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{Checked, check::Outcome};
use crate::{
    commands::explain::text::packet,
    model::harmless::{OneLine, one_line},
};

/// Writes a line for each line, and what is to blame below those that fail.
pub(super) fn text(checked: &[Checked], out: &mut dyn Write) -> io::Result<()> {
    let width = checked.last().map_or(1, |last| last.line.number.to_string().len());
    for Checked { line, outcome } in checked {
        let (word, how) = match outcome {
            Outcome::Proved => ("ok", "proved".to_owned()),
            Outcome::Tried(1) => ("ok", "1 packet tried".to_owned()),
            Outcome::Tried(packets) => ("ok", format!("{packets} packets tried")),
            Outcome::Fails(_) => ("FAILS", String::new()),
            Outcome::Undecided(_) => ("undecided", String::new()),
        };
        write!(out, "{:width$}  {word:9}  {}", line.number, one_line(&line.text))?;
        match how.as_str() {
            "" => writeln!(out)?,
            how => writeln!(out, "  ({how})")?,
        }
        if let Outcome::Fails(example) | Outcome::Undecided(example) = outcome {
            write!(out, "{:width$}             ", "")?;
            write!(out, "{}, {}: {}", packet(&example.packet), example.arrives, example.verdict)?;
            match (&example.by, &example.reason) {
                (Some(by), _) => writeln!(out, " by {}", OneLine(by))?,
                (None, Some(reason)) => writeln!(out, ": {reason}")?,
                (None, None) => writeln!(out, ": no rule of a filter decides")?,
            }
        }
    }
    let count = |is: fn(&Outcome) -> bool| checked.iter().filter(|of| is(&of.outcome)).count();
    let fails = count(|outcome| matches!(outcome, Outcome::Fails(_)));
    let open = count(|outcome| matches!(outcome, Outcome::Undecided(_)));
    write!(out, "{} lines, {fails} fail, {open} undecided", checked.len())?;
    let first = checked.iter().find(|of| matches!(of.outcome, Outcome::Fails(_)));
    match first {
        Some(first) => writeln!(out, "; the first that fails is line {}", first.line.number),
        None => writeln!(out),
    }
}

#[derive(Serialize)]
struct CheckedObject<'a> {
    line: usize,
    text: &'a str,
    /// `proved`, `tried`, `fails` or `undecided`.
    outcome: &'static str,
    /// Packets that were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    /// One that does not fare as the line says.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<String>,
    /// What becomes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    /// Why, where that is no rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

#[derive(Serialize)]
struct AllObject<'a> {
    lines: Vec<CheckedObject<'a>>,
    fails: usize,
    undecided: usize,
}

/// Writes one JSON document.
pub(super) fn json(checked: &[Checked], out: &mut dyn Write) -> io::Result<()> {
    let lines: Vec<_> = checked.iter().map(object).collect();
    let count = |outcome: &str| lines.iter().filter(|line| line.outcome == outcome).count();
    let (fails, undecided) = (count("fails"), count("undecided"));
    serde_json::to_writer_pretty(&mut *out, &AllObject { lines, fails, undecided })?;
    writeln!(out)
}

fn object(Checked { line, outcome }: &Checked) -> CheckedObject<'_> {
    let (outcome, packets, example) = match outcome {
        Outcome::Proved => ("proved", None, None),
        Outcome::Tried(packets) => ("tried", Some(*packets), None),
        Outcome::Fails(example) => ("fails", None, Some(example)),
        Outcome::Undecided(example) => ("undecided", None, Some(example)),
    };
    CheckedObject {
        line: line.number,
        text: &line.text,
        outcome,
        packets,
        packet: example.map(|of| format!("{}, {}", packet(&of.packet), of.arrives)),
        verdict: example.map(|of| of.verdict),
        reason: example.and_then(|of| of.reason.as_deref()),
        by: example.and_then(|of| of.by.as_deref()),
    }
}
