//! `conntracker trace`.

use std::{num::NonZeroU32, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    bpf::{probes::Method, sizes::Sizes},
    capture::{BackendChoice, Config, NetnsChoice, tracing::RuleOptions},
    commands::{
        trace::{self, FollowDrops, Mode, Trace},
        what_if::{self, WhatIf},
    },
    live,
    os::{daemon, output::Destination, scratch},
    recording::{self, Rotate},
    report::{by::Key, drops::DropFormat},
};

use super::{Compat, ReportFormat, filter::FilterArgs, group::GroupArgs, values};

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Run as a daemon: messages to syslog, report to a file, SIGTERM ends it, SIGHUP reopens both.
    #[arg(short = 'd', long, conflicts_with = "foreground")]
    daemon: bool,
    /// Run in the foreground (default): Ctrl-C ends it.
    #[arg(short = 'f', long)]
    foreground: bool,
    /// Write the report to FILE, or to standard output (`-`).
    /// Default: conntracker.log here, or /var/log/conntracker/conntracker.log for -d.
    #[arg(short = 'o', long, value_name = "FILE|-")]
    output: Option<String>,
    /// Record all that is seen in FILE, from which `conntracker report` answers later; without `-o`, instead of a
    /// report. Default: conntracker.rec here, or /var/log/conntracker/conntracker.rec for -d.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    record: Option<PathBuf>,
    /// Record in parts, FILE.000001 and so on: a new one when a part has this many bytes (64M), or this often (1h).
    #[arg(long, value_name = "SIZE|TIME", value_parser = values::rotate, requires = "record")]
    rotate: Option<Rotate>,
    /// Remove the oldest parts when all together have more bytes than this.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, requires = "rotate")]
    keep: Option<u64>,
    /// At the end, predict which of the flows that were seen would change under the rules of FILE, as `report --against`
    /// does; several one after the other. Nothing is loaded.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["daemon", "conntrack_only", "follow_drops", "rotate"])]
    against: Vec<PathBuf>,
    /// Do not trace rules: flows only.
    #[arg(short = 'c', long)]
    conntrack_only: bool,
    /// Trace also one packet in N, by chance, of flows whose paths are known.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "conntrack_only",
        default_value_t = 0,
        hide_default_value = true
    )]
    sample: u32,
    /// Attach links between all base chains of a hook: marks, and drops without counters, chain by
    /// chain, at a higher price for each packet.
    #[arg(long, conflicts_with = "conntrack_only")]
    per_chain: bool,
    /// End after this time: seconds, or 90s, 1m30s, 2h.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Write the report again and again, this often.
    #[arg(long, value_name = "TIME", value_parser = values::interval)]
    interval: Option<Duration>,
    /// Where flows come from.
    #[arg(long, value_enum, default_value_t, value_name = "BACKEND")]
    backend: BackendArg,
    /// How the `probes` backend attaches to functions of the kernel.
    #[arg(long, value_enum, default_value_t, value_name = "METHOD")]
    attach: AttachArg,
    /// Leave this function of the kernel alone (`probes`): what serves in its place is taken, and told;
    /// repeatable.
    #[arg(long, value_name = "FUNCTION", value_parser = values::function)]
    avoid: Vec<String>,
    /// Network namespace to observe: a name, `pid:N`, a path, or `all`; repeatable.
    #[arg(long, value_name = "NAME|all")]
    netns: Vec<String>,
    /// Print dropped packets to standard output as they happen, a line for each. A report is written only with -o.
    #[arg(long, conflicts_with = "daemon")]
    follow_drops: bool,
    /// Print so many dropped packets in a second at most, and tell how many more there were; 0: no limit.
    #[arg(long, value_name = "N", requires = "follow_drops", default_value_t = 100)]
    drops_rate: u32,
    #[command(flatten)]
    group: GroupArgs,
    /// Format of the report, and of dropped packets (text or ndjson).
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    /// Print what version 0.1 of the original tool printed, byte for byte.
    #[arg(long, value_enum, conflicts_with_all = ["format", "no_fold", "explain", "by"])]
    compat: Option<Compat>,
    /// Keep source ports and ICMP identifiers: one line for each flow.
    #[arg(long)]
    no_fold: bool,
    /// Print what else is known of each flow (text format).
    #[arg(long, conflicts_with = "by")]
    explain: bool,
    /// Say details on standard error, such as why other backends were not taken.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Which dropped packets are told.
    #[arg(long, value_enum, default_value_t, value_name = "BY")]
    drops: DropsArg,
    /// Exit with 3 if records were lost, or drops or rules are not told.
    #[arg(long)]
    strict: bool,
    /// Size of the ring buffer.
    #[arg(long, value_name = "BYTES", value_parser = values::size, default_value = "32M")]
    ring_size: u32,
    /// Room for flows: beyond it those that were quiet for the longest time are summed up.
    /// Default: what fits into a quarter of the memory (1300 bytes each).
    #[arg(long, value_name = "N", value_parser = values::max_flows)]
    max_flows: Option<usize>,
    /// Receive buffer of the event sockets (netlink backend).
    #[arg(long, value_name = "BYTES", value_parser = values::size, default_value = "16M")]
    event_buffer: u32,
    /// Pidfile of the daemon.
    #[arg(long, value_name = "FILE", default_value = daemon::PIDFILE, requires = "daemon")]
    pidfile: PathBuf,
    /// Socket at which `conntracker status` reaches this agent. Default: one in /run/conntracker for -d, none otherwise.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum BackendArg {
    /// The most exact one that works here.
    #[default]
    Auto,
    /// Netfilter BPF links (Linux 6.4 and newer).
    Links,
    /// Programs in functions of the kernel (Linux 5.15 and newer).
    Probes,
    /// Conntrack dumps and events; no drops.
    Netlink,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DropsArg {
    /// Those that netfilter drops: rules, policies, conntrack.
    Netfilter,
    /// Those that get lost elsewhere in the kernel, too: no route, no socket, a neighbour that does not answer.
    #[default]
    All,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AttachArg {
    /// By fentry, and where the kernel refuses that by kprobes.
    #[default]
    Auto,
    /// By trampolines (fentry and fexit).
    Fentry,
    /// By kprobes.
    Kprobe,
}

pub fn run(args: TraceArgs) -> Result<ExitCode> {
    if args.daemon && args.output.as_deref() == Some("-") {
        super::bad_usage(
            "a daemon has no standard output: `-d` needs `-o FILE` (or no `-o` at all)",
        );
    }
    if args.against.is_empty() { trace::run(resolve(args)?) } else { run_against(args) }
}

/// Records, in a file that is gone afterwards if none is named, and predicts.
fn run_against(mut args: TraceArgs) -> Result<ExitCode> {
    if args.output.as_deref() == Some("-") {
        super::bad_usage(
            "`--against` prints to standard output: the report of the trace needs `-o FILE`",
        );
    }
    let format = match args.format {
        ReportFormat::Text => what_if::Format::Text,
        ReportFormat::Json => what_if::Format::Json,
        _ => super::bad_usage("`--against` has the formats text and json"),
    };
    let against = std::mem::take(&mut args.against);
    let aside = scratch::directory()?;
    let record = args.record.get_or_insert_with(|| aside.path().join("trace.rec"));
    if record.as_os_str().is_empty() {
        *record = "conntracker.rec".into();
    }
    let what_if = WhatIf {
        source: super::report::whole(record.clone()),
        from: None,
        to: None,
        against,
        established: false,
        destination: Destination::Stdout,
        format,
    };
    what_if::run_after(resolve(args)?, &what_if)
}

/// Command line → what to do.
fn resolve(args: TraceArgs) -> Result<Trace> {
    let TraceArgs {
        daemon,
        foreground: _,
        output,
        record,
        rotate,
        keep,
        against: _,
        conntrack_only,
        sample,
        per_chain,
        duration,
        interval,
        backend,
        attach,
        avoid,
        netns,
        follow_drops,
        drops_rate,
        group,
        format,
        compat,
        no_fold,
        explain,
        strict,
        verbose,
        drops,
        ring_size,
        max_flows,
        event_buffer,
        pidfile,
        socket,
        filter,
    } = args;
    let (filter, filter_text) = filter.resolve();
    if conntrack_only && !filter.rule.is_empty() {
        super::bad_usage("`--rule` asks for rules, which `-c` declines to trace");
    }
    let probes = matches!(backend, BackendArg::Auto | BackendArg::Probes);
    if !probes && !matches!(attach, AttachArg::Auto) {
        super::bad_usage("`--attach` is for the backend `probes`");
    }
    if !probes && !avoid.is_empty() {
        super::bad_usage("`--avoid` is for the backend `probes`");
    }
    if follow_drops && output.as_deref() == Some("-") {
        super::bad_usage("`--follow-drops` prints to standard output: the report needs `-o FILE`");
    }
    let drop_format = match format {
        ReportFormat::Json if follow_drops => {
            super::bad_usage("`--follow-drops` prints lines: use `--format text` or `ndjson`")
        }
        ReportFormat::Ndjson => DropFormat::Ndjson,
        _ => DropFormat::Text,
    };
    let follow = follow_drops
        .then_some(FollowDrops { format: drop_format, rate: NonZeroU32::new(drops_rate) });
    let record = record.map(|path| recording(path, daemon, rotate, keep)).transpose()?;
    let output = output.or_else(|| {
        let default = if daemon { daemon::REPORT } else { "conntracker.log" };
        (record.is_none() && !follow_drops).then(|| default.to_owned())
    });
    let destination = match output.map(|output| Destination::new(&output)) {
        // The daemon changes to /.
        Some(Destination::File(path)) => Some(Destination::File(std::path::absolute(path)?)),
        other => other,
    };
    let key = group.key();
    if conntrack_only && key.is_some_and(Key::needs_rules) {
        super::bad_usage("`--by rule` asks for rules, which `-c` declines to trace");
    }
    let groups = group.resolve(format);
    let format = groups.unwrap_or_else(|| super::report_format(format, compat, explain));
    // Flows that fold may be of several groups.
    let no_fold = no_fold || key.is_some_and(|key| !key.folded_key_decides());
    Ok(Trace {
        config: Config {
            netns: netns_choice(netns),
            backend: match backend {
                BackendArg::Auto => BackendChoice::Auto,
                BackendArg::Links => BackendChoice::Links,
                BackendArg::Probes => BackendChoice::Probes,
                BackendArg::Netlink => BackendChoice::Netlink,
            },
            attach: match attach {
                AttachArg::Auto => None,
                AttachArg::Fentry => Some(Method::Fentry),
                AttachArg::Kprobe => Some(Method::Kprobe),
            },
            avoid,
            filter,
            filter_text,
            fold: !no_fold,
            rules: (!conntrack_only).then_some(RuleOptions {
                sample,
                per_chain,
                sampling: true,
                coverage: false,
                folds: !no_fold,
                record: record.is_some(),
            }),
            lost: matches!(drops, DropsArg::All),
            max_flows: max_flows.unwrap_or_else(live::max_flows),
            leave_written: daemon,
            record,
            sizes: Sizes { ring_bytes: ring_size, ..live::sizes() },
            event_buffer: event_buffer as usize,
        },
        mode: if daemon {
            Mode::Daemon { pidfile: std::path::absolute(pidfile)? }
        } else {
            Mode::Foreground
        },
        destination,
        socket: socket.map(std::path::absolute).transpose()?,
        format,
        follow,
        duration,
        interval,
        strict,
        verbose,
    })
}

/// Where to record; without a name, to the default.
fn recording(
    mut path: PathBuf,
    daemon: bool,
    rotate: Option<Rotate>,
    keep: Option<u64>,
) -> Result<recording::Options> {
    if path.as_os_str().is_empty() {
        path = if daemon { daemon::RECORDING } else { "conntracker.rec" }.into();
    }
    Ok(recording::Options { path: std::path::absolute(path)?, rotate, keep })
}

/// `--netns`, repeated or not.
pub(super) fn netns_choice(names: Vec<String>) -> NetnsChoice {
    if names.is_empty() {
        NetnsChoice::Current
    } else if names.iter().any(|name| name == "all") {
        NetnsChoice::All
    } else {
        NetnsChoice::Named(names)
    }
}
