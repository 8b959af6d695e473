//! `cargo xtask api`: the public API of the library, one line for each thing that another crate can name. A test
//! compares it with docs/api.txt, so that whoever changes it sees that and says so in CHANGELOG.md.

mod modules;
mod public;
mod signature;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

/// Features of the library as it is listed. What `cli` adds is the program's own, and not promised to anybody.
const FEATURES: [&str; 1] = ["tokio"];

/// What stands at the beginning of the file.
const HEAD: &str = "\
# The public API of the library conntracker (--no-default-features --features tokio), read from its sources.
# Made by `cargo xtask api`; compared by a test of xtask. Changes belong into CHANGELOG.md.
";

/// List the public API of the library in docs/api.txt
#[derive(clap::Args)]
pub struct Args {}

pub fn main(_: &Args) -> Result<ExitCode> {
    let file = file()?;
    fs::write(&file, list()?).with_context(|| file.display().to_string())?;
    eprintln!("api: {}", file.display());
    Ok(ExitCode::SUCCESS)
}

fn file() -> Result<PathBuf> {
    Ok(workspace::root()?.join("docs/api.txt"))
}

fn list() -> Result<String> {
    let modules = modules::read(&workspace::root()?.join("conntracker-agent/src"), &FEATURES)?;
    let lines = public::lines("conntracker", &modules);
    Ok(HEAD.to_owned() + &lines.into_iter().map(|line| line + "\n").collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_api_is_the_one_in_the_file() {
        let (kept, now) = (fs::read_to_string(file().unwrap()).unwrap(), list().unwrap());
        let only = |of: &str, other: &str, sign: char| -> Vec<String> {
            let others: Vec<&str> = other.lines().collect();
            of.lines()
                .filter(|line| !others.contains(line))
                .map(|l| format!("{sign} {l}"))
                .collect()
        };
        let changes = [only(&kept, &now, '-'), only(&now, &kept, '+')].concat();
        assert!(
            kept == now,
            "the public API has changed. If it is meant to: `cargo xtask api`, and a line in CHANGELOG.md.\n{}",
            changes.join("\n")
        );
    }
}
