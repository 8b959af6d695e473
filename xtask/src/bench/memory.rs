//! `cargo xtask bench memory`: what a flow costs in the agent's memory, in the table and while a report is made.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conntracker_tests::lab::{Guarded, Lab};
use conntracker_tests::memory::Resident;
use conntracker_tests::traffic::{udp_spread_of, udp_storm_of};
use nix::sys::signal::Signal;

/// Flows that are sent before conntrack's table may settle, and entries that it may have by then.
const AT_ONCE: usize = 50_000;
const ENTRIES: usize = 120_000;

/// The destination port, or the first one.
const PORT: u16 = 100;

/// How long a report may take to be written.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(clap::Args)]
pub struct Args {
    /// Distinct flows.
    #[arg(long, default_value_t = 1_000_000)]
    flows: usize,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        vec!["memory".to_owned(), "--flows".to_owned(), self.flows.to_string()]
    }
}

/// Flows of a kind.
struct Subject {
    title: &'static str,
    args: &'static [&'static str],
    /// Flows that do not fold into each other.
    spread: bool,
    rules: &'static str,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        title: "folded, each with its own key",
        args: &["-c"],
        spread: true,
        rules: TRACKING,
    },
    Subject { title: "`--no-fold`", args: &["-c", "--no-fold"], spread: false, rules: TRACKING },
    Subject {
        title: "`--no-fold`, masqueraded, with their path",
        args: &["--no-fold"],
        spread: false,
        rules: NAT,
    },
];

const TRACKING: &str = "table inet bench {
    chain f { type filter hook forward priority 0; ct state new counter accept; }
}";

const NAT: &str = "table inet bench {
    chain f { type filter hook forward priority 0; ct state new counter accept; }
    chain n { type nat hook postrouting priority 100; counter masquerade; }
}";

/// Measures; the caller is root.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    println!("{} distinct flows of UDP over IPv4\n", args.flows);
    println!("| flows | bytes of a flow in the table | while a report is made | flows listed |");
    println!("|---|---:|---:|---:|");
    let directory = std::env::temp_dir().join(format!("conntracker-bench-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let measured = SUBJECTS.iter().try_for_each(|subject| {
        let (table, report, listed) = one(subject, args.flows, binary, &directory.join("report"))?;
        println!("| {} | {table} | {report} | {listed} |", subject.title);
        anyhow::Ok(())
    });
    // Whatever became of the measurement.
    let _ = fs::remove_dir_all(&directory);
    measured
}

/// Bytes of a flow in the table and at most while a report is made, and how many flows were listed.
fn one(subject: &Subject, flows: usize, binary: &Path, file: &Path) -> Result<(u64, u64, usize)> {
    let lab = Lab::new()?;
    lab.router.nft(subject.rules)?;
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")?;
    // It answers nothing.
    lab.server.nft("table ip quiet { chain i { type filter hook input priority 0; drop; }; }")?;
    let mut command = lab.router.command(binary);
    command.args(["trace", "--format", "ndjson", "--ring-size", "128M", "-o"]).arg(file);
    command.args(subject.args);
    // Binaries of before have no limit.
    if takes(binary, "--max-flows")? {
        command.args(["--max-flows", &(2 * flows).to_string()]);
    }
    let agent = Guarded::spawn(&mut command)?;
    // Its ring, maps and the first dump are there.
    thread::sleep(Duration::from_secs(2));
    let before = Resident::of(agent.id())?.now;
    let to = SocketAddrV4::new(lab.server.v4(), PORT);
    let mut sent = 0;
    while sent < flows {
        let next = (sent + AT_ONCE).min(flows);
        let send = if subject.spread { udp_spread_of } else { udp_storm_of };
        ensure!(send(&lab.client, to, sent..next, 1)? == next - sent, "not all could be sent");
        sent = next;
        while lab.router.run(["conntrack", "-C"])?.trim().parse::<usize>()? > ENTRIES {
            thread::sleep(Duration::from_millis(100));
        }
    }
    thread::sleep(Duration::from_secs(2));
    let after = Resident::of(agent.id())?.now;
    let _ = fs::remove_file(file);
    agent.signal(Signal::SIGUSR1)?;
    let start = Instant::now();
    // It is renamed to its name when it is whole.
    while !file.exists() {
        ensure!(start.elapsed() < PATIENCE, "no report after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
    let most = Resident::of(agent.id())?.most;
    let listed = fs::read_to_string(file)?.lines().count() - 2;
    let each = |bytes: u64| bytes.saturating_sub(before) / flows as u64;
    Ok((each(after), each(most), listed))
}

/// Whether `trace` has an option.
fn takes(binary: &Path, option: &str) -> Result<bool> {
    let help = std::process::Command::new(binary).args(["trace", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains(option))
}
