//! Which rules are looked at.

use std::path::{Path, PathBuf};

use conntracker::commands::rules::Origin;

use crate::cli::report::whole;

/// Rules of a file, or of the kernel if there is none.
pub(super) fn origin(file: Option<PathBuf>, netns: Option<String>) -> Origin {
    match file {
        Some(file) => Origin::File { source: Box::new(whole(file)), netns },
        None => Origin::Live(netns),
    }
}

/// `[FILE] [TABLE[/CHAIN]]`: a single argument is a file if there is one of that name.
pub(super) fn file_and_table(mut arguments: Vec<String>) -> (Option<PathBuf>, Option<String>) {
    match (arguments.pop(), arguments.pop()) {
        (Some(table), Some(file)) => (Some(file.into()), Some(table)),
        (Some(one), None) if Path::new(&one).exists() => (Some(one.into()), None),
        (one, _) => (None, one),
    }
}
