//! Processes that own sockets, looked up in /proc like `ss -p` does, where a record has the socket but not the
//! process.
//!
//! A thread walks through /proc, at most four times a second, and only for sockets whose process is unknown.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use crate::{
    bpf::owner::Owner,
    model::process::{Process, ProcessNames, SocketHolder},
    os::threads,
    recording::statement,
};

/// Between two walks through /proc, or through control groups.
const EVERY: Duration = Duration::from_millis(250);

/// The most sockets of one walk, and the number of known sockets from which unused ones are removed.
const MOST: usize = 65_536;

/// The initial pid namespace (PROC_PID_INIT_INO), whose pids the programs report.
const INITIAL_PIDS: u64 = 0xefff_fffc;

/// Where control groups of version 2 are mounted: alone, or beside those of version 1.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The result of a walk through /proc.
#[derive(Debug, Default)]
struct Found {
    holders: HashMap<u64, SocketHolder>,
    cgroups: HashMap<u64, String>,
}

/// Owners of sockets.
#[derive(Debug)]
pub(crate) struct Owners {
    names: ProcessNames,
    /// What was found since it was last taken to be recorded; `None` if nothing is recorded.
    news: Option<statement::Owners>,
    /// Users that were taken to be recorded.
    recorded_users: HashSet<u32>,
    /// Sockets and control groups to look for.
    wanted: HashSet<u64>,
    wanted_cgroups: HashSet<u64>,
    /// Control groups that were not found.
    unknown_cgroups: HashSet<u64>,
    /// Number of stored entries at which those that no flow refers to are removed.
    forget_at: usize,
    walking: Option<Receiver<Found>>,
    walked: Option<Instant>,
}

impl Owners {
    /// Nobody yet.
    pub fn new() -> Self {
        let pids = fs::metadata("/proc/self/ns/pid");
        Self {
            names: ProcessNames {
                same_pids: pids.is_ok_and(|pids| pids.ino() == INITIAL_PIDS),
                users: users(&fs::read_to_string("/etc/passwd").unwrap_or_default()),
                ..ProcessNames::default()
            },
            news: None,
            recorded_users: HashSet::new(),
            wanted: HashSet::new(),
            wanted_cgroups: HashSet::new(),
            unknown_cgroups: HashSet::new(),
            forget_at: MOST,
            walking: None,
            walked: None,
        }
    }

    /// A record tells of an owner.
    pub fn note(&mut self, owner: &Owner) {
        if let Some(news) = &mut self.news
            && self.recorded_users.insert(owner.uid)
            && let Some(name) = self.names.users.get(&owner.uid)
        {
            news.users.push((owner.uid, name.clone()));
        }
        if let Some(id) = owner.cgroup
            && !self.names.cgroups.contains_key(&id)
            && !self.unknown_cgroups.contains(&id)
        {
            self.wanted_cgroups.insert(id);
        }
        if let Some(inode) = owner.inode
            && (owner.sender.is_none() || !self.names.same_pids)
            && !self.names.sockets.contains_key(&inode)
            && self.wanted.len() < MOST
        {
            self.wanted.insert(inode);
        }
    }

    /// Number of stored entries.
    fn remembered(&self) -> usize {
        self.names.sockets.len() + self.unknown_cgroups.len()
    }

    /// Whether there are so many entries that unused ones should be removed.
    pub fn are_many(&self) -> bool {
        self.remembered() >= self.forget_at
    }

