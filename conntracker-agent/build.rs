//! Brings the BPF object of `cargo xtask build` to where the agent embeds it from.
//!
//! Without an object (no eBPF toolchain: documentation, clippy, an editor) the agent embeds an
//! empty one and says at run time what to do.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const OBJECT: &str = "conntracker.bpf.o";
const OVERRIDE: &str = "CONNTRACKER_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    // The library alone has no BPF programs.
    if env::var_os("CARGO_FEATURE_CLI").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let object = match env::var_os(OVERRIDE) {
        Some(named) => PathBuf::from(named),
        None => built_object(&out)?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| format!("{}: {error}", object.display()))?;
    let copy = out.join(OBJECT);
    if fs::read(&copy).ok().as_deref() != Some(bytes.as_slice()) {
        fs::write(&copy, &bytes)?;
    }
    if env::var_os(OVERRIDE).is_none() && !bytes.is_empty() {
        warn_if_outdated(&object)?;
    }
    Ok(())
}

/// The object in cargo's target directory. Where there is none, an empty file takes its place:
/// cargo can watch a file that exists, whereas for a missing one it would build the agent anew
/// each time.
fn built_object(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let object = target_dir(out).ok_or("no target directory above OUT_DIR")?.join(OBJECT);
    if !object.exists() {
        // As old as can be, or this very build would count as outdated.
        File::create_new(&object)?.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    Ok(object)
}

/// Cargo marks its target directory; OUT_DIR lies at a depth below that depends on `--target`.
fn target_dir(out: &Path) -> Option<PathBuf> {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from))
}

fn warn_if_outdated(object: &Path) -> Result<(), Box<dyn Error>> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().ok_or("the agent is not in a workspace")?;
    let built = fs::metadata(object)?.modified()?;
    let mut outdated = false;
    for source in ["conntracker-ebpf/src", "conntracker-common/src"] {
        let source = root.join(source);
        println!("cargo::rerun-if-changed={}", source.display());
        outdated |= newest_change(&source)?.is_some_and(|changed| changed > built);
    }
    if outdated {
        println!("cargo::warning=the BPF object is older than its source: run `cargo xtask build`");
    }
    Ok(())
}

/// When the files below a directory last changed. A missing directory has none.
fn newest_change(dir: &Path) -> Result<Option<SystemTime>, Box<dyn Error>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
    let mut newest = None;
    for entry in entries {
        let entry = entry?;
        let changed = if entry.file_type()?.is_dir() {
            newest_change(&entry.path())?
        } else {
            Some(entry.metadata()?.modified()?)
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}
