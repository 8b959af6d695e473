//! `cargo xtask bench record`: bytes and time of recordings beside other formats with the same flows, what is left of
//! each when it is damaged, and what recording costs the agent.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conntracker_tests::lab::{Guarded, Lab, TRACKING};
use conntracker_tests::memory::Resident;
use conntracker_tests::traffic::udp_storm_of;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::document;
use crate::{cmd, workspace};

/// The peers, by a library that is installed below target/.
const PEERS: &str = include_str!("record.py");

/// Flows of the recordings that are damaged.
const SMALL: usize = 2_000;

/// Events of a made up flow.
const EVENTS: usize = 5;

/// How long the agent may take to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// New flows are sent so many times a second.
const STEPS: usize = 20;

/// The destination port.
const PORT: u16 = 100;

#[derive(clap::Args)]
pub struct Args {
    /// Flows of the recording that is compared with other formats.
    #[arg(long, default_value_t = 200_000)]
    flows: usize,
    /// Cuts of each file, and changed bits.
    #[arg(long, default_value_t = 1_000)]
    trials: usize,
    /// Flows of the recording whose reports are measured, with five events each.
    #[arg(long, default_value_t = 2_000_000)]
    many: usize,
    /// Seconds of traffic, with and without `--record`.
    #[arg(long, default_value_t = 10)]
    seconds: usize,
    /// The benchmark of the codec, already built.
    #[arg(long)]
    codec: Option<PathBuf>,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        let Self { flows, trials, many, seconds, codec, binary: _ } = self;
        let mut words = vec!["record".to_owned()];
        for (name, number) in
            [("flows", flows), ("trials", trials), ("many", many), ("seconds", seconds)]
        {
            words.extend([format!("--{name}"), number.to_string()]);
        }
        if let Some(codec) = codec {
            words.extend(["--codec".to_owned(), codec.display().to_string()]);
        }
        words
    }
}

/// Measures; the caller is root. Prints what it writes to docs/benchmarks/recording.md.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    document::write("recording.md", |directory| all(args, binary, directory))
}

fn all(args: &Args, binary: &Path, directory: &Path) -> Result<String> {
    let mut text = format!(
        "# Recordings: bytes and time\n\n`cargo xtask bench record --flows {} --trials {} --many {} --seconds {}`, {}.\n",
        args.flows,
        args.trials,
        args.many,
        args.seconds,
        document::machine()?,
    );
    let [file, small, many] =
        ["flows.rec", "small.rec", "many.rec"].map(|name| directory.join(name));
    let codec = codec(args, args.flows, &file)?;
    self::codec(args, SMALL, &small)?;
    let peers = peers(args, binary, [&file, &small], directory)?;
    sizes(&mut text, args, &codec, &peers)?;
    damages(&mut text, args, &peers)?;
    eprintln!("bench: reports of many flows");
    self::codec(args, args.many, &many)?;
    reports(&mut text, args, binary, &many)?;
    eprintln!("bench: the agent");
    agent(&mut text, args, binary, directory)?;
    Ok(text)
}

/// Records made up flows, and returns what the benchmark of the codec says.
fn codec(args: &Args, flows: usize, file: &Path) -> Result<Value> {
    let mut command = if let Some(codec) = &args.codec {
        Command::new(codec)
    } else {
        let mut cargo = workspace::cargo()?;
        cargo.args(["bench", "-p", "conntracker", "--features", "fuzz"]);
        cargo.args(["--bench", "recording", "--"]);
        cargo
    };
    let run = command.arg(flows.to_string()).arg(file).stderr(Stdio::inherit()).output()?;
    ensure!(run.status.success(), "the benchmark of the codec failed: {}", run.status);
    let said = String::from_utf8(run.stdout)?;
    let line = said.lines().find(|line| line.starts_with('{')).context("it says nothing")?;
    Ok(serde_json::from_str(line)?)
}

