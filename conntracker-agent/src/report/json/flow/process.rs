//! The process at an end of a flow, as JSON.

use serde::Serialize;

use crate::model::process::Process;

#[derive(Serialize)]
pub(in crate::report::json) struct ProcessObject<'a> {
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
}

impl<'a> From<&'a Process> for ProcessObject<'a> {
    fn from(process: &'a Process) -> Self {
        let Process { direction, uid, user, pid, comm, cgroup_id, cgroup, inode } = process;
        Self {
            direction: direction.name(),
            pid: *pid,
            comm: comm.as_deref(),
            uid: *uid,
            user: user.as_deref(),
            cgroup: cgroup.as_deref(),
            cgroup_id: *cgroup_id,
            inode: *inode,
        }
    }
}
