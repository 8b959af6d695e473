//! `conntracker status`.

use std::{
    path::{self, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use conntracker::{
    commands::status::{self, Format, Status},
    os::{agent_socket, daemon},
};

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Format of the answer.
    #[arg(long, value_enum, default_value_t)]
    format: StatusFormat,
    /// Socket of the agent, as `trace --socket` named it.
    #[arg(long, value_name = "PATH", conflicts_with = "pidfile")]
    socket: Option<PathBuf>,
    /// Pidfile of the daemon, if it is not the default one.
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Exit with 3 if the agent has lost something, or does not tell drops or rules.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StatusFormat {
    /// A line for each fact.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

pub fn run(args: StatusArgs) -> Result<ExitCode> {
    let StatusArgs { format, socket, pidfile, strict } = args;
    let socket = if let Some(socket) = socket {
        socket
    } else {
        let pidfile = pidfile.unwrap_or_else(|| daemon::PIDFILE.into());
        agent_socket::of_pidfile(&path::absolute(pidfile)?)
    };
    let format = match format {
        StatusFormat::Text => Format::Text,
        StatusFormat::Json => Format::Json,
    };
    status::run(&Status { socket, format, strict })
}
