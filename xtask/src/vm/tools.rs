//! The programs of the host that tests and tracer call, with all that they need, as an archive.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::cmd;

/// Programs that must be there.
const TOOLS: [&str; 39] = [
    "bpftool",
    "cat",
    "conntrack",
    "cp",
    "dmesg",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "ip",
    "ip6tables",
    "ip6tables-legacy",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft",
    "ip6tables-nft-restore",
    "iptables",
    "iptables-legacy",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-nft-save",
    "ls",
    "modprobe",
    "mount",
    "nc.openbsd",
    "nft",
    "nohup",
    "ping",
    "prlimit",
    "setpriv",
    "sh",
    "sleep",
    "sysctl",
    "true",
    "uname",
    "unshare",
];

/// Programs that are handy with `--run`, if the host has them.
const EXTRAS: [&str; 23] = [
    "awk",
    "bash",
    "chmod",
    "cut",
    "date",
    "find",
    "id",
    "ip6tables-nft-save",
    "kill",
    "ln",
    "lsmod",
    "mkdir",
    "mv",
    "perf",
    "ps",
    "rm",
    "sed",
    "seq",
    "sort",
    "strace",
    "tail",
    "tc",
    "wc",
];

/// Files of the host that programs read.
const FILES: [&str; 4] = ["/etc/protocols", "/etc/services", "/etc/xattr.conf", "/etc/ethertypes"];

/// Where libraries of the architecture are, below /usr/lib: plugins of iptables are found there.
const XTABLES: &str = "xtables";

/// Directories that systems merge.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Collects programs and what they need.
pub struct Tools<W: Write> {
    archive: Archive<W>,
    /// Programs and plugins whose libraries are needed.
    dynamic: BTreeSet<PathBuf>,
}

impl<W: Write> Tools<W> {
    /// With a system's directories, and all tools.
    pub fn new(out: W) -> Result<Self> {
        let mut archive = Archive::new(out);
        for directory in MERGED {
            archive.link(Path::new("/").join(directory), &format!("usr/{directory}"))?;
        }
        for directory in ["/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/var/log"] {
            archive.directory(directory)?;
        }
        archive.link("/var/run", "../run")?;
        archive.link("/etc/mtab", "../proc/self/mounts")?;
        archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        archive.file("/etc/group", 0o644, b"root:x:0:\n")?;
        let mut tools = Self { archive, dynamic: BTreeSet::new() };
        for tool in TOOLS {
            let Some(path) = cmd::find(tool) else {
                bail!("{tool} is missing: run `cargo xtask setup`");
            };
            tools.tool(tool, &path)?;
        }
        for tool in EXTRAS {
            if let Some(path) = cmd::find(tool) {
                tools.tool(tool, &path)?;
            }
        }
        tools.plugins()?;
        for file in FILES {
            if Path::new(file).is_file() {
                tools.archive.copy(file, Path::new(file))?;
            }
        }
        Ok(tools)
    }

    /// A program of the host under this path.
    pub fn program(&mut self, path: impl AsRef<Path>, from: &Path) -> Result<()> {
        self.archive.copy(path, from).with_context(|| from.display().to_string())?;
        self.dynamic.insert(from.to_owned());
        Ok(())
    }

    /// The archive, for files that need nothing.
    pub fn archive(&mut self) -> &mut Archive<W> {
        &mut self.archive
    }

    /// Adds the libraries and ends.
    pub fn finish(mut self) -> Result<W> {
        let output = Command::new("ldd").args(&self.dynamic).output().context("ldd")?;
        // Its exit status tells of programs that are linked statically; what matters is on its
        // output.
        for library in libraries(&String::from_utf8_lossy(&output.stdout))? {
            self.archive.copy(merged(Path::new(&library))?, Path::new(&library))?;
        }
        Ok(self.archive.finish()?)
    }

    /// A program under its own name, though it may be another one's on the host.
    fn tool(&mut self, name: &str, path: &Path) -> Result<()> {
        let mut real = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        if name == "bpftool" {
            real = behind_wrapper(real);
        }
        // Programs that tell by their name what to do need that name, and one of the same file is
        // enough.
        let place = Path::new("/usr/sbin").join(name);
        let file = Path::new("/usr/lib/conntracker").join(real.file_name().context("no name")?);
        self.archive.copy(&file, &real)?;
        self.dynamic.insert(real);
        Ok(self.archive.link(place, &file.to_string_lossy())?)
    }

    /// Plugins of iptables.
    fn plugins(&mut self) -> Result<()> {
        for entry in fs::read_dir("/usr/lib")?.flatten() {
            let Ok(plugins) = fs::read_dir(entry.path().join(XTABLES)) else { continue };
            for plugin in plugins.flatten() {
                let path = plugin.path();
                self.archive.copy(&path, &path)?;
                self.dynamic.insert(fs::canonicalize(path)?);
            }
        }
        Ok(())
    }
}

/// Ubuntu's bpftool is a script that calls the one for the kernel that runs; in the guest there is
/// none, and any will do.
fn behind_wrapper(path: PathBuf) -> PathBuf {
    let script = fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"#!"));
    if !script {
        return path;
    }
    let versions = fs::read_dir("/usr/lib/linux-tools").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bpftool"))
        .find_map(|tool| fs::canonicalize(tool).ok())
        .unwrap_or(path)
}

/// A path as it is where /lib and the like are links into /usr.
fn merged(path: &Path) -> Result<PathBuf> {
    let directory = path.parent().context("a library without a directory")?;
    let name = path.file_name().context("a library without a name")?;
    Ok(fs::canonicalize(directory)?.join(name))
}

/// Paths from the output of ldd.
fn libraries(ldd: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for line in ldd.lines().filter(|line| line.starts_with('\t')) {
        if line.contains("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        found.extend(path.map(str::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "/usr/sbin/ip:\n\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibbpf.so.1 => /lib/x86_64-linux-gnu/libbpf.so.1 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
                    /bin/busybox:\n\tnot a dynamic executable\n";
        let want = ["/lib/x86_64-linux-gnu/libbpf.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(text).unwrap(), want.map(str::to_owned).into());
        assert!(libraries("a:\n\tlibx.so => not found\n").is_err());
    }
}
