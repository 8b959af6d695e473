//! Network namespaces: naming them, finding them, working inside one.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::sockopt;

/// Where `ip netns` keeps its namespaces (ip-netns(8)).
const RUN_NETNS: &str = "/run/netns";

/// A network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    /// Its name for people: that of `ip netns`, `-` for the agent's own, `pid:N` for others.
    pub name: String,
    /// `net->net_cookie` (SO_NETNS_COOKIE, Linux 5.14+); `None` on older kernels.
    pub cookie: Option<u64>,
    /// Inode of the namespace, as in /proc/PID/ns/net.
    pub inode: u64,
    file: File,
}

impl Netns {
    /// The namespace of this process.
    pub fn current() -> Result<Self> {
        Self::open("-".to_owned(), Path::new("/proc/self/ns/net"))
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
        if !path.exists() {
            bail!(
                "no network namespace `{name}` ({} does not exist; see `ip netns list`)",
                path.display()
            );
        }
        Self::open(name.to_owned(), &path)
    }

    /// Every namespace there is now: our own, those of `ip netns`, and those of processes.
    /// Namespaces made later are not seen.
    pub fn all() -> Result<Vec<Self>> {
        let own = Self::current()?;
        let mut seen = HashSet::from([own.inode]);
        let mut all = vec![own];
        let mut named: Vec<_> = read_dir_names(Path::new(RUN_NETNS)).into_iter().collect();
        named.sort();
        for name in named {
            // A file there that is no namespace (left after a reboot, say) is not ours to judge.
            if let Ok(netns) = Self::named(&name)
                && seen.insert(netns.inode)
            {
                all.push(netns);
            }
        }
        let mut pids: Vec<u32> =
            read_dir_names(Path::new("/proc")).iter().filter_map(|n| n.parse().ok()).collect();
        pids.sort_unstable();
        for pid in pids {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            let Ok(meta) = fs::metadata(&path) else { continue };
            if seen.insert(meta.ino())
                && let Ok(netns) = Self::open(format!("pid:{pid}"), &path)
            {
                all.push(netns);
            }
        }
        Ok(all)
    }

    fn open(name: String, path: &Path) -> Result<Self> {
        let file = File::open(path)
            .with_context(|| format!("cannot open network namespace {}", path.display()))?;
        let inode = file.metadata()?.ino();
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
    /// EPERM without CAP_SYS_ADMIN, unless it is our own namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
                if own != self.inode {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                }
                work()
            });
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the worker thread panicked")))
        })
    }
}

fn read_dir_names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Cookie of the calling thread's namespace; `None` if the kernel does not know the option.
fn cookie() -> io::Result<Option<u64>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    Ok(sockopt::get(&socket, libc::SO_NETNS_COOKIE).ok().map(u64::from_ne_bytes))
}
