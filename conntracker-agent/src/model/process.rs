//! The process at the local end of a flow.

use super::path::Direction;

/// The process that has the socket of a flow. Fields that cannot be proved are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
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
