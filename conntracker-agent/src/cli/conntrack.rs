//! `conntracker conntrack`: the command line of conntrack(8), which is not clap's.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;
use conntracker::{conntrack8, os::messages};

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct ConntrackArgs {
    /// Arguments of conntrack(8); `-h` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    arguments: Vec<OsString>,
}

impl ConntrackArgs {
    pub fn run(self) -> ExitCode {
        run(self.arguments)
    }
}

/// Does what these arguments say.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    messages::to_stderr();
    let text = |argument: OsString| argument.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments.into_iter().map(text).collect();
    conntrack8::run(&arguments)
}
