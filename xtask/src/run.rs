//! `cargo xtask run`: the freshly built binary, as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{build, cmd, setup};

/// Build conntracker and run it with these arguments (default: `trace`).
#[derive(clap::Args)]
pub struct Args {
    /// Run the optimised binary.
    #[arg(long)]
    release: bool,
    /// Arguments of conntracker.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let mut command = cmd::as_root(build::build(args.release)?);
    if args.args.is_empty() {
        command.arg("trace");
    } else {
        command.args(&args.args);
    }
    // In our place: signals go to conntracker, and its exit status is ours.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", cmd::show(&command)))
}
