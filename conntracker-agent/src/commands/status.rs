//! `conntracker status`: asks a running agent, and prints what it says.

mod text;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use super::trace::EXIT_LOST;
use crate::{
    live::status::protocol,
    model::harmless,
    os::{
        agent_socket::{
            self,
            client::{self, Asked},
        },
        messages,
        output::Destination,
    },
};

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for each fact.
    Text,
    /// The object that the agent sent.
    Json,
}

/// What `conntracker status` is to do.
#[derive(Clone, Debug)]
pub struct Status {
    /// The socket of the agent.
    pub socket: PathBuf,
    /// How to print it.
    pub format: Format,
    /// Losses are worth an exit status.
    pub strict: bool,
}

/// Prints the status of an agent.
///
/// # Errors
/// No agent answers.
pub fn run(status: &Status) -> Result<ExitCode> {
    messages::to_stderr();
    let Status { socket, format, strict } = status;
    let Asked::Answered(answer) = client::ask(socket, &protocol::question())? else {
        bail!("no agent answers at {}: {}", socket.display(), instead(socket));
    };
    let (raw, status) = protocol::status(&answer)
        .with_context(|| format!("cannot use what {} answers", socket.display()))?;
    Destination::Stdout.write(|out| match format {
        Format::Text => text::write(&status, out),
        Format::Json => {
            harmless::json(out, &raw)?;
            out.write_all(b"\n")
        }
    })?;
    let lost = status.lost > 0 || !status.untold.is_empty();
    Ok(if *strict && lost { ExitCode::from(EXIT_LOST) } else { ExitCode::SUCCESS })
}

/// What to do if nobody answers.
fn instead(socket: &Path) -> String {
    let answers = |other: &PathBuf| {
        other != socket
            && matches!(client::ask(other, &protocol::question()), Ok(Asked::Answered(_)))
    };
    let others: Vec<String> = agent_socket::all()
        .into_iter()
        .filter(answers)
        .map(|other| format!("--socket {}", other.display()))
        .collect();
    match others.as_slice() {
        [] => "start one with `conntracker -d`, or name its socket by --socket".to_owned(),
        others => format!("others do, use {}", others.join(" or ")),
    }
}
