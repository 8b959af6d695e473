//! `conntracker doctor`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use conntracker::{capture::NetnsChoice, commands::doctor};

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Network namespace to look at: a name, `pid:N` or a path.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    doctor::run(&match &args.netns {
        Some(name) => NetnsChoice::Named(vec![name.clone()]),
        None => NetnsChoice::Current,
    })
}
