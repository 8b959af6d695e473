//! `trace --against`: what is seen, held against rules that would be loaded.

use std::process::ExitCode;

use anyhow::Result;

use super::{WhatIf, run};
use crate::commands::trace::{self, Trace};

/// Runs a trace that records, and then predicts from the recording. A trace that fails, or loses records where that
/// counts (`--strict`), predicts nothing.
///
/// # Errors
/// As [`trace::run`] and [`run`].
pub fn run_after(trace: Trace, what_if: &WhatIf) -> Result<ExitCode> {
    let ended = trace::run(trace)?;
    if ended == ExitCode::SUCCESS { run(what_if) } else { Ok(ended) }
}
