//! `cargo xtask bench overhead`: what observing costs a forwarded packet, and a new flow. `bench dump`: how
//! long it takes to list conntrack's table. `bench events`: what is missed of events at the highest rate. `bench
//! memory`: what a flow costs in the agent's memory. `bench report`: what is lost while a long report is made. `bench
//! record`: bytes and time of recordings. `bench evaluate`: packets that are evaluated in a second, and predictions.

mod document;
mod dump;
mod evaluate;
mod events;
mod memory;
mod programs;
mod record;
mod report;
mod rules;
mod table;

use std::env;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::traffic::{
    Server, Stream, keep_off, pin, udp_drain, udp_sink, udp_storm, udp_stream,
};
use nix::sys::signal::Signal;

use crate::{build, cmd, setup};
use programs::Statistics;

/// Measure in the lab.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Nanoseconds per forwarded packet of one long UDP flow, per new flow, and per packet to a socket that is
    /// full: without an observer,
    /// with `conntracker trace`, with `conntrack -E` and with nftrace.
    Overhead(Overhead),
    /// Milliseconds to list conntrack's table, in each format, with `conntrack -L` as the peer.
    Dump(dump::Args),
    /// New flows as fast as the machine makes them: what `conntracker events` and `conntrack -E` miss.
    Events(events::Args),
    /// Records that are lost while a report of very many flows is made and new flows go on.
    Report(report::Args),
    /// Bytes and time of recordings, beside other formats; what is left of each when it is damaged.
    Record(record::Args),
    /// Packets that the evaluator takes through rulesets in a second, and the time of a prediction for many flows.
    Evaluate(evaluate::Args),
    /// Bytes that a flow takes in the agent's memory, in the table and while a report is made.
    Memory(memory::Args),
}

#[derive(clap::Args)]
struct Overhead {
    /// Rounds; in each, every configuration is measured once, in a new random order.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// What to measure; all of it by default.
    #[arg(long, value_enum)]
    only: Option<Scenario>,
    /// How `conntracker trace` is to see packets; repeatable. By default as it chooses itself.
    #[arg(long, value_enum)]
    by: Vec<By>,
    /// Seconds that an observer gets to begin; emulated CPUs take longer.
    #[arg(long, default_value_t = 0.7)]
    settle: f64,
    /// The binary to measure, already built (how the benchmark calls itself through sudo, and is called
    /// in virtual machines).
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Backend, and for `probes` the way of attaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Links,
    Fentry,
    Kprobe,
}

/// New flows of one measurement.
const NEW_FLOWS: usize = 100_000;

/// Sent before each measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// The sender and the path of the packets; everything else has the other CPUs, or the work of an
/// observer's process would count as delay of the packets.
const SENDER_CPU: usize = 0;

