//! `conntracker dump`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    dump::{self, Dump},
    report::Format,
};

use super::{filter::FilterArgs, trace::netns_choice};

#[derive(Debug, Args)]
#[command(
    mut_arg("dst", |arg| arg.short('d')),
    mut_arg("family", |arg| arg.short('f')),
)]
pub struct DumpArgs {
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
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
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DumpFormat {
    /// The classic report; source ports are folded unless --no-fold.
    #[default]
    Report,
    /// One JSON document; nothing is folded.
    Json,
    /// The same objects, one a line; nothing is folded.
    Ndjson,
}

pub fn run(args: DumpArgs) -> Result<ExitCode> {
    let DumpArgs { format, netns, no_fold, explain, filter } = args;
    let (filter, filter_text) = filter.resolve_for_table();
    dump::run(&Dump {
        netns: netns_choice(netns),
        filter,
        filter_text,
        fold: format == DumpFormat::Report && !no_fold,
        format: match format {
            DumpFormat::Report => Format::Text { explain },
            DumpFormat::Json => Format::Json,
            DumpFormat::Ndjson => Format::Ndjson,
        },
    })
}
