//! `cargo xtask test`: all tests, as root, and their number.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::{build, cmd, setup, workspace};

/// Run all tests of the workspace; those that need the lab run as root.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `cargo test`: a name, `--test NAME`, or after a further `--` options of the
    /// test programs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let binary = build::build(false)?;
    let mut cargo = workspace::cargo()?;
    cargo
        .args(["test", "--no-fail-fast", "--workspace", "--exclude", "conntracker-ebpf"])
        .env("CONNTRACKER_BIN", binary);
    if !cmd::is_root() {
        // Only the test programs run as root; what cargo writes stays ours.
        let runner = format!("target.'cfg(all())'.runner=['sudo','{}']", cmd::SUDO_KEEPS);
        cargo.arg("--config").arg(runner);
    }
    cargo.args(&args.args).stdout(Stdio::piped());

    let mut child = cargo.spawn().with_context(|| format!("cannot start {}", cmd::show(&cargo)))?;
    let output = child.stdout.take().context("standard output is not piped")?;
    let mut sum = Counts::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        if let Some(counts) = Counts::of(&String::from_utf8_lossy(&line)) {
            sum.add(&counts);
        }
    }
    let status = child.wait()?;
    if !status.success() && sum.failed == 0 {
        eprintln!("xtask: a test program did not build, or ended without a result: {status}");
        sum.failed = 1;
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Results of one or of all test programs.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn of(line: &str) -> Option<Self> {
        let (_, list) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Self::default();
        for item in list.split("; ") {
            let Some((number, what)) = item.split_once(' ') else { continue };
            let field = match what {
                "passed" => &mut counts.passed,
                "failed" => &mut counts.failed,
                "ignored" => &mut counts.skipped,
                _ => continue,
            };
            *field = number.parse().ok()?;
        }
        Some(counts)
    }

    fn add(&mut self, other: &Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn result_lines_are_summed() {
        let mut sum = Counts::default();
        for line in [
            "running 6 tests",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            if let Some(counts) = Counts::of(line) {
                sum.add(&counts);
            }
        }
        assert_eq!(sum, Counts { passed: 7, failed: 3, skipped: 1 });
    }
}