pub fn main(args: &Args) -> Result<ExitCode> {
    let args = match &args.what {
        What::Overhead(args) => args,
        What::Dump(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                dump::measure(args, binary)
            });
        }
        What::Events(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                events::measure(args, binary)
            });
        }
        What::Report(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                report::measure(args, binary)
            });
        }
        What::Record(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                record::measure(args, binary)
            });
        }
        What::Evaluate(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                evaluate::measure(args, binary)
            });
        }
        What::Memory(args) => {
            return as_root(&args.to_words(), args.binary.as_ref(), |binary| {
                memory::measure(args, binary)
            });
        }
    };
    ensure!(args.rounds > 0, "no rounds, no result");
    let seconds = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let binary = binary(args.binary.as_ref())?;
    if !cmd::is_root() {
        let mut again = cmd::as_root(env::current_exe()?);
        again.args(["bench", "overhead", "--rounds", &args.rounds.to_string()]);
        again.args(["--seconds", &args.seconds.to_string()]).arg("--binary").arg(binary);
        again.args(["--settle", &args.settle.to_string()]);
        for by in &args.by {
            again.args(["--by", &format!("{by:?}").to_lowercase()]);
        }
        return Err(again.exec()).context("sudo");
    }
    keep_off(SENDER_CPU)?;
    for scenario in Scenario::value_variants() {
        if args.only.is_none_or(|only| only == *scenario) {
            measure(&binary, *scenario, args, seconds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The binary to measure: the one that is named, or a fresh one.
fn binary(named: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(binary) = named {
        return Ok(binary.clone());
    }
    setup::ensure()?;
    build::build(true)
}

/// Measures the binary, or calls itself again with these arguments as root.
fn as_root(
    words: &[String],
    binary: Option<&PathBuf>,
    measure: impl FnOnce(&Path) -> Result<()>,
) -> Result<ExitCode> {
    let binary = self::binary(binary)?;
    if !cmd::is_root() {
        let mut again = cmd::as_root(env::current_exe()?);
        again.arg("bench").args(words).arg("--binary").arg(binary);
        return Err(again.exec()).context("sudo");
    }
    measure(&binary)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures all observers in one scenario.
fn measure(binary: &Path, scenario: Scenario, args: &Overhead, seconds: Duration) -> Result<()> {
    let observers = scenario.observers(&args.by);
    let rounds = args.rounds;
    let settle = Duration::try_from_secs_f64(args.settle).context("--settle")?;
    let bench = Bench::new(binary, scenario, settle)?;
    let mut samples = vec![Vec::new(); observers.len()];
    for round in 1..=rounds {
        for index in shuffled(observers.len()) {
            let observer = observers[index];
            let cost = bench
                .measure(observer, seconds)
                .with_context(|| format!("measuring {}", observer.title()))?;
            samples[index].push(cost);
            eprintln!("round {round}/{rounds}: {:<34} {cost:7.0} ns", observer.title());
        }
    }
    let titles: Vec<_> = observers.iter().map(|observer| observer.title()).collect();
    println!("{}\n\n{}", scenario.title(), table::table(scenario.unit(), &titles, &samples));
    println!("BPF programs of `conntracker trace` meanwhile:\n\n{}", bench.programs(seconds)?);
    Ok(())
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One long flow through a small firewall; observers that do not look at rules.
    Flow,
    /// One long flow through three base chains of 5, 50 and 500 rules.
    Packets,
    /// 100,000 new flows through the same.
    NewFlows,
    /// One long flow to a socket of the router that nobody reads, and that is full: what a lost packet costs that
    /// has no record.
    Lost,
}

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::Flow => "One long flow, a firewall of three rules:",
            Self::Packets => "One long flow, base chains of 5, 50 and 500 rules:",
            Self::NewFlows => "100,000 new flows, base chains of 5, 50 and 500 rules:",
            Self::Lost => "One long flow to a socket that is full, a firewall of three rules:",
        }
    }

    fn unit(self) -> &'static str {
        if matches!(self, Self::NewFlows) { "new flow" } else { "packet" }
    }

    fn observers(self, by: &[By]) -> Vec<Observer> {
        if self == Self::Lost {
            let trace = Observer::Rules(by.first().copied());
            return vec![Observer::None, Observer::NetfilterDrops, Observer::Flows, trace];
        }
        let mut observers = vec![Observer::None, Observer::Flows];
        if by.is_empty() {
            observers.push(Observer::Rules(None));
        }
        observers.extend(by.iter().map(|by| Observer::Rules(Some(*by))));
        if self != Self::Packets {
            observers.push(Observer::ConntrackEvents);
        }
        observers.push(Observer::Nftrace);
        observers
    }
}

/// Who watches the packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Observer {
    None,
    Flows,
    NetfilterDrops,
    Rules(Option<By>),
    ConntrackEvents,
    Nftrace,
}

impl Observer {
    fn title(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Flows => "`conntracker trace -c`",
            Self::NetfilterDrops => "`conntracker trace -c --drops netfilter`",
            Self::Rules(None) => "`conntracker trace`",
            Self::Rules(Some(By::Links)) => "`conntracker trace`, links",
            Self::Rules(Some(By::Fentry)) => "`conntracker trace`, fentry",
            Self::Rules(Some(By::Kprobe)) => "`conntracker trace`, kprobes",
            Self::ConntrackEvents => "`conntrack -E`",
            Self::Nftrace => "nftrace + `nft monitor trace`",
        }
    }
}

struct Bench {
    lab: Lab,
    drain: Server,
    /// The socket that is full.
    _full: Option<UdpSocket>,
    binary: PathBuf,
    report: PathBuf,
    scenario: Scenario,
    /// How long an observer takes until it observes.
    settle: Duration,
}

impl Bench {
    fn new(binary: &Path, scenario: Scenario, settle: Duration) -> Result<Self> {
        let lab = Lab::new()?;
        match scenario {
            Scenario::Flow | Scenario::Lost => lab.router.nft(rules::FIREWALL)?,
            Scenario::Packets | Scenario::NewFlows => lab.router.nft(&rules::three_chains())?,
        }
        let cpus = thread::available_parallelism()?.get();
        let drain = udp_drain(&lab.server, lab.server.at(9), cpus - 1)?;
        let report = env::temp_dir().join(format!("conntracker-bench-{}.txt", std::process::id()));
        let lost = scenario == Scenario::Lost;
        let full = if lost { Some(udp_sink(&lab.router, lab.router.at(9))?) } else { None };
        let binary = binary.to_owned();
        Ok(Self { lab, drain, _full: full, binary, report, scenario, settle })
    }

