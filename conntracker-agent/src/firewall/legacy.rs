//! ip_tables and ip6_tables: as iptables-legacy-save writes them (`save`), for people; and as the kernel keeps them
//! ([`raw`], [`entries`]), for the evaluator.

pub mod entries;
pub mod raw;
pub(super) mod save;

use std::{fs, io};

use anyhow::{Context, Result};

use super::{
    Skipped,
    model::Table,
    program::{self, Limits},
};
use crate::model::table::Family;

/// The legacy part of a ruleset.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Tables, in no particular order.
    pub tables: Vec<Table>,
    /// Lines that could not be read.
    pub skipped: Skipped,
    /// What could not be listed, and why.
    pub unread: Vec<String>,
}

/// Lists the tables of the calling thread's namespace.
pub(super) fn load(limits: &Limits) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    for family in [Family::Ip, Family::Ip6] {
        load_family(family, limits, &mut loaded).with_context(|| {
            format!("cannot read the legacy tables of family {}", family.name())
        })?;
    }
    Ok(loaded)
}

fn load_family(family: Family, limits: &Limits, loaded: &mut Loaded) -> Result<()> {
    let (names, programs) = match family {
        // Some distributions have iptables-legacy under iptables' plain name.
        Family::Ip6 => ("ip6_tables_names", ["ip6tables-legacy-save", "ip6tables-save"]),
        _ => ("ip_tables_names", ["iptables-legacy-save", "iptables-save"]),
    };
    let names = in_use(names)?;
    if names.is_empty() {
        return Ok(());
    }
    for program in programs.into_iter().filter_map(program::find) {
        // -c: counters. No -t, because naming a table would make it and load its module.
        let saved = program::output(&program, &["-c"], limits)?;
        if !save::is_of_nf_tables(&saved) {
            let Loaded { tables, skipped, .. } = loaded;
            tables.extend(save::parse(family, &saved, skipped));
            return Ok(());
        }
    }
    loaded.unread.push(format!(
        "tables of iptables-legacy are in use ({}: {}), but {} is not found, in PATH or elsewhere: they are not shown",
        family.name(),
        names.join(", "),
        programs[0],
    ));
    Ok(())
}

/// Tables that exist in this namespace. They are read first, because iptables-legacy-save would otherwise load
/// modules, and packets would pass new tables from then on.
fn in_use(file: &str) -> Result<Vec<String>> {
    // The namespace of this thread: /proc/net is that of the process.
    let path = format!("/proc/thread-self/net/{file}");
    match fs::read_to_string(&path) {
        Ok(names) => Ok(names.split_whitespace().map(str::to_owned).collect()),
        // No such module.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

#[cfg(test)]
mod tests;
