//! Which network namespaces there are. Nothing lists them: they are found by their names, their mounts,
//! and their processes.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{Netns, OWN, RUN_NETNS};

/// A namespace that was found, and is not held open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, as in [`Netns::name`]: that of `ip netns`, the place where it is mounted, or `pid:N`.
    pub name: String,
    /// Its inode. The kernel gives the number away again once the namespace is gone.
    pub inode: u64,
    path: PathBuf,
}

impl Found {
    /// Opens it.
    ///
    /// # Errors
    /// It is gone, and perhaps another one has come to its place.
    pub fn open(&self) -> Result<Netns> {
        let netns = Netns::open(self.name.clone(), &self.path)?;
        if netns.inode != self.inode {
            bail!("network namespace `{}` is gone", self.name);
        }
        Ok(netns)
    }
}

/// All that can be found: our own first, then those of `ip netns`, those that are mounted elsewhere, and
/// those of processes.
#[must_use]
pub fn all() -> Vec<Found> {
    let Ok(own) = fs::metadata(OWN) else { return Vec::new() };
    let mut names = read_dir_names(Path::new(RUN_NETNS));
    names.sort_unstable();
    let named = names.into_iter().map(|name| (Path::new(RUN_NETNS).join(&name), name));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(mounted).map(|path| (PathBuf::from(&path), path));
    let mut pids: Vec<u32> =
        read_dir_names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let processes =
        pids.into_iter().map(|pid| (format!("/proc/{pid}/ns/net").into(), format!("pid:{pid}")));
    let ours = std::iter::once((PathBuf::from(OWN), "-".to_owned()));
    let mut seen = HashSet::new();
    ours.chain(named)
        .chain(mounted)
        .chain(processes)
        .filter_map(|(path, name)| {
            let found = fs::metadata(&path).ok().filter(|found| is_netns(found, &own))?;
            let inode = found.ino();
            seen.insert(inode).then_some(Found { name, inode, path })
        })
        .collect()
}

/// Whether a file is a namespace: a file of that name without one (left after a reboot, say) is of
/// another file system.
fn is_netns(found: &Metadata, own: &Metadata) -> bool {
    found.dev() == own.dev()
}

/// The mount point of a network namespace in a line of mountinfo (proc_pid_mountinfo(5)).
fn mounted(line: &str) -> Option<String> {
    let mut words = line.split(' ').skip(3);
    let (root, point) = (words.next()?, words.next()?);
    root.starts_with("net:[").then(|| unescaped(point))
}

/// Blanks and backslashes stand there as `\` and three octal digits.
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

fn read_dir_names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
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
    fn our_own_comes_first_and_each_comes_once() {
        let found = all();
        let inodes: HashSet<u64> = found.iter().map(|found| found.inode).collect();
        assert_eq!((found[0].name.as_str(), inodes.len()), ("-", found.len()));
        assert_eq!(found[0].open().unwrap().inode, found[0].inode);
    }
}
