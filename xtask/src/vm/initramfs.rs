//! The initramfs of a run: the kernel's modules, the host's tools, our programs, the job.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Cached;
use super::cpio::Archive;
use super::guest::INIT;
use super::protocol::{JOB, Job};
use super::tools::Tools;
use crate::{cmd, workspace};

/// Where the program under test lies in the guest.
pub const PROGRAM: &str = "/usr/bin/conntracker";

/// Where test programs lie in the guest.
pub const TESTS: &str = "/tests";

/// Files below the workspace that tests read, at the same place in the guest.
const WORKSPACE: [&str; 1] = ["docs"];

/// What is put into a guest besides tools and modules.
#[derive(Debug, Default)]
pub struct Payload {
    /// The program under test.
    pub program: PathBuf,
    /// Test programs by their names.
    pub tests: Vec<(String, PathBuf)>,
    /// Further files: of the host, and where they belong.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Directory of a workspace's virtual machines: archives and logs.
pub fn directory() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("vm");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Waits until no other invocation works in the directory.
pub fn lock() -> Result<File> {
    let path = directory()?.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Packs tools and programs, which serve for all kernels.
pub fn pack(payload: &Payload) -> Result<PathBuf> {
    let dir = directory()?;
    let path = dir.join("system.cpio");
    let stripped = dir.join("stripped");
    fs::create_dir_all(&stripped)?;
    let out = File::create(&path).with_context(|| path.display().to_string())?;
    let mut tools = Tools::new(BufWriter::new(out))?;
    let myself = std::env::current_exe()?;
    tools.program(INIT, &strip(&myself, &stripped, "init")?)?;
    tools.program(PROGRAM, &strip(&payload.program, &stripped, "conntracker")?)?;
    for (name, program) in &payload.tests {
        let file = strip(program, &stripped, &format!("test-{name}"))?;
        tools.program(Path::new(TESTS).join(name), &file)?;
    }
    for (from, to) in &payload.files {
        tools.archive().copy(to, from).with_context(|| from.display().to_string())?;
    }
    let root = workspace::root()?;
    for part in WORKSPACE {
        tools.archive().tree(&root.join(part), &root.join(part))?;
    }
    tools.archive().directory(root.join("tests"))?;
    tools.finish()?;
    Ok(path)
}

/// All archives for one boot, one behind the other.
pub fn assemble(kernel: &Cached, system: &Path, job: &Job) -> Result<PathBuf> {
    let path = directory()?.join("initramfs");
    let mut out = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
    for part in [system, &kernel.modules] {
        let mut part = File::open(part).with_context(|| part.display().to_string())?;
        io::copy(&mut part, &mut out)?;
    }
    let mut last = Archive::new(out);
    last.file(JOB, 0o644, job.to_json().as_bytes())?;
    last.finish()?;
    Ok(path)
}

/// A program without what only debuggers read, which is most of it.
fn strip(program: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let target = dir.join(name);
    cmd::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&target).arg(program))?;
    Ok(target)
}
