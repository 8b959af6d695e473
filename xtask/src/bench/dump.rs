//! `cargo xtask bench dump`: how long it takes to list conntrack's table, with conntrack(8) as the peer.

use std::fmt::Write;
use std::fs::{self, File};

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conntracker_tests::drain::drain;
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

/// What is measured.
struct Subject {
    title: &'static str,
    by: By,
    /// What it is compared with, by its place in [`SUBJECTS`].
    peer: usize,
    to_file: bool,
}

/// Who lists, with which arguments.
#[derive(Clone, Copy)]
enum By {
    /// Nobody: the dump is received and thrown away.
    Drain,
    /// conntrack(8); once in each namespace, for it knows no others.
    Peer(&'static [&'static str]),
    /// `conntracker dump`.
    Us(&'static [&'static str]),
}

const fn theirs(title: &'static str, args: &'static [&'static str], to_file: bool) -> Subject {
    Subject { title, by: By::Peer(args), peer: LIST, to_file }
}

const fn ours(
    title: &'static str,
    args: &'static [&'static str],
    peer: usize,
    to_file: bool,
) -> Subject {
    Subject { title, by: By::Us(args), peer, to_file }
}

const DRAIN: usize = 0;
const LIST: usize = 1;
const LIST_TO_FILE: usize = 2;
const XML: usize = 3;

/// The peers first.
const SUBJECTS: &[Subject] = &[
    Subject { title: "draining without parsing", by: By::Drain, peer: LIST, to_file: false },
    theirs("`conntrack -L` > /dev/null", &["-L"], false),
    theirs("`conntrack -L` > file", &["-L"], true),
    theirs("`conntrack -L -o xml` > /dev/null", &["-L", "-o", "xml"], false),
    ours("`conntracker dump --format plain` > /dev/null", &["--format", "plain"], LIST, false),
    ours("`conntracker dump --format plain` > file", &["--format", "plain"], LIST_TO_FILE, true),
    ours("`conntracker dump --format csv` > /dev/null", &["--format", "csv"], LIST, false),
    ours("`conntracker dump --format xml` > /dev/null", &["--format", "xml"], XML, false),
    ours("`conntracker dump --format json` > /dev/null", &["--format", "json"], XML, false),
    ours("`conntracker dump --format ndjson` > /dev/null", &["--format", "ndjson"], XML, false),
    ours(
        "`conntracker dump --via bpf --format plain` > /dev/null",
        &["--via", "bpf", "--format", "plain"],
        LIST,
        false,
    ),
    ours(
        "`conntracker dump --via bpf --format plain` > file",
        &["--via", "bpf", "--format", "plain"],
        LIST_TO_FILE,
        true,
    ),
    ours(
        "`conntracker dump --via bpf --format json` > /dev/null",
        &["--via", "bpf", "--format", "json"],
        XML,
        false,
    ),
    theirs("`conntrack -L -m 7`, one entry", &["-L", "-m", "7"], false),
    ours(
        "`conntracker dump --format plain -m 7`, one entry",
        &["--format", "plain", "-m", "7"],
        FULL,
        false,
    ),
    ours(
        "`conntracker dump --format plain -w 5`, one entry",
        &["--format", "plain", "-w", "5"],
        FULL,
        false,
    ),
    ours(
        "`conntracker dump --format plain -s 192.0.2.1`, one entry",
        &["--format", "plain", "-s", "192.0.2.1"],
        FULL,
        false,
    ),
];

/// Our listing of all.
const FULL: usize = 4;

