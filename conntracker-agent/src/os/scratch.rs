//! Temporary files: what does not fit into memory.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where temporary files are made: `TMPDIR` if it is set; otherwise /var/tmp, because /tmp is in memory on many
/// machines (hier(7), file-hierarchy(7)).
fn directory() -> PathBuf {
    let named = env::var_os("TMPDIR").filter(|name| !name.is_empty()).map(PathBuf::from);
    let on_disk = || Path::new("/var/tmp").is_dir().then(|| PathBuf::from("/var/tmp"));
    named.or_else(on_disk).unwrap_or_else(env::temp_dir)
}

/// A file without a name, readable by nobody else (`O_TMPFILE` of open(2)): it is gone with its descriptor, even if the
/// process is killed.
///
/// # Errors
/// There is no such directory, or no right to write it.
pub fn file() -> Result<File> {
    let directory = directory();
    tempfile::tempfile_in(&directory).with_context(|| {
        format!(
            "cannot make a temporary file in {}: name a directory with space in TMPDIR",
            directory.display()
        )
    })
}

/// An error of such a file, with what can be done.
pub fn error(error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "a temporary file in {} failed: {error}; name a directory with space in TMPDIR",
        directory().display()
    )
}
