//! The answer as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Explanation,
    answer::{Answer, verdict},
    observe::ObservedHook,
    path::{ExplainedStep, Path},
};
use crate::{
    model::path::{Provenance, Step},
    report::json::path::StepObject,
};

#[derive(Serialize)]
struct AnswerObject<'a> {
    /// `accept`, `drop`, `reject` or `undecided`.
    verdict: &'static str,
    /// Why it is undecided, or what else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrives: Option<&'a str>,
    /// The steps, if there is one path alone.
    steps: Vec<ExplainedStepObject<'a>>,
    /// All possible paths, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<AlternativeObject<'a>>,
    /// What the rules of today say, if the answer is about others.
    #[serde(skip_serializing_if = "Option::is_none")]
    today: Option<Box<Self>>,
    /// What became of such packets, if that was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Vec<ObservedObject<'a>>>,
}

#[derive(Serialize)]
struct ObservedObject<'a> {
    hook: &'static str,
    packets: u64,
    dropped: bool,
    /// All steps were predicted.
    agrees: bool,
    steps: Vec<ObservedStepObject<'a>>,
}

#[derive(Serialize)]
struct ObservedStepObject<'a> {
    #[serde(flatten)]
    step: StepObject<'a>,
    predicted: bool,
}

#[derive(Serialize)]
struct AlternativeObject<'a> {
    verdict: &'static str,
    reason: String,
    steps: Vec<ExplainedStepObject<'a>>,
}

/// A step as reports have it, with its hook.
#[derive(Serialize)]
struct ExplainedStepObject<'a> {
    hook: &'static str,
    #[serde(flatten)]
    step: StepObject<'a>,
    /// The unknown that decides whether the packet takes this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

/// Writes the answer.
pub(super) fn render(all: &Explanation<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut object = object(all.answer);
    object.arrives = Some(all.arrives);
    object.today = all.today.map(self::object).map(Box::new);
    object.observed = all.observed.as_deref().map(|hooks| hooks.iter().map(observed).collect());
    serde_json::to_writer_pretty(&mut *out, &object)?;
    writeln!(out)
}

fn observed(hook: &ObservedHook) -> ObservedObject<'_> {
    ObservedObject {
        hook: hook.hook.name(),
        packets: hook.packets,
        dropped: hook.dropped,
        agrees: hook.agrees(),
        steps: hook.steps.iter().map(observed_step).collect(),
    }
}

fn observed_step((step, predicted): &(Step, bool)) -> ObservedStepObject<'_> {
    ObservedStepObject { step: StepObject::new(step), predicted: *predicted }
}

fn object(answer: &Answer) -> AnswerObject<'_> {
    let (word, reason) = verdict(answer.fate);
    let (only, several) = match answer.paths.as_slice() {
        [only] => (Some(only), &[][..]),
        several => (None, several),
    };
    AnswerObject {
        verdict: word,
        reason,
        arrives: None,
        steps: only.map(steps).unwrap_or_default(),
        alternatives: several.iter().map(alternative).collect(),
        today: None,
        observed: None,
    }
}

fn alternative(path: &Path) -> AlternativeObject<'_> {
    AlternativeObject {
        verdict: verdict(Ok(path.fate)).0,
        reason: path.why.to_string(),
        steps: steps(path),
    }
}

fn steps(path: &Path) -> Vec<ExplainedStepObject<'_>> {
    path.steps.iter().map(step).collect()
}

fn step(
    ExplainedStep { hook, site, verdict, depth: _, why }: &ExplainedStep,
) -> ExplainedStepObject<'_> {
    ExplainedStepObject {
        hook: hook.name(),
        step: StepObject::of(site, verdict, Provenance::Evaluated),
        unknown: (!why.is_empty()).then(|| why.to_string()),
    }
}
