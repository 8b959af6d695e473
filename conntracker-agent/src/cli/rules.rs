//! `conntracker rules`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use conntracker::rules::{self, Format, Show};

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Print the tables, chains and rules of nft and iptables, as traces name them.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Network namespace to look at: a name, `pid:N` or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
    /// Only this table, or only this chain: `filter`, `filter/INPUT`, `inet fw4/forward`.
    #[arg(value_name = "TABLE[/CHAIN]", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    only: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RulesFormat {
    /// Chains as tables for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

pub fn run(args: RulesArgs) -> Result<ExitCode> {
    let RulesCommand::Show(ShowArgs { netns, format, only }) = args.command;
    rules::show(&Show {
        netns,
        format: match format {
            RulesFormat::Text => Format::Text,
            RulesFormat::Json => Format::Json,
        },
        only,
    })
}
