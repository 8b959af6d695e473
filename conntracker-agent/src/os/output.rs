//! Where reports go: standard output, or a file that appears only when it is complete.

use std::{
    env,
    ffi::OsStr,
    fmt,
    fs::{self, OpenOptions},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

/// Mode of report files: they tell who talks to whom.
pub(crate) const MODE: u32 = 0o640;

/// Suffix of files that are not complete, and the number of random characters before it.
const PARTIAL: &str = ".partial";
const RANDOM: usize = 6;

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

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Destination {
    /// `-` is standard output.
    #[must_use]
    pub fn new(name: &str) -> Self {
        if name == "-" { Self::Stdout } else { Self::File(PathBuf::from(name)) }
    }

    /// Checks before the trace begins, which may take hours, that the report can be written.
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
        create_partial(path)?
            .close()
            .with_context(|| format!("cannot remove the partial file beside {}", path.display()))
    }

    /// Whether it is a terminal whose user has not declined colours.
    #[must_use]
    pub fn shows_colours(&self) -> bool {
        *self == Self::Stdout
            && io::stdout().is_terminal()
            && !declines_colours(env::var_os("NO_COLOR").as_deref())
    }

    /// Writes the report that `render` makes. A file gets its name only when it is complete; until then, and after an
    /// error, the previous file stays. A closed pipe is success.
    pub fn write(&self, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Written> {
        match self {
            Self::Stdout => {
                let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
                match render(&mut out).and_then(|()| out.flush()) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        // The pipe is closed, so the buffer must not be flushed when it is dropped.
                        let _ = out.into_parts();
                        Ok(Written::Closed)
                    }
                    Err(error) => {
                        // Nor must the buffer be flushed after an error.
                        let _ = out.into_parts();
                        Err(error).context("cannot write to standard output")
                    }
                    Ok(()) => Ok(Written::Whole),
                }
            }
            Self::File(path) => {
                let what = || format!("cannot write {}", path.display());
                let file = write_synced(create_partial(path)?, render).with_context(what)?;
                // rename(2) replaces the name itself and does not follow a symbolic link that was made meanwhile.
                file.persist(path).map_err(|e| e.error).with_context(what)?;
                Ok(Written::Whole)
            }
        }
    }

    /// Writes a report whose destination failed with `error` to the directory of temporary files, because this is the
    /// last chance. Returns the error with the path of the report.
    #[must_use]
    pub fn fall_back(
        &self,
        error: anyhow::Error,
        render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Error {
        // /tmp is tried too, because TMPDIR may be on the full disk.
        let directories = [env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        let made = directories
            .iter()
            .find_map(|directory| create_in(directory, "conntracker-", ".report").ok());
        let kept =
            made.context("no directory of temporary files can be written").and_then(|file| {
                let file = write_synced(file, render)?;
                let (_, path) = file.keep().map_err(|e| e.error)?;
                Ok(path)
            });
        match kept {
            Ok(path) => error.context(format!("the report is in {} instead", path.display())),
            Err(no_other) => error.context(format!("the report is lost ({no_other:#})")),
        }
    }
}

/// Whether colours are declined (no-color.org): the variable is set, to anything but nothing.
fn declines_colours(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

/// Whether a report was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it was written.
    Whole,
    /// The reader has closed the pipe.
    Closed,
}

/// Writes all of a file, to the disk.
fn write_synced(
    file: NamedTempFile,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    render(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A new file in the directory of `path` (O_EXCL, so no link is followed), removed unless persisted.
fn create_partial(path: &Path) -> Result<NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .with_context(|| format!("{} does not name a file", path.display()))?
        .to_string_lossy();
    let prefix = format!(".{name}.");
    remove_partial(directory, &prefix);
    create_in(directory, &prefix, PARTIAL)
        .with_context(|| format!("cannot create a file in {}", directory.display()))
}

/// Makes a file in a directory. It is locked while it is open, which shows other runs that it is being written.
fn create_in(directory: &Path, prefix: &str, suffix: &str) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .rand_bytes(RANDOM)
        .permissions(fs::Permissions::from_mode(MODE))
        .tempfile_in(directory)?;
    // On a file system without locks, a partial file stays after a crash.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes the partial files of runs that were killed while they wrote a report.
fn remove_partial(directory: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_suffix(PARTIAL));
        let ours = random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if ours
            && let Ok(file) =
                OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(entry.path())
            && file.metadata().is_ok_and(|meta| meta.is_file())
            && file.try_lock().is_ok()
        {
            // The lock is free, so the writer has ended.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(to: &Destination, text: &str) -> Result<Written> {
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
    fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let left = [".r.log.aB3dE5.partial"];
        let others = [".r.log.backup", ".r.log.a.partial", ".other.aB3dE5.partial", "r.log"];
        for name in left.iter().chain(&others) {
            fs::write(path(name), "x").unwrap();
        }
        let to = Destination::File(path("r.log"));
        // Another run that writes right now.
        let writing = create_in(dir.path(), ".r.log.", PARTIAL).unwrap();
        to.check().unwrap();
        assert!(left.iter().all(|name| !path(name).exists()));
        assert!(others.iter().all(|name| path(name).exists()));
        assert!(writing.path().exists());
    }

    #[test]
    fn a_report_that_cannot_go_where_it_was_to_go_is_kept_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let to = Destination::File(dir.path().join("gone/r.log"));
        let error = write(&to, "all of it").unwrap_err();
        let error = to.fall_back(error, |out| out.write_all(b"all of it"));
        let said = format!("{error:#}");
        let place = said.strip_prefix("the report is in ").and_then(|s| s.split_once(" instead: "));
        let (place, why) = place.unwrap_or_else(|| panic!("{said}"));
        assert!(why.contains("cannot create a file in"), "{said}");
        assert_eq!(fs::read_to_string(place).unwrap(), "all of it");
        assert_eq!(fs::metadata(place).unwrap().permissions().mode() & 0o7777, 0o640);
        fs::remove_file(place).unwrap();
    }

    #[test]
    fn colours_are_declined_by_a_variable_that_is_not_empty() {
        let declines = |value: Option<&str>| declines_colours(value.map(OsStr::new));
        assert!(declines(Some("1")) && declines(Some("0")));
        assert!(!declines(Some("")) && !declines(None));
        assert!(!Destination::File(PathBuf::from("r.log")).shows_colours());
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
