//! `conntracker rules diff`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use conntracker::commands::rules::{
    Origin,
    difference::{self, RulesDiff},
};

use super::{RulesFormat, origin::origin};
use crate::cli::report::whole;

/// The word for the kernel's rules.
const LIVE: &str = "live";

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 no packet that was tried is treated otherwise, 1 some are, or failure, 2 bad usage."
)]
pub(super) struct DiffRulesArgs {
    /// Rules of before: `live`, a recording, or a file for `nft -f` or iptables-restore.
    #[arg(value_name = "A")]
    before: String,
    /// Rules of after: the same.
    #[arg(value_name = "B")]
    after: String,
    /// Network namespace of `live`: a name, `pid:N` or a path; of recordings the name of one that they have.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// A recording whose flows are evaluated, too; otherwise those of A, if it is one.
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// Packets at and beside the constants of both rulesets, at most.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    packets: u32,
    /// Format of the list.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
}

pub(super) fn run(args: DiffRulesArgs) -> Result<ExitCode> {
    let DiffRulesArgs { before, after, netns, flows, packets, format } = args;
    let side = |name: String| -> Origin {
        let file = (name != LIVE).then(|| PathBuf::from(name));
        origin(file, netns.clone())
    };
    difference::run(&RulesDiff {
        sides: [side(before), side(after)],
        flows: flows.map(|file| Box::new(whole(file))),
        netns: netns.clone(),
        packets: packets as usize,
        format: format.into(),
    })
}
