//! `trace --against`: what is seen, held against rules that would be loaded.

use std::process::ExitCode;

use anyhow::Result;

use super::{Trace, run};
use crate::commands::what_if::{self, WhatIf};

/// Runs a trace that records, and then predicts from the recording. A trace that fails, or loses records where that
/// counts (`--strict`), predicts nothing.
///
/// # Errors
/// As [`run`] and [`what_if::run`].
pub fn run_against(trace: Trace, what_if: &WhatIf) -> Result<ExitCode> {
    let ended = run(trace)?;
    if ended == ExitCode::SUCCESS { what_if::run(what_if) } else { Ok(ended) }
}
