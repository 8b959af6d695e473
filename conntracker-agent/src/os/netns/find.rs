//! Which network namespaces exist. The kernel has no list of them, so they are found by names, mounts and processes.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Netns, OWN, RUN_NETNS};
use crate::os::descriptors;

/// A namespace that was found and is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, as in [`Netns::name`]: that of `ip netns`, its mount point, or `pid:N`.
    pub name: String,
    /// Its inode. The kernel reuses the number after the namespace has ended.
    pub inode: u64,
    path: PathBuf,
}

/// Why a namespace that was found is not open.
#[derive(Debug)]
pub enum NotOpened {
    /// It has ended, and another one may have its name.
    Gone,
    /// It exists and cannot be opened: the reason, in a line.
    Refused(String),
}

impl Found {
    /// Opens it.
    ///
    /// # Errors
    /// It is gone, or cannot be opened.
    pub fn open(&self) -> Result<Netns, NotOpened> {
        match Netns::open(self.name.clone(), &self.path) {
            Ok(netns) if netns.inode == self.inode => Ok(netns),
            Ok(_) => Err(NotOpened::Gone),
            Err(error) if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_gone) => {
                Err(NotOpened::Gone)
            }
            Err(error) => Err(NotOpened::Refused(format!(
                "{}: {error:#}{}",
                self.name,
                descriptors::hint(&error)
            ))),
        }
    }
}

/// Whether an error means that a file, or the process it belongs to, has gone. No other error means that.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
        || (error.raw_os_error().is_none() && error.kind() == io::ErrorKind::NotFound)
}

/// The result of a search.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Namespaces: our own first, then those of `ip netns`, those that are mounted elsewhere, and those of
    /// processes.
    pub namespaces: Vec<Found>,
    /// Files that may be another namespace and could not be read; the error of the first.
    unread: u64,
    why: Option<io::Error>,
}

impl Sweep {
    /// A line about what could not be read; none if everything was.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let why = self.why.as_ref();
        why.map(|why| {
            format!("those of {} processes or mounts, which cannot be read: {why}", self.unread)
        })
        .into_iter()
        .collect()
    }

    /// Whether a namespace of this inode was found.
    #[must_use]
    pub fn has(&self, inode: u64) -> bool {
        self.namespaces.iter().any(|found| found.inode == inode)
    }
}

/// All that can be found.
///
/// # Errors A directory cannot be read (too many open files, say), so that a namespace not found may exist.
pub fn all() -> io::Result<Sweep> {
    let own = fs::metadata(OWN)?;
    let mut names = match read_dir_names(Path::new(RUN_NETNS)) {
        // The directory does not exist before ip-netns(8) was used.
        Err(error) if is_gone(&error) => Vec::new(),
        names => names?,
    };
    names.sort_unstable();
    let named = names.into_iter().map(|name| (Path::new(RUN_NETNS).join(&name), name));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = mounts.lines().filter_map(mounted).map(|path| (PathBuf::from(&path), path));
    let mut pids: Vec<u32> =
        read_dir_names(Path::new("/proc"))?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let processes =
        pids.into_iter().map(|pid| (format!("/proc/{pid}/ns/net").into(), format!("pid:{pid}")));
    let ours = std::iter::once((PathBuf::from(OWN), "-".to_owned()));
    let mut seen = HashSet::new();
    let mut sweep = Sweep::default();
    for (path, name) in ours.chain(named).chain(mounted).chain(processes) {
        match fs::metadata(&path) {
            Ok(found) if is_netns(&found, &own) && seen.insert(found.ino()) => {
                sweep.namespaces.push(Found { name, inode: found.ino(), path });
            }
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                sweep.unread += 1;
                sweep.why.get_or_insert(error);
            }
        }
    }
    Ok(sweep)
}

/// Whether a file is a namespace: a file that is none (left after a reboot, say) is on another file system.
fn is_netns(found: &Metadata, own: &Metadata) -> bool {
    found.dev() == own.dev()
}

/// The mount point of a network namespace in a line of mountinfo (proc_pid_mountinfo(5)).
fn mounted(line: &str) -> Option<String> {
    let mut words = line.split(' ').skip(3);
    let (root, point) = (words.next()?, words.next()?);
    root.starts_with("net:[").then(|| unescaped(point))
}

/// mountinfo writes blanks and backslashes as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(digits, 8) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(format!("\\{digits}").bytes()),
        }
        bytes.extend(rest.bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_dir_names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_namespaces_are_told_from_others() {
        let netns =
            "120 24 0:4 net:[4026532281] /run/docker/netns/a\\040b rw shared:9 - nsfs nsfs rw";
        assert_eq!(mounted(netns).unwrap(), "/run/docker/netns/a b");
        for other in [
            "36 25 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw",
            "121 24 0:4 mnt:[4026532282] /run/snapd/ns/x.mnt rw - nsfs nsfs rw",
            "",
        ] {
            assert_eq!(mounted(other), None);
        }
    }

    #[test]
    fn what_is_no_number_stays_as_it_is() {
        assert_eq!(unescaped("/a\\134b\\999\\0"), "/a\\b\\999\u{0}");
    }

    #[test]
    fn only_what_is_not_there_is_gone() {
        let gone = |number| is_gone(&io::Error::from_raw_os_error(number));
        assert!(gone(libc::ENOENT) && gone(libc::ESRCH));
        for number in [libc::EMFILE, libc::ENFILE, libc::EACCES, libc::EPERM, libc::ENOMEM] {
            assert!(!gone(number), "{number}");
        }
        let found = |path: &str| Found { name: "x".to_owned(), inode: 1, path: path.into() };
        assert!(matches!(found("/proc/self/ns/none").open(), Err(NotOpened::Gone)));
        // Another one has come to its place.
        assert!(matches!(found(OWN).open(), Err(NotOpened::Gone)));
    }

    #[test]
    fn our_own_comes_first_and_each_comes_once() {
        let found = all().unwrap().namespaces;
        let inodes: HashSet<u64> = found.iter().map(|found| found.inode).collect();
        assert_eq!((found[0].name.as_str(), inodes.len()), ("-", found.len()));
        assert_eq!(found[0].open().unwrap().inode, found[0].inode);
    }
}
