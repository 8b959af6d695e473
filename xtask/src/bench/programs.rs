//! What each BPF program costs, by the kernel's own statistics.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The kernel counts runs and time of BPF programs while this is 1; it costs some 20 ns a run.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Our programs on the packet path.
const NAMES: [&str; 7] = [
    "hook_open",
    "hook_gap",
    "hook_close",
    "early_open",
    "early_close",
    "flow_end",
    "packet_dropped",
];

/// Statistics are on while it lives.
pub struct Statistics {
    before: String,
}

impl Statistics {
    /// Switches them on.
    pub fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Self { before })
    }
}

/// A table of the programs that have run since statistics are on.
pub fn measured() -> Result<String> {
    let output = Command::new("bpftool").args(["-j", "prog", "show"]).output();
    let output = output.context("running bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    table(&serde_json::from_slice(&output.stdout).context("reading what bpftool says")?)
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // Left on, they cost a little and harm nothing.
        let _ = fs::write(SWITCH, self.before.trim());
    }
}

fn table(programs: &Value) -> Result<String> {
    let programs = programs.as_array().context("bpftool lists no programs")?;
    let mut text = String::from("| program | runs | ns/run |\n|---|---:|---:|\n");
    for name in NAMES {
        let sum = |member: &str| -> u64 {
            let ours = programs.iter().filter(|program| program["name"] == name);
            ours.filter_map(|program| program[member].as_u64()).sum()
        };
        let (runs, time) = (sum("run_cnt"), sum("run_time_ns"));
        if runs > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| `{name}` | {runs} | {:.0} |", time as f64 / runs as f64);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_ran_are_listed_with_their_mean() {
        let programs = serde_json::json!([
            {"name": "hook_open", "run_cnt": 4, "run_time_ns": 200},
            {"name": "hook_close"},
            {"name": "somebody", "run_cnt": 1, "run_time_ns": 1},
        ]);
        let table = table(&programs).unwrap();
        assert!(table.ends_with("|---:|\n| `hook_open` | 4 | 50 |\n"), "{table}");
    }
}
