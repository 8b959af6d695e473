//! `conntracker report`.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, ValueEnum};
use conntracker::{
    commands::{
        report::{self, Folding, Offline, Room, Sort, Source, When},
        what_if::{self, WhatIf},
    },
    live,
    model::filter::Filter,
    os::{daemon, output::Destination},
    report::{
        Format,
        by::{self, GroupOptions, Key},
    },
};

use super::{Compat, ReportFormat, filter::FilterArgs, group, values};

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Recordings: files, names of recordings without the numbers of their parts, directories, `-` for standard input.
    #[arg(value_name = "FILE", required_unless_present = "live")]
    files: Vec<PathBuf>,
    /// Report what a running `conntracker trace --record` sees now: of FILE, by default that of the daemon, the part
    /// that is being written.
    #[arg(long)]
    live: bool,
    /// Go on with what is added to the recording, and to parts that are made later: every --interval a report of what
    /// was seen since the last one, until the writer ends it.
    #[arg(long, conflicts_with_all = ["to", "nat_port", "output", "compat", "memory"])]
    follow: bool,
    /// Time between two reports of --follow, in seconds or with a unit (10s, 1m30s).
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "10s", requires = "follow")]
    interval: Duration,
    /// Only what was seen from this time on: 2026-11-29T03:12:00Z, "2026-11-29 03:12", 03:12 (local time), or -1h for
    /// an hour before the end.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    from: Option<When>,
    /// Only what was seen until this time.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    to: Option<When>,
    /// Only flows whose source was translated to this port at the time `--at`: who had it then.
    #[arg(long, value_name = "PORT", requires = "at", conflicts_with_all = ["from", "to"])]
    nat_port: Option<u16>,
    /// The time for `--nat-port`.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, requires = "nat_port")]
    at: Option<When>,
    /// Write the report to FILE.
    #[arg(
        short = 'o',
        long,
        value_name = "FILE|-",
        default_value = "-",
        hide_default_value = true
    )]
    output: String,
    /// Format of the report.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    /// Print what version 0.1 of the original tool printed, byte for byte.
    #[arg(long, value_enum, conflicts_with_all = ["format", "no_fold", "explain"])]
    compat: Option<Compat>,
    /// Print what else is known of each flow (text format).
    #[arg(long)]
    explain: bool,
    /// Fold flows although they were recorded one by one.
    #[arg(long, conflicts_with = "no_fold")]
    fold: bool,
    /// Do not fold flows, as far as they were recorded one by one.
    #[arg(long)]
    no_fold: bool,
    /// Report groups in the place of flows, as `trace --by` does.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["explain", "compat"])]
    by: Option<Key>,
    /// Order of the flows, highest first; in a report they are ordered by protocol, addresses and ports. Order of the
    /// groups, if there are any.
    #[arg(long, value_enum, value_name = "KEY")]
    sort: Option<SortArg>,
    /// Only the first N flows, or groups.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Hash all names and leave out texts; of addresses keep only which prefixes they have in common: to be shown to
    /// others.
    #[arg(long)]
    anonymize: bool,
    /// Exit with 3 if something was lost, or the recording is damaged.
    #[arg(long)]
    strict: bool,
    /// Memory for flows; those beyond it are kept, and sorted, in temporary files in TMPDIR or /var/tmp.
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = values::bytes,
        default_value = "256M",
        conflicts_with = "max_flows"
    )]
    memory: u64,
    /// Predict which of the flows would change under other rules, and by which rule: of a file that nft or
    /// iptables-restore loads (repeatable), or the last ones of another recording. The exit status is 1 if something
    /// would change, 4 if something may.
    #[arg(
        long,
        value_name = "RULES|RECORDING",
        conflicts_with_all = ["follow", "nat_port", "compat", "explain", "by", "sort", "top", "anonymize", "strict"]
    )]
    against: Vec<PathBuf>,
    /// Ask about flows that exist when these rules are loaded, not about flows that begin under them.
    #[arg(long, requires = "against")]
    established: bool,
    /// Room for flows: beyond it those that were quiet for the longest time are summed up.
    #[arg(long, value_name = "N", value_parser = values::max_flows)]
    max_flows: Option<usize>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArg {
    /// Bytes of both directions.
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Packets that netfilter dropped.
    Drops,
    /// Packets that got lost elsewhere.
    Lost,
    /// Conntrack flows.
    Flows,
    /// When they began.
    First,
    /// When something was seen last.
    Last,
    /// From the first to the last packet seen.
    Duration,
    /// The key of groups (--by).
    Name,
}

impl SortArg {
    /// Of flows.
    fn of_flows(self) -> Sort {
        match self {
            Self::Bytes => Sort::Bytes,
            Self::Packets => Sort::Packets,
            Self::Drops => Sort::Drops,
            Self::Lost => Sort::Lost,
            Self::Flows => Sort::Flows,
            Self::First => Sort::First,
            Self::Last => Sort::Last,
            Self::Duration => Sort::Duration,
            Self::Name => super::bad_usage("`--sort name` is for groups (--by)"),
        }
    }

