//! `cargo xtask fuzz`: inputs that nobody thought of, found by coverage (cargo-fuzz, libFuzzer), for the codec
//! of ctnetlink and the command line of conntrack(8).

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{cmd, progress, setup, toolchain, workspace};

/// What the kernel sent, for the fuzzer to begin with.
const FIXTURES: &str = "conntracker-agent/src/netlink/ctnetlink/fixtures";

/// Run the fuzz targets for a while
#[derive(clap::Args)]
pub struct Args {
    /// Only this target.
    #[arg(value_enum)]
    target: Option<Target>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// Messages of ctnetlink: decoded, and printed in all formats.
    Ctnetlink,
    /// Command lines of conntrack(8).
    Arguments,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    setup::ensure_nightly()?;
    if cmd::find("cargo-fuzz").is_none() {
        let mut cargo = workspace::cargo()?;
        progress::run("cargo-fuzz", cargo.args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let root = workspace::root()?;
    let mut failed = Vec::new();
    for target in Target::value_variants() {
        if args.target.is_none_or(|only| only.name() == target.name()) {
            let run = run(&root, *target, args.seconds);
            failed.extend(
                run.inspect_err(|error| eprintln!("fuzz: {error:#}"))
                    .is_err()
                    .then_some(target.name()),
            );
        }
    }
    ensure!(failed.is_empty(), "inputs were found for {}: see fuzz/artifacts", failed.join(", "));
    Ok(ExitCode::SUCCESS)
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Ctnetlink => "ctnetlink",
            Self::Arguments => "arguments",
        }
    }
}

fn run(root: &Path, target: Target, seconds: u32) -> Result<()> {
    let fuzz = root.join("fuzz");
    let corpus = fuzz.join("corpus").join(target.name());
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let mut cargo = Command::new("cargo");
    toolchain::clean(&mut cargo);
    cargo.current_dir(root).args(["+nightly", "fuzz", "run", target.name(), "--"]);
    cargo.arg(format!("-max_total_time={seconds}"));
    match target {
        Target::Ctnetlink => {
            for file in fs::read_dir(root.join(FIXTURES))? {
                let file = file?;
                fs::copy(file.path(), corpus.join(file.file_name()))?;
            }
            cargo.arg("-max_len=4096");
        }
        Target::Arguments => {
            cargo.arg("-max_len=512").arg("-dict=fuzz/arguments.dict");
        }
    }
    cmd::run(&mut cargo)
}
