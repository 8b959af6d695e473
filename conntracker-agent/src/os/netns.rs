//! Network namespaces: their names, how to find them, how to enter one.

pub mod find;

use std::{
    fs::{self, File},
    io,
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use self::find::NotOpened;
use super::{sockopt, threads};

/// Where `ip netns` keeps its namespaces (ip-netns(8)).
const RUN_NETNS: &str = "/run/netns";

/// Our own namespace.
const OWN: &str = "/proc/self/ns/net";

/// A network namespace, held open until it is released.
#[derive(Debug)]
pub struct Netns {
    /// Its name in output: that of `ip netns`, `-` for the agent's own, `pid:N` or its mount point for others.
    pub name: String,
    /// `net->net_cookie` (SO_NETNS_COOKIE, Linux 5.14+); `None` on older kernels.
    pub cookie: Option<u64>,
    /// Inode of the namespace, as in /proc/PID/ns/net.
    pub inode: u64,
    file: Mutex<Option<Arc<File>>>,
}

impl Netns {
    /// The namespace of this process.
    pub fn current() -> Result<Self> {
        Self::open("-".to_owned(), Path::new(OWN))
    }

    /// By name (ip-netns(8)), by `pid:N`, or by path.
    pub fn named(name: &str) -> Result<Self> {
        let path = if let Some(pid) = name.strip_prefix("pid:") {
            PathBuf::from(format!("/proc/{pid}/ns/net"))
        } else if name.contains('/') {
            PathBuf::from(name)
        } else {
            Path::new(RUN_NETNS).join(name)
        };
        // Opening it reports every other error.
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            bail!(
                "no network namespace `{name}` ({} does not exist; see `ip netns list`)",
                path.display()
            );
        }
        Self::open(name.to_owned(), &path)
    }

    /// Every namespace that [`find::all`] finds, our own first; and a line for each that cannot be opened, with the
    /// reason.
    pub fn all() -> Result<(Vec<Self>, Vec<String>)> {
        let own = Self::current()?;
        let found = find::all()?;
        let (mut opened, mut refused) = (Vec::new(), found.unread());
        for found in found.namespaces.into_iter().filter(|found| found.inode != own.inode) {
            match found.open() {
                Ok(netns) => opened.push(netns),
                Err(NotOpened::Gone) => {}
                Err(NotOpened::Refused(why)) => refused.push(why),
            }
        }
        opened.insert(0, own);
        Ok((opened, refused))
    }

    /// Whether it is held open.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.file().is_some()
    }

    /// Closes it, so that the kernel removes it when nobody else refers to it. It cannot be entered after that.
    pub fn release(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn file(&self) -> Option<Arc<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(name: String, path: &Path) -> Result<Self> {
        let file = File::open(path)
            .with_context(|| format!("cannot open network namespace {}", path.display()))?;
        let inode = file.metadata()?.ino();
        let file = Mutex::new(Some(Arc::new(file)));
        let mut netns = Self { name, cookie: None, inode, file };
        netns.cookie = netns
            .enter(cookie)
            .with_context(|| format!("cannot enter network namespace `{}`", netns.name))?;
        Ok(netns)
    }

    /// Runs `work` in a thread that has joined the namespace. Sockets and BPF links made there
    /// belong to the namespace for good.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, unless it is our own namespace; ENOENT after [`Self::release`]; no thread.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the namespace is gone");
        let file = self.file().ok_or_else(gone)?;
        thread::scope(|scope| {
            let worker = threads::spawn_scoped(scope, || {
                let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
                if own != self.inode {
                    setns(&*file, CloneFlags::CLONE_NEWNET)?;
                }
                work()
            })?;
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the worker thread panicked")))
        })
    }
}

/// Cookie of the calling thread's namespace; `None` if the kernel does not know the option.
fn cookie() -> io::Result<Option<u64>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    Ok(sockopt::get(&socket, libc::SO_NETNS_COOKIE).ok().map(u64::from_ne_bytes))
}
