//! `cargo xtask build`: the BPF object, then the agent that embeds it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::{cmd, toolchain, workspace};

/// Build the BPF object and the `conntracker` binary.
#[derive(clap::Args)]
pub struct Args {
    /// With optimisation, into target/release.
    #[arg(long)]
    release: bool,
    /// With log messages of the BPF programs (for debugging them).
    #[arg(long)]
    bpf_log: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let binary = build_with(args.release, args.bpf_log)?;
    eprintln!("xtask: built {}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds and returns the path of the binary.
pub fn build(release: bool) -> Result<PathBuf> {
    build_with(release, false)
}

fn build_with(release: bool, bpf_log: bool) -> Result<PathBuf> {
    let features: &[&str] = if bpf_log { &["--features", "bpf-log"] } else { &[] };
    toolchain::build_object(features)?;
    let mut cargo = workspace::cargo()?;
    cargo.args(["build", "--quiet", "--package", "conntracker"]);
    cargo.args(features);
    if release {
        cargo.arg("--release");
    }
    cmd::run(&mut cargo)?;
    workspace::binary(release)
}
