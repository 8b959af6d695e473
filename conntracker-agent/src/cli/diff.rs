//! `conntracker diff`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    commands::{
        diff::{self, Diff, FailOn, Format, Sides},
        report::{Folding, Room, Source, When},
    },
    os::output::Destination,
};

use super::{filter::FilterArgs, report::recorded_filter};

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The recording of before; alone with `--at` or `--epoch`.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The recording of after.
    #[arg(value_name = "B", required_unless_present_any = ["at", "epoch"], conflicts_with_all = ["at", "epoch"])]
    after: Option<PathBuf>,
    /// Compare two times of one recording: what was seen until the first, and from then until the second.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, num_args = 1, conflicts_with = "epoch")]
    at: Vec<When>,
    /// Compare what was seen before this epoch of the ruleset began, and since.
    #[arg(long, value_name = "N")]
    epoch: Option<u32>,
    /// Write the differences to FILE.
    #[arg(
        short = 'o',
        long,
        value_name = "FILE|-",
        default_value = "-",
        hide_default_value = true
    )]
    output: String,
    /// Format of the differences.
    #[arg(long, value_enum, default_value_t)]
    format: DiffFormat,
    /// Differences that make the exit status 1; several with commas.
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',', default_value = "fate")]
    fail_on: Vec<FailOnArg>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DiffFormat {
    /// Lines, the worst first.
    #[default]
    Text,
    /// For a change request.
    Markdown,
    /// One JSON document.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOnArg {
    /// Packets pass that did not, or do not that did.
    Fate,
    /// Packets met other rules.
    Path,
    /// Addresses are translated otherwise.
    Nat,
    /// Connmarks differ.
    Mark,
    /// Rules that packets met before alone, or after alone.
    Rules,
    /// Flows appeared or vanished.
    Flows,
    /// Nothing.
    None,
}

pub fn run(args: DiffArgs) -> Result<ExitCode> {
    let DiffArgs { before, after, at, epoch, output, format, fail_on, filter } = args;
    let (filter, filter_text) = filter.resolve();
    let source = |file: PathBuf| Source {
        files: vec![file],
        filter: filter.clone(),
        filter_text: filter_text.clone(),
        recorded_filter,
        folding: Folding::Fold,
        room: Room::default(),
        live: false,
    };
    let sides = match (after, epoch, &at[..]) {
        (Some(after), ..) => Sides::Two(Box::new([source(before), source(after)])),
        (_, Some(epoch), _) => Sides::Epoch(Box::new(source(before)), epoch),
        (_, _, &[first, second]) => Sides::At(Box::new(source(before)), first, second),
        _ => super::bad_usage("`--at` must be given twice: `diff FILE --at 03:00 --at 04:00`"),
    };
    let fail_on = fail_on.into_iter().filter_map(|what| {
        Some(match what {
            FailOnArg::Fate => FailOn::Fate,
            FailOnArg::Path => FailOn::Path,
            FailOnArg::Nat => FailOn::Nat,
            FailOnArg::Mark => FailOn::Mark,
            FailOnArg::Rules => FailOn::Rules,
            FailOnArg::Flows => FailOn::Flows,
            FailOnArg::None => return None,
        })
    });
    diff::run(&Diff {
        sides,
        destination: Destination::new(&output),
        format: match format {
            DiffFormat::Text => Format::Text,
            DiffFormat::Markdown => Format::Markdown,
            DiffFormat::Json => Format::Json,
        },
        fail_on: fail_on.collect(),
    })
}
