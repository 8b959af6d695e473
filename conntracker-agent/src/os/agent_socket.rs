//! The Unix socket at which a running agent answers questions: its name, who may connect, and what becomes of it when
//! the agent ends. `server` answers, [`client`] asks.

pub mod client;
mod server;

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::AT_FDCWD,
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{FchmodatFlags, Mode, fchmod, fchmodat},
    },
    unistd::geteuid,
};

use self::server::Server;
use super::daemon::{self, Claim};

/// Where the sockets of daemons are, unless `--socket` says otherwise.
pub const DIRECTORY: &str = "/run/conntracker";

/// The end of their names.
const SUFFIX: &str = "sock";

/// Who may connect: the owner and the group. What an agent tells is in its reports too, which have the same mode.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IWGRP);

/// Clients that wait to be accepted.
const BACKLOG: i32 = 16;

/// The socket of the daemon with this pidfile. Two pidfiles never share one: all but the default one put a hash of
/// their path into the name.
#[must_use]
pub fn of_pidfile(pidfile: &Path) -> PathBuf {
    let stem = pidfile.file_stem().unwrap_or_default().to_string_lossy();
    // A path to a socket has 107 bytes at most (unix(7)).
    let stem: String = stem.chars().filter(char::is_ascii_graphic).take(32).collect();
    let name = if pidfile == Path::new(daemon::PIDFILE) {
        format!("{stem}.{SUFFIX}")
    } else {
        format!("{stem}-{:016x}.{SUFFIX}", fnv1a(pidfile.as_os_str().as_encoded_bytes()))
    };
    Path::new(DIRECTORY).join(name)
}

/// FNV-1a. Unlike the hashes of the standard library it is the same in each version: the agent and who asks may be
/// different ones.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The sockets in [`DIRECTORY`], whether an agent answers there or not.
#[must_use]
pub fn all() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .collect();
    all.sort();
    all
}

/// A socket at which this agent answers; removed when dropped.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: (u64, u64),
    _server: Server,
    _claim: Claim,
}

impl AgentSocket {
    /// Listens, and has a thread answer each line that a client sends by what `answer` makes of it. A socket that a dead
    /// agent has left is replaced.
    ///
    /// # Errors
    /// Another agent answers there, the name is taken by something else (a symbolic link is not followed), the
    /// directory is none that only its owner can write, or the kernel refuses a socket or a thread.
    pub fn listen(
        path: &Path,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| *parent == Path::new(DIRECTORY)) {
            make_directory(parent)?;
        }
        let claim = Claim::socket(path)?;
        let (listener, file) = bound(path)?;
        let server = Server::start(listener, Arc::new(answer));
        // The file is there already, and nobody listens.
        let server = server.inspect_err(|_| remove(path, file));
        Ok(Self { path: path.to_owned(), file, _server: server?, _claim: claim })
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        remove(&self.path, self.file);
    }
}

/// Removes the socket, unless the name is another's by now.
fn remove(path: &Path, file: (u64, u64)) {
    if fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == file) {
        // The next agent replaces it.
        let _ = fs::remove_file(path);
    }
}

/// Makes the directory of sockets. One that others can write, or a symbolic link to one, is not taken: they could put
/// a socket of their own in the place of ours.
fn make_directory(directory: &Path) -> Result<()> {
    let what = || format!("cannot make {}", directory.display());
    match DirBuilder::new().mode(0o750).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(directory).with_context(what)?;
    let ours = [0, geteuid().as_raw()].contains(&meta.uid());
    if !meta.is_dir() || !ours || meta.mode() & 0o022 != 0 {
        bail!(
            "will not listen in {}: it is no directory that only its owner, root or this user, can write",
            directory.display()
        );
    }
    Ok(())
}

/// A listener with the file of its socket.
fn bound(path: &Path) -> Result<(UnixListener, (u64, u64))> {
    let what = || format!("cannot listen at {}", path.display());
    let address = UnixAddr::new(path).with_context(what)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).with_context(what)?;
    // The file has no more than this mode from its first moment on; the umask may have taken bits from it.
    fchmod(socket.as_fd(), MODE).with_context(what)?;
    // bind(2) does not follow a symbolic link.
    let again = match bind(socket.as_raw_fd(), &address) {
        Err(nix::Error::EADDRINUSE) => {
            clear(path)?;
            bind(socket.as_raw_fd(), &address)
        }
        bound => bound,
    };
    again.with_context(what)?;
    let meta = fs::symlink_metadata(path).with_context(what)?;
    fchmodat(AT_FDCWD, path, MODE, FchmodatFlags::NoFollowSymlink).with_context(what)?;
    listen(&socket, Backlog::new(BACKLOG).with_context(what)?).with_context(what)?;
    Ok((UnixListener::from(socket), (meta.dev(), meta.ino())))
}

/// Removes a socket at which nobody listens.
fn clear(path: &Path) -> Result<()> {
    let meta =
        fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    if !meta.file_type().is_socket() {
        bail!("will not listen at {}: it is taken, and not by a socket", path.display());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("cannot remove {}, where nobody listens", path.display())),
        _ => bail!("another agent answers at {}; use another --socket", path.display()),
    }
}

#[cfg(test)]
mod tests;
