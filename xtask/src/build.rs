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
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let binary = build(args.release)?;
    eprintln!("xtask: built {}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds and returns the path of the binary.
pub fn build(release: bool) -> Result<PathBuf> {
    toolchain::build_object()?;
    let mut cargo = workspace::cargo()?;
    cargo.args(["build", "--quiet", "--package", "conntracker"]);
    if release {
        cargo.arg("--release");
    }
    cmd::run(&mut cargo)?;
    workspace::binary(release)
}
