//! `conntracker get`, `create`, `update`, `delete` and `flush`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::{connect, format::EntryFormat, printer::Printer};
use crate::{
    capture::dumps,
    conntrack::{Change, EntryKey, Matched, NewEntry},
    live::asked,
    model::filter::Filter,
    os::{messages, netns::Netns, output::Destination},
    report::Footer,
};

/// Exit status if nothing matched, as in conntrack(8).
const NOTHING: u8 = 1;

/// Opens a namespace by name; `None` is our own.
fn open(netns: Option<&str>) -> Result<Netns> {
    netns.map_or_else(Netns::current, Netns::named)
}

/// Prints one entry. Exits with 1 if there is none.
pub fn get(netns: Option<&str>, key: &EntryKey, format: EntryFormat) -> Result<ExitCode> {
    messages::to_stderr();
    let netns = open(netns)?;
    let mut conntrack = connect(&netns)?;
    let mut found = false;
    Destination::Stdout.write(|out| {
        let mut printer = Printer::begin(format, false, out)?;
        let mut printed = Ok(());
        found = conntrack
            .get_with(key, |entry| printed = printer.entry(&netns.name, entry))
            .map_err(std::io::Error::other)?
            .is_some();
        printed?;
        printer.end(&Footer::default())
    })?;
    if !found {
        log::info!("there is no such entry");
        return Ok(NOTHING.into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes an entry.
pub fn create(netns: Option<&str>, entry: &NewEntry) -> Result<ExitCode> {
    messages::to_stderr();
    match (connect(&open(netns)?)?.create(entry), &entry.with.helper) {
        (Err(error), Some(helper)) if error.is_refused(Errno::EOPNOTSUPP) => Err(error)
            .with_context(|| format!("the kernel has no helper `{helper}` for this protocol")),
        (made, _) => Ok(made.map(|()| ExitCode::SUCCESS)?),
    }
}

/// Changes the entries that a filter allows. Exits with 1 if there are none.
pub fn update(netns: Option<&str>, filter: &Filter, change: &Change) -> Result<ExitCode> {
    messages::to_stderr();
    asked::tell(filter);
    let mut conntrack = connect(&open(netns)?)?;
    let matched =
        conntrack.update_where(&dumps::request(filter), |e| filter.allows_entry(e), change, |_| ());
    Ok(done(matched.context("some entries may be changed, others not")?, "changed"))
}

/// Removes the entries that a filter allows, and prints them. Exits with 1 if there are none.
pub fn delete(netns: Option<&str>, filter: &Filter, format: EntryFormat) -> Result<ExitCode> {
    messages::to_stderr();
    asked::tell(filter);
    let netns = open(netns)?;
    let mut conntrack = connect(&netns)?;
    let mut matched = Ok(Matched::default());
    Destination::Stdout.write(|out| {
        let mut printer = Printer::begin(format, false, out)?;
        let mut printed = Ok(());
        matched = conntrack.delete_where(
            &dumps::request(filter),
            |entry| filter.allows_entry(entry),
            |entry| {
                // An entry that cannot be printed is removed and counted all the same.
                if printed.is_ok() {
                    printed = printer.entry(&netns.name, entry);
                }
            },
        );
        printed?;
        printer.end(&Footer::default())
    })?;
    Ok(done(matched.context("some entries may be removed, others not")?, "removed"))
}

/// Removes all entries.
pub fn flush(netns: Option<&str>) -> Result<ExitCode> {
    messages::to_stderr();
    connect(&open(netns)?)?.flush(None, None)?;
    Ok(ExitCode::SUCCESS)
}

/// Says how many there were.
fn done(matched: Matched, what: &str) -> ExitCode {
    let Matched { done, gone, dump } = matched;
    log::info!("{done} {} {what}", if done == 1 { "entry" } else { "entries" });
    if gone > 0 {
        log::info!("{gone} more had ended meanwhile");
    }
    if dump.rejected > 0 {
        log::warn!("{} entries could not be decoded, and were not changed", dump.rejected);
    }
    if done > 0 { ExitCode::SUCCESS } else { NOTHING.into() }
}
