//! `cargo xtask setup`: what building and testing need, installed once.

mod apt;
mod linker;
mod state;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::toolchain::{self, Compiler};
use crate::{cmd, progress};
use apt::Apt;
use state::State;

/// Debian's compiler with `core` for BPF, and the clippy that belongs to it.
const DEBIAN_COMPILER: [&str; 4] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// The oldest compiler that builds the workspace (`rust-version` in Cargo.toml).
const OLDEST_COMPILER: (u32, u32) = (1, 95);

/// Install what building and testing need. Does nothing when all is in place.
#[derive(clap::Args)]
pub struct Args {
    /// Only report; exit code 1 if something is missing.
    #[arg(long)]
    check: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let state = State::look()?;
    if args.check {
        print!("{}", state.report());
        return Ok(if state.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if state.complete() {
        eprintln!("setup: nothing to do ({})", state.summary());
        return Ok(ExitCode::SUCCESS);
    }
    install(&state)?;
    Ok(ExitCode::SUCCESS)
}

/// As `cargo xtask setup`, without a word if there is nothing to do.
pub fn ensure() -> Result<()> {
    let state = State::look()?;
    if state.complete() { Ok(()) } else { install(&state) }
}

fn install(state: &State) -> Result<()> {
    let mut apt = Apt::new();
    if !state.missing_programs.is_empty() {
        let names: Vec<_> = state.missing_programs.iter().map(|program| program.name).collect();
        eprintln!("setup: missing programs: {}", names.join(", "));
        let mut packages = Vec::new();
        for program in &state.missing_programs {
            packages.extend(apt.first_offered(program.packages).with_context(|| {
                format!("no package for the program {}; install it by hand", program.name)
            })?);
        }
        packages.sort_unstable();
        packages.dedup();
        apt.install(&packages)?;
        packages.retain(|package| state::SERVICES.contains(package));
        apt::disable(&packages);
    }
    if !state.missing_components.is_empty() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add"]).args(&state.missing_components);
        progress::run(&format!("rustup {}", state.missing_components.join(" ")), &mut rustup)?;
    }
    if state.needs_bpf() {
        let compiler = match &state.compiler {
            Some(_) if state.bpf_clippy => Compiler::find(),
            Some(Compiler::Debian) => {
                apt.install(&["rust-web-clippy"])?;
                Compiler::find()
            }
            Some(Compiler::Nightly(name)) => {
                install_nightly(name)?;
                Compiler::find()
            }
            None => install_compiler(&mut apt)?,
        };
        let compiler = compiler.context("the compiler for BPF is still not found")?;
        if state.linker.is_none() {
            linker::install(&mut apt, compiler.llvm())?;
        }
    }
    let state = State::look()?;
    if !state.complete() {
        bail!("something is still missing:\n{}", state.report());
    }
    eprintln!("setup: done ({})", state.summary());
    Ok(())
}

fn install_compiler(apt: &mut Apt) -> Result<Option<Compiler>> {
    if apt.available() && debian_way_is_open(apt)? {
        apt.install(&DEBIAN_COMPILER)?;
    } else {
        if cmd::find("rustup").is_none() {
            bail!(
                "this system has no compiler for BPF among its packages, and there is no rustup: \
                 install rustup (https://rustup.rs)"
            );
        }
        install_nightly("nightly")?;
    }
    Ok(Compiler::find())
}

/// Whether the system's packages include a BPF `core`, for a compiler that is new enough.
fn debian_way_is_open(apt: &mut Apt) -> Result<bool> {
    let mut compiler = None;
    for package in DEBIAN_COMPILER {
        let Some(version) = apt.candidate(package)? else { return Ok(false) };
        if package == "rustc-web" {
            compiler = apt::major_minor(&version);
        }
    }
    Ok(compiler.is_some_and(|version| version >= OLDEST_COMPILER))
}

/// Installs a nightly if there is none, for what only that can do.
pub fn ensure_nightly() -> Result<()> {
    if cmd::ask(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])).is_some() {
        return Ok(());
    }
    if cmd::find("rustup").is_none() {
        bail!("a nightly is needed, and there is no rustup: install rustup (https://rustup.rs)");
    }
    install_nightly("nightly")
}

fn install_nightly(name: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    toolchain::clean(&mut rustup);
    rustup.args(["toolchain", "install", name, "--profile", "minimal", "--no-self-update"]);
    rustup.args(["--component", "rust-src", "--component", "clippy"]);
    progress::run(&format!("rustup {name} with rust-src"), &mut rustup)
}
