//! `cargo xtask lint`: formatting, clippy and the documentation, each warning an error, BPF half included.

mod imports;
mod rooms;
mod words;

use std::process::ExitCode;

use anyhow::Result;

use crate::toolchain::{self, Toolchain};
use crate::{cmd, setup, workspace};

pub fn main() -> Result<ExitCode> {
    setup::ensure()?;
    // All of it, also after a failure: one run shows all there is to mend.
    let results = [
        step("rustfmt", || cmd::run(workspace::cargo()?.args(["fmt", "--all", "--check"]))),
        step("rooms", rooms::check),
        step("words", words::check),
        step("clippy, userspace", || {
            let mut cargo = workspace::cargo()?;
            cargo.args(["clippy", "--quiet", "--workspace", "--exclude", "conntracker-ebpf"]);
            cmd::run(cargo.args(["--all-targets", "--", "-Dwarnings"]))
        }),
        step("clippy, library alone", || {
            // What is left without the program: with and without tokio.
            for features in ["", "tokio"] {
                let mut cargo = workspace::cargo()?;
                cargo.args([
                    "clippy",
                    "--quiet",
                    "--package",
                    "conntracker",
                    "--lib",
                    "--examples",
                ]);
                cargo.args(["--no-default-features", "--features", features]);
                cmd::run(cargo.args(["--", "-Dwarnings"]))?;
            }
            Ok(())
        }),
        step("clippy, BPF", bpf),
        step("fuzz targets", fuzz),
        step("documentation", || {
            // The crate as a whole, and what users of the library read.
            for features in [&[][..], &["--no-default-features"]] {
                let mut cargo = workspace::cargo()?;
                cargo.env("RUSTDOCFLAGS", "-Dwarnings");
                cargo.args(["doc", "--quiet", "--no-deps", "--package", "conntracker"]);
                cmd::run(cargo.args(features))?;
            }
            Ok(())
        }),
    ];
    if results.contains(&false) {
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("lint: fine");
    Ok(ExitCode::SUCCESS)
}

/// They are a workspace of their own, which nothing else builds.
fn fuzz() -> Result<()> {
    let fuzz = |command: &str| {
        let mut cargo = workspace::cargo()?;
        cargo.arg(command).args(["--manifest-path", "fuzz/Cargo.toml"]);
        anyhow::Ok(cargo)
    };
    cmd::run(fuzz("fmt")?.arg("--check"))?;
    let shared = workspace::target_dir()?;
    let mut clippy = fuzz("clippy")?;
    clippy.args(["--quiet", "--locked", "--target-dir"]).arg(shared);
    cmd::run(clippy.args(["--", "-Dwarnings"]))
}

fn bpf() -> Result<()> {
    if toolchain::prebuilt()?.is_some() && Toolchain::find().is_err() {
        eprintln!("lint: not done, the BPF object is prebuilt and nothing here compiles for BPF");
        return Ok(());
    }
    // What the BPF half shares with userspace has been looked at with userspace's own clippy.
    Toolchain::find()?.cargo("clippy", &["--no-deps", "--", "-Dwarnings"])
}

fn step(what: &str, check: impl FnOnce() -> Result<()>) -> bool {
    eprintln!("lint: {what}");
    check().inspect_err(|error| eprintln!("lint: {error:#}")).is_ok()
}
