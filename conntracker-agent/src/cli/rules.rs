//! `conntracker rules`.

mod difference;
mod order;
mod origin;
mod shadowed;
mod suggest;
mod unused;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use conntracker::commands::rules::{self, Format, Show, Watch};

use super::values;

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Print the tables, chains and rules of nft and iptables, as traces name them.
    Show(ShowArgs),
    /// Observe packets, then print the rules with the flows that met them, and which rules none met.
    Hits(HitsArgs),
    /// Find rules that no packet can meet, because rules before them take all of theirs: each with its proof.
    Shadowed(shadowed::ShadowedArgs),
    /// Find rules that no packet matched, by the kernel's counters or in a recording: each with its evidence.
    Unused(unused::UnusedArgs),
    /// Compare two rulesets: packets that they treat otherwise, and the rules that decide.
    Diff(difference::DiffRulesArgs),
    /// Propose an order in which fewer rules are evaluated, and no packet is treated otherwise.
    Order(order::OrderArgs),
    /// Write the smallest set of rules that accepts the flows that passed in a recording.
    Suggest(suggest::SuggestArgs),
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

#[derive(Debug, Args)]
struct HitsArgs {
    /// Network namespace to observe: a name, `pid:N` or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// End after this time: seconds, or 90s, 1m30s, 2h; otherwise with Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RulesFormat {
    /// Chains as tables for people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl From<RulesFormat> for Format {
    fn from(format: RulesFormat) -> Self {
        match format {
            RulesFormat::Text => Self::Text,
            RulesFormat::Json => Self::Json,
        }
    }
}

pub fn run(args: RulesArgs) -> Result<ExitCode> {
    match args.command {
        RulesCommand::Show(ShowArgs { netns, format, only }) => {
            rules::show(&Show { netns, format: format.into(), only })
        }
        RulesCommand::Hits(HitsArgs { netns, duration, format }) => {
            rules::watch(Watch { netns, duration, format: format.into() })
        }
        RulesCommand::Shadowed(args) => shadowed::run(args),
        RulesCommand::Unused(args) => unused::run(args),
        RulesCommand::Diff(args) => difference::run(args),
        RulesCommand::Order(args) => order::run(args),
        RulesCommand::Suggest(args) => suggest::run(args),
    }
}