    /// Of groups.
    fn of_groups(self) -> by::Sort {
        match self {
            Self::Bytes => by::Sort::Bytes,
            Self::Packets => by::Sort::Packets,
            Self::Drops => by::Sort::Drops,
            Self::Lost => by::Sort::Lost,
            Self::Flows => by::Sort::Flows,
            Self::Name => by::Sort::Name,
            Self::First | Self::Last | Self::Duration => {
                super::bad_usage("groups have no times: --sort with --by is for counts and names")
            }
        }
    }
}

pub fn run(args: ReportArgs) -> Result<ExitCode> {
    let ReportArgs {
        mut files,
        live: running,
        follow,
        interval,
        from,
        to,
        nat_port,
        at,
        output,
        format,
        compat,
        explain,
        fold,
        no_fold,
        by,
        sort,
        top,
        anonymize,
        strict,
        memory,
        max_flows,
        against,
        established,
        filter,
    } = args;
    if !against.is_empty() && !matches!(format, ReportFormat::Text | ReportFormat::Json) {
        super::bad_usage("`--against` has the formats text and json");
    }
    let json = matches!(format, ReportFormat::Json);
    let (format, sort, top) = if let Some(key) = by {
        let first = top.map(NonZeroUsize::new);
        if first == Some(None) {
            super::bad_usage("--top 0 leaves no group");
        }
        let sort = sort.map(SortArg::of_groups);
        let options = GroupOptions { key, sort, top: first.flatten() };
        (group::of_groups(options, format), None, None)
    } else {
        let format = super::report_format(format, compat, explain);
        (format, sort.map(SortArg::of_flows), top)
    };
    if follow && matches!(format, Format::Html | Format::V01) {
        super::bad_usage(
            "--follow prints one report after the other: text, path, json, ndjson, or groups",
        );
    }
    // Flows that fold may be of several groups.
    let one_by_one = by.is_some_and(|key| !key.folded_key_decides());
    let (filter, filter_text) = filter.resolve();
    if files.is_empty() {
        files.push(daemon::RECORDING.into());
    }
    let source = Source {
        files,
        filter,
        filter_text,
        recorded_filter,
        folding: match (fold, no_fold) {
            (true, _) => Folding::Fold,
            (false, no_fold) if no_fold || one_by_one => Folding::NoFold,
            _ => Folding::AsRecorded,
        },
        room: match max_flows {
            Some(most) => Room::Flows(most),
            None if follow => Room::Flows(live::max_flows()),
            None => Room::within(memory),
        },
        live: running,
    };
    let destination = Destination::new(&output);
    if !against.is_empty() {
        return what_if::run(&WhatIf {
            source,
            from,
            to,
            against,
            established,
            destination,
            format: if json { what_if::Format::Json } else { what_if::Format::Text },
        });
    }
    report::run(&Offline {
        source,
        from,
        to,
        nat_port: nat_port.zip(at),
        sort,
        top,
        follow: follow.then_some(interval),
        destination,
        format,
        anonymize,
        strict,
    })
}

/// All of a recording; its flows are not folded, as far as they were recorded one by one.
pub(super) fn whole(file: PathBuf) -> Source {
    Source {
        files: vec![file],
        filter: Filter::default(),
        filter_text: Vec::new(),
        recorded_filter,
        folding: Folding::NoFold,
        room: Room::default(),
        live: false,
    }
}

/// The filter of a live run, which a recording has as options.
pub(super) fn recorded_filter(options: &[String]) -> Result<Filter, String> {
    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        filter: FilterArgs,
    }
    let arguments = options.iter().map(|option| match option.split_once(' ') {
        Some((name, value)) => format!("{name}={value}"),
        None => option.clone(),
    });
    match Options::try_parse_from(["conntracker".to_owned()].into_iter().chain(arguments)) {
        Ok(Options { filter }) => Ok(filter.resolve().0),
        Err(_) => Err(format!(
            "the recording was made with a filter that this version does not know: {}",
            options.join(" ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_filter_is_read_back() {
        #[derive(Debug, Parser)]
        struct Options {
            #[command(flatten)]
            filter: FilterArgs,
        }
        let given = [
            "x",
            "--proto",
            "tcp",
            "--proto",
            "!udp",
            "--src",
            "10.0.0.0/8",
            "--dport",
            "80-90",
            "--sport",
            "!22",
            "--state",
            "established",
            "--status",
            "assured",
            "--mark",
            "0x10/0xff",
            "--zone",
            "7",
            "--family",
            "ipv4",
            "--iif",
            "eth0",
            "--oif",
            "!eth1",
            "--dropped",
            "--rule",
            "inet filter/forward/3",
            "--nat=192.0.2.1",
            "--helper",
            "ftp",
            "--label",
            "3",
            "--host",
            "10.1.0.0/16",
            "--port",
            "53",
        ];
        let (filter, text) = Options::try_parse_from(given).unwrap().filter.resolve();
        assert_eq!(recorded_filter(&text).unwrap(), filter, "{text:?}");
        assert!(recorded_filter(&["--moon full".to_owned()]).unwrap_err().contains("--moon full"));
        assert_eq!(recorded_filter(&[]).unwrap(), Filter::default());
    }
}
