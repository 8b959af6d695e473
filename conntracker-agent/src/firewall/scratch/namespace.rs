//! A network namespace of this process alone, in which its rules touch nobody.

use std::{fs, io};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

const OWN: &str = "/proc/self/ns/net";

/// Moves this process, which must have one thread, into a network namespace of its own. Without the right for that,
/// it gets a user namespace in which it has all rights.
pub(super) fn leave() -> Result<()> {
    let inode = || fs::read_link(OWN).context("cannot read which network namespace this is");
    let before = inode()?;
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            let (user, group) = (geteuid(), getegid());
            unshare(CloneFlags::CLONE_NEWUSER).context(
                "cannot make a namespace to compile rules in: that takes CAP_SYS_ADMIN, or a kernel that lets users \
                 make user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)",
            )?;
            // user_namespaces(7): without that, no group may be mapped.
            let mapped = fs::write("/proc/self/setgroups", "deny")
                .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {user} 1")))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {group} 1")));
            mapped.context("cannot be root of a user namespace to compile rules in")?;
            // Not before there is a root: files of /proc/net belong to the one of that moment (`xt_proto_init`).
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        }
        Err(errno) => {
            return Err(io::Error::from(errno)).context("cannot make a network namespace");
        }
    }
    if inode()? == before {
        bail!("the network namespace is still the old one: no rules are loaded");
    }
    Ok(())
}
