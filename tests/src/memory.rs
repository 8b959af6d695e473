//! Memory of a process, as proc_pid_status(5) has it.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most that it was.
    pub most: u64,
}

impl Resident {
    /// That of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(id: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let bytes = |name: &str| -> Result<u64> {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).context("no VmRSS")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        Ok(Self { now: bytes("VmRSS:")?, most: bytes("VmHWM:")? })
    }
}
