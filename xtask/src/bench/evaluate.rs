//! `cargo xtask bench evaluate`: packets that are evaluated in a second, and the time of a prediction for many flows.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::document;
use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// Flows of the recording that predictions are made from.
    #[arg(long, default_value_t = 1_000_000)]
    flows: usize,
    /// The benchmark of the evaluator, already built.
    #[arg(long)]
    evaluator: Option<PathBuf>,
    /// The binary to measure, already built.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Args {
    /// The arguments, for the same again.
    pub fn to_words(&self) -> Vec<String> {
        let Self { flows, evaluator, binary: _ } = self;
        let mut words = vec!["evaluate".to_owned(), "--flows".to_owned(), flows.to_string()];
        if let Some(evaluator) = evaluator {
            words.extend(["--evaluator".to_owned(), evaluator.display().to_string()]);
        }
        words
    }
}

/// Measures; the caller is root. Prints what it writes to docs/benchmarks/evaluate.md.
pub fn measure(args: &Args, binary: &Path) -> Result<()> {
    document::write("evaluate.md", |directory| all(args, binary, directory))
}

fn all(args: &Args, binary: &Path, directory: &Path) -> Result<String> {
    let mut text = format!(
        "# The evaluator: packets a second, and predictions\n\n`cargo xtask bench evaluate --flows {}`, {}.\n",
        args.flows,
        document::machine()?,
    );
    let (recording, rules) = (directory.join("flows.rec"), directory.join("other.nft"));
    let said = evaluator(args, &recording, &rules)?;
    packets(&mut text, &said)?;
    predictions(&mut text, args, binary, &recording, &rules)?;
    Ok(text)
}

/// Runs the benchmark of the evaluator in a namespace of its own, and returns what it says.
fn evaluator(args: &Args, recording: &Path, rules: &Path) -> Result<Value> {
    let program = match &args.evaluator {
        Some(program) => program.clone(),
        None => build()?,
    };
    let run = Command::new("unshare")
        .arg("-n")
        .arg(program)
        .arg(args.flows.to_string())
        .args([recording, rules])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(run.status.success(), "the benchmark of the evaluator failed: {}", run.status);
    Ok(serde_json::from_slice(&run.stdout)?)
}

fn build() -> Result<PathBuf> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["bench", "-p", "conntracker", "--features", "fuzz", "--bench", "evaluate"]);
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let run = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(run.status.success(), "the benchmark of the evaluator does not build");
    let built = String::from_utf8_lossy(&run.stdout);
    let messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "evaluate");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo does not say where the benchmark is")
}

fn packets(text: &mut String, said: &Value) -> Result<()> {
    writeln!(
        text,
        "\nPackets of a new flow, each of another one, whom none of the rules matches: each rule compares the source's and the \
         destination's network, and the port. One thread.\n\n| rules | packets/s | ns/rule |\n|---:|---:|---:|"
    )?;
    let list = |name: &str| said[name].as_array().context("it says nothing");
    for (rules, speed) in list("rules")?.iter().zip(list("packets_per_second")?) {
        let (rules, speed) = (rules.as_f64().unwrap_or(1.0), speed.as_f64().unwrap_or(f64::NAN));
        writeln!(text, "| {rules} | {speed:.0} | {:.0} |", 1e9 / speed / rules)?;
    }
    writeln!(
        text,
        "\nNo other program evaluates a ruleset outside of the kernel; the kernel itself needs a packet to do so, and tells no \
         step of it without tracing. So there is no peer here."
    )?;
    Ok(())
}

fn predictions(
    text: &mut String,
    args: &Args,
    binary: &Path,
    recording: &Path,
    rules: &Path,
) -> Result<()> {
    writeln!(
        text,
        "\nA prediction for {} made up flows (masqueraded TCP connections of 4,000 clients to 20,000 servers), recorded under a \
         firewall of 1,000 rules, against another one of 1,000 rules; and the report of the same recording, which reads it as \
         well.\n\n| | seconds | flows/s | classes | packets evaluated |\n|---|---:|---:|---:|---:|",
        args.flows
    )?;
    let mut row = |what: &str, seconds: f64, of: Option<&Value>| {
        let count = |name: &str| of.map_or("-".to_owned(), |of| of[name].to_string());
        let speed = args.flows as f64 / seconds;
        writeln!(
            text,
            "| {what} | {seconds:.1} | {speed:.0} | {} | {} |",
            count("classes"),
            count("evaluated")
        )
    };
    let timed = |options: &[&str]| -> Result<(f64, Vec<u8>)> {
        let mut command = Command::new(binary);
        command.arg("report").arg(recording).args(["--no-fold", "--memory", "16G"]).args(options);
        let start = Instant::now();
        let run = command.stderr(Stdio::inherit()).output()?;
        ensure!(matches!(run.status.code(), Some(0 | 1 | 4)), "report failed: {}", run.status);
        Ok((start.elapsed().as_secs_f64(), run.stdout))
    };
    let against = rules.to_str().context("a name that is no text")?;
    for (what, option) in [
        ("flows that begin", None),
        ("flows that exist (all have ended: reading alone)", Some("--established")),
    ] {
        let options: Vec<&str> =
            ["--against", against, "--format", "json"].into_iter().chain(option).collect();
        let (seconds, document) = timed(&options)?;
        let document: Value = serde_json::from_slice(&document)?;
        row(what, seconds, Some(&document["prediction"]))?;
    }
    let (seconds, _) = timed(&["--format", "ndjson"])?;
    row("`report --format ndjson`", seconds, None)?;
    Ok(())
}
