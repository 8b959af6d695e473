//! Runs a command and turns a failure into an error that says what the command said.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// Runs `ip` in our own namespace.
pub(super) fn ip<I, S>(args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    capture(Command::new("ip").args(args), "")
}

/// Runs a command with this standard input and returns its standard output.
pub(super) fn capture(command: &mut Command, stdin: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut pipe = child.stdin.take().ok_or_else(|| anyhow!("standard input is not piped"))?;
    let written = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed with {}: {}", output.status, stderr.trim());
    }
    match written {
        // A command that succeeds without reading its input is its own business.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error)?,
        _ => String::from_utf8(output.stdout).with_context(|| format!("output of {command:?}")),
    }
}
