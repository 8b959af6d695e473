//! The report as JSON: one document, or one object a line. `docs/schema.md` describes the objects,
//! `docs/report.schema.json` is their JSON Schema; what changes here changes there.

mod objects;
mod path;

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use self::objects::{FlowObject, FooterObject, HeaderObject};
use super::{Report, names::Names};

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

fn line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn flow_objects(report: &Report) -> impl Iterator<Item = FlowObject<'_>> {
    let names = Names::new(&report.header);
    report.flows.iter().map(move |flow| FlowObject::new(flow, &names))
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
