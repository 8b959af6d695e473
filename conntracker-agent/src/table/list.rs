//! `conntracker dump` in the formats that are written while the table is being read: in the kernel's order
//! and constant memory, or sorted.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    connect,
    format::EntryFormat,
    printer::{Printer, no_entries},
    sort::{Sort, Sorted},
};
use crate::{
    conntrack::{DumpStats, Entry},
    dump::{footer, fullness, header},
    flow::filter::Filter,
    kernel::{netlink, netns::Netns},
    messages,
    observe::{NetnsChoice, clock::Clock, dumps},
    output::Destination,
    report::json::Style,
};

/// How the list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// Entries by themselves.
    Entries(EntryFormat),
    /// A JSON report.
    Report(Style),
}

/// What to list.
#[derive(Clone, Debug)]
pub struct List {
    /// Namespaces.
    pub netns: NetnsChoice,
    /// Which entries.
    pub filter: Filter,
    /// The filters as options, for the header of a report.
    pub filter_text: Vec<String>,
    /// How they are printed.
    pub format: ListFormat,
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
        if stats.entries == 0 && list.filter_text.is_empty() {
            log::info!("{}", no_entries());
        }
        footer(&stats).warn();
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
    let start_ns = Clock::new()?.now();
    let namespaces = list.netns.open()?;
    let mut total = DumpStats::default();
    let mut failed = Ok(());
    Destination::Stdout
        .write(|out| {
            if list.watch.is_some() && io::stdout().is_terminal() {
                // To the upper left, and everything away.
                out.write_all(b"\x1b[H\x1b[J")?;
            }
            let mut printer = match list.format {
                ListFormat::Entries(format) => Printer::begin(format, namespaces.len() > 1, out),
                ListFormat::Report(style) => {
                    let filters = list.filter_text.clone();
                    let notes = fullness(&namespaces);
                    Printer::report(style, header(&namespaces, start_ns, filters, notes), out)
                }
            }?;
            let each = |at: usize, entry: &Entry<'_>| printer.entry(&namespaces[at].name, entry);
            match read(list, &namespaces, &mut total, each) {
                Ok(()) => printer.end(&footer(&total)),
                Err(Stopped::Printing(error)) => Err(error),
                Err(Stopped::Reading(error)) => {
                    failed = Err(error);
                    Err(io::Error::other("not all could be listed"))
                }
            }
        })
        .or_else(|error| failed.and(Err(error)))?;
    Ok(total)
}

/// Why a list is not whole.
enum Stopped {
    Reading(anyhow::Error),
    Printing(io::Error),
}

impl From<netlink::Error> for Stopped {
    fn from(error: netlink::Error) -> Self {
        Self::Reading(error.into())
    }
}

/// Hands the entries that are wanted to `each`, in the order that is wanted, with the number of their
/// namespace.
fn read(
    list: &List,
    namespaces: &[Arc<Netns>],
    total: &mut DumpStats,
    mut each: impl FnMut(usize, &Entry<'_>) -> io::Result<()>,
) -> Result<(), Stopped> {
    let mut sorted = list.sort.map(|sort| Sorted::new(sort, list.top));
    let mut left = list.top.unwrap_or(usize::MAX);
    for (at, netns) in namespaces.iter().enumerate() {
        let mut conntrack = connect(netns).map_err(Stopped::Reading)?;
        let dump = conntrack.dump_filtered(&dumps::request(&list.filter))?;
        let stats = dump.for_each::<Stopped>(|entry| {
            if !list.filter.allows_entry(entry) {
                return Ok(());
            }
            match &mut sorted {
                Some(sorted) => sorted.add(at, entry),
                None if left > 0 => {
                    left -= 1;
                    each(at, entry).map_err(Stopped::Printing)?;
                }
                None => {}
            }
            Ok(())
        })?;
        total.entries += stats.entries;
        total.rejected += stats.rejected;
        total.interrupted += stats.interrupted;
    }
    let mut sorted = sorted.iter_mut().flat_map(Sorted::entries);
    sorted.try_for_each(|(at, entry)| each(at, &entry)).map_err(Stopped::Printing)
}
