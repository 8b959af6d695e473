//! `conntracker explain --expect FILE`: lines that say which packets must pass and which must not, held against rules.

mod check;
mod class;
mod line;
mod render;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};

use self::{
    check::{Outcome, check},
    line::Line,
};
use super::{DROPPED, Format, RulesSource, Sides, UNDECIDED};
use crate::os::{messages, output::Destination};

/// What is to be checked.
pub struct Expectations {
    /// The rules.
    pub rules: RulesSource,
    /// The file of lines.
    pub file: PathBuf,
    /// Format.
    pub format: Format,
}

/// A line and what came of it.
struct Checked {
    line: Line,
    outcome: Outcome,
}

/// Checks each line, and prints what came of it on standard output.
///
/// # Errors
/// The rules cannot be read; the file cannot be, or a line of it makes no sense.
pub fn expect(expectations: &Expectations) -> Result<ExitCode> {
    messages::to_stderr();
    let lines = line::read(&expectations.file)?;
    if lines.is_empty() {
        bail!(
            "{} has no line to check: write lines such as `allow tcp from 10.77.1.0/24 to 10.77.2.2 port 443`",
            expectations.file.display()
        );
    }
    let sides = Sides::load(&expectations.rules)?;
    let mut checked = Vec::with_capacity(lines.len());
    for line in lines {
        let outcome = check(&line, &sides)?;
        checked.push(Checked { line, outcome });
    }
    Destination::Stdout.write(|out| match expectations.format {
        Format::Text => render::text(&checked, out),
        Format::Json => render::json(&checked, out),
    })?;
    let fails = checked.iter().any(|of| matches!(of.outcome, Outcome::Fails(_)));
    let open = checked.iter().any(|of| matches!(of.outcome, Outcome::Undecided(_)));
    Ok(match (fails, open) {
        (true, _) => ExitCode::from(DROPPED),
        (false, true) => ExitCode::from(UNDECIDED),
        (false, false) => ExitCode::SUCCESS,
    })
}