    /// Nanoseconds per packet that the router sent on.
    fn measure(&self, observer: Observer, duration: Duration) -> Result<f64> {
        let mut process = self.start(observer)?;
        if process.is_some() {
            thread::sleep(self.settle);
        }
        let cost = if self.scenario == Scenario::NewFlows {
            self.storm()?
        } else {
            self.stream(WARM_UP)?;
            self.stream(duration)?
        };
        if let Some(process) = &mut process {
            ensure!(process.running()?, "the observer has ended before its time");
            process.stop(Signal::SIGTERM, Duration::from_secs(30))?;
        }
        if matches!(observer, Observer::Nftrace) {
            self.lab.router.nft("delete table inet conntracker_bench_trace")?;
        }
        Ok(cost)
    }

    /// What each of our programs costs, measured apart: the statistics cost something, too.
    fn programs(&self, duration: Duration) -> Result<String> {
        let _statistics = Statistics::on()?;
        let mut process = self.start(Observer::Rules(None))?.context("no observer")?;
        thread::sleep(self.settle);
        if self.scenario == Scenario::NewFlows {
            self.storm()?;
        } else {
            self.stream(duration)?;
        }
        let table = programs::measured();
        process.stop(Signal::SIGTERM, Duration::from_secs(30))?;
        table
    }

    /// Runs `work` and divides its time by the packets that the router sent on meanwhile.
    fn per_packet(&self, work: impl FnOnce() -> Result<Duration>) -> Result<f64> {
        let forwarded = || Ok::<_, anyhow::Error>(self.lab.router.packets("toserver")?.1);
        let before = forwarded()?;
        let elapsed = work()?;
        let packets = forwarded()? - before;
        ensure!(packets > 0, "the router forwarded nothing");
        Ok(elapsed.as_nanos() as f64 / packets as f64)
    }

    fn stream(&self, duration: Duration) -> Result<f64> {
        if self.scenario == Scenario::Lost {
            let (client, to) = (&self.lab.client, self.lab.router.at(9));
            let Stream { sent, elapsed } =
                udp_stream(client, client.at(4000), to, duration, SENDER_CPU)?;
            return Ok(elapsed.as_nanos() as f64 / sent as f64);
        }
        self.per_packet(|| {
            let (client, to) = (&self.lab.client, self.drain.address());
            Ok(udp_stream(client, client.at(4000), to, duration, SENDER_CPU)?.elapsed)
        })
    }

    fn storm(&self) -> Result<f64> {
        self.lab.router.run(["conntrack", "-F"])?;
        let SocketAddr::V4(to) = self.drain.address() else { bail!("the drain is not IPv4") };
        self.per_packet(|| {
            thread::scope(|scope| {
                let storm = scope.spawn(|| {
                    // The storm's own thread inherits this one's CPU.
                    pin(SENDER_CPU)?;
                    let start = Instant::now();
                    udp_storm(&self.lab.client, to, NEW_FLOWS, 1)?;
                    Ok(start.elapsed())
                });
                storm.join().unwrap_or_else(|_| bail!("the storm panicked"))
            })
        })
    }

    fn start(&self, observer: Observer) -> Result<Option<Guarded>> {
        let router = &self.lab.router;
        let mut command = match observer {
            Observer::None => return Ok(None),
            Observer::Flows => self.conntracker(&["-c"]),
            Observer::NetfilterDrops => self.conntracker(&["-c", "--drops", "netfilter"]),
            Observer::Rules(by) => self.conntracker(match by {
                None => &[],
                Some(By::Links) => &["--backend", "links"],
                Some(By::Fentry) => &["--backend", "probes", "--attach", "fentry"],
                Some(By::Kprobe) => &["--backend", "probes", "--attach", "kprobe"],
            }),
            Observer::ConntrackEvents => {
                let mut command = router.command("conntrack");
                command.arg("-E");
                command
            }
            Observer::Nftrace => {
                router.nft(rules::NFTRACE)?;
                let mut command = router.command("nft");
                command.args(["monitor", "trace"]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Guarded::spawn(&mut command).map(Some)
    }

    fn conntracker(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["trace", "--netns", &self.lab.router.name, "-o"])
            .arg(&self.report)
            .args(args);
        command
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Missing if conntracker has not been measured.
        let _ = fs::remove_file(&self.report);
    }
}

/// 0..n in random order, so that no configuration always follows the same one.
fn shuffled(n: usize) -> Vec<usize> {
    let state = RandomState::new();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|index| state.hash_one(index));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_is_measured_once_a_round() {
        let mut order = shuffled(4);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
