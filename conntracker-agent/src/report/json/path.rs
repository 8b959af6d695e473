//! Where packets went, as JSON.

use std::borrow::Cow;

use serde::Serialize;

use super::tuple::TupleObject;
use crate::model::{
    Flow,
    hook::Hook,
    path::{Doubt, Invalidity, MarksBehind, Provenance, Site, Step, Traversal, Verdict},
    table::{Backend, Family},
};

/// Before and after a hook.
#[derive(Serialize)]
struct Around<T> {
    before: T,
    after: T,
}

impl<T> Around<T> {
    fn of<U: Into<T>>((before, after): (U, U)) -> Self {
        Self { before: before.into(), after: after.into() }
    }
}

#[derive(Serialize)]
pub(super) struct TraversalObject<'a> {
    hook: Hook,
    direction: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<&'static str>,
    outcome: &'static str,
    epoch: u32,
    packets: u64,
    packet_mark: Around<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connmark: Option<Around<u32>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<MarksObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Around<TupleObject>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fragment: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<&'static str>,
    steps: Vec<StepObject<'a>>,
}

impl<'a> TraversalObject<'a> {
    /// Of a flow.
    pub(super) fn new(flow: &Flow, (traversal, packets): (&'a Traversal, u64)) -> Self {
        let Traversal {
            hook,
            direction,
            state,
            outcome,
            epoch,
            packet_mark,
            connmark,
            marks,
            nat,
            fragment,
            steps,
            doubt,
        } = traversal;
        let marks =
            marks.iter().map(|behind| MarksObject::new(behind, connmark.is_some())).collect();
        Self {
            hook: *hook,
            direction: direction.name(),
            state: state.name(),
            invalid: flow.invalidity(*state).map(Invalidity::name),
            outcome: outcome.name(),
            epoch: *epoch,
            packets,
            packet_mark: Around::of(*packet_mark),
            connmark: connmark.map(Around::of),
            marks,
            nat: nat.map(Around::of),
            fragment: *fragment,
            doubt: doubt.map(Doubt::name),
            steps: steps.iter().map(StepObject::new).collect(),
        }
    }
}

/// Marks behind a base chain.
#[derive(Serialize)]
struct MarksObject<'a> {
    label: Cow<'a, str>,
    chain: &'a str,
    packet_mark: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    connmark: Option<u32>,
}

impl<'a> MarksObject<'a> {
    fn new(behind: &'a MarksBehind, with_entry: bool) -> Self {
        let MarksBehind { chain, alone: _, packet, connection } = behind;
        Self {
            label: chain.label(),
            chain: &chain.chain,
            packet_mark: *packet,
            connmark: with_entry.then_some(*connection),
        }
    }
}

/// A step, as `explain` prints it too.
#[derive(Serialize)]
pub(crate) struct StepObject<'a> {
    backend: Backend,
    family: Family,
    table: &'a str,
    label: Cow<'a, str>,
    chain: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    provenance: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unplaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> StepObject<'a> {
    pub(crate) fn new(Step { site, verdict, provenance, placed }: &'a Step) -> Self {
        Self { unplaced: !placed, ..Self::of(site, verdict, *provenance) }
    }

    /// Of a site.
    pub(crate) fn of(site: &'a Site, verdict: &'a Verdict, provenance: Provenance) -> Self {
        let Site { backend, family, table, iptables: _, chain, kind, position, handle, text } =
            site;
        Self {
            backend: *backend,
            family: *family,
            table,
            label: site.label(),
            chain,
            kind: kind.name(),
            position: *position,
            handle: *handle,
            verdict: verdict.name(),
            target: verdict.target(),
            provenance: provenance.name(),
            unplaced: false,
            text: text.as_deref(),
        }
    }
}
