//! `conntracker dump`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use conntracker::commands::{
    dump::{self, Dump},
    table::{
        format::{EntryFormat, With},
        list::{self, List, ListFormat, Via},
        sort::{Column, Sort},
    },
};

use super::{
    filter::FilterArgs,
    format::{self, DumpFormat},
    trace::netns_choice,
    values,
};

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct DumpArgs {
    /// Format of the list: `report` (the classic report; source ports are folded unless --no-fold);
    /// `plain`, `xml` or `save` as conntrack(8) prints them, plain and xml with any of `extended`, `id`,
    /// `ktimestamp` and `labels` behind a comma; `csv`; `json` (one document) or `ndjson` (the same objects,
    /// one a line).
    #[arg(long, value_name = "FORMAT[,…]", default_value = "report", value_parser = format::dump)]
    format: DumpFormat,
    /// Network namespace: a name, `pid:N`, a path, or `all`; repeatable.
    #[arg(long, value_name = "NAME|all")]
    netns: Vec<String>,
    /// Report format: keep source ports and ICMP identifiers, one line for each flow.
    #[arg(long)]
    no_fold: bool,
    /// Report format: print what else is known of each flow.
    #[arg(long)]
    explain: bool,
    /// Sort by this column, with a `-` before it the largest first (`--sort=-bytes`); not for the classic
    /// report. Otherwise entries come in the kernel's order.
    #[arg(long, value_name = "[-]COLUMN", value_parser = sort, allow_hyphen_values = true)]
    sort: Option<Sort>,
    /// Only the first N; not for the classic report.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// List again and again, this often; not for the classic report.
    #[arg(long, value_name = "TIME", value_parser = values::interval)]
    watch: Option<Duration>,
    /// How the table is read. `netlink`: the kernel lists it. `bpf`: a BPF program copies the entries from
    /// the kernel's memory, much faster and without taking conntrack's locks; identifiers of entries and
    /// security contexts cannot be told then (Linux 5.17+; not for the classic report).
    #[arg(long, value_name = "WAY", default_value = "netlink", value_parser = via)]
    via: Via,
    #[command(flatten)]
    filter: FilterArgs,
}

fn via(text: &str) -> Result<Via, String> {
    match text {
        "netlink" => Ok(Via::Netlink),
        "bpf" => Ok(Via::Bpf),
        _ => Err("neither `netlink` nor `bpf`".to_owned()),
    }
}

fn sort(text: &str) -> Result<Sort, String> {
    let (descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, text),
    };
    let column = Column::ALL.iter().find(|(known, _)| *known == name).map(|(_, column)| *column);
    let column = column.ok_or_else(|| {
        let names = Column::ALL.map(|(name, _)| name).join(", ");
        format!("no column `{name}`; there are: {names}")
    })?;
    Ok(Sort { column, descending })
}

pub fn run(args: DumpArgs) -> Result<ExitCode> {
    let DumpArgs { format, netns, no_fold, explain, sort, top, watch, via, filter } = args;
    let (filter, filter_text) = filter.resolve_for_table();
    let netns = netns_choice(netns);
    match format {
        DumpFormat::List(ListFormat::Entries(EntryFormat::Conntrack(_, With { id: true, .. })))
            if via == Via::Bpf =>
        {
            super::bad_usage("`--via bpf` cannot tell identifiers: leave out `id`, or --via")
        }
        DumpFormat::List(_)
            if via == Via::Bpf && sort.is_some_and(|sort| sort.column == Column::Id) =>
        {
            super::bad_usage(
                "`--via bpf` cannot tell identifiers: sort by another column, or leave out --via",
            )
        }
        DumpFormat::List(_) if no_fold || explain => {
            super::bad_usage("--no-fold and --explain are for the format report")
        }
        DumpFormat::List(format) => {
            list::run(&List { netns, filter, filter_text, format, sort, top, watch, via })
        }
        DumpFormat::Report if via == Via::Bpf => {
            super::bad_usage("--via bpf is for the formats plain, xml, save, csv, json and ndjson")
        }
        DumpFormat::Report if sort.is_some() || top.is_some() || watch.is_some() => {
            super::bad_usage(
                "--sort, --top and --watch are for the formats plain, xml, save, csv, json and ndjson",
            )
        }
        DumpFormat::Report => {
            dump::run(&Dump { netns, filter, filter_text, fold: !no_fold, explain })
        }
    }
}
