//! Where reports go: standard output, or a file that is whole or not there.

use std::{
    fs,
    io::{self, BufWriter, Write},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Mode of report files: they tell who talks to whom.
const MODE: u32 = 0o640;

/// Buffer in front of the file.
const BUFFER: usize = 256 * 1024;

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A regular file.
    File(PathBuf),
}

impl Destination {
    /// `-` is standard output.
    #[must_use]
    pub fn new(name: &str) -> Self {
        if name == "-" { Self::Stdout } else { Self::File(PathBuf::from(name)) }
    }

    /// Finds out before hours of tracing whether the report could be written.
    ///
    /// # Errors
    /// The directory cannot be written, or the name is taken by something that is not a regular
    /// file: a symbolic link is neither followed nor replaced, a device is never renamed over.
    pub fn check(&self) -> Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => {}
            Ok(meta) => {
                let kind = meta.file_type();
                let what = if kind.is_symlink() {
                    "a symbolic link"
                } else if kind.is_dir() {
                    "a directory"
                } else if kind.is_char_device() || kind.is_block_device() {
                    "a device"
                } else {
                    "not a regular file"
                };
                bail!(
                    "will not write the report to {}: it is {what}. Name a regular file, or `-` for standard output",
                    path.display()
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        }
        aside(path)?
            .close()
            .with_context(|| format!("cannot remove what was written beside {}", path.display()))
    }

    /// Writes a report by way of `render`. A file appears under its name only when it is complete;
    /// until then, and if anything fails, what was there stays. A closed pipe is success.
    pub fn write(&self, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
                match render(&mut out).and_then(|()| out.flush()) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        // Nothing more will get through: do not try again when dropped.
                        let _ = out.into_parts();
                        Ok(())
                    }
                    other => other.context("cannot write to standard output"),
                }
            }
            Self::File(path) => {
                let what = || format!("cannot write {}", path.display());
                let file = aside(path)?;
                let mut out = BufWriter::with_capacity(BUFFER, file);
                render(&mut out).with_context(what)?;
                let file =
                    out.into_inner().map_err(io::IntoInnerError::into_error).with_context(what)?;
                file.as_file().sync_all().with_context(what)?;
                // rename(2) replaces the name itself: a symbolic link that has come to stand there
                // meanwhile is not followed.
                file.persist(path).map_err(|e| e.error).with_context(what)?;
                Ok(())
            }
        }
    }
}

/// A new file in the directory of `path` (O_EXCL, so no link is followed), removed unless persisted.
fn aside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .with_context(|| format!("{} does not name a file", path.display()))?
        .to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .permissions(fs::Permissions::from_mode(MODE))
        .tempfile_in(directory)
        .with_context(|| format!("cannot create a file in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(to: &Destination, text: &str) -> Result<()> {
        to.write(|out| out.write_all(text.as_bytes()))
    }

    #[test]
    fn a_file_is_replaced_whole_with_mode_0640() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.log");
        let to = Destination::File(path.clone());
        to.check().unwrap();
        write(&to, "one").unwrap();
        write(&to, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_failing_render_leaves_the_previous_report_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.log");
        let to = Destination::File(path.clone());
        write(&to, "previous").unwrap();
        let failed = to.write(|out| {
            out.write_all(b"half of")?;
            Err(io::Error::other("disk on fire"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "previous");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn symbolic_links_are_refused_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("r.log"));
        fs::write(&victim, "keep").unwrap();
        symlink(&victim, &link).unwrap();
        let to = Destination::File(link.clone());
        assert!(to.check().unwrap_err().to_string().contains("a symbolic link"));
        // Planted after the check: replaced, not followed.
        write(&to, "report").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
        assert_eq!(fs::read_to_string(&link).unwrap(), "report");
    }

    #[test]
    fn devices_directories_and_missing_directories_are_refused() {
        let refused = |path: &str| Destination::new(path).check().unwrap_err().to_string();
        assert!(refused("/dev/null").contains("a device"));
        assert!(refused("/tmp").contains("a directory"));
        assert!(refused("/nonexistent/r.log").contains("cannot create a file in /nonexistent"));
    }
}
