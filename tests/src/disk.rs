//! A disk that is soon full.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A file system of a few hundred kilobytes; unmounted when dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (what, size) = (Some("tmpfs"), Some("size=300k"));
        mount(what, directory.path(), what, MsFlags::empty(), size).context("mounting a tmpfs")?;
        Ok(Self(directory))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
