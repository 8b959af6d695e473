//! Runs the programs that list rules: no shell, nothing but reading.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Looks a program up in PATH; relative directories there do not count.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Runs a program to its end, in the network namespace of the calling thread, and returns its whole
/// output. Bytes that are no UTF-8 (comments may hold any) are replaced.
pub(super) fn output(program: &Path, args: &[&str]) -> Result<String> {
    let line = || format!("{} {}", program.display(), args.join(" ")).trim_end().to_owned();
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", line()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        bail!("`{}` failed with {}: {said}", line(), output.status);
    }
    Ok(String::from_utf8(output.stdout)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
