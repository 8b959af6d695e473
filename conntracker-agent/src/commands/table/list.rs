//! `conntracker dump` in the formats that are written while the table is read: in the kernel's order and in constant
//! memory, or sorted.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    connect,
    format::EntryFormat,
    printer::{Printer, no_entries},
    sort::{Sort, Sorted},
};
use crate::{
    bpf::table::TableReader,
    capture::{NetnsChoice, dumps},
    commands::dump::{fullness, header},
    conntrack::{DumpStats, Entry},
    live::asked,
    model::{filter::Filter, loss::Loss},
    netlink,
    os::{clock::Clock, messages, netns::Netns, output::Destination},
    report::{Footer, json::Style},
};

/// How the list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// Entries by themselves.
    Entries(EntryFormat),
    /// A JSON report.
    Report(Style),
}

/// How the table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The kernel lists it.
    Netlink,
    /// From the kernel's memory.
    Bpf,
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
    /// How it is read.
    pub via: Via,
}

/// Lists entries on standard output.
pub fn run(list: &List) -> Result<ExitCode> {
    messages::to_stderr();
    asked::tell(&list.filter);
    let total = once(list)?;
    let Some(every) = list.watch else {
        if total.dump.entries == 0 && total.printed == 0 && list.filter_text.is_empty() {
            log::info!("{}", no_entries());
        }
        total.footer(list.via).warn();
        return Ok(ExitCode::SUCCESS);
    };
    // A signal ends the process, which leaves nothing behind.
    loop {
        thread::sleep(every);
        once(list)?;
    }
}

/// Counts over all namespaces.
#[derive(Clone, Copy, Default)]
struct Total {
    dump: DumpStats,
    /// Entries handed to the printer, which may end before the dump does.
    printed: u64,
    /// Entries whose security context cannot be read.
    secret: u64,
}

impl Total {
    fn footer(&self, via: Via) -> Footer {
        let mut footer = crate::commands::dump::footer(&self.dump);
        if via == Via::Bpf {
            footer.losses.push(Loss::SecurityContextsUntold.times(self.secret));
        }
        footer
    }
}

/// Lists them once.
fn once(list: &List) -> Result<Total> {
    let start_ns = Clock::new()?.now();
    let namespaces = list.netns.open()?;
    let mut total = Total::default();
    let mut failed = Ok(());
    Destination::Stdout
        .write(|out| {
            if list.watch.is_some() && io::stdout().is_terminal() {
                // Cursor to the upper left, and clear the screen.
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
            let mut printed = 0;
            let each = |at: usize, entry: &Entry<'_>| {
                printed += 1;
                printer.entry(&namespaces[at].name, entry)
            };
            let read = read(list, &namespaces, &mut total, each);
            total.printed = printed;
            match read {
                Ok(()) => printer.end(&total.footer(list.via)),
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

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Reading(error)
    }
}

/// Hands the requested entries to `each` in the requested order, with the number of their namespace.
fn read(
    list: &List,
    namespaces: &[Arc<Netns>],
    total: &mut Total,
    mut each: impl FnMut(usize, &Entry<'_>) -> io::Result<()>,
) -> Result<(), Stopped> {
    let mut sorted = list.sort.map(|sort| Sorted::new(sort, list.top));
    let mut left = list.top.unwrap_or(usize::MAX);
    let mut take = |at: usize, entry: &Entry<'_>| {
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
    };
    match list.via {
        Via::Netlink => by_netlink(&list.filter, namespaces, &mut total.dump, &mut take)?,
        Via::Bpf => by_bpf(namespaces, total, &mut take)?,
    }
    for kept in sorted.iter_mut().flat_map(Sorted::entries) {
        let (at, entry) =
            kept.context("an entry cannot be decoded again").map_err(Stopped::Reading)?;
        each(at, &entry).map_err(Stopped::Printing)?;
    }
    Ok(())
}

/// Reads entries by netlink; the kernel applies the part of the filter that it can.
fn by_netlink(
    filter: &Filter,
    namespaces: &[Arc<Netns>],
    total: &mut DumpStats,
    take: &mut dyn FnMut(usize, &Entry<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    for (at, netns) in namespaces.iter().enumerate() {
        let mut conntrack = connect(netns).map_err(Stopped::Reading)?;
        let dump = conntrack.dump_filtered(&dumps::request(filter))?;
        let stats = dump.for_each::<Stopped>(|entry| take(at, entry))?;
        total.entries += stats.entries;
        total.rejected += stats.rejected;
        total.interrupted += stats.interrupted;
    }
    Ok(())
}

/// All entries, from the kernel's memory.
fn by_bpf(
    namespaces: &[Arc<Netns>],
    total: &mut Total,
    take: &mut dyn FnMut(usize, &Entry<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut reader = TableReader::open()
        .context("cannot read the table by BPF (CAP_BPF and CAP_PERFMON are needed; --via netlink needs neither)")?;
    for (at, netns) in namespaces.iter().enumerate() {
        let tally = reader.for_each::<Stopped>(netns, |entry| take(at, entry))?;
        total.dump.entries += tally.entries;
        total.dump.interrupted += u64::from(tally.resized);
        total.secret += tally.secret;
    }
    Ok(())
}
