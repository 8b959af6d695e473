//! A benchmark's document under docs/benchmarks/, and what it says of the machine.

use std::{
    fs,
    path::Path,
    process::{self, Command},
    thread,
};

use anyhow::{Context, Result};

use crate::workspace;

/// Writes what `measure` returns to a document, and prints it. The directory for its files is gone afterwards.
pub fn write(name: &str, measure: impl FnOnce(&Path) -> Result<String>) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("conntracker-bench-{}", process::id()));
    fs::create_dir(&directory)?;
    let result = measure(&directory);
    // Whatever became of the measurement.
    let _ = fs::remove_dir_all(&directory);
    let text = result?;
    println!("{text}");
    let document = workspace::root()?.join("docs/benchmarks").join(name);
    fs::create_dir_all(document.parent().context("the document is in no directory")?)?;
    fs::write(&document, text).with_context(|| document.display().to_string())
}

/// Date, kernel, CPUs, and the load at the beginning.
pub fn machine() -> Result<String> {
    let one_line = |program: &str, args: &[&str]| -> Result<String> {
        let run = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
        Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned())
    };
    Ok(format!(
        "{}, Linux {}, {} CPUs, load average at the beginning {}",
        one_line("date", &["-u", "+%Y-%m-%d"])?,
        one_line("uname", &["-r"])?,
        thread::available_parallelism()?,
        fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default(),
    ))
}
