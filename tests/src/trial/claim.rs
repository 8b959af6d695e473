//! What the tracer says of a flow: the traversals of its JSON.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::oracle::{Backend, ChainName, Hook, Step, StepKind, Verdict};
use crate::rulesets::ORACLE_TABLE;
use crate::tracer::Direction;

/// How a step is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    Exact,
    Evaluated,
    Inferred,
    Chain,
}

/// One step, as the tracer has it.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub step: Step,
    pub provenance: Provenance,
    /// Counters tell when the packet met it: it stands in order.
    pub placed: bool,
}

/// One way through a hook.
#[derive(Clone, Debug)]
pub struct Claim {
    pub hook: Hook,
    pub direction: Direction,
    pub state: String,
    pub dropped: bool,
    pub epoch: u64,
    pub packets: u64,
    /// Packet mark before and after.
    pub mark: (u32, u32),
    pub doubt: Option<String>,
    pub steps: Vec<Claimed>,
}

/// The traversals of a flow object.
pub fn claims(flow: &Value) -> Result<Vec<Claim>> {
    let traversals = flow.get("traversals").and_then(Value::as_array);
    traversals
        .into_iter()
        .flatten()
        .map(|object| claim(object).with_context(|| format!("traversal {object}")))
        .collect()
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    object[key].as_str().with_context(|| format!("no {key}"))
}

fn number(object: &Value, key: &str) -> Result<u64> {
    object[key].as_u64().with_context(|| format!("no number {key}"))
}

fn claim(object: &Value) -> Result<Claim> {
    let mark = |key| -> Result<u32> { Ok(number(&object["packet_mark"], key)?.try_into()?) };
    let steps: Result<Vec<_>> =
        object["steps"].as_array().context("no steps")?.iter().map(step).collect();
    let mut steps = steps?;
    // The table that makes the kernel trace is the test's own.
    steps.retain(|Claimed { step, .. }| step.chain.table != ORACLE_TABLE);
    Ok(Claim {
        hook: Hook::parse(text(object, "hook")?).context("no such hook")?,
        direction: match text(object, "direction")? {
            "original" => Direction::Original,
            "reply" => Direction::Reply,
            other => bail!("direction {other}"),
        },
        state: text(object, "state")?.to_owned(),
        dropped: match text(object, "outcome")? {
            "passed" => false,
            "dropped" => true,
            other => bail!("outcome {other}"),
        },
        epoch: number(object, "epoch")?,
        packets: number(object, "packets")?,
        mark: (mark("before")?, mark("after")?),
        doubt: object.get("doubt").map(|_| text(object, "doubt").map(str::to_owned)).transpose()?,
        steps,
    })
}

fn step(object: &Value) -> Result<Claimed> {
    let read = || -> Result<Claimed> {
        let kind = match text(object, "type")? {
            "rule" => StepKind::Rule,
            "policy" => StepKind::Policy,
            "return" => StepKind::Return,
            "chain" => StepKind::Chain,
            other => bail!("type {other}"),
        };
        let provenance = match text(object, "provenance")? {
            "exact" => Provenance::Exact,
            "evaluated" => Provenance::Evaluated,
            "inferred" => Provenance::Inferred,
            "chain" => Provenance::Chain,
            other => bail!("provenance {other}"),
        };
        let position = match kind {
            StepKind::Chain => 0,
            _ => number(object, "position")?.try_into()?,
        };
        let target = object.get("target").and_then(Value::as_str);
        let step = Step {
            chain: ChainName {
                backend: Backend::parse(text(object, "backend")?).context("no such backend")?,
                family: text(object, "family")?.to_owned(),
                table: text(object, "table")?.to_owned(),
                name: text(object, "chain")?.to_owned(),
            },
            kind,
            position,
            handle: object["handle"].as_u64(),
            verdict: Verdict::parse(text(object, "verdict")?, target).context("which verdict?")?,
        };
        let placed = object.get("unplaced").is_none();
        Ok(Claimed { step, provenance, placed })
    };
    read().with_context(|| format!("step {object}"))
}
