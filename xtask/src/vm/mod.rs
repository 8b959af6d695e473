//! `cargo xtask test-vm`: the suites in the kernels of distributions, in virtual machines.
//!
//! A run is a kernel, a backend, and for the backend `probes` a way of attaching. The guest has no
//! disk and no network: its initramfs has the kernel's modules, the host's tools, the program under
//! test, the test programs, and a job, and its answers come through a serial port.

mod boot;
mod cache;
mod command;
mod cpio;
mod docs;
mod fetch;
mod initramfs;
mod kernels;
mod machine;
mod protocol;
mod results;
mod runs;
mod session;
mod suites;
mod tools;

pub mod guest;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::counts::Counts;
use crate::{build, setup};
use runs::Order;

/// Boot kernels of distributions under QEMU and run the suites in them.
#[derive(clap::Args)]
pub struct Args {
    /// A kernel (debian-6.1, 6.12, …; `all`); repeatable. Otherwise the default set.
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// Only this suite (`flows`, `steps`, …); repeatable.
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Only runs with this backend.
    #[arg(long)]
    backend: Option<String>,
    /// Emulate the CPU even if there is KVM.
    #[arg(long)]
    no_kvm: bool,
    /// Download the newest packages, whatever is in the cache.
    #[arg(long)]
    refresh: bool,
    /// Write docs/compatibility.md from the results of the runs so far, and boot nothing.
    #[arg(long, conflicts_with = "run")]
    docs: bool,
    /// Run this command of sh in each kernel instead of the suites, and show what it says.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// With --run: how long it may take, in seconds.
    #[arg(long, default_value_t = 600, requires = "run")]
    limit: u64,
    /// With --run: a file of the host to put into the guest; repeatable.
    #[arg(long = "file", value_name = "FILE[:PLACE]", requires = "run")]
    files: Vec<String>,
    /// What else stands on the kernel's command line (`preempt=full`).
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// With --run: an environment variable for the command; repeatable.
    #[arg(long = "env", value_name = "KEY=VALUE", requires = "run")]
    environment: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if args.docs {
        docs::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure()?;
    if let Some(command) = &args.run {
        return command::main(args, command);
    }
    let order = Order {
        kernels: kernels::select(&args.kernels)?,
        suites: args.suites.clone(),
        backend: args.backend.clone(),
        no_kvm: args.no_kvm,
        refresh: args.refresh,
        append: args.append.clone(),
    };
    let counts = runs::all(&order)?;
    println!("{counts}");
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The default set, as a part of `cargo xtask test`. What keeps it from running is a failure.
pub fn default_set(no_kvm: bool) -> Counts {
    if let Err(error) = machine::arch() {
        println!("vm: skipped: {error:#}");
        return Counts { skipped: 1, ..Counts::default() };
    }
    let run = || {
        let kernels = kernels::select(&[])?;
        runs::all(&Order {
            kernels,
            suites: Vec::new(),
            backend: None,
            no_kvm,
            refresh: false,
            append: String::new(),
        })
    };
    run().unwrap_or_else(|error| {
        eprintln!("vm: {error:#} (`cargo xtask test --no-vm` leaves other kernels out)");
        Counts { failed: 1, ..Counts::default() }
    })
}

/// The program under test: the one that the environment names, or a fresh one, optimised because
/// emulation is slow.
fn program() -> Result<PathBuf> {
    match env::var_os("CONNTRACKER_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build::build(true),
    }
}
