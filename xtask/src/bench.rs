//! `cargo xtask bench overhead`: what observing costs a forwarded packet.

use std::env;
use std::fmt::Write;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::traffic::{Server, keep_off, udp_drain, udp_stream};
use nix::sys::signal::Signal;

use crate::{build, cmd, setup};

/// Measure in the lab.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Nanoseconds per forwarded packet of one long UDP flow: without an observer, with
    /// `conntracker trace -c`, with `conntrack -E` and with nftrace.
    Overhead(Overhead),
}

#[derive(clap::Args)]
struct Overhead {
    /// Rounds; in each, every configuration is measured once, in a new random order.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The binary to measure, already built (how the benchmark calls itself through sudo).
    #[arg(long, hide = true)]
    binary: Option<PathBuf>,
}

/// The lab's firewall: what a router does anyway for a packet of a known flow.
const FIREWALL: &str = "
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        ct state invalid drop
        meta l4proto udp counter accept
    }
}
";

const NFTRACE: &str = "
table inet conntracker_bench_trace {
    chain prerouting { type filter hook prerouting priority -350; meta nftrace set 1; }
}
";

/// How long an observer takes until it observes.
const SETTLE: Duration = Duration::from_millis(700);

/// Sent before each measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// The sender and the path of the packets; everything else has the other CPUs, or the work of an
/// observer's process would count as delay of the packets.
const SENDER_CPU: usize = 0;

pub fn main(args: &Args) -> Result<ExitCode> {
    let What::Overhead(args) = &args.what;
    ensure!(args.rounds > 0, "no rounds, no result");
    let seconds = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let binary = if let Some(binary) = &args.binary {
        binary.clone()
    } else {
        setup::ensure()?;
        build::build(true)?
    };
    if !cmd::is_root() {
        let mut again = cmd::as_root(env::current_exe()?);
        again.args(["bench", "overhead", "--rounds", &args.rounds.to_string()]);
        again.args(["--seconds", &args.seconds.to_string()]).arg("--binary").arg(binary);
        return Err(again.exec()).context("sudo");
    }
    keep_off(SENDER_CPU)?;
    let bench = Bench::new(binary)?;
    let mut samples = [const { Vec::new() }; Observer::ALL.len()];
    for round in 1..=args.rounds {
        for index in shuffled(Observer::ALL.len()) {
            let observer = Observer::ALL[index];
            let cost = bench
                .measure(observer, seconds)
                .with_context(|| format!("measuring {}", observer.title()))?;
            samples[index].push(cost);
            eprintln!("round {round}/{}: {:<34} {cost:7.0} ns", args.rounds, observer.title());
        }
    }
    print!("{}", table(&samples));
    Ok(ExitCode::SUCCESS)
}

/// Who watches the packets.
#[derive(Clone, Copy)]
enum Observer {
    None,
    Conntracker,
    ConntrackEvents,
    Nftrace,
}

impl Observer {
    /// The first is what the others are compared with.
    const ALL: [Self; 4] = [Self::None, Self::Conntracker, Self::ConntrackEvents, Self::Nftrace];

    fn title(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Conntracker => "`conntracker trace -c`",
            Self::ConntrackEvents => "`conntrack -E`",
            Self::Nftrace => "nftrace + `nft monitor trace`",
        }
    }
}

struct Bench {
    lab: Lab,
    drain: Server,
    binary: PathBuf,
    report: PathBuf,
}

impl Bench {
    fn new(binary: PathBuf) -> Result<Self> {
        let lab = Lab::new()?;
        lab.router.nft(FIREWALL)?;
        let cpus = thread::available_parallelism()?.get();
        let drain = udp_drain(&lab.server, lab.server.at(9), cpus - 1)?;
        let report = env::temp_dir().join(format!("conntracker-bench-{}.txt", std::process::id()));
        Ok(Self { lab, drain, binary, report })
    }

    /// Nanoseconds per packet that the router sent on.
    fn measure(&self, observer: Observer, duration: Duration) -> Result<f64> {
        let mut process = self.start(observer)?;
        if process.is_some() {
            thread::sleep(SETTLE);
        }
        self.stream(WARM_UP)?;
        let cost = self.stream(duration)?;
        if let Some(process) = &mut process {
            ensure!(process.running()?, "the observer has ended before its time");
            process.stop(Signal::SIGTERM, Duration::from_secs(30))?;
        }
        if matches!(observer, Observer::Nftrace) {
            self.lab.router.nft("delete table inet conntracker_bench_trace")?;
        }
        Ok(cost)
    }

    fn stream(&self, duration: Duration) -> Result<f64> {
        let Lab { client, router, .. } = &self.lab;
        let forwarded = || Ok::<_, anyhow::Error>(router.packets("toserver")?.1);
        let before = forwarded()?;
        let to = self.drain.address();
        let stream = udp_stream(client, client.at(4000), to, duration, SENDER_CPU)?;
        let packets = forwarded()? - before;
        ensure!(packets > 0, "the router forwarded nothing");
        Ok(stream.elapsed.as_nanos() as f64 / packets as f64)
    }

    fn start(&self, observer: Observer) -> Result<Option<Guarded>> {
        let router = &self.lab.router;
        let mut command = match observer {
            Observer::None => return Ok(None),
            Observer::Conntracker => {
                let mut command = Command::new(&self.binary);
                command.args(["trace", "-c", "--netns", &router.name, "-o"]).arg(&self.report);
                command
            }
            Observer::ConntrackEvents => {
                let mut command = router.command("conntrack");
                command.arg("-E");
                command
            }
            Observer::Nftrace => {
                router.nft(NFTRACE)?;
                let mut command = router.command("nft");
                command.args(["monitor", "trace"]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Guarded::spawn(&mut command).map(Some)
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

fn table(samples: &[Vec<f64>]) -> String {
    let mut text = String::from(
        "| observer | ns/packet (median) | ratio to none (median of rounds) | min..max ns |\n\
         |---|---:|---:|---:|\n",
    );
    for (observer, costs) in Observer::ALL.into_iter().zip(samples) {
        // Round by round, so that a machine that changes its pace changes no ratio.
        let ratios = costs.iter().zip(&samples[0]).map(|(cost, none)| cost / none).collect();
        let (low, high) = costs
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(low, high), cost| (low.min(*cost), high.max(*cost)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.3} | {low:.0}..{high:.0} |",
            observer.title(),
            median(costs.clone()),
            median(ratios),
        );
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_middles() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let none = vec![100.0, 200.0, 400.0];
        let twice: Vec<_> = none.iter().map(|cost| cost * 2.0).collect();
        let table = table(&[none.clone(), twice, none.clone(), none]);
        assert!(table.contains("| none | 200 | 1.000 | 100..400 |"), "{table}");
        assert!(table.contains("| `conntracker trace -c` | 400 | 2.000 | 200..800 |"), "{table}");
    }

    #[test]
    fn every_configuration_is_measured_once_a_round() {
        let mut order = shuffled(4);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
