//! The program under test, and what can be compared with its reports.

mod backend;
pub mod conntrack;
mod daemon;
mod flow;
pub mod listed;
pub mod recording;
pub mod report;

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use self::recording::Recording;
pub use backend::{backend, by_probes, skip, skipped_without_counters, skipped_without_links};
pub use daemon::Daemon;
pub use flow::{Direction, Flow, L4, Tuple, merge};

use crate::lab::{Guarded, Host};

/// How long a start or an end may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Where `cargo xtask test` says that the program is.
const BINARY: &str = "CONNTRACKER_BIN";

/// The program under test.
///
/// # Errors
/// It has not been built: tests without it fail rather than pass for nothing.
pub fn binary() -> Result<PathBuf> {
    let path = if let Some(path) = env::var_os(BINARY) {
        PathBuf::from(path)
    } else {
        // Test programs are in target/PROFILE/deps.
        let tests = env::current_exe()?;
        let profile = tests.ancestors().nth(2).context("the test program is in no directory")?;
        profile.join("conntracker")
    };
    ensure!(
        path.is_file(),
        "{} does not exist: run `cargo xtask test`, which builds it (and the BPF programs)",
        path.display()
    );
    Ok(path)
}

/// A command line of the program, not started yet.
pub fn command<I, S>(args: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let args = backend::chosen(args.into_iter().map(|arg| arg.as_ref().to_owned()).collect());
    let mut command = Command::new(binary()?);
    command.args(args).stdin(Stdio::null());
    Ok(command)
}

/// Runs the program to its end.
pub fn output<I, S>(args: I) -> Result<Output>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    command(args)?.output().context("cannot run the program under test")
}

/// Standard output of a run that must succeed.
pub fn stdout<I, S>(args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let Output { status, stdout, stderr } = output(args)?;
    ensure!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).context("output is not UTF-8")
}

/// A running `conntracker trace`; killed when dropped.
#[derive(Debug)]
pub struct Tracer {
    process: Guarded,
    /// What it records, if its report is to be compared with that of the recording.
    recording: Option<Recording>,
}

/// What is left of a tracer that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The report, if it went there.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
}

impl Tracer {
    /// Observes a host and writes the report to standard output, unless `args` say otherwise.
    /// Returns once it observes.
    pub fn start(host: &Host, args: &[&str]) -> Result<Self> {
        let mut all = vec!["trace", "--netns", &host.name];
        if !args.contains(&"-o") {
            all.extend(["-o", "-"]);
        }
        all.extend(args);
        let recording = Recording::of(args);
        if let Some(recording) = &recording {
            all.extend(["--record", &recording.path]);
        }
        let tracer = Self::spawn(command(all)?)?;
        Ok(Self { recording, ..tracer })
    }

    /// Observes a host, and writes no report. Returns once it observes.
    pub fn start_without_report(host: &Host, args: &[&str]) -> Result<Self> {
        Self::spawn(command([&["trace", "--netns", &host.name], args].concat())?)
    }

    /// Starts a trace by its whole command line. Returns once it observes.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::spawn(&mut command)?;
        process.wait_for("conntracker: observing", PATIENCE)?;
        Ok(Self { process, recording: None })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process, for signals and for what it says.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.process
    }

    /// Ends it by a signal and waits.
    pub fn stop(self, signal: Signal) -> Result<Finished> {
        self.process.signal(signal)?;
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Finished> {
        let status = self.process.wait(PATIENCE)?;
        let (stdout, stderr) = (self.process.stdout(), self.process.stderr());
        if let (Some(recording), true) = (self.recording, status.success()) {
            recording.compare(&stdout)?;
        }
        Ok(Finished { status, stdout, stderr })
    }

    /// Ends it with SIGINT, as Ctrl-C does; it must succeed. Returns the report.
    pub fn finish(self) -> Result<String> {
        let Finished { status, stdout, stderr } = self.stop(Signal::SIGINT)?;
        ensure!(status.success(), "the trace ended with {status}: {stderr}");
        Ok(stdout)
    }
}