/// Measures; the caller is root.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    let Args { flows, rounds, binary: _ } = *args;
    let max: u32 = fs::read_to_string(MAX).context(MAX)?.trim().parse().context(MAX)?;
    ensure!(
        flows < max,
        "the machine lets there be {max} entries: `sysctl -w net.netfilter.nf_conntrack_max=N`, or fewer --flows"
    );
    let lab = Lab::new()?;
    let directory = fs::canonicalize(std::env::temp_dir())?;
    let file = directory.join(format!("conntracker-bench-{}", std::process::id()));
    let bench = Bench { host: &lab.router, binary, file: &file };
    let result = bench.fill(flows).and_then(|()| Ok((bench.samples(rounds)?, bench.memory()?)));
    // What is left of it, whatever became of the measurement.
    let _ = fs::remove_file(&file);
    let (samples, memory) = result?;
    println!("{flows} entries, {rounds} rounds\n");
    println!(
        "| listing | ms (median) | ratio to | its peer | draining |\n|---|---:|---|---:|---:|"
    );
    for (subject, costs) in SUBJECTS.iter().zip(&samples) {
        let ratio = |peer: usize| {
            median(costs.iter().zip(&samples[peer]).map(|(cost, peer)| cost / peer).collect())
        };
        println!(
            "| {} | {:.0} | {} | {:.3} | {:.3} |",
            subject.title,
            median(costs.clone()),
            SUBJECTS[subject.peer].title.split(" >").next().unwrap_or_default(),
            ratio(subject.peer),
            ratio(DRAIN),
        );
    }
    println!("\npeak memory:");
    for (title, kib) in memory {
        println!("- {title}: {kib} KiB");
    }
    Ok(())
}

/// A table to list.
struct Bench<'a> {
    host: &'a Host,
    binary: &'a Path,
    file: &'a Path,
}

impl Bench<'_> {
    /// Milliseconds of each subject in each round.
    fn samples(&self, rounds: usize) -> Result<Vec<Vec<f64>>> {
        let mut samples = vec![Vec::new(); SUBJECTS.len()];
        for round in 1..=rounds {
            for (subject, samples) in SUBJECTS.iter().zip(&mut samples) {
                let start = Instant::now();
                self.run(subject).with_context(|| format!("measuring {}", subject.title))?;
                let took = start.elapsed().as_secs_f64() * 1e3;
                eprintln!("round {round}: {} {took:.0} ms", subject.title);
                samples.push(took);
            }
        }
        Ok(samples)
    }

    /// Runs a listing to its end.
    fn run(&self, subject: &Subject) -> Result<()> {
        let done = |mut command: Command| -> Result<()> {
            command.stdout(if subject.to_file {
                Stdio::from(File::options().create(true).append(true).open(self.file)?)
            } else {
                Stdio::null()
            });
            let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
            ensure!(status.success(), "{command:?}: {status}");
            Ok(())
        };
        if subject.to_file {
            File::create(self.file)?;
        }
        match subject.by {
            By::Drain => drain(self.host).map(|_| ()),
            By::Us(args) => done(self.ours(args)),
            By::Peer(args) => {
                let mut command = self.host.command("conntrack");
                command.args(args);
                done(command)
            }
        }
    }

    fn ours(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(self.binary);
        command.arg("dump").args(args);
        command
    }

    /// The most memory that each listing of ours has (VmHWM of proc_pid_status(5), in KiB), looked at until
    /// it ends.
    fn memory(&self) -> Result<Vec<(&'static str, u64)>> {
        let mut all = Vec::new();
        for Subject { title, by, .. } in SUBJECTS {
            let By::Us(args) = by else { continue };
            let mut command = self.ours(args);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
            all.push((*title, peak));
        }
        Ok(all)
    }

    /// Makes entries, by conntrack(8): one of them with a mark, a zone and an address of its own.
    fn fill(&self, flows: u32) -> Result<()> {
        // It has each line of a file in memory, at some kilobytes each.
        const AT_ONCE: u32 = 50_000;
        self.load(
            "-I -t 36000 -p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 2 -m 7 -w 5\n",
        )?;
        for first in (1..flows).step_by(AT_ONCE as usize) {
            let mut lines = String::new();
            for n in first..flows.min(first + AT_ONCE) {
                let [_, a, b, c] = n.to_be_bytes();
                // Writing to a string cannot fail.
                let _ = writeln!(
                    lines,
                    "-I -t 36000 -u SEEN_REPLY,ASSURED -p tcp -s 10.{a}.{b}.{c} -d 198.51.100.2 --sport {} --dport 443 --state ESTABLISHED",
                    1024 + n % 60_000
                );
            }
            self.load(&lines)?;
        }
        let count = self.host.run(["conntrack", "-C"])?;
        ensure!(count.trim() == flows.to_string(), "{} entries, not {flows}", count.trim());
        Ok(())
    }

    fn load(&self, lines: &str) -> Result<()> {
        fs::write(self.file, lines)?;
        let mut command = self.host.command("conntrack");
        let output = command.arg("-R").arg(self.file).stdout(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "conntrack -R: {} {}", output.status, said.trim());
        Ok(())
    }
}
