//! The ways to build the BPF object, and the building of it.
//!
//! BPF targets come without a prebuilt `core` from rustup, so a stable toolchain alone does not do.
//! Either the distribution has `core` for bpfel (Debian's `libstd-rust-web-dev-bpf`, with the
//! compiler it belongs to), or a nightly builds `core` from `rust-src`. Both need bpf-linker.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, workspace};

/// Names a prebuilt object, which then is used as it is.
pub const OVERRIDE: &str = "CONNTRACKER_EBPF_OBJECT";

const OBJECT: &str = "conntracker.bpf.o";
const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Separates the flags in CARGO_ENCODED_RUSTFLAGS.
const SEPARATOR: &str = "\x1f";

/// How BPF code can be compiled on this machine.
#[derive(Debug)]
pub enum Compiler {
    /// Debian's rustc-web, cargo-web and libstd-rust-web-dev-bpf.
    Debian,
    /// A rustup nightly with rust-src, by its full name.
    Nightly(String),
}

/// A compiler and the linker.
#[derive(Debug)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Compiler {
    /// Finds one. Debian's first: it compiles no `core`.
    pub fn find() -> Option<Self> {
        let debian = ["/usr/bin/rustc", "/usr/bin/cargo"].iter().all(is_file)
            && Path::new("/usr/lib/rustlib").join(TARGET).join("lib").is_dir();
        if debian { Some(Self::Debian) } else { nightly_with_source().map(Self::Nightly) }
    }

    /// Version of the LLVM in it: bpf-linker's must not be older, or it cannot read the bitcode.
    pub fn llvm(&self) -> Option<u32> {
        let mut rustc = match self {
            Self::Debian => Command::new("/usr/bin/rustc"),
            Self::Nightly(name) => rustup_run(name, "rustc"),
        };
        clean(&mut rustc);
        let text = cmd::ask(rustc.arg("-vV"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.trim().parse().ok()
    }

    /// Whether clippy belongs to it.
    pub fn has_clippy(&self) -> bool {
        match self {
            Self::Debian => is_file("/usr/bin/cargo-clippy"),
            Self::Nightly(name) => rustup_home().is_some_and(|home| {
                home.join("toolchains").join(name).join("bin/cargo-clippy").is_file()
            }),
        }
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Debian => "Debian's rustc-web".to_owned(),
            Self::Nightly(name) => format!("rustup {name} with rust-src"),
        }
    }
}

