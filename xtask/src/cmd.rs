//! Small helpers around processes: find a program, run one, run one as root.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Looks a program up in PATH and where the system keeps programs for root, which PATH of a user
/// does not name on Debian.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether we are root already.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root: itself if we are root, else through sudo, which is asked to keep
/// what the tests and the tracer read from the environment.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(SUDO_KEEPS).arg(program);
    sudo
}

/// Option of sudo for [`as_root`].
pub const SUDO_KEEPS: &str = "--preserve-env=RUST_LOG,RUST_BACKTRACE,CONNTRACKER_BIN,\
                              CONNTRACKER_EBPF_OBJECT,CONNTRACKER_RULESETS,CONNTRACKER_TESTS,\
                              CONNTRACKER_TEST_BACKEND,CONNTRACKER_TEST_ATTACH,CARGO,CARGO_MANIFEST_DIR";

/// Runs a command on our own terminal; a failure is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed with {status}", show(command));
    }
    Ok(())
}

/// Standard output of a command, or nothing if it cannot be run or fails. For questions.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut line = program.to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
