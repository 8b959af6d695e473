//! The command line: definitions and their validation. What it asks for is done by the library.

pub mod conntrack;
mod diff;
mod doctor;
mod dump;
mod explain;
mod filter;
mod format;
mod group;
mod report;
mod rules;
mod status;
mod table;
mod trace;
mod values;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use conntracker::{
    firewall::scratch,
    model::harmless::{OneLine, lines},
    report::{Format, path::Style},
};

/// Which flows exist on this firewall, and what became of them, without a TRACE rule.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a command, `trace` is meant: `conntracker -o flows.txt` is `conntracker trace -o flows.txt`.\n\
                  Exit status: 0 fine, 1 failure or no whole answer, 2 bad usage, 3 records were lost (with --strict),\n\
                  130 interrupted twice."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    trace: trace::TraceArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Observe flows and drops, and write a report at the end (default).
    Trace(Box<trace::TraceArgs>),
    /// List the flows that conntrack has now.
    Dump(Box<dump::DumpArgs>),
    /// Count the entries of conntrack's table.
    Count(Box<table::CountArgs>),
    /// Say how full conntrack's table is, and what each CPU has counted.
    Stats(table::StatsArgs),
    /// Print one entry of conntrack's table.
    Get(table::GetArgs),
    /// Make an entry in conntrack's table.
    Create(Box<table::CreateArgs>),
    /// Change entries of conntrack's table.
    Update(Box<table::UpdateArgs>),
    /// Remove entries from conntrack's table.
    Delete(Box<table::DeleteArgs>),
    /// Remove all entries from conntrack's table.
    Flush(table::FlushArgs),
    /// Print what happens in conntrack's table, as it happens.
    Events(Box<table::EventsArgs>),
    /// Do what conntrack(8) does, argument for argument.
    Conntrack(conntrack::ConntrackArgs),
    /// Report what recordings have.
    Report(Box<report::ReportArgs>),
    /// Compare two recordings: which flows pass that did not, or do not that did, and by which rule.
    Diff(Box<diff::DiffArgs>),
    /// Show the firewall rules as traces name them.
    Rules(rules::RulesArgs),
    /// Say what the firewall would do with a packet: each rule that it meets, and its fate.
    Explain(Box<explain::ExplainArgs>),
    /// Compile rules in a namespace of its own: for the program itself.
    #[command(hide = true, name = scratch::COMMAND)]
    Scratch,
    /// Say what a running agent does: since when, with what, what it has lost.
    Status(status::StatusArgs),
    /// Say what this kernel offers, what is missing, and how to fix it.
    Doctor(doctor::DoctorArgs),
}

/// Formats of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// The classic report.
    #[default]
    Text,
    /// Each step of the packets, in order, for reading.
    Path,
    /// One JSON document.
    Json,
    /// The same objects, one a line.
    Ndjson,
    /// A page for a browser: one file that needs nothing else.
    Html,
    /// Comma-separated values, of groups (--by).
    Csv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compat {
    /// Version 0.1 of the original conntracker.
    #[value(name = "v0.1")]
    V01,
}

/// The format of a report.
fn report_format(format: ReportFormat, compat: Option<Compat>, explain: bool) -> Format {
    match (compat, format) {
        (Some(Compat::V01), _) => Format::V01,
        (None, ReportFormat::Text) => Format::Text { explain },
        (None, ReportFormat::Path) => Format::Path(Style::Plain),
        (None, ReportFormat::Json) => Format::Json,
        (None, ReportFormat::Ndjson) => Format::Ndjson,
        (None, ReportFormat::Html) => Format::Html,
        (None, ReportFormat::Csv) => bad_usage("`--format csv` is for groups (`trace --by KEY`)"),
    }
}

/// Runs what the command line asks for.
pub fn run() -> Result<ExitCode> {
    let Cli { command, trace } =
        Cli::try_parse().unwrap_or_else(|error| refuse(&one_line_error(error)));
    match command {
        None => trace::run(trace),
        Some(Command::Trace(args)) => trace::run(*args),
        Some(Command::Dump(args)) => dump::run(*args),
        Some(Command::Count(args)) => table::count(*args),
        Some(Command::Stats(args)) => table::stats(args),
        Some(Command::Get(args)) => table::get(&args),
        Some(Command::Create(args)) => table::create(*args),
        Some(Command::Update(args)) => table::update(*args),
        Some(Command::Delete(args)) => table::delete(*args),
        Some(Command::Flush(args)) => table::flush(&args),
        Some(Command::Events(args)) => table::events(*args),
        Some(Command::Conntrack(args)) => Ok(args.run()),
        Some(Command::Report(args)) => report::run(*args),
        Some(Command::Diff(args)) => diff::run(*args),
        Some(Command::Rules(args)) => rules::run(args),
        Some(Command::Explain(args)) => explain::run(*args),
        Some(Command::Scratch) => {
            scratch::work(std::io::stdin(), std::io::stdout()).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Status(args)) => status::run(args),
        Some(Command::Doctor(args)) => doctor::run(&args),
    }
}

/// Options that make no sense together: says why and exits with 2.
fn bad_usage(why: &str) -> ! {
    refuse(&Cli::command().error(ErrorKind::ArgumentConflict, OneLine(why)))
}

/// The same error with its arguments in one line each, because scripts may pass names that others chose.
fn one_line_error(error: clap::Error) -> clap::Error {
    let clean = std::env::args_os().map(|arg| OneLine(&arg.to_string_lossy()).to_string());
    match Cli::try_parse_from(clean) {
        Err(clean) if clean.kind() == error.kind() => clean,
        _ => error,
    }
}

/// Says what was wrong, or what was asked for (`--help`), and ends.
fn refuse(error: &clap::Error) -> ! {
    if error.use_stderr() {
        eprint!("{}", lines(&error.to_string()));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn trace_is_the_default_command() {
        let cli = Cli::try_parse_from(["conntracker", "-c", "-o", "-"]).unwrap();
        assert!(cli.command.is_none());
        let cli = Cli::try_parse_from(["conntracker", "trace", "-c"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Trace(_))));
    }

    #[test]
    fn bad_usage_is_an_error_not_a_guess() {
        for args in [
            &["conntracker", "--duration", "soon"][..],
            &["conntracker", "--mark", "x"],
            &["conntracker", "-d", "-f"],
            &["conntracker", "--format", "json", "--compat", "v0.1"],
            &["conntracker", "--compat", "v0.1", "--no-fold"],
            &["conntracker", "dump", "--format", "yaml"],
            &["conntracker", "--sport", "9-1"],
            &["conntracker", "--ring-size", "5"],
        ] {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
    }
}