/// What the peers do with the same flows, in a network namespace of their own.
fn peers(args: &Args, binary: &Path, files: [&Path; 2], directory: &Path) -> Result<Value> {
    let environment = workspace::root()?.join("target/bench-venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        cmd::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        cmd::run(Command::new(&python).args(["-m", "pip", "install", "-q", "pyarrow"]))?;
    }
    if cmd::find("nfcapd").is_none() {
        eprintln!("bench: nfcapd is not there (Debian: nfdump), and is left out");
    }
    let script = directory.join("record.py");
    fs::write(&script, PEERS)?;
    let run = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .args([&python, &script])
        .arg(binary)
        .args(files)
        .arg(directory)
        .arg(args.trials.to_string())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(run.status.success(), "the peers failed: {}", run.status);
    Ok(serde_json::from_slice(&run.stdout)?)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// A number as it is read: `-` where there is none.
fn shown(number: f64, digits: usize) -> String {
    if number.is_nan() { "-".to_owned() } else { format!("{number:.digits$}") }
}

fn sizes(text: &mut String, args: &Args, codec: &Value, peers: &Value) -> Result<()> {
    let flows = args.flows as f64;
    writeln!(
        text,
        "\n{} made up flows: masqueraded TCP connections, each with its first packet, the paths of that through two hooks, the \
         first reply, and the end with counters; times in nanoseconds. A recording has {EVENTS} events of each, the others \
         a row. nfdump has no rules, and milliseconds.\n",
        args.flows
    )?;
    writeln!(
        text,
        "| format | bytes/flow | flows written/s | flows read/s |\n|---|---:|---:|---:|"
    )?;
    let mut row = |name: &str, bytes: f64, written: f64, read: f64| {
        writeln!(
            text,
            "| {name} | {} | {} | {} |",
            shown(bytes / flows, 1),
            shown(written, 0),
            shown(read, 0)
        )
    };
    let events = number(&codec["events"]) / flows;
    row(
        "recording",
        number(&codec["bytes"]),
        number(&codec["written_per_second"]) / events,
        number(&codec["read_per_second"]) / events,
    )?;
    row("NDJSON, `zstd -3`", number(&peers["ndjson_bytes"]), f64::NAN, f64::NAN)?;
    for (title, name) in [("Parquet, zstd 3, dictionary", "parquet"), ("Arrow IPC, zstd", "arrow")]
    {
        let of = |what: &str| number(&peers[format!("{name}_{what}")]);
        row(title, of("bytes"), of("written"), of("read"))?;
    }
    for (title, name) in [("nfdump, LZO", "nfdump_lzo"), ("nfdump, zstd", "nfdump_zstd")] {
        let of = &peers[name];
        if of["flows"].is_null() {
            row(&format!("{title} (this nfcapd does not)"), f64::NAN, f64::NAN, f64::NAN)?;
        } else {
            let scale = flows / number(&of["flows"]);
            row(title, number(&of["bytes"]) * scale, f64::NAN, number(&of["read"]))?;
        }
    }
    writeln!(
        text,
        "\nEvents of the recording: {} taken, {} written, {} read a second. Parquet and Arrow: pyarrow, the table in memory \
         already. nfdump: as nfcapd got them by NetFlow v9, and read as CSV.",
        codec["taken_per_second"], codec["written_per_second"], codec["read_per_second"]
    )?;
    Ok(())
}

fn damages(text: &mut String, args: &Args, peers: &Value) -> Result<()> {
    writeln!(
        text,
        "\n{} cuts at random offsets of files of {SMALL} flows, and {} files of which one bit was changed. Read: flows, of a cut \
         file in relation to the share of it that is left. Silent: the answer is another one, and nothing says so.\n",
        args.trials, args.trials
    )?;
    writeln!(text, "| format | read of cut files | silent | read of changed files | silent |")?;
    writeln!(text, "|---|---:|---:|---:|---:|")?;
    for (title, name) in [
        ("recording", "damage_ours"),
        ("Parquet", "damage_parquet"),
        ("Arrow IPC", "damage_arrow"),
        ("nfdump, LZO", "damage_nfdump"),
    ] {
        let of = |what: &str| number(&peers[name][what]);
        writeln!(
            text,
            "| {title} | {} % | {} | {} % | {} |",
            shown(of("cut") * 100.0, 0),
            shown(of("silent_cuts"), 0),
            shown(of("flipped") * 100.0, 1),
            shown(of("silent_flips"), 0)
        )?;
    }
    Ok(())
}

/// Peak memory and time of reports of very many events.
fn reports(text: &mut String, args: &Args, binary: &Path, file: &Path) -> Result<()> {
    writeln!(text, "\n{} events ({} flows):\n", args.many * EVENTS, args.many)?;
    writeln!(text, "| `conntracker report FILE` | seconds | peak memory, MiB |\n|---|---:|---:|")?;
    for options in [&["--top", "10", "--sort", "bytes"][..], &["--by", "dst", "--top", "10"]] {
        let start = Instant::now();
        let mut command = Command::new(binary);
        command.arg("report").arg(file).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut report = Guarded::spawn(&mut command)?;
        let mut most = 0;
        while report.running()? {
            // It may have ended.
            most = Resident::of(report.id()).map_or(most, |of| of.most.max(most));
            thread::sleep(Duration::from_millis(20));
        }
        let seconds = start.elapsed().as_secs_f64();
        writeln!(text, "| `{}` | {seconds:.1} | {} |", options.join(" "), most >> 20)?;
    }
    Ok(())
}

/// The agent's CPU time at 50,000 new flows a second, with and without a recording, in turn.
fn agent(text: &mut String, args: &Args, binary: &Path, directory: &Path) -> Result<()> {
    const RATE: usize = 50_000;
    writeln!(
        text,
        "\nThe agent's CPU time at {RATE} new flows a second (UDP through the lab's router, {} s, `--no-fold -c`):\n",
        args.seconds
    )?;
    writeln!(text, "| `conntracker trace` | % of a CPU, each round |\n|---|---|")?;
    let mut shares = [Vec::new(), Vec::new()];
    for round in 0..3 {
        for (records, shares) in shares.iter_mut().enumerate() {
            let file = directory.join(format!("agent-{round}-{records}.rec"));
            let record = (records == 1).then_some(&file);
            let share = one(binary, directory, (args.seconds, RATE), record)?;
            shares.push(format!("{:.0}", share * 100.0));
        }
    }
    for (title, shares) in ["without `--record`", "with `--record`"].iter().zip(shares) {
        writeln!(text, "| {title} | {} |", shares.join(", "))?;
    }
    Ok(())
}

fn one(
    binary: &Path,
    directory: &Path,
    (seconds, rate): (usize, usize),
    record: Option<&PathBuf>,
) -> Result<f64> {
    let lab = Lab::new()?;
    lab.router.nft(TRACKING)?;
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")?;
    // It answers nothing.
    lab.server.nft("table ip quiet { chain i { type filter hook input priority 0; drop; }; }")?;
    let mut command = lab.router.command(binary);
    command.args(["trace", "--no-fold", "-c", "--max-flows", "10000000", "-o"]);
    command.arg(directory.join("report.txt"));
    if let Some(file) = record {
        command.arg("--record").arg(file);
    }
    let mut agent = Guarded::spawn(&mut command)?;
    thread::sleep(Duration::from_secs(2));
    ensure!(agent.running()?, "the agent has ended: {}", agent.stderr());
    let to = SocketAddrV4::new(lab.server.v4(), PORT);
    let (before, start) = (ticks(agent.id())?, Instant::now());
    let each = rate / STEPS;
    for step in 0..seconds * STEPS {
        udp_storm_of(&lab.client, to, step * each..(step + 1) * each, 1)?;
        let next = Duration::from_secs(1) * (step as u32 + 1) / STEPS as u32;
        thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let share = (ticks(agent.id())? - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
    agent.signal(Signal::SIGINT)?;
    agent.wait(PATIENCE)?;
    Ok(share)
}

/// CPU time of a process in ticks, of which a second has 100.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit(") ").next().context("no name in stat")?;
    let mut fields = behind_name.split(' ').skip(11).map(str::parse::<u64>);
    let mut next = || fields.next().context("stat is too short");
    Ok(next()?? + next()??)
}
