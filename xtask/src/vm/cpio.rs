//! Writes the archives of which an initramfs is made ("newc", as the kernel wants it). Several of
//! them, one behind the other, are one initramfs.
//!
//! Written here rather than by cpio(1): files go from where they lie to where they belong without
//! a copy of the tree between, and without root.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written. Directories on the way to a file are made as needed.
pub struct Archive<W: Write> {
    out: W,
    /// Inode numbers: files of the same number would be taken for hard links of each other.
    inode: u32,
    directories: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, directories: BTreeSet::new(), names: BTreeSet::new() }
    }

    /// An empty directory.
    pub fn directory(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.parents(&path.as_ref().join("x"))
    }

    /// A symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, target: &str) -> Result<()> {
        let name = name(path.as_ref());
        if self.names.contains(&name) {
            return Ok(());
        }
        self.parents(path.as_ref())?;
        self.entry(&name, LINK, target.as_bytes())
    }

    /// A file with these contents.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, contents: &[u8]) -> Result<()> {
        let name = name(path.as_ref());
        if self.names.contains(&name) {
            return Ok(());
        }
        self.parents(path.as_ref())?;
        self.entry(&name, FILE | mode, contents)
    }

    /// A file from the host; links are followed. What is there already stays.
    pub fn copy(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(path, mode, &fs::read(from)?)
    }

    /// A directory of the host with all that is in it.
    pub fn tree(&mut self, path: &Path, from: &Path) -> Result<()> {
        let mut entries = fs::read_dir(from)?.collect::<Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (inside, outside) = (path.join(entry.file_name()), entry.path());
            if outside.is_dir() {
                self.tree(&inside, &outside)?;
            } else if outside.is_file() {
                self.copy(&inside, &outside)?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.entry(TRAILER, 0, b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut missing: Vec<_> = path.ancestors().skip(1).map(name).collect();
        missing.retain(|directory| !directory.is_empty());
        for directory in missing.into_iter().rev() {
            if !self.names.contains(&directory) && self.directories.insert(directory.clone()) {
                self.entry(&directory, DIRECTORY, b"")?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.inode += 1;
        self.names.insert(name.to_owned());
        let size = u32::try_from(contents.len()).map_err(std::io::Error::other)?;
        let header = [
            self.inode,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            size,
            0, // device
            0,
            0, // what a device file is
            0,
            name.len() as u32 + 1,
            0, // sum, not used by newc
        ];
        write!(self.out, "070701")?;
        for field in header {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        // A zero behind the name; then header with name, and contents, to multiples of four.
        let head = 6 + 8 * header.len() + name.len();
        self.out.write_all(&[0; 4][..=(3 - head % 4)])?;
        self.out.write_all(contents)?;
        self.out.write_all(&[0; 4][..contents.len().wrapping_neg() % 4])
    }
}

/// A path as cpio names it: relative to the root.
fn name(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |n: usize| {
                let hex = std::str::from_utf8(&archive[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                u32::from_str_radix(hex, 16).unwrap()
            };
            let (mode, size, length) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + length - 1];
            let data = (at + 110 + length).next_multiple_of(4);
            let contents = archive[data..data + size].to_vec();
            entries.push((String::from_utf8(name.to_vec()).unwrap(), mode, contents));
            at = (data + size).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.link("/bin", "usr/bin").unwrap();
        archive.file("/usr/bin/a", 0o755, b"abc").unwrap();
        archive.file("/usr/bin/bb", 0o644, b"").unwrap();
        archive.file("/usr/bin/a", 0o755, b"another").unwrap();
        archive.directory("/proc").unwrap();
        let got = names(&archive.finish().unwrap());
        let got: Vec<_> =
            got.iter().map(|(name, mode, data)| (name.as_str(), *mode, &data[..])).collect();
        let want: [(&str, u32, &[u8]); 7] = [
            ("bin", LINK, b"usr/bin"),
            ("usr", DIRECTORY, b""),
            ("usr/bin", DIRECTORY, b""),
            ("usr/bin/a", FILE | 0o755, b"abc"),
            ("usr/bin/bb", FILE | 0o644, b""),
            ("proc", DIRECTORY, b""),
            (TRAILER, 0, b""),
        ];
        assert_eq!(got, want);
    }
}
