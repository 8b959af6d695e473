//! `cargo xtask test`: all tests, as root, here and in other kernels, and their number.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::counts::{Counts, Reader};
use crate::{build, cmd, setup, vm, workspace};

/// Run all tests of the workspace; those that need the lab run as root. Then the suites in the
/// kernels of `cargo xtask test-vm`, unless only some tests are asked for.
#[derive(clap::Args)]
pub struct Args {
    /// Only on the kernel that runs here.
    #[arg(long)]
    no_vm: bool,
    /// Emulate the CPU of virtual machines even if there is KVM.
    #[arg(long)]
    no_kvm: bool,
    /// Arguments of `cargo test`: a name, `--test NAME`, or after a further `--` options of the
    /// test programs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    tests: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let mut sum = here(&args.tests)?;
    if args.no_vm {
        eprintln!("xtask: other kernels are left out (--no-vm)");
    } else if args.tests.is_empty() {
        sum.add(&vm::default_set(args.no_kvm));
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests on this kernel.
fn here(args: &[OsString]) -> Result<Counts> {
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
    cargo.args(args).stdout(Stdio::piped());

    let mut child = cargo.spawn().with_context(|| format!("cannot start {}", cmd::show(&cargo)))?;
    let output = child.stdout.take().context("standard output is not piped")?;
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        reader.line(&String::from_utf8_lossy(&line));
    }
    let status = child.wait()?;
    let mut counts = reader.counts;
    if !status.success() && counts.failed == 0 {
        eprintln!("xtask: a test program did not build, or ended without a result: {status}");
        counts.failed = 1;
    }
    Ok(counts)
}
