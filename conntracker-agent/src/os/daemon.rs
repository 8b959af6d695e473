//! The daemon: it detaches, runs once per pidfile, and tells its starter whether it runs.
//!
//! The starter runs this program again instead of calling fork(2), which would be unsafe code, and waits until the
//! daemon observes or says why it cannot.

use std::{
    env,
    fs::{self, File, Metadata, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            net::{SocketAddr, UnixDatagram},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::{dup2_stderr, setsid},
};

use crate::os::messages;

/// Environment variable that tells a process that it is the daemon.
const MARKER: &str = "CONNTRACKER_DAEMON";

/// Where the pidfile is unless `--pidfile` says otherwise.
pub const PIDFILE: &str = "/run/conntracker.pid";

/// Where reports go unless `-o` says otherwise.
pub const REPORT: &str = "/var/log/conntracker/conntracker.log";

/// Default recording of the daemon.
pub const RECORDING: &str = "/var/log/conntracker/conntracker.rec";

/// Name of the daemon in lists of processes, because it is run as /proc/self/exe.
const NAME: &str = "conntracker";

/// What the daemon writes when it observes.
const READY: &str = "ready\n";

/// Whether this process is the daemon.
#[must_use]
pub fn is_daemon() -> bool {
    env::var_os(MARKER).is_some()
}

/// Starts the daemon with the same arguments and waits until it is ready.
///
/// # Errors The daemon could not be started. If it started and failed, its message is printed and its exit code
/// returned.
pub fn start() -> Result<ExitCode> {
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .args(env::args_os().skip(1))
        .env(MARKER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the daemon")?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // The read ends when the daemon closes the pipe: it is ready, or it has failed.
        stderr.read_to_string(&mut said).context("cannot read the daemon's messages")?;
    }
    if let Some(messages) = said.strip_suffix(READY) {
        messages::say(messages);
        return Ok(ExitCode::SUCCESS);
    }
    messages::say(&said);
    let status = child.wait().context("cannot wait for the daemon")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The locked pidfile; removed when dropped.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    lock: Flock<File>,
}

impl Pidfile {
    /// Locks the pidfile and writes our process id into it.
    ///
    /// # Errors
    /// Another instance holds it, it cannot be written, or it is some other file.
    pub fn lock(path: &Path) -> Result<Self> {
        let what = || format!("cannot write pidfile {}", path.display());
        loop {
            let mut lock = Self::open_locked(path)?;
            let locked = lock.metadata().with_context(what)?;
            if !locked.is_file() || locked.nlink() > 1 {
                bail!(
                    "will not write the pidfile {}: it has other names, or is no regular file. Use another --pidfile",
                    path.display()
                );
            }
            // Between the open and the lock the previous daemon may have ended and removed the file. A lock on a
            // removed file would keep nobody out.
            let named = match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                named => named.with_context(what)?,
            };
            if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) {
                lock.set_len(0).with_context(what)?;
                writeln!(lock, "{}", std::process::id()).with_context(what)?;
                return Ok(Self { path: path.to_owned(), lock });
            }
        }
    }

    fn open_locked(path: &Path) -> Result<Flock<File>> {
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
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((mut file, _)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                bail!(
                    "conntracker runs already as process {} ({} is locked); stop it with `kill`, or use another --pidfile",
                    pid.trim(),
                    path.display()
                );
            }
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // The file is removed while it is locked, and only if it is still ours: it may have been removed and made
        // anew by another daemon.
        let same = |named: &Metadata| {
            self.lock
                .metadata()
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
        };
        if fs::symlink_metadata(&self.path).is_ok_and(|named| same(&named)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The claim of an agent to the name of a file. No other agent gets it while this one lives, even if the pidfile is
/// removed.
#[derive(Debug)]
pub struct Claim {
    _socket: UnixDatagram,
}

impl Claim {
    /// Claims the report of this name.
    ///
    /// # Errors
    /// Another daemon has it, or the directory cannot be read.
    pub fn report(path: &Path) -> Result<Self> {
        Self::file("report", path)?.with_context(|| {
            format!(
                "another conntracker daemon writes {}; stop it, or use another -o",
                path.display()
            )
        })
    }

    /// Claims the socket of this name.
    ///
    /// # Errors
    /// Another agent has it, or the directory cannot be read.
    pub fn socket(path: &Path) -> Result<Self> {
        Self::file("socket", path)?.with_context(|| {
            format!("another agent answers at {}; use another --socket", path.display())
        })
    }

    /// Claims a file; `None` if it is claimed. The claim is an abstract socket (unix(7)), because that leaves no file
    /// that could stay behind or be removed.
    fn file(what: &str, path: &Path) -> Result<Option<Self>> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let meta =
            fs::metadata(parent).with_context(|| format!("cannot look at {}", parent.display()))?;
        let name = path.file_name().unwrap_or_default();
        // Names of sockets are short.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let name =
            format!("conntracker/{what}/{}/{}/{:x}", meta.dev(), meta.ino(), hasher.finish());
        let address = SocketAddr::from_abstract_name(name).context("cannot name a socket")?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot claim {}", path.display())),
        }
    }
}

/// Leaves the starter's session and terminal.
pub fn detach() -> Result<()> {
    setsid().context("cannot leave the terminal's session")?;
    // It only looks nicer.
    let _ = fs::write("/proc/self/comm", NAME);
    // Stay out of the way of unmounts.
    env::set_current_dir("/").context("cannot change to /")
}

/// Tells the starter that the daemon is ready, and closes the starter's standard error.
pub fn ready() -> Result<()> {
    io::stderr().write_all(READY.as_bytes()).context("cannot tell the starter")?;
    let null = OpenOptions::new().write(true).open("/dev/null").context("cannot open /dev/null")?;
    dup2_stderr(&null).context("cannot close standard error")
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
    fn a_file_with_another_name_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("c.pid"));
        fs::write(&victim, "keep").unwrap();
        fs::hard_link(&victim, &link).unwrap();
        let error = Pidfile::lock(&link).unwrap_err().to_string();
        assert!(error.contains("it has other names"), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
    }

    #[test]
    fn a_pidfile_of_another_daemon_is_not_removed_and_a_report_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, report) = (dir.path().join("c.pid"), dir.path().join("r.log"));
        let first = (Pidfile::lock(&path).unwrap(), Claim::report(&report).unwrap());
        fs::remove_file(&path).unwrap();
        let second = Pidfile::lock(&path).unwrap();
        let error = Claim::report(&report).unwrap_err().to_string();
        assert!(error.contains("another conntracker daemon writes"), "{error}");
        Claim::report(&dir.path().join("other.log")).unwrap();
        drop(first);
        assert!(path.exists());
        Claim::report(&report).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_is_not_written_through_a_symbolic_link() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("c.pid"));
        fs::write(&victim, "keep").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(Pidfile::lock(&link).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
    }
}
