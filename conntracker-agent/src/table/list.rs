//! Entries one after the other: `conntracker dump` in the formats that are streams, in the kernel's order
//! and constant memory or sorted, and what `get` and `delete` print.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    connect,
    sort::{Sort, Sorted},
};
use crate::{
    conntrack::{ConntrackEntry, DumpStats, Entry},
    dump::dump_losses,
    flow::{NetnsId, filter::Filter, table::of_entry},
    messages,
    observe::{NetnsChoice, clock::Clock, dumps},
    output::Destination,
    report::{
        conntrack::{Calendar, Format, Options, Renderer},
        csv, json,
    },
};

/// How entries are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFormat {
    /// As `conntrack -L` prints them.
    Plain,
    /// As `conntrack -L -o extended,id` prints them.
    Extended,
    /// As `conntrack -L -o xml` prints them.
    Xml,
    /// As arguments of conntrack(8) that make them anew.
    Save,
    /// Comma-separated values.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

impl EntryFormat {
    /// The format of conntrack(8), and whether extended.
    pub(super) fn of_conntrack(self) -> Option<(Format, bool)> {
        match self {
            Self::Plain => Some((Format::Plain, false)),
            Self::Extended => Some((Format::Plain, true)),
            Self::Xml => Some((Format::Xml, false)),
            Self::Save => Some((Format::Save, false)),
            Self::Csv | Self::Ndjson => None,
        }
    }
}

/// What conntrack's own formats print besides.
pub(super) fn options(calendar: &Calendar, extended: bool) -> Options<'_> {
    Options { extended, id: extended, ..Options::new(calendar) }
}

/// Bytes that are put together before they are written.
const CHUNK: usize = 1 << 16;

/// Prints entries.
pub struct Printer<'a> {
    format: EntryFormat,
    calendar: Calendar,
    now_ns: u64,
    /// Lines tell the namespace also where the format has no place for it.
    several: bool,
    buffer: Vec<u8>,
    out: &'a mut dyn Write,
}

impl<'a> Printer<'a> {
    /// Prints what stands before the first one. `several`: of more than one namespace.
    pub fn begin(format: EntryFormat, several: bool, out: &'a mut dyn Write) -> io::Result<Self> {
        let now_ns = Clock::new().map_err(io::Error::other)?.now();
        let buffer = Vec::with_capacity(2 * CHUNK);
        let mut printer = Self { format, calendar: Calendar::utc(), now_ns, several, buffer, out };
        let Self { buffer, calendar, .. } = &mut printer;
        if let Some((format, extended)) = format.of_conntrack() {
            let options = options(calendar, extended);
            Renderer { format, options, now: now_ns / 1_000_000_000 }.begin(buffer);
        } else if format == EntryFormat::Csv {
            csv::header(buffer)?;
        }
        Ok(printer)
    }

    /// Prints one, of the namespace of this name.
    pub fn entry(&mut self, netns: &str, entry: &Entry<'_>) -> io::Result<()> {
        let Self { format, calendar, now_ns, several, buffer, out } = self;
        if let Some((format, extended)) = format.of_conntrack() {
            let options = options(calendar, extended);
            let renderer = Renderer { format, options, now: *now_ns / 1_000_000_000 };
            renderer.entry(buffer, entry);
            if *several && format == Format::Plain {
                buffer.pop();
                writeln!(buffer, " netns={netns}")?;
            }
        } else if *format == EntryFormat::Csv {
            csv::entry(buffer, netns, entry)?;
        } else {
            let mut flow = of_entry(NetnsId(0), &ConntrackEntry::from(entry), *now_ns);
            flow.origins.dump = true;
            json::render_flow(&flow, netns, buffer)?;
        }
        if buffer.len() >= CHUNK {
            out.write_all(buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    /// Prints what stands behind the last one.
    pub fn end(self) -> io::Result<()> {
        let Self { format, calendar, now_ns, several: _, mut buffer, out } = self;
        if let Some((format, extended)) = format.of_conntrack() {
            let options = options(&calendar, extended);
            Renderer { format, options, now: now_ns / 1_000_000_000 }.end(&mut buffer);
        }
        out.write_all(&buffer)
    }
}

/// What to list.
#[derive(Clone, Debug)]
pub struct List {
    /// Namespaces.
    pub netns: NetnsChoice,
    /// Which entries.
    pub filter: Filter,
    /// How they are printed.
    pub format: EntryFormat,
    /// In which order; `None` is the kernel's.
    pub sort: Option<Sort>,
    /// Only so many.
    pub top: Option<usize>,
    /// Again and again, this often.
    pub watch: Option<Duration>,
}

/// Lists entries on standard output.
pub fn run(list: &List) -> Result<ExitCode> {
    messages::to_stderr();
    let stats = once(list)?;
    let Some(every) = list.watch else {
        for loss in dump_losses(stats.rejected, stats.interrupted) {
            if loss.count > 0 {
                log::warn!("{}: {}", loss.count, loss.meaning);
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    // Until a signal ends the process: nothing is left behind.
    loop {
        thread::sleep(every);
        once(list)?;
    }
}

/// Lists them once.
fn once(list: &List) -> Result<DumpStats> {
    let List { netns, filter, format, sort, top, watch } = list;
    let namespaces = netns.open()?;
    let mut total = DumpStats::default();
    let mut failed = Ok(());
    Destination::Stdout
        .write(|out| {
            if watch.is_some() && io::stdout().is_terminal() {
                // To the upper left, and everything away.
                out.write_all(b"\x1b[H\x1b[J")?;
            }
            let mut printer = Printer::begin(*format, namespaces.len() > 1, out)?;
            let mut sorted = sort.map(|sort| Sorted::new(sort, *top));
            let mut left = top.unwrap_or(usize::MAX);
            for (at, netns) in namespaces.iter().enumerate() {
                let mut printed = Ok(());
                let dumped = connect(netns).and_then(|mut conntrack| {
                    Ok(conntrack.dump_with(&dumps::request(filter), |entry| {
                        if !filter.allows_entry(&entry) {
                            return;
                        }
                        match &mut sorted {
                            Some(sorted) => sorted.add(at, &entry),
                            None if printed.is_ok() && left > 0 => {
                                left -= 1;
                                printed = printer.entry(&netns.name, &entry);
                            }
                            None => {}
                        }
                    })?)
                });
                printed?;
                match dumped {
                    Ok(stats) => {
                        total.entries += stats.entries;
                        total.rejected += stats.rejected;
                        total.interrupted += stats.interrupted;
                    }
                    Err(error) => {
                        failed = Err(error);
                        return Err(io::Error::other("not all could be listed"));
                    }
                }
            }
            for (at, entry) in sorted.iter_mut().flat_map(Sorted::entries) {
                printer.entry(&namespaces[at].name, &entry)?;
            }
            printer.end()
        })
        .or_else(|error| failed.and(Err(error)))?;
    Ok(total)
}
