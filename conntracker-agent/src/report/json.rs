//! The report as JSON: one document, or one object a line. `docs/schema.md` describes the objects,
//! `docs/report.schema.json` is their JSON Schema; what changes here changes there.

mod objects;
mod path;

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use self::objects::{FlowObject, FooterObject, HeaderObject};
use super::{Report, names::Names};
use crate::flow::Flow;

/// Name and version of the schema. The version grows when a field goes away or changes its meaning,
/// not when one is added.
pub const SCHEMA: &str = "conntracker-report/1";

/// Writes one JSON document. `out` should be buffered.
pub fn render_json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let document = Document {
        schema: SCHEMA,
        header: HeaderObject::new(&report.header),
        flows: Flows(report),
        footer: FooterObject::new(report),
    };
    line(out, &document)
}

/// Writes header, flows and footer as JSON, each on a line. `out` should be buffered.
pub fn render_ndjson(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    line(out, &HeaderObject::new(&report.header))?;
    flow_objects(report).try_for_each(|flow| line(out, &flow))?;
    line(out, &FooterObject::new(report))
}

/// Writes a flow of the namespace of this name as JSON, on a line.
pub fn render_flow(flow: &Flow, netns: &str, out: &mut dyn Write) -> io::Result<()> {
    line(out, &FlowObject::new(flow, &Names::of_one(netns)))
}

/// Writes something that happened to a flow.
pub fn render_event(
    event: &'static str,
    portid: u32,
    flow: &Flow,
    netns: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let portid = (portid != 0).then_some(portid);
    line(out, &EventObject { event, portid, flow: FlowObject::new(flow, &Names::of_one(netns)) })
}

/// Writes what a stream of events says about itself: `gap`, `resync_begin` or `resync_end`.
pub fn render_stream(what: &'static str, lost: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    line(out, &StreamObject { what, lost })
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn flow_objects(report: &Report) -> impl Iterator<Item = FlowObject<'_>> {
    let names = Names::new(&report.header);
    report.flows.iter().map(move |flow| FlowObject::new(flow, &names))
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "event")]
struct EventObject<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    portid: Option<u32>,
    flow: FlowObject<'a>,
}

#[derive(Serialize)]
struct StreamObject {
    #[serde(rename = "type")]
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    header: HeaderObject<'a>,
    flows: Flows<'a>,
    footer: FooterObject,
}

/// The flows of a report, made into objects one at a time.
struct Flows<'a>(&'a Report);

impl Serialize for Flows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(flow_objects(self.0))
    }
}

#[cfg(test)]
mod tests;
