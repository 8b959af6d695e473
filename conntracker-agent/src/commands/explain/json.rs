//! The answer as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Answer,
    path::{ExplainedStep, Path},
    verdict,
};

#[derive(Serialize)]
struct AnswerObject<'a> {
    /// `accept`, `drop`, `reject` or `undecided`.
    verdict: &'static str,
    /// Why it is undecided, or what else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    arrives: &'a str,
    /// The steps, if there is one path alone.
    steps: Vec<ExplainedStepObject<'a>>,
    /// All possible paths, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<AlternativeObject<'a>>,
}

#[derive(Serialize)]
struct AlternativeObject<'a> {
    verdict: &'static str,
    reason: String,
    steps: Vec<ExplainedStepObject<'a>>,
}

#[derive(Serialize)]
struct ExplainedStepObject<'a> {
    hook: &'static str,
    table: String,
    chain: &'a str,
    /// `rule`, `policy` or `return`.
    #[serde(rename = "type")]
    kind: &'static str,
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    /// The unknown that decides whether the packet takes this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

/// Writes the answer.
pub(super) fn render(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let (word, reason) = verdict(answer.fate);
    let (only, several) = match answer.paths.as_slice() {
        [only] => (Some(only), &[][..]),
        several => (None, several),
    };
    let object = AnswerObject {
        verdict: word,
        reason,
        arrives: &answer.arrives,
        steps: only.map(steps).unwrap_or_default(),
        alternatives: several
            .iter()
            .map(|path| AlternativeObject {
                verdict: verdict(Ok(path.fate)).0,
                reason: path.why.to_string(),
                steps: steps(path),
            })
            .collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &object)?;
    writeln!(out)
}

fn steps(path: &Path) -> Vec<ExplainedStepObject<'_>> {
    path.steps.iter().map(step).collect()
}

fn step(
    ExplainedStep { hook, site, verdict, depth: _, why }: &ExplainedStep,
) -> ExplainedStepObject<'_> {
    ExplainedStepObject {
        hook: hook.name(),
        table: site.label().into_owned(),
        chain: &site.chain,
        kind: site.kind.name(),
        position: site.position,
        handle: site.handle,
        verdict: verdict.name(),
        target: verdict.target(),
        rule: site.text.as_deref(),
        unknown: (!why.is_empty()).then(|| why.to_string()),
    }
}
