//! `conntracker rules order`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use conntracker::commands::rules::order::{self, RuleOrder};

use super::{
    RulesFormat,
    origin::{file_and_table, origin},
};

#[derive(Debug, Args)]
pub(super) struct OrderArgs {
    /// Network namespace: a name, `pid:N` or a path; of a recording the name of one that it has.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Packets at and beside the constants of the rules by which the new order is compared, at most.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    packets: u32,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
    /// A recording in the place of the kernel's rules and counters; then only this table, or only this chain:
    /// `filter`, `filter/INPUT`, `inet fw4/forward`.
    #[arg(value_name = "[FILE] [TABLE[/CHAIN]]", num_args = 0..=2, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    what: Vec<String>,
}

pub(super) fn run(args: OrderArgs) -> Result<ExitCode> {
    let OrderArgs { netns, packets, format, what } = args;
    let (file, only) = file_and_table(what);
    let origin = origin(file, netns);
    order::run(&RuleOrder { origin, only, packets: packets as usize, format: format.into() })
}
