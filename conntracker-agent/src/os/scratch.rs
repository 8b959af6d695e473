//! Temporary files: what does not fit into memory.

use std::{env, fs::File, io, path::PathBuf};

use anyhow::{Result, bail};
use tempfile::TempDir;

/// Where temporary files may be made: `TMPDIR` if it is set; otherwise /var/tmp, because /tmp is in memory on many
/// machines (hier(7), file-hierarchy(7)), and then /tmp.
fn directories() -> Vec<PathBuf> {
    match env::var_os("TMPDIR").filter(|name| !name.is_empty()) {
        Some(named) => vec![named.into()],
        None => vec!["/var/tmp".into(), env::temp_dir()],
    }
}

/// A directory that is gone with what is in it when this is dropped.
///
/// # Errors
/// There is no such directory, or no right to write it.
pub fn directory() -> Result<TempDir> {
    let named =
        |directory: &PathBuf| tempfile::Builder::new().prefix("conntracker-").tempdir_in(directory);
    first(named)
}

/// A file without a name, readable by nobody else (`O_TMPFILE` of open(2)): it is gone with its descriptor, even if the
/// process is killed.
///
/// # Errors
/// There is no such directory, or no right to write it.
pub fn file() -> Result<File> {
    first(|directory| tempfile::tempfile_in(directory))
}

/// What can be made in the first directory where that works.
fn first<T>(make: impl Fn(&PathBuf) -> io::Result<T>) -> Result<T> {
    let directories = directories();
    let mut why = None;
    for directory in &directories {
        match make(directory) {
            Ok(made) => return Ok(made),
            Err(error) => why = Some(error),
        }
    }
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    bail!(
        "cannot make a temporary file in {}{why}: name a directory with space in TMPDIR",
        names(&directories)
    )
}

fn names(directories: &[PathBuf]) -> String {
    let names: Vec<String> = directories.iter().map(|of| of.display().to_string()).collect();
    names.join(" or ")
}

/// An error of such a file, with what can be done.
#[must_use]
pub fn error(error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "a temporary file in {} failed: {error}; name a directory with space in TMPDIR",
        names(&directories())
    )
}
