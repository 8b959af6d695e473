//! `conntracker rules unused`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use conntracker::commands::rules::unused::{self, Unused};

use super::{
    RulesFormat,
    origin::{file_and_table, origin},
};

#[derive(Debug, Args)]
pub(super) struct UnusedArgs {
    /// Network namespace: a name, `pid:N` or a path; of a recording the name of one that it has.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
    /// A recording in the place of the kernel's counters; then only this table, or only this chain: `filter`,
    /// `filter/INPUT`, `inet fw4/forward`.
    #[arg(value_name = "[FILE] [TABLE[/CHAIN]]", num_args = 0..=2, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    what: Vec<String>,
}

pub(super) fn run(args: UnusedArgs) -> Result<ExitCode> {
    let UnusedArgs { netns, format, what } = args;
    let (file, only) = file_and_table(what);
    unused::run(&Unused { origin: origin(file, netns), only, format: format.into() })
}
