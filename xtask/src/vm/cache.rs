//! Kernels as they are booted, in the user's cache: downloaded once, and again only if asked for.

use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::fetch::Packages;
use super::kernels::Kernel;
use super::machine::Arch;
use crate::cmd;

/// Directories below `kernel/` whose modules a packet filter and its lab may ask for.
const MODULES: [&str; 10] = [
    "arch",
    "crypto",
    "drivers/net/bonding",
    "drivers/net/dummy.ko",
    "drivers/net/ifb.ko",
    "drivers/net/macvlan.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "lib",
    "net",
];

/// Large parts of `net` that nobody here asks for.
const WITHOUT: [&str; 9] =
    ["9p", "bluetooth", "ceph", "mac80211", "nfc", "rds", "smc", "sunrpc", "wireless"];

/// A kernel in the cache.
#[derive(Debug)]
pub struct Cached {
    /// What `uname -r` says.
    pub release: String,
    /// Packages and their versions, for people.
    pub packages: String,
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// Archive with its modules.
    pub modules: PathBuf,
}

/// Where all kernels are.
pub fn directory() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("there is neither HOME nor XDG_CACHE_HOME")?;
    Ok(cache.join("conntracker/kernels"))
}

impl Cached {
    /// From the cache, or from the archive.
    pub fn get(kernel: &Kernel, arch: &Arch, refresh: bool) -> Result<Self> {
        let base = directory()?;
        let dir = base.join(kernel.name);
        if !refresh && let Some(cached) = Self::read(&dir) {
            return Ok(cached);
        }
        fetch(kernel, arch, &base, &dir).with_context(|| format!("kernel {}", kernel.name))?;
        Self::read(&dir).with_context(|| format!("{} is incomplete", dir.display()))
    }

    fn read(dir: &Path) -> Option<Self> {
        let read =
            |name| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        Some(Self {
            release: read("release")?,
            packages: read("packages")?,
            vmlinuz: dir.join("vmlinuz"),
            modules: dir.join("modules.cpio"),
        })
    }
}

/// Downloads, and puts all into place at once.
fn fetch(kernel: &Kernel, arch: &Arch, base: &Path, dir: &Path) -> Result<()> {
    let packages = Packages::update(kernel, arch, &base.join("apt").join(kernel.name))?;
    let names = packages.of_kernel(&kernel.package.replace("{arch}", arch.debian))?;
    let work = base.join(format!("{}.new-{}", kernel.name, std::process::id()));
    let _removed = Removed(&work);
    let (debs, root, made) = (work.join("debs"), work.join("root"), work.join("made"));
    for sub in [&debs, &root, &made] {
        fs::create_dir_all(sub)?;
    }
    let files = packages.download(&names, &debs)?;
    for deb in &files {
        cmd::run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&root))?;
    }
    let mut versions: Vec<_> =
        files.iter().filter_map(|deb| Some(deb.file_stem()?.to_string_lossy())).collect();
    versions.sort();
    fs::write(made.join("packages"), versions.join(" ").replace("%3a", ":"))?;
    make(&root, &made)?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&made, dir)?;
    Ok(())
}

/// From the unpacked packages to what is kept.
fn make(root: &Path, made: &Path) -> Result<()> {
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.is_dir())
        .context("the packages have no modules")?;
    let mut releases = fs::read_dir(&modules)?.collect::<std::io::Result<Vec<_>>>()?;
    let (Some(release), true) = (releases.pop(), releases.is_empty()) else {
        bail!("the packages have modules of more than one kernel, or none");
    };
    let release = release.file_name().to_string_lossy().into_owned();
    let boot = root.join("boot");
    let vmlinuz = [boot.join(format!("vmlinuz-{release}")), modules.join(&release).join("vmlinuz")];
    let vmlinuz = vmlinuz.iter().find(|path| path.is_file()).context("no kernel")?;
    fs::copy(vmlinuz, made.join("vmlinuz"))?;

    let staged = root.join("staged");
    let tree = staged.join("lib/modules").join(&release);
    select_modules(&modules.join(&release), &tree)?;
    cmd::run(
        Command::new(cmd::find("depmod").context("depmod is missing: run `cargo xtask setup`")?)
            .arg("-b")
            .arg(&staged)
            .arg(&release),
    )?;
    let mut archive = Archive::new(BufWriter::new(File::create(made.join("modules.cpio"))?));
    archive.tree(&Path::new("/usr/lib/modules").join(&release), &tree)?;
    let config = boot.join(format!("config-{release}"));
    if config.is_file() {
        archive.copy(Path::new("/boot").join(format!("config-{release}")), &config)?;
    }
    archive.finish()?;
    // Last: what has it is complete.
    fs::write(made.join("release"), release)?;
    Ok(())
}

/// Moves what is wanted into place, and unpacks modules that are compressed: not each kmod can.
fn select_modules(from: &Path, to: &Path) -> Result<()> {
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if from.join(name).is_file() {
            fs::create_dir_all(to)?;
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    for part in MODULES {
        for suffix in ["", ".xz", ".zst"] {
            let name = format!("kernel/{part}{suffix}");
            let source = from.join(&name);
            if source.exists() {
                let target = to.join(&name);
                fs::create_dir_all(target.parent().context("no parent")?)?;
                fs::rename(source, target)?;
            }
        }
    }
    for part in WITHOUT {
        let unwanted = to.join("kernel/net").join(part);
        if unwanted.exists() {
            fs::remove_dir_all(unwanted)?;
        }
    }
    let mut files = Vec::new();
    list(to, &mut files)?;
    for (extension, program, args) in
        [("xz", "xz", &["--decompress"][..]), ("zst", "zstd", &["--decompress", "--rm", "--quiet"])]
    {
        let packed: Vec<_> =
            files.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
        if !packed.is_empty() {
            cmd::run(Command::new(program).args(args).args(packed))?;
        }
    }
    Ok(())
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// A directory that is removed in the end, whatever happens.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        // It is a cache's own working directory: what stays is overwritten by nobody.
        let _ = fs::remove_dir_all(self.0);
    }
}