    /// Removes the entries that none of these processes needs.
    pub fn keep<'a>(&mut self, processes: impl Iterator<Item = &'a Process>) {
        let (sockets, cgroups): (HashSet<_>, HashSet<_>) =
            processes.map(|process| (process.inode, process.cgroup_id)).unzip();
        self.names.sockets.retain(|inode, _| sockets.contains(&Some(*inode)));
        self.names.cgroups.retain(|id, _| cgroups.contains(&Some(*id)));
        self.unknown_cgroups.retain(|id| cgroups.contains(&Some(*id)));
        // The next removal waits until the number of entries has doubled.
        self.forget_at = MOST.max(2 * self.remembered());
    }

    /// Takes the results of the last walk, and starts the next one.
    pub fn poll(&mut self) {
        if let Some(walking) = &self.walking {
            match walking.try_recv() {
                Ok(found) => {
                    self.add_news(&found);
                    let Found { holders, cgroups } = found;
                    self.names.sockets.extend(holders);
                    self.names.cgroups.extend(cgroups);
                    self.walking = None;
                }
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => self.walking = None,
            }
        }
        let nothing = self.wanted.is_empty() && self.wanted_cgroups.is_empty();
        if nothing || self.walked.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.walked = Some(Instant::now());
        let sockets = std::mem::take(&mut self.wanted);
        let cgroups = std::mem::take(&mut self.wanted_cgroups);
        self.unknown_cgroups.extend(&cgroups);
        let (sender, receiver) = mpsc::sync_channel(1);
        let walk = move || {
            let holders = if sockets.is_empty() { HashMap::new() } else { holders(&sockets) };
            let cgroups = if cgroups.is_empty() { HashMap::new() } else { paths(&cgroups) };
            // Nobody may want it any more.
            let _ = sender.send(Found { holders, cgroups });
        };
        match threads::spawn("owners", walk) {
            Ok(_) => self.walking = Some(receiver),
            Err(error) => log::debug!("processes are not searched in /proc: {error}"),
        }
    }

    fn add_news(&mut self, Found { holders, cgroups }: &Found) {
        let Some(news) = &mut self.news else { return };
        let sockets = holders.iter().map(|(inode, of)| (*inode, of.pid, of.comm.clone()));
        news.sockets.extend(sockets);
        news.cgroups.extend(cgroups.iter().map(|(id, path)| (*id, path.clone())));
    }

    /// From now on what is found is taken to be recorded.
    pub fn record(&mut self) {
        self.news = Some(statement::Owners::default());
    }

    /// What was found since the last call, to be recorded.
    pub fn take_news(&mut self) -> statement::Owners {
        let news = self.news.as_mut().map(std::mem::take).unwrap_or_default();
        statement::Owners { same_pids: self.names.same_pids, ..news }
    }

    /// Names for the numbers that records have.
    pub fn names(&self) -> &ProcessNames {
        &self.names
    }
}

/// Names of users by number, of /etc/passwd.
fn users(passwd: &str) -> HashMap<u32, String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        Some((uid.parse().ok()?, name.to_owned()))
    };
    // The first name of a number counts.
    passwd.lines().rev().filter_map(user).collect()
}

/// Name of the program that has a socket open; `None` if no process of this /proc has it, or several have.
pub(crate) fn program(inode: u64) -> Option<String> {
    holders(&HashSet::from([inode])).remove(&inode)?.comm
}

/// The holders of the sockets, among all processes of /proc.
fn holders(sockets: &HashSet<u64>) -> HashMap<u64, SocketHolder> {
    let mut all: HashMap<u64, BTreeSet<(u32, String)>> = HashMap::new();
    for pid in numbers(Path::new("/proc")) {
        // Processes come and go meanwhile.
        for (inode, comm) in held(pid, sockets).unwrap_or_default() {
            all.entry(inode).or_default().insert((pid, comm));
        }
    }
    // Sockets that no process of this /proc has open are not looked up again.
    let holder = |inode| all.get(inode).map(holder_of).unwrap_or_default();
    sockets.iter().map(|inode| (*inode, holder(inode))).collect()
}

/// What the processes that have a socket open have in common.
fn holder_of(all: &BTreeSet<(u32, String)>) -> SocketHolder {
    let comms: BTreeSet<&String> = all.iter().map(|(_, comm)| comm).collect();
    let first = all.first();
    SocketHolder {
        pid: first.filter(|_| all.len() == 1).map(|(pid, _)| *pid),
        comm: first.filter(|_| comms.len() == 1).map(|(_, comm)| comm.clone()),
    }
}

/// Names that are numbers.
fn numbers<T: FromStr>(directory: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Which of the sockets a process has open, with its name.
fn held(pid: u32, sockets: &HashSet<u64>) -> io::Result<Vec<(u64, String)>> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let descriptors = process.join("fd");
    let mut held = Vec::new();
    for number in numbers::<u32>(&descriptors) {
        let link = descriptors.join(number.to_string());
        let Some(inode) = socket(&link).filter(|inode| sockets.contains(inode)) else { continue };
        let comm = fs::read_to_string(process.join("comm"))?;
        // Another process may have got the pid before its name was read.
        if socket(&link) == Some(inode) {
            held.push((inode, comm.trim_end_matches('\n').to_owned()));
        }
    }
    Ok(held)
}

