//! The prediction as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use super::{Answer, check::SelfCheck, compare::Open, groups::Members};
use crate::model::harmless;

/// Version of the document.
const SCHEMA: &str = "conntracker-what-if/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    recording: &'a str,
    against: &'a str,
    /// `new` or `established`.
    question: &'static str,
    notes: &'a [String],
    self_check: &'a SelfCheck,
    /// Absent where no prediction is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<PredictionObject<'a>>,
}

#[derive(Serialize)]
struct PredictionObject<'a> {
    changed: u64,
    undecided: u64,
    same: u64,
    same_anyhow: u64,
    path_undecided: u64,
    left_out: u64,
    classes: u64,
    evaluated: u64,
    changes: Vec<ChangeObject<'a>>,
    open: Vec<OpenObject<'a>>,
}

#[derive(Serialize)]
struct ChangeObject<'a> {
    /// `fate`, `translation`, `mark` or `path`.
    what: &'static str,
    /// Which packet; absent of fates.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<&'static str>,
    before: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_by: Option<&'a str>,
    after: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_by: Option<&'a str>,
    /// An observed outcome decides where the rules leave it open.
    observed: bool,
    #[serde(flatten)]
    members: &'a Members,
}

#[derive(Serialize)]
struct OpenObject<'a> {
    reasons: Vec<String>,
    before: Vec<&'static str>,
    best: &'static str,
    worst: &'static str,
    #[serde(flatten)]
    members: &'a Members,
}

/// Writes it.
pub(super) fn render(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let groups = &answer.groups;
    let changes = groups.changes().into_iter().map(|(change, members)| ChangeObject {
        what: change.what.name(),
        packet: change.at,
        before: &change.before,
        before_by: change.before_by.as_deref(),
        after: &change.after,
        after_by: change.after_by.as_deref(),
        observed: change.observed,
        members,
    });
    let open =
        groups.opens().into_iter().map(|(Open { why, before, after }, members)| OpenObject {
            reasons: why.iter().map(|reason| reason.to_string()).collect(),
            before: before.iter().map(|fate| fate.name()).collect(),
            best: after.first().map_or("unknown", |fate| fate.name()),
            worst: after.last().map_or("unknown", |fate| fate.name()),
            members,
        });
    let prediction = answer.check.passes().then(|| PredictionObject {
        changed: groups.changed,
        undecided: groups.open,
        same: groups.same,
        same_anyhow: groups.same_anyhow,
        path_undecided: groups.path_open,
        left_out: answer.left_out,
        classes: answer.classes,
        evaluated: answer.evaluated,
        changes: changes.collect(),
        open: open.collect(),
    });
    let document = Document {
        schema: SCHEMA,
        recording: &answer.recording,
        against: &answer.against,
        question: answer.question.name(),
        notes: &answer.notes,
        self_check: &answer.check,
        prediction,
    };
    harmless::json(out, &document)?;
    writeln!(out)
}
