//! How much memory there is for this process, and how much of it is used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};

/// Memory that a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes there may be.
    pub limit: u64,
    /// Bytes that are used.
    pub used: u64,
}

impl Memory {
    /// Bytes that are left.
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The smallest of: the memory of the machine, what the control groups of the process allow (cgroup v2 and v1), and
/// RLIMIT_AS. The one of which least is left says how much is used.
pub(crate) fn of_process() -> Memory {
    let all = [of_machine(), of_address_space()];
    let tightest = all.into_iter().flatten().chain(of_cgroups()).min_by_key(|memory| memory.left());
    // Without /proc there is nothing to go by.
    tightest.unwrap_or(Memory { limit: u64::MAX, used: 0 })
}

/// The smallest limit of all, however much of it is used.
pub(crate) fn limit() -> u64 {
    let all = [of_machine(), of_address_space()];
    let limits = all.into_iter().flatten().chain(of_cgroups()).map(|memory| memory.limit);
    limits.min().unwrap_or(u64::MAX)
}

/// Memory that this process has now, and the most that it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    /// Bytes.
    pub now: u64,
    /// Bytes.
    pub most: u64,
}

/// proc_pid_status(5); `None` without /proc.
pub(crate) fn resident() -> Option<Resident> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { now: kibibytes(&text, "VmRSS")?, most: kibibytes(&text, "VmHWM")? })
}

/// The value of a line `name: 1 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn of_machine() -> Option<Memory> {
    meminfo(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// proc_meminfo(5): what is available counts what can be had back from caches.
fn meminfo(text: &str) -> Option<Memory> {
    let limit = kibibytes(text, "MemTotal")?;
    Some(Memory { limit, used: limit.saturating_sub(kibibytes(text, "MemAvailable")?) })
}

fn of_address_space() -> Option<Memory> {
    let (limit, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
    let pages: u64 =
        fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().next()?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    (limit != nix::sys::resource::RLIM_INFINITY)
        .then_some(Memory { limit, used: pages * page.cast_unsigned() })
}

/// Each control group that the process is in, and those above it, which limit it as well.
fn of_cgroups() -> Vec<Memory> {
    let Ok(groups) = fs::read_to_string("/proc/self/cgroup") else { return Vec::new() };
    directories(&groups)
        .iter()
        .flat_map(|(directory, root)| {
            directory.ancestors().take_while(move |group| group.starts_with(root))
        })
        .filter_map(of_cgroup)
        .collect()
}

/// Directory of each control group that limits memory, and of the hierarchy that it is in (cgroups(7)).
fn directories(groups: &str) -> Vec<(PathBuf, PathBuf)> {
    let directory = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            v1 if v1.split(',').any(|one| one == "memory") => "/sys/fs/cgroup/memory",
            _ => return None,
        };
        let root = PathBuf::from(root);
        Some((root.join(path.trim_start_matches('/')), root))
    };
    groups.lines().filter_map(directory).collect()
}

fn of_cgroup(directory: &Path) -> Option<Memory> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let (limit, used) = match read("memory.max") {
        Some(limit) => (limit, read("memory.current")?),
        None => (read("memory.limit_in_bytes")?, read("memory.usage_in_bytes")?),
    };
    // No limit: `max`, or in v1 more than there can be.
    let limit: u64 = limit.trim().parse().ok().filter(|&limit| limit < 1 << 60)?;
    let cache = read("memory.stat").map_or(0, |stat| inactive_file(&stat));
    Some(Memory { limit, used: used.trim().parse::<u64>().ok()?.saturating_sub(cache) })
}

/// Bytes of files that the kernel takes back when it needs memory.
fn inactive_file(stat: &str) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        matches!(name, "inactive_file" | "total_inactive_file").then(|| value.parse().ok())?
    };
    stat.lines().filter_map(value).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_tells_what_can_be_had() {
        let text = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\n";
        assert_eq!(meminfo(text), Some(Memory { limit: 1_024_000, used: 614_400 }));
        assert_eq!(meminfo("MemTotal: many\n"), None);
    }

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let of = |groups: &str| {
            directories(groups)
                .into_iter()
                .map(|(directory, _)| directory.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("0::/system.slice/ct.service\n"), ["/sys/fs/cgroup/system.slice/ct.service"]);
        let v1 = "5:cpu,cpuacct:/\n4:memory:/ct\n1:name=systemd:/\n";
        assert_eq!(of(v1), ["/sys/fs/cgroup/memory/ct"]);
    }

    #[test]
    fn files_that_can_be_dropped_are_not_used() {
        assert_eq!(inactive_file("anon 5\ninactive_file 7\ntotal_inactive_file 9\n"), 9);
    }

    #[test]
    fn the_process_has_a_limit_and_uses_some_of_it() {
        let memory = of_process();
        assert!(memory.used > 0 && memory.used < memory.limit && limit() <= memory.limit);
        let resident = resident().unwrap();
        assert!(resident.now > 0 && resident.now <= resident.most);
    }
}
