//! `conntracker count` and `conntracker stats`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use super::connect;
use crate::{
    capture::{NetnsChoice, dumps},
    conntrack::{CpuStats, ExpectCpuStats, GlobalStats},
    live::asked,
    model::{
        filter::Filter,
        harmless::{self, OneLine},
    },
    os::{messages, output::Destination},
};

/// How numbers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, one for each namespace.
    Json,
}

/// Prints the number of entries; with several namespaces, a line with number and name for each. With a filter it
/// reads the table, without one it asks the kernel.
pub fn count(netns: &NetnsChoice, filter: &Filter) -> Result<ExitCode> {
    messages::to_stderr();
    asked::tell(filter);
    let mut counts = Vec::new();
    for netns in netns.open()? {
        let mut conntrack = connect(&netns)?;
        let count = if filter.is_everything() {
            conntrack.count()?.into()
        } else {
            let mut count = 0u64;
            conntrack.dump_with(&dumps::request(filter), |entry| {
                count += u64::from(filter.allows_entry(&entry));
            })?;
            count
        };
        counts.push((netns.name.clone(), count));
    }
    Destination::Stdout.write(|out| match &counts[..] {
        [(_, count)] => writeln!(out, "{count}"),
        all => all.iter().try_for_each(|(name, count)| writeln!(out, "{count}\t{}", OneLine(name))),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The counts of one namespace.
struct Stats {
    netns: String,
    table: GlobalStats,
    cpus: Vec<CpuStats>,
    expectations: Vec<ExpectCpuStats>,
}

/// Prints the size of the tables, and the counters of the CPUs.
pub fn stats(netns: &NetnsChoice, format: Format) -> Result<ExitCode> {
    messages::to_stderr();
    let mut all = Vec::new();
    for netns in netns.open()? {
        let mut conntrack = connect(&netns)?;
        all.push(Stats {
            netns: netns.name.clone(),
            table: conntrack.stats()?,
            cpus: conntrack.cpu_stats()?,
            expectations: conntrack.expect_cpu_stats()?,
        });
    }
    Destination::Stdout.write(|out| {
        all.iter().try_for_each(|stats| match format {
            Format::Text => text(stats, out),
            Format::Json => {
                harmless::json(&mut *out, &Object::new(stats))?;
                out.write_all(b"\n")
            }
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(stats: &Stats, out: &mut dyn Write) -> io::Result<()> {
    let Stats { netns, table, cpus, expectations } = stats;
    let GlobalStats { entries, max_entries } = table;
    let most = max_entries.map_or(String::new(), |max| format!(" of {max}"));
    writeln!(out, "namespace {}: {entries}{most} entries", OneLine(netns))?;
    for cpu in cpus {
        write!(out, "cpu {:<4}", cpu.cpu)?;
        for (name, value) in cpu.counters() {
            write!(out, " {name}={value}")?;
        }
        writeln!(out)?;
    }
    for cpu in expectations {
        write!(out, "expectations, cpu {:<4}", cpu.cpu)?;
        for (name, value) in cpu.counters() {
            write!(out, " {name}={value}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The same in JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "stats")]
struct Object<'a> {
    netns: &'a str,
    entries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_entries: Option<u32>,
    cpus: Vec<Cpu>,
    expectations: Vec<Cpu>,
}

#[derive(Serialize)]
struct Cpu {
    cpu: u16,
    #[serde(flatten)]
    counters: serde_json::Map<String, serde_json::Value>,
}

impl Cpu {
    fn new(cpu: u16, counters: impl Iterator<Item = (&'static str, u32)>) -> Self {
        let counters = counters.map(|(name, value)| (name.to_owned(), value.into())).collect();
        Self { cpu, counters }
    }
}

impl<'a> Object<'a> {
    fn new(stats: &'a Stats) -> Self {
        let Stats { netns, table, cpus, expectations } = stats;
        Self {
            netns,
            entries: table.entries,
            max_entries: table.max_entries,
            cpus: cpus.iter().map(|cpu| Cpu::new(cpu.cpu, cpu.counters())).collect(),
            expectations: expectations
                .iter()
                .map(|cpu| Cpu::new(cpu.cpu, cpu.counters()))
                .collect(),
        }
    }
}