impl Toolchain {
    /// Finds compiler and linker.
    pub fn find() -> Result<Self> {
        match (Compiler::find(), linker()) {
            (Some(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (None, _) => bail!("nothing here compiles for BPF: run `cargo xtask setup`"),
            (_, None) => bail!("bpf-linker is missing: run `cargo xtask setup`"),
        }
    }

    /// Runs cargo's `build` or `clippy` for the BPF crate.
    pub fn cargo(&self, subcommand: &str, last: &[&str]) -> Result<()> {
        let mut cargo = match &self.compiler {
            // Called directly: by cargo's rules rustup's clippy in ~/.cargo/bin would come first.
            Compiler::Debian if subcommand == "clippy" => Command::new("/usr/bin/cargo-clippy"),
            Compiler::Debian => Command::new("/usr/bin/cargo"),
            Compiler::Nightly(name) => rustup_run(name, "cargo"),
        };
        clean(&mut cargo);
        if matches!(self.compiler, Compiler::Debian) {
            cargo
                .env("CARGO", "/usr/bin/cargo")
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
        }
        cargo.current_dir(workspace::root()?).arg(subcommand);
        if matches!(self.compiler, Compiler::Nightly(_)) {
            cargo.arg("-Zbuild-std=core");
        }
        cargo
            .args(["--quiet", "--release", "--package", "conntracker-ebpf", "--target", TARGET])
            .arg("--target-dir")
            .arg(target_dir()?)
            .args(last)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags());
        cmd::run(&mut cargo)
    }

    fn rustflags(&self) -> String {
        [
            // aya-ebpf asks which CPU the kernel runs on: registers of a probed function differ.
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            format!("-Clinker={}", self.linker.display()),
            // Kernels since 5.12 know this instruction set; it has 32-bit jumps and atomics.
            "-Ctarget-cpu=v3".to_owned(),
            // BTF is made from debug information.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // What the linker asks of LLVM otherwise makes each memset and memcpy of more than 8 bytes a call of
            // a loop over bytes: slow for packets, and for the verifier, which walks each round.
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        ]
        .join(SEPARATOR)
    }
}

/// Builds the object and puts it where the build script of the agent looks for it.
pub fn build_object(features: &[&str]) -> Result<PathBuf> {
    if let Some(object) = prebuilt()? {
        return Ok(object);
    }
    Toolchain::find()?.cargo("build", features)?;
    let built = target_dir()?.join(TARGET).join("release/conntracker-ebpf");
    let object = workspace::target_dir()?.join(OBJECT);
    install(&built, &object).with_context(|| format!("installing {}", object.display()))?;
    Ok(object)
}

/// The object that the environment names, which must exist.
pub fn prebuilt() -> Result<Option<PathBuf>> {
    let Some(object) = env::var_os(OVERRIDE).map(PathBuf::from) else { return Ok(None) };
    let absolute = fs::canonicalize(&object)
        .with_context(|| format!("{OVERRIDE} names {}", object.display()))?;
    Ok(Some(absolute))
}

/// Copies only what changed, or cargo would build the agent anew each time.
fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built)?;
    if fs::read(object).ok().as_deref() != Some(bytes.as_slice()) {
        let aside = object.with_extension("o.tmp");
        fs::write(&aside, bytes)?;
        fs::rename(&aside, object)?;
        return Ok(());
    }
    // The same code from newer sources: tell the agent's build script that it is up to date.
    let made = fs::metadata(built)?.modified()?;
    if fs::metadata(object)?.modified()? < made {
        fs::File::options().append(true).open(object)?.set_modified(std::time::SystemTime::now())?;
    }
    Ok(())
}

/// bpf-linker, in PATH or where cargo installs.
pub fn linker() -> Option<PathBuf> {
    cmd::find("bpf-linker").or_else(|| {
        let installed = cargo_home()?.join("bin/bpf-linker");
        installed.is_file().then_some(installed)
    })
}

/// Directory of cargo's own things.
pub fn cargo_home() -> Option<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn rustup_home() -> Option<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
}

fn home(variable: &str, default: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(default)))
}

/// Own directory: two compilers that share one throw each other's work away.
fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("ebpf"))
}

fn nightly_with_source() -> Option<String> {
    let toolchains = fs::read_dir(rustup_home()?.join("toolchains")).ok()?;
    toolchains
        .flatten()
        .filter(|entry| entry.path().join("lib/rustlib/src/rust/library/Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.starts_with("nightly-"))
}

fn rustup_run(toolchain: &str, program: &str) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", toolchain, program]);
    rustup
}

/// Takes away what the cargo that runs us has set for its own toolchain and for xtask, and flags
/// that are meant for userspace.
pub fn clean(command: &mut Command) {
    const KEEP: [&str; 11] = [
        "CARGO_BUILD_JOBS",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUST_BACKTRACE",
        "RUSTUP_DIST_",
        "RUSTUP_HOME",
        "RUSTUP_UPDATE_",
    ];
    for (variable, _) in env::vars_os() {
        let Some(name) = variable.to_str() else { continue };
        let ours =
            name == "LD_LIBRARY_PATH" || name.starts_with("CARGO") || name.starts_with("RUST");
        if ours && !KEEP.iter().any(|keep| name.starts_with(keep)) {
            command.env_remove(name);
        }
    }
}

fn is_file(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_file()
}
