//! The report as JSON: one document, or one object a line. `docs/schema.md` describes the objects,
//! `docs/report.schema.json` is their JSON Schema; what changes here changes there.

mod flow;
mod frame;
mod path;
mod tuple;
mod values;

use std::io::{self, Write};

use serde::Serialize;

pub use self::flow::Stamp;
use self::{
    flow::FlowObject,
    frame::{FooterObject, HeaderObject},
};
use super::{Footer, Header, Report, Totals, names::Names};
use crate::{conntrack::Entry, model::harmless};

/// Name and version of the schema. The version grows when a field goes away or changes its meaning,
/// not when one is added.
pub const SCHEMA: &str = "conntracker-report/1";

/// How the objects of a report are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON document.
    Document,
    /// Each object on a line.
    Lines,
}

/// Writes a report. `out` should be buffered.
pub fn render(style: Style, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let names = Names::new(&report.header);
    let mut stream = Stream::begin(style, &report.header, out)?;
    for flow in &report.flows {
        stream.object(out, |out| value(out, &FlowObject::new(flow, &names)))?;
    }
    stream.end(out, &report.footer, &report.totals())
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

    /// Writes what stands before a flow, and `flow` writes it.
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
        self.object(out, |out| value(out, &FlowObject::of_entry(entry, netns, at, false)))
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

/// Appends an entry of conntrack's table in the namespace of this name, read at this time, on a line of its
/// own that is part of no report.
pub fn render_entry(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    netns: &str,
    at: &Stamp,
) -> io::Result<()> {
    line(out, &FlowObject::of_entry(entry, netns, at, false))
}

/// Appends something that happened to an entry: `new`, `update` or `destroy`, or `resync` for what was
/// found in the table. `portid` is that of who did it, 0 for nobody.
pub fn render_event(
    out: &mut Vec<u8>,
    event: &str,
    portid: u32,
    entry: &Entry<'_>,
    netns: &str,
    at: &Stamp,
) -> io::Result<()> {
    let flow = FlowObject::of_entry(entry, netns, at, event != "resync");
    line(out, &EventObject { event, portid: (portid != 0).then_some(portid), flow })
}

/// Writes what a stream of events says about itself: `gap`, `resync_begin` or `resync_end`.
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

/// Something that happened to an entry.
#[derive(Serialize)]
#[serde(tag = "type", rename = "event")]
struct EventObject<'a> {
    event: &'a str,
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

#[cfg(test)]
mod tests;
