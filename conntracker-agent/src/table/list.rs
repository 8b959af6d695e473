//! `conntracker dump` in the formats that are streams of entries: in the kernel's order and constant memory,
//! or sorted.

use std::io::{self, Write};

use crate::{
    conntrack::{ConntrackEntry, Entry},
    flow::{NetnsId, table::of_entry},
    observe::clock::Clock,
    report::{csv, json},
};

/// How entries are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFormat {
    /// Comma-separated values.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

/// Prints entries one after the other.
pub struct Printer<'a> {
    format: EntryFormat,
    now_ns: u64,
    out: &'a mut dyn Write,
}

impl<'a> Printer<'a> {
    /// Prints what stands before the first one.
    pub fn begin(format: EntryFormat, out: &'a mut dyn Write) -> io::Result<Self> {
        if format == EntryFormat::Csv {
            csv::header(out)?;
        }
        let now_ns = Clock::new().map_err(io::Error::other)?.now();
        Ok(Self { format, now_ns, out })
    }

    /// Prints one, of the namespace of this name.
    pub fn entry(&mut self, netns: &str, entry: &Entry<'_>) -> io::Result<()> {
        match self.format {
            EntryFormat::Csv => csv::entry(self.out, netns, entry),
            EntryFormat::Ndjson => {
                let mut flow = of_entry(NetnsId(0), &ConntrackEntry::from(entry), self.now_ns);
                flow.origins.dump = true;
                json::render_flow(&flow, netns, self.out)
            }
        }
    }

    /// Prints what stands behind the last one.
    pub fn end(self) -> io::Result<()> {
        Ok(())
    }
}
