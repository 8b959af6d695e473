//! `cargo xtask bench report`: records that are lost while a long report is made and new flows go on.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conntracker_tests::lab::{Guarded, Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::traffic::udp_storm_of;
use nix::sys::signal::Signal;

/// The destination port.
const PORT: u16 = 100;

/// How long the agent may take to write a report.
const PATIENCE: Duration = Duration::from_mins(2);

/// New flows are sent so many times a second.
const STEPS: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// Flows in the table when the report begins.
    #[arg(long, default_value_t = 1_000_000)]
    flows: usize,
    /// New flows a second from then on.
    #[arg(long, default_value_t = 100_000)]
    rate: usize,
    /// Seconds of them.
    #[arg(long, default_value_t = 10)]
    seconds: usize,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        let Self { flows, rate, seconds, binary: _ } = self;
        let (flows, rate, seconds) = (flows.to_string(), rate.to_string(), seconds.to_string());
        ["report", "--flows", &flows, "--rate", &rate, "--seconds", &seconds]
            .map(str::to_owned)
            .into()
    }
}

/// Measures; the caller is root.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("conntracker-bench-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let result = run(args, binary, &directory.join("report"));
    // Whatever became of the measurement.
    let _ = fs::remove_dir_all(&directory);
    result
}

fn run(args: &Args, binary: &Path, file: &Path) -> Result<()> {
    let lab = Lab::new()?;
    lab.router.nft(TRACKING)?;
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")?;
    // It answers nothing.
    lab.server.nft("table ip quiet { chain i { type filter hook input priority 0; drop; }; }")?;
    let mut command = lab.router.command(binary);
    command.args(["trace", "--format", "ndjson", "--no-fold", "-c", "-o"]).arg(file);
    command.args(["--max-flows", "10000000"]);
    let mut agent = Guarded::spawn(&mut command)?;
    thread::sleep(Duration::from_secs(2));
    let mut sent = send(&lab, 0..args.flows, args.rate)?;
    thread::sleep(Duration::from_secs(2));
    agent.signal(Signal::SIGUSR1)?;
    let begun = Instant::now();
    let more = args.rate * args.seconds;
    let flood = thread::scope(|scope| {
        let flood = scope.spawn(|| send(&lab, sent..sent + more, args.rate));
        // It is renamed to its name when it is whole.
        while !file.exists() {
            ensure!(begun.elapsed() < PATIENCE, "no report after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
        println!("a report after {:.1} s", begun.elapsed().as_secs_f64());
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    })?;
    sent += flood;
    agent.signal(Signal::SIGINT)?;
    ensure!(agent.wait(PATIENCE)?.success(), "the agent failed");
    let report = fs::read_to_string(file)?;
    let (header, footer) = (report.lines().next(), report.lines().last());
    let (header, footer) = header.zip(footer).context("an empty report")?;
    let report = Document::ndjson(&format!("{header}\n{footer}"))?;
    println!("{sent} flows sent, {} seen", report.counter("new_flows")?);
    println!("{} records of new flows lost", report.counter("new_flow_records_lost")?);
    Ok(())
}

/// Sends one packet in each of these flows at a rate, and returns how many.
fn send(lab: &Lab, flows: std::ops::Range<usize>, rate: usize) -> Result<usize> {
    let to = SocketAddrV4::new(lab.server.v4(), PORT);
    let (each, step) = (rate / STEPS, Duration::from_secs(1) / STEPS as u32);
    let start = Instant::now();
    for (n, first) in (1u32..).zip(flows.clone().step_by(each.max(1))) {
        let until = (first + each).min(flows.end);
        ensure!(udp_storm_of(&lab.client, to, first..until, 1)? == until - first, "not all sent");
        thread::sleep((step * n).saturating_sub(start.elapsed()));
    }
    Ok(flows.len())
}
