//! The process at the local end of a flow.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::path::Direction;

/// The process that has the socket of a flow. Fields that cannot be proved are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Process {
    /// The direction whose packets it sends.
    pub direction: Direction,
    /// User of the socket.
    pub uid: u32,
    /// Name of that user.
    pub user: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// Name of the process.
    pub comm: Option<String>,
    /// Identifier of the socket's control group.
    pub cgroup_id: Option<u64>,
    /// Its path.
    pub cgroup: Option<String>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
}

/// The process that has a socket open. Absent is what several processes differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketHolder {
    /// Process id.
    pub pid: Option<u32>,
    /// Name of the process.
    pub comm: Option<String>,
}

/// Names for the numbers that records have of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessNames {
    /// Process ids of records are those of the observer's pid namespace.
    pub same_pids: bool,
    /// Users by number.
    pub users: HashMap<u32, String>,
    /// Holders of sockets, by inode.
    pub sockets: HashMap<u64, SocketHolder>,
    /// Paths of control groups.
    pub cgroups: HashMap<u64, String>,
}

impl ProcessNames {
    /// Adds to a process what is known of it.
    pub fn complete(&self, process: &mut Process) {
        if !self.same_pids {
            process.pid = None;
        }
        if process.pid.is_none()
            && let Some(holder) = process.inode.and_then(|inode| self.sockets.get(&inode))
        {
            process.pid = holder.pid;
            if process.comm.is_none() {
                process.comm.clone_from(&holder.comm);
            }
        }
        process.user = self.users.get(&process.uid).cloned();
        process.cgroup = process.cgroup_id.and_then(|id| self.cgroups.get(&id)).cloned();
    }
}