/// Inode number of the socket that a descriptor is of: `socket:[12345]`.
fn socket(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Paths of control groups. Their identifiers are inode numbers of their directories.
fn paths(wanted: &HashSet<u64>) -> HashMap<u64, String> {
    let mounted = |root: &&str| Path::new(root).join("cgroup.controllers").exists();
    let Some(root) = CGROUPS.into_iter().find(mounted).map(PathBuf::from) else {
        return HashMap::new();
    };
    let mut found = HashMap::new();
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        let Ok(data) = fs::metadata(&directory) else { continue };
        if wanted.contains(&data.ino()) {
            let path = directory.strip_prefix(&root).unwrap_or(&directory);
            found.insert(data.ino(), format!("/{}", path.display()));
        }
        if found.len() == wanted.len() {
            break;
        }
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        left.extend(entries.flatten().filter(is_dir).map(|entry| entry.path()));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd, thread};

    use super::*;
    use crate::model::path::Direction;

    fn inode(socket: &UdpSocket) -> u64 {
        super::socket(Path::new(&format!("/proc/self/fd/{}", socket.as_raw_fd()))).unwrap()
    }

    fn process(inode: u64) -> Process {
        Process {
            direction: Direction::Original,
            uid: 0,
            user: None,
            pid: None,
            comm: None,
            cgroup_id: None,
            cgroup: None,
            inode: Some(inode),
        }
    }

    #[test]
    fn who_has_a_socket_open_is_found_and_others_are_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = inode(&socket);
        let mut owners = Owners::new();
        owners.note(&Owner { uid: 0, cgroup: None, inode: Some(inode), sender: None });
        let start = Instant::now();
        while owners.names.sockets.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20));
            owners.poll();
            thread::sleep(Duration::from_millis(5));
        }
        let mut ours = process(inode);
        owners.names().complete(&mut ours);
        assert_eq!(ours.pid, Some(std::process::id()));
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(ours.comm.as_deref(), Some(comm.trim_end()));
        let mut other = process(u64::MAX);
        owners.names().complete(&mut other);
        assert_eq!((other.pid, other.comm), (None, None));
    }

    #[test]
    fn more_sockets_than_are_remembered_at_once_are_looked_for_and_those_of_flows_stay() {
        let mut owners = Owners::new();
        let note = |owners: &mut Owners, inode| {
            owners.note(&Owner { uid: 0, cgroup: None, inode: Some(inode), sender: None });
        };
        for inode in 1..=MOST as u64 {
            owners.names.sockets.insert(inode, SocketHolder { pid: Some(7), comm: None });
        }
        assert!(owners.are_many());
        note(&mut owners, u64::MAX);
        assert!(owners.wanted.contains(&u64::MAX));
        let of_flows = [process(1), process(2)];
        owners.keep(of_flows.iter());
        assert_eq!((owners.names.sockets.len(), owners.are_many()), (2, false));
        let [mut first, _] = of_flows;
        owners.names().complete(&mut first);
        assert_eq!(first.pid, Some(7));
        // If flows need all of them, they stay, and the next record does not search them again.
        let many: Vec<Process> = (1..=MOST as u64).map(process).collect();
        for process in &many {
            owners.names.sockets.insert(process.inode.unwrap(), SocketHolder::default());
        }
        owners.keep(many.iter());
        assert_eq!((owners.names.sockets.len(), owners.are_many()), (MOST, false));
        note(&mut owners, u64::MAX - 1);
        assert!(owners.wanted.contains(&(u64::MAX - 1)));
    }

    #[test]
    fn of_several_holders_only_what_they_have_in_common_is_told() {
        let holder = |all: &[(u32, &str)]| {
            let all = all.iter().map(|&(pid, comm)| (pid, comm.to_owned())).collect();
            let SocketHolder { pid, comm } = holder_of(&all);
            (pid, comm)
        };
        assert_eq!(holder(&[(7, "ssh")]), (Some(7), Some("ssh".to_owned())));
        assert_eq!(holder(&[(7, "nginx"), (9, "nginx")]), (None, Some("nginx".to_owned())));
        assert_eq!(holder(&[(7, "sh"), (9, "nc")]), (None, None));
        assert_eq!(holder(&[]), (None, None));
    }

    #[test]
    fn users_have_the_first_name_of_their_number() {
        let users =
            users("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n\nbad:x:y\nme:x:1000:1::/:");
        assert_eq!(users, HashMap::from([(0, "root".to_owned()), (1000, "me".to_owned())]));
    }

    #[test]
    fn control_groups_are_found_by_their_inode_numbers() {
        let Some(root) = CGROUPS.iter().find(|r| Path::new(r).join("cgroup.controllers").exists())
        else {
            return;
        };
        let id = fs::metadata(root).unwrap().ino();
        assert_eq!(paths(&HashSet::from([id, u64::MAX])), HashMap::from([(id, "/".to_owned())]));
    }
}
