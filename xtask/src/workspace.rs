//! Where things are: the workspace, its target directory, the built binary.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Directory of the workspace.
pub fn root() -> Result<PathBuf> {
    // The variable of `cargo run` first: the workspace may have moved since xtask was compiled.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).context("xtask is not in a workspace")
}

/// Cargo's target directory, whatever set it: xtask itself lies in it, and cargo marks it.
pub fn target_dir() -> Result<PathBuf> {
    let xtask = env::current_exe().context("where is xtask?")?;
    xtask
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory of cargo", xtask.display()))
}

/// The `conntracker` binary of a profile.
pub fn binary(release: bool) -> Result<PathBuf> {
    Ok(target_dir()?.join(if release { "release" } else { "debug" }).join("conntracker"))
}

/// The cargo that runs us, in the workspace.
pub fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()?);
    Ok(cargo)
}
