//! `conntracker rules shadowed`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use conntracker::commands::rules::shadowed::{self, Shadowed};

use super::{
    RulesFormat,
    origin::{file_and_table, origin},
};

#[derive(Debug, Args)]
pub(super) struct ShadowedArgs {
    /// Network namespace: a name, `pid:N` or a path; of a recording the name of one that it has.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// List the rules that packets meet, too, each with such a packet.
    #[arg(long)]
    all: bool,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
    /// A recording, or rules for `nft -f` or iptables-restore, in the place of the kernel's rules; then only this
    /// table, or only this chain: `filter`, `filter/INPUT`, `inet fw4/forward`.
    #[arg(value_name = "[FILE] [TABLE[/CHAIN]]", num_args = 0..=2, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    what: Vec<String>,
}

pub(super) fn run(args: ShadowedArgs) -> Result<ExitCode> {
    let ShadowedArgs { netns, all, format, what } = args;
    let (file, only) = file_and_table(what);
    shadowed::run(&Shadowed { origin: origin(file, netns), only, all, format: format.into() })
}
