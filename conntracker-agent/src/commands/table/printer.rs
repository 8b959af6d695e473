//! Prints entries one after the other, in constant memory.

use std::io::{self, Write};

use super::format::{ConntrackFormat, EntryFormat};
use crate::{
    conntrack::Entry,
    live::notes::HOW_TO_ACTIVATE,
    model::{Status, harmless::OneLine},
    os::clock::Clock,
    report::{
        Footer, Header, Totals,
        conntrack::Format,
        csv,
        json::{self, Stamp, Stream, Style},
    },
};

/// Bytes that are collected before they are written.
const CHUNK: usize = 1 << 16;

/// Prints entries.
pub struct Printer<'a> {
    body: Body,
    now_ns: u64,
    now: Stamp,
    buffer: Vec<u8>,
    out: &'a mut dyn Write,
}

enum Body {
    /// As conntrack(8) prints them.
    Conntrack {
        conntrack_format: ConntrackFormat,
        /// Whether lines name the namespace even if the format has no field for it.
        several: bool,
    },
    Csv,
    Ndjson,
    Report(Box<Report>),
}

/// A JSON report.
struct Report {
    style: Style,
    header: Header,
    /// `None` before the first entry, because the header has the remark about an empty table.
    stream: Option<Stream>,
    totals: Totals,
}

impl<'a> Printer<'a> {
    /// Prints entries outside of a report. `several`: they are of more than one namespace.
    pub fn begin(format: EntryFormat, several: bool, out: &'a mut dyn Write) -> io::Result<Self> {
        let body = match (format.conntrack_format(), format) {
            (Some(conntrack_format), _) => Body::Conntrack { conntrack_format, several },
            (None, EntryFormat::Csv) => Body::Csv,
            (None, _) => Body::Ndjson,
        };
        let mut printer = Self::new(body, out)?;
        match &printer.body {
            Body::Conntrack { conntrack_format, .. } => {
                conntrack_format.renderer(printer.now_ns).begin(&mut printer.buffer);
            }
            Body::Csv => csv::header(&mut printer.buffer),
            Body::Ndjson | Body::Report(_) => {}
        }
        Ok(printer)
    }

    /// Prints entries as the flows of a report.
    pub fn report(style: Style, header: Header, out: &'a mut dyn Write) -> io::Result<Self> {
        let totals = Totals::default();
        Self::new(Body::Report(Box::new(Report { style, header, stream: None, totals })), out)
    }

    fn new(body: Body, out: &'a mut dyn Write) -> io::Result<Self> {
        let now_ns = Clock::new().map_err(io::Error::other)?.now();
        let now = Stamp::new(now_ns);
        Ok(Self { body, now_ns, now, buffer: Vec::with_capacity(2 * CHUNK), out })
    }

    /// Prints one, of the namespace of this name.
    pub fn entry(&mut self, netns: &str, entry: &Entry<'_>) -> io::Result<()> {
        let Self { body, now_ns, now, buffer, out } = self;
        match body {
            Body::Conntrack { conntrack_format, several } => {
                let renderer = conntrack_format.renderer(*now_ns);
                renderer.entry(buffer, entry);
                if *several && renderer.format == Format::Plain {
                    buffer.pop();
                    writeln!(buffer, " netns={}", OneLine(netns))?;
                }
            }
            Body::Csv => csv::entry(buffer, netns, entry),
            Body::Ndjson => json::render_entry(buffer, entry, netns, now)?,
            Body::Report(report) => report.entry(buffer, netns, entry, now)?,
        }
        if buffer.len() >= CHUNK {
            out.write_all(buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    /// Prints the end of the format; `footer` is that of a report.
    pub fn end(self, footer: &Footer) -> io::Result<()> {
        let Self { body, now_ns, now: _, mut buffer, out } = self;
        match body {
            Body::Conntrack { conntrack_format, .. } => {
                conntrack_format.renderer(now_ns).end(&mut buffer);
            }
            Body::Csv | Body::Ndjson => {}
            Body::Report(report) => report.end(&mut buffer, footer)?,
        }
        out.write_all(&buffer)
    }
}

impl Report {
    fn entry(
        &mut self,
        buffer: &mut Vec<u8>,
        netns: &str,
        entry: &Entry<'_>,
        now: &Stamp,
    ) -> io::Result<()> {
        self.totals.flows += 1;
        self.totals.merged += 1;
        self.totals.confirmed += u64::from(entry.status.contains(Status::SEEN_REPLY));
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Stream::begin(self.style, &self.header, buffer)?),
        };
        stream.entry(buffer, entry, netns, now)
    }

    fn end(self, buffer: &mut Vec<u8>, footer: &Footer) -> io::Result<()> {
        let Self { style, mut header, stream, totals } = self;
        let stream = if let Some(stream) = stream {
            stream
        } else {
            if header.filters.is_empty() {
                header.notes.push(no_entries());
            }
            Stream::begin(style, &header, buffer)?
        };
        stream.end(buffer, footer, &totals)
    }
}

/// The remark about a table without entries.
pub(crate) fn no_entries() -> String {
    format!("the conntrack table is empty. If there is traffic: {HOW_TO_ACTIVATE}")
}
