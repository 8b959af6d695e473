//! Running in the background: detach, one instance per pidfile, tell the starter how it went.
//!
//! The starter runs this program again, without fork(2) (and so without unsafe code), and waits until the
//! daemon says that it observes, or why it cannot.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::{dup2_stderr, setsid},
};

/// Set in the daemon's environment: it is the one that was started.
const MARKER: &str = "CONNTRACKER_DAEMON";

/// Where the pidfile is unless `--pidfile` says otherwise.
pub const PIDFILE: &str = "/run/conntracker.pid";

/// Where reports go unless `-o` says otherwise.
pub const REPORT: &str = "/var/log/conntracker/conntracker.log";

/// What the daemon writes when it observes.
const READY: &str = "ready\n";

/// Whether this process is the daemon.
#[must_use]
pub fn is_daemon() -> bool {
    env::var_os(MARKER).is_some()
}

/// Starts the daemon with the same arguments and waits until it is ready.
///
/// # Errors
/// It could not be started. If it started but failed, its message is passed on and the exit code is
/// its own.
pub fn start() -> Result<ExitCode> {
    let mut child = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(MARKER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the daemon")?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Ends when the daemon lets go of it: when it is ready, or when it has failed.
        stderr.read_to_string(&mut said).context("cannot hear from the daemon")?;
    }
    if let Some(messages) = said.strip_suffix(READY) {
        eprint!("{messages}");
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("{said}");
    let status = child.wait().context("cannot wait for the daemon")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The locked pidfile; removed when dropped.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Pidfile {
    /// Locks the pidfile and writes our process id into it.
    ///
    /// # Errors
    /// Another instance holds it, or it cannot be written.
    pub fn lock(path: &Path) -> Result<Self> {
        let what = || format!("cannot write pidfile {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .with_context(what)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, _)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                bail!(
                    "conntracker runs already as process {} ({} is locked); stop it with `kill`, or use another --pidfile",
                    pid.trim(),
                    path.display()
                );
            }
        };
        lock.set_len(0).with_context(what)?;
        writeln!(lock, "{}", std::process::id()).with_context(what)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Removed while locked, so that it can only be ours.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Leaves the starter's session and terminal.
pub fn detach() -> Result<()> {
    setsid().context("cannot leave the terminal's session")?;
    // Stay out of the way of unmounts.
    env::set_current_dir("/").context("cannot change to /")
}

/// Tells the starter that all is well, and lets go of its standard error.
pub fn ready() -> Result<()> {
    io::stderr().write_all(READY.as_bytes()).context("cannot tell the starter")?;
    let null = OpenOptions::new().write(true).open("/dev/null").context("cannot open /dev/null")?;
    dup2_stderr(&null).context("cannot let go of standard error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.pid");
        let first = Pidfile::lock(&path).unwrap();
        let error = Pidfile::lock(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(!path.exists());
        Pidfile::lock(&path).unwrap();
    }

    #[test]
    fn a_pidfile_is_not_written_through_a_symbolic_link() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("c.pid"));
        std::fs::write(&victim, "keep").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(Pidfile::lock(&link).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "keep");
    }
}
