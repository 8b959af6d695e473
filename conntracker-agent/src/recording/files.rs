//! The files of a recording: one, or numbered parts of which the oldest are removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

use super::{
    End, Item, Reader,
    head::PartHead,
    part::{PartWriter, RawBlock},
};
use crate::os::{output::MODE, random::random};

/// Level of zstd: higher ones take more time than they save bytes.
const LEVEL: i32 = 3;

/// Digits of a part's number, at least.
const DIGITS: usize = 6;

/// Where a recording is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub path: PathBuf,
    /// There are numbered parts; otherwise `path` is the one part.
    pub numbered: bool,
    /// Bytes that all parts may have together.
    pub keep: Option<u64>,
}

impl Target {
    fn part(&self, number: u32) -> PathBuf {
        if !self.numbered {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number:0DIGITS$}"));
        name.into()
    }
}

/// Numbers and paths of the parts of a recording that are there, in order.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn parts(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|of| number(of, name));
        if let Some(number) = number {
            parts.push((number, entry.path()));
        }
    }
    parts.sort_unstable();
    Ok(parts)
}

/// The number of a part by its file name.
fn number(file: &str, name: &str) -> Option<u32> {
    let digits = file.strip_prefix(name)?.strip_prefix('.')?;
    let all = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

/// The part that is being written.
pub(super) struct PartFile {
    target: Target,
    recording: [u8; 16],
    number: u32,
    file: File,
    writer: PartWriter,
    /// Bytes of whole blocks.
    length: u64,
    /// Something was written since the last [`Self::sync`].
    unsynced: bool,
}

impl PartFile {
    /// Makes the first part. Returns with it what is to be said of an earlier run that was not ended in order.
    ///
    /// # Errors
    /// There is such a file already, or it cannot be made.
    pub fn create(target: Target) -> Result<(Self, Option<String>)> {
        let before = if target.numbered {
            let what = || format!("cannot look for the parts of {}", target.path.display());
            parts(&target.path).with_context(what)?.pop()
        } else {
            None
        };
        let number = before.as_ref().map_or(1, |(number, _)| number + 1);
        let remark = before.and_then(|(_, path)| not_ended(&path));
        let recording = random().context("no random bytes can be had")?;
        let part = Self::open(target, recording, number)?;
        Ok((part, remark))
    }

    fn open(target: Target, recording: [u8; 16], number: u32) -> Result<Self> {
        let path = target.part(number);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path);
        let mut file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "{} is there already: name another file, or record in parts (`--rotate 64M`)",
                path.display()
            ),
            made => made.with_context(|| format!("cannot create {}", path.display()))?,
        };
        let made_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let made_ns = made_ns.map_or(0, |since| since.as_nanos() as u64);
        let head = PartHead { part: random()?, recording, number, made_ns };
        file.write_all(&head.to_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        sync_directory(&path);
        let (writer, length) = (PartWriter::new(head, LEVEL)?, head.to_bytes().len() as u64);
        Ok(Self { target, recording, number, file, writer, length, unsynced: true })
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.target.part(self.number)
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Goes on with the next part, and removes the oldest ones.
    ///
    /// # Errors
    /// The new part cannot be made; this one goes on.
    pub fn next_part(&mut self) -> Result<()> {
        let next = if self.target.numbered {
            Self::open(self.target.clone(), self.recording, self.number + 1)?
        } else {
            // Somebody has moved the file away, or has not.
            let here = fs::metadata(self.path()).map(|meta| (meta.dev(), meta.ino()));
            let ours = self.file.metadata().map(|meta| (meta.dev(), meta.ino()));
            if here.is_ok() && here.ok() == ours.ok() {
                return Ok(());
            }
            let mut next = Self::open(self.target.clone(), self.recording, self.number)?;
            next.number = self.number;
            next
        };
        let before = std::mem::replace(self, next);
        before.file.sync_data().unwrap_or_else(|error| say_unsynced(&before.path(), &error));
        self.remove_oldest();
        Ok(())
    }

    /// Removes the oldest parts while all of them have more bytes than they may.
    fn remove_oldest(&self) {
        let Some(keep) = self.target.keep else { return };
        let Ok(parts) = parts(&self.target.path) else { return };
        let size = |path: &Path| fs::symlink_metadata(path).map_or(0, |meta| meta.len());
        let mut sum: u64 = parts.iter().map(|(_, path)| size(path)).sum();
        for (number, path) in &parts {
            if sum <= keep || *number >= self.number {
                break;
            }
            sum -= size(path);
            match fs::remove_file(path) {
                Ok(()) => log::info!("{} is removed: {keep} bytes are kept", path.display()),
                Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
            }
        }
    }

    /// Writes a block, or nothing of it.
    ///
    /// # Errors
    /// It cannot be written. What the disk took of it is cut off again.
    pub fn write(&mut self, block: &RawBlock) -> io::Result<()> {
        let bytes = self.writer.pack(block)?;
        if let Err(error) = self.file.write_all(&bytes) {
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.writer.written(&bytes);
        self.length += bytes.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// What was written is on the disk afterwards.
    pub fn sync(&mut self) {
        if std::mem::take(&mut self.unsynced)
            && let Err(error) = self.file.sync_data()
        {
            say_unsynced(&self.path(), &error);
        }
    }
}

fn say_unsynced(path: &Path, error: &io::Error) {
    log::warn!("{} may not be on the disk: {error}", path.display());
}

/// The name of a new file is on the disk afterwards, where the file system can do that.
fn sync_directory(path: &Path) {
    if let Some(Ok(directory)) = path.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

/// What is to be said of an earlier part, if it has no end.
fn not_ended(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let written = file.metadata().and_then(|meta| meta.modified()).ok();
    let mut reader = Reader::new(file).ok()?;
    loop {
        match reader.next(End::Last) {
            Ok(Some(Item::Close(close))) if close.last => return None,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let until = written.map(|at| format!(" at {}", humantime::format_rfc3339_seconds(at)));
    Some(format!(
        "the run before was not ended in order: {name} was written last{}",
        until.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_from_other_files() {
        for (file, wanted) in [
            ("r.rec.000001", Some(1)),
            ("r.rec.1234567", Some(1_234_567)),
            ("r.rec.1", None),
            ("r.rec", None),
            ("r.rec.00000x", None),
            ("other.rec.000001", None),
            ("r.rec.99999999999", None),
        ] {
            assert_eq!(number(file, "r.rec"), wanted, "{file}");
        }
    }
}
