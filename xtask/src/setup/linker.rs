//! bpf-linker: compiled against the system's LLVM, or upstream's static binary where the system's
//! LLVM is older than the compiler's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use crate::{cmd, progress, toolchain};

const VERSION: &str = "0.13.0";

/// Those that this version can be compiled against, the best tried first.
const LLVMS: [u32; 3] = [22, 23, 21];

/// Installs bpf-linker for a compiler with this LLVM.
pub fn install(apt: &mut Apt, compilers: Option<u32>) -> Result<()> {
    let oldest = compilers.unwrap_or(0);
    for llvm in LLVMS.into_iter().filter(|llvm| *llvm >= oldest) {
        let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
        if !prefix.join("bin/llvm-config").is_file() {
            let package = format!("llvm-{llvm}-dev");
            if !apt.available() || apt.candidate(&package)?.is_none() {
                continue;
            }
            apt.install(&[&package])?;
        }
        return compile(llvm, &prefix);
    }
    download(apt)
}

fn compile(llvm: u32, prefix: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    toolchain::clean(&mut cargo);
    cargo
        // Not in the workspace, whose configuration is none of its business.
        .current_dir("/")
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", prefix);
    progress::run(&format!("bpf-linker {VERSION} with LLVM {llvm}"), &mut cargo)
}

fn download(apt: &mut Apt) -> Result<()> {
    for (program, package) in [("curl", "curl"), ("zstd", "zstd"), ("tar", "tar")] {
        if cmd::find(program).is_none() {
            apt.install(&[package])?;
        }
    }
    let bin = toolchain::cargo_home().context("no home directory")?.join("bin");
    let name = format!("bpf-linker-{}-unknown-linux-musl.tar.zst", env::consts::ARCH);
    let address =
        format!("https://github.com/aya-rs/bpf-linker/releases/download/v{VERSION}/{name}");
    let archive = env::temp_dir().join(format!("{}-{name}", std::process::id()));
    fs::create_dir_all(&bin)?;
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--proto", "=https"]);
    curl.arg("--output").arg(&archive).arg(&address);
    progress::run(&format!("download of bpf-linker {VERSION}"), &mut curl)?;
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "--extract", "--file"]).arg(&archive).arg("--directory").arg(&bin);
    let extracted = cmd::run(tar.arg("bpf-linker"));
    fs::remove_file(&archive)?;
    extracted?;
    if cmd::ask(Command::new(bin.join("bpf-linker")).arg("--version")).is_none() {
        bail!("the downloaded bpf-linker does not run on this machine");
    }
    Ok(())
}
