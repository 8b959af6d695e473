//! The report as JSON: one document, or one object a line. `docs/schema.md` describes the objects and
//! `docs/report.schema.json` is their JSON Schema, so a change here needs one there.

pub(super) mod drop;
mod flow;
mod frame;
pub(super) mod groups;
mod object;
pub(crate) mod path;
mod tuple;

use std::io::{self, Write};

use serde::Serialize;

pub use self::flow::Stamp;
use self::{
    flow::FlowObject,
    frame::{FooterObject, HeaderObject},
    object::Object,
};
use super::{FlowList, Footer, Header, Report, Totals, names::Names};
use crate::{conntrack::Entry, model::harmless};

/// Name and version of the schema. The version grows when a field goes away or changes its meaning,
/// not when one is added.
pub const SCHEMA: &str = "conntracker-report/1";

/// How the objects of a report are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON document.
    Document,
    /// Each object on a line.
    Lines,
}

/// Writes a report. `out` should be buffered.
pub fn render<F: FlowList>(
    style: Style,
    report: &Report<F>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let names = Names::new(&report.header);
    let mut stream = Stream::begin(style, &report.header, out)?;
    let mut object = Vec::new();
    report.flows.each(&mut |flows| {
        for flow in flows {
            object.clear();
            FlowObject::new(flow, &names).write(&mut object)?;
            stream.object(out, |out| out.write_all(&object))?;
        }
        Ok(())
    })?;
    stream.end(out, &report.footer, &report.totals()?)
}

/// A report that is written while its flows are still being read.
pub struct Stream {
    style: Style,
    /// No flow yet.
    empty: bool,
}

impl Stream {
    /// Writes what stands before the flows.
    pub fn begin<W: Write + ?Sized>(
        style: Style,
        header: &Header,
        out: &mut W,
    ) -> io::Result<Self> {
        let header = HeaderObject::new(header);
        match style {
            Style::Document => {
                write!(out, r#"{{"schema":"{SCHEMA}","header":"#)?;
                value(out, &header)?;
                out.write_all(br#","flows":["#)?;
            }
            Style::Lines => line(out, &header)?,
        }
        Ok(Self { style, empty: true })
    }

    /// Writes the separator before a flow, and then the flow by `flow`.
    fn object<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        flow: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.style == Style::Document && !self.empty {
            out.write_all(b",")?;
        }
        self.empty = false;
        flow(out)?;
        if self.style == Style::Lines { out.write_all(b"\n") } else { Ok(()) }
    }

    /// Appends an entry of conntrack's table in the namespace of this name, read at this time.
    pub fn entry(
        &mut self,
        out: &mut Vec<u8>,
        entry: &Entry<'_>,
        netns: &str,
        at: &Stamp,
    ) -> io::Result<()> {
        self.object(out, |out| FlowObject::of_entry(entry, netns, at, false).write(out))
    }

    /// Writes what stands behind the flows.
    pub fn end<W: Write + ?Sized>(
        self,
        out: &mut W,
        footer: &Footer,
        totals: &Totals,
    ) -> io::Result<()> {
        let footer = FooterObject::new(footer, *totals);
        match self.style {
            Style::Document => {
                out.write_all(br#"],"footer":"#)?;
                value(out, &footer)?;
                out.write_all(b"}\n")
            }
            Style::Lines => line(out, &footer),
        }
    }
}

/// Appends an entry of conntrack's table in the namespace of this name, read at this time, as a line outside of any
/// report.
pub fn render_entry(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    netns: &str,
    at: &Stamp,
) -> io::Result<()> {
    FlowObject::of_entry(entry, netns, at, false).write(out)?;
    out.push(b'\n');
    Ok(())
}

/// Appends an event of an entry: `new`, `update` or `destroy`, or `resync` for an entry that a dump found. `portid`
/// is that of the process that caused it, 0 for none.
pub fn render_event(
    out: &mut Vec<u8>,
    event: &str,
    portid: u32,
    entry: &Entry<'_>,
    netns: &str,
    at: &Stamp,
) -> io::Result<()> {
    let flow = FlowObject::of_entry(entry, netns, at, event != "resync");
    let mut object = Object::begin(out, "event");
    object.word("event", event);
    object.optional("portid", (portid != 0).then_some(portid));
    object.nested("flow", |out| flow.write(out))?;
    object.end();
    out.push(b'\n');
    Ok(())
}

/// Writes a remark of the event stream about itself: `gap`, `resync_begin` or `resync_end`.
pub fn render_stream(what: &'static str, lost: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    line(out, &StreamObject { what, lost })
}

fn line<W: Write + ?Sized>(out: &mut W, object: &impl Serialize) -> io::Result<()> {
    value(out, object)?;
    out.write_all(b"\n")
}

fn value<W: Write + ?Sized>(out: &mut W, value: &impl Serialize) -> io::Result<()> {
    harmless::json(out, value)
}

#[derive(Serialize)]
struct StreamObject {
    #[serde(rename = "type")]
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[cfg(test)]
mod tests;
