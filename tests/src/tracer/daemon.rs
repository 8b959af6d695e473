//! A trace in the background.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// A daemon by its pidfile; killed when dropped if a test fails before it has ended.
#[derive(Debug)]
pub struct Daemon {
    pid: Pid,
    pidfile: PathBuf,
}

impl Daemon {
    /// The one that this pidfile names.
    pub fn of(pidfile: &Path) -> Result<Self> {
        let pid = fs::read_to_string(pidfile).context("the daemon has no pidfile")?;
        Ok(Self { pid: Pid::from_raw(pid.trim().parse()?), pidfile: pidfile.to_owned() })
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> Pid {
        self.pid
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn running(&self) -> bool {
        // Its starter is gone and whoever inherited it may be slow to notice: a zombie has ended.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("{signal} to the daemon"))
    }

    /// Ends it by SIGTERM and waits.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        while self.running() || self.pidfile.exists() {
            ensure!(start.elapsed() < PATIENCE, "the daemon does not end");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() && self.running() {
            // It is being cleaned up after a failed test: nobody to tell.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}
