//! The prediction for people: counts first, then what differs.

use std::{
    fmt,
    io::{self, Write},
};

use super::{
    Answer,
    check::{Disagreement, SelfCheck},
    compare::{Change, Open},
    groups::{Groups, Members},
    outlook::FlowFate,
    predict::Question,
};
use crate::report::OneLine;

/// Writes it.
pub(super) fn render(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let Answer { recording, against, question, notes, check, groups, left_out, .. } = answer;
    writeln!(out, "# {}", OneLine(recording))?;
    let flows = match question {
        Question::New => "flows, as if they began under its rules",
        Question::Established => "flows that exist when its rules are loaded",
    };
    writeln!(out, "# against {}: {flows}", OneLine(against))?;
    for note in notes {
        writeln!(out, "# note: {}", OneLine(note))?;
    }
    self_check(check, out)?;
    if !check.passes() {
        return writeln!(out, "no prediction: the model does not agree with what was observed");
    }
    let Groups { same, same_anyhow, changed, open, .. } = groups;
    write!(out, "{changed} flows change, {open} are undecided, {same} stay the same")?;
    if *same_anyhow > 0 {
        write!(out, " ({same_anyhow} of them whatever the unknown is)")?;
    }
    writeln!(out)?;
    for (why, flows) in groups.path_reasons() {
        writeln!(out, "{flows} flows keep their fate, and their path is undecided: {why}")?;
    }
    if *left_out > 0 {
        writeln!(out, "{left_out} flows are not asked about")?;
    }
    for (change, members) in groups.changes() {
        writeln!(out, "  {}{}", Shown(members), Differs(change))?;
    }
    if *open > 0 {
        writeln!(out, "undecided:")?;
    }
    for (Open { why, before, after }, members) in groups.opens() {
        let (best, worst) = (after.first(), after.last());
        writeln!(
            out,
            "  {}: {why}: at best {}, at worst {}; today {}",
            Shown(members),
            best.map_or("unknown", |fate| fate.name()),
            worst.map_or("unknown", |fate| fate.name()),
            Fates(before)
        )?;
    }
    Ok(())
}

fn self_check(check: &SelfCheck, out: &mut dyn Write) -> io::Result<()> {
    let SelfCheck { observed, agree, one_of_several, undecided, not_compared, disagreements } =
        check;
    if *observed == 0 {
        write!(out, "# the model could be compared with no observed path")?;
    } else {
        write!(out, "# the model agrees with {agree} of {observed} observed paths")?;
    }
    let more = [
        (one_of_several, "as one of several possibilities"),
        (undecided, "undecided"),
        (not_compared, "not compared"),
    ];
    let more: Vec<String> = more
        .iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if more.is_empty() {
        writeln!(out)?;
    } else {
        writeln!(out, " ({})", more.join(", "))?;
    }
    for Disagreement { flow, at, observed, model } in disagreements {
        writeln!(out, "#   {flow} at {at}: observed {observed}; the model has {model}")?;
    }
    let shown = disagreements.len() as u64;
    let all = check.observed - check.agree;
    if all > shown {
        writeln!(out, "#   and {} more", all - shown)?;
    }
    Ok(())
}

struct Shown<'a>(&'a Members);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Members { netns, protocol, source, destination, port, flows, named, .. } = self.0;
        let word = if *flows == 1 { "flow" } else { "flows" };
        write!(f, "{flows} {word} {protocol} {source} -> {destination}")?;
        match (port, named.first().and_then(|name| name.icmp)) {
            (Some(port), _) => write!(f, " port {port}")?,
            (None, Some((kind, code))) => write!(f, " type {kind} code {code}")?,
            (None, None) => {}
        }
        if netns == "-" { Ok(()) } else { write!(f, " [{netns}]") }
    }
}

struct Differs<'a>(&'a Change);

impl fmt::Display for Differs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { what: _, at, before, after, before_by, after_by, observed } = self.0;
        if let Some(at) = at {
            write!(f, " ({at})")?;
        }
        write!(f, ": {before}")?;
        if let Some(by) = before_by {
            write!(f, " by {by}")?;
        }
        if *observed {
            f.write_str(" (observed)")?;
        }
        write!(f, "; then {after}")?;
        after_by.as_ref().map_or(Ok(()), |by| write!(f, " by {by}"))
    }
}

struct Fates<'a>(&'a [FlowFate]);

impl fmt::Display for Fates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|fate| fate.name()).collect();
        f.write_str(&names.join(" or "))
    }
}
