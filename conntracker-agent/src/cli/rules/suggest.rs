//! `conntracker rules suggest`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::commands::rules::suggest::{self, Language, Suggest};

use super::RulesFormat;
use crate::cli::report::whole;

#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    /// A recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The namespace of the recording, if it has several.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// What the rules are written for.
    #[arg(long = "as", value_enum, default_value_t)]
    language: LanguageArg,
    /// Where several addresses of a /24 (IPv6: /64) were seen, accept all of it.
    #[arg(long)]
    aggregate: bool,
    /// Format: the rules with comments, or what they consist of.
    #[arg(long, value_enum, default_value_t)]
    format: RulesFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LanguageArg {
    /// `nft -f`.
    #[default]
    Nft,
    /// iptables-restore: flows of IPv4 alone.
    Iptables,
    /// ip6tables-restore: flows of IPv6 alone.
    Ip6tables,
}

pub(super) fn run(args: SuggestArgs) -> Result<ExitCode> {
    let SuggestArgs { file, netns, language, aggregate, format } = args;
    suggest::run(&Suggest {
        source: Box::new(whole(file)),
        netns,
        language: match language {
            LanguageArg::Nft => Language::Nft,
            LanguageArg::Iptables => Language::Iptables,
            LanguageArg::Ip6tables => Language::Ip6tables,
        },
        aggregate,
        format: format.into(),
    })
}
