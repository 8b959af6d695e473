//! `cargo xtask bench dump`: how long it takes to list conntrack's table, with conntrack(8) as the peer.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conntracker_tests::lab::{Host, Lab};

use super::table::median;

/// How many entries the machine lets there be.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

#[derive(clap::Args)]
pub struct Args {
    /// Entries in the table.
    #[arg(long, default_value_t = 200_000)]
    flows: u32,
    /// Rounds; in each, everything is measured once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        let Self { flows, rounds, binary: _ } = self;
        ["dump", "--flows", &flows.to_string(), "--rounds", &rounds.to_string()]
            .map(str::to_owned)
            .into()
    }
}

/// What is measured: a title, the arguments behind the program, and with what it is compared.
struct Subject {
    title: &'static str,
    ours: bool,
    args: &'static [&'static str],
    peer: usize,
    to_file: bool,
}

const fn theirs(title: &'static str, args: &'static [&'static str], to_file: bool) -> Subject {
    Subject { title, ours: false, args, peer: 0, to_file }
}

const fn ours(
    title: &'static str,
    args: &'static [&'static str],
    peer: usize,
    to_file: bool,
) -> Subject {
    Subject { title, ours: true, args, peer, to_file }
}

/// Peers stand before what is compared with them.
const SUBJECTS: &[Subject] = &[
    theirs("`conntrack -L` > /dev/null", &["-L"], false),
    ours("`conntracker dump --format plain` > /dev/null", &["dump", "--format", "plain"], 0, false),
    ours("`conntracker dump --format csv` > /dev/null", &["dump", "--format", "csv"], 0, false),
    theirs("`conntrack -L` > file", &["-L"], true),
    ours("`conntracker dump --format plain` > file", &["dump", "--format", "plain"], 3, true),
    theirs("`conntrack -L -o xml` > /dev/null", &["-L", "-o", "xml"], false),
    ours("`conntracker dump --format xml` > /dev/null", &["dump", "--format", "xml"], 5, false),
    ours(
        "`conntracker dump --format ndjson` > /dev/null",
        &["dump", "--format", "ndjson"],
        5,
        false,
    ),
    theirs("`conntrack -L -m 7`, one entry", &["-L", "-m", "7"], false),
    ours(
        "`conntracker dump --format plain -m 7`",
        &["dump", "--format", "plain", "-m", "7"],
        0,
        false,
    ),
    ours(
        "`conntracker dump --format plain -w 5`",
        &["dump", "--format", "plain", "-w", "5"],
        0,
        false,
    ),
    ours(
        "`conntracker dump --format plain -s 192.0.2.1`",
        &["dump", "--format", "plain", "-s", "192.0.2.1"],
        0,
        false,
    ),
];

/// Measures; the caller is root.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    let Args { flows, rounds, binary: _ } = args;
    let max: u32 = fs::read_to_string(MAX).context(MAX)?.trim().parse().context(MAX)?;
    ensure!(
        *flows < max,
        "the machine lets there be {max} entries: `sysctl -w net.netfilter.nf_conntrack_max=N`, or fewer --flows"
    );
    let lab = Lab::new()?;
    let directory = fs::canonicalize(std::env::temp_dir())?;
    let file = directory.join(format!("conntracker-bench-{}", std::process::id()));
    let result = in_lab(&lab.router, args, binary, &file);
    // What is left of it, whatever became of the measurement.
    let _ = fs::remove_file(&file);
    let (samples, memory) = result?;
    println!("{flows} entries, {rounds} rounds\n");
    println!("| listing | ms (median) | ratio to its peer |\n|---|---:|---:|");
    for (subject, costs) in SUBJECTS.iter().zip(&samples) {
        let peer = if subject.ours { &samples[subject.peer] } else { costs };
        let ratios = costs.iter().zip(peer).map(|(cost, peer)| cost / peer).collect();
        println!("| {} | {:.0} | {:.3} |", subject.title, median(costs.clone()), median(ratios));
    }
    println!("\npeak memory of `conntracker dump --format plain`: {memory} KiB");
    Ok(())
}

/// Milliseconds of each subject in each round, and the peak memory of the first listing of ours in KiB.
fn in_lab(host: &Host, args: &Args, binary: &Path, file: &Path) -> Result<(Vec<Vec<f64>>, u64)> {
    fill(host, args.flows, file)?;
    let memory = peak_memory(host, binary)?;
    let mut samples = vec![Vec::new(); SUBJECTS.len()];
    for round in 1..=args.rounds {
        for (subject, samples) in SUBJECTS.iter().zip(&mut samples) {
            let took = run(host, binary, subject, subject.to_file.then_some(file))?;
            eprintln!("round {round}: {} {:.0} ms", subject.title, took.as_secs_f64() * 1e3);
            samples.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok((samples, memory))
}

/// Makes entries, by conntrack(8): one of them with a mark, a zone and an address of its own.
fn fill(host: &Host, flows: u32, file: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    for n in 1..flows {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(
            out,
            "-I -t 36000 -u SEEN_REPLY,ASSURED -p tcp -s 10.{a}.{b}.{c} -d 198.51.100.2 --sport {} --dport 443 --state ESTABLISHED",
            1024 + n % 60_000
        )?;
    }
    writeln!(out, "-I -t 36000 -p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 2 -m 7 -w 5")?;
    out.flush()?;
    let mut command = host.command("conntrack");
    let status =
        command.arg("-R").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "conntrack -R: {status}");
    let count = host.run(["conntrack", "-C"])?;
    ensure!(count.trim() == flows.to_string(), "{} entries instead of {flows}", count.trim());
    Ok(())
}

/// The most memory that a listing of ours had (VmHWM of proc_pid_status(5), in KiB), looked at until it
/// ends.
fn peak_memory(host: &Host, binary: &Path) -> Result<u64> {
    let mut command = host.command(binary);
    command.args(SUBJECTS[1].args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or_default());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(peak)
}

/// Runs a listing to its end.
fn run(host: &Host, binary: &Path, subject: &Subject, file: Option<&Path>) -> Result<Duration> {
    let program = if subject.ours { binary } else { Path::new("conntrack") };
    let mut command = host.command(program);
    command.args(subject.args).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(match file {
        Some(file) => Stdio::from(File::create(file)?),
        None => Stdio::null(),
    });
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {}", subject.title))?;
    let took = start.elapsed();
    ensure!(status.success(), "{}: {status}", subject.title);
    Ok(took)
}
