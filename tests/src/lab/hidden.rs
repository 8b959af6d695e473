//! A system that lacks some programs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where programs are.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Runs a command to its end where no program of these names can be found. They are hidden in a mount namespace of
/// the command's own.
pub fn output_without(programs: &[&str], command: &mut Command) -> Result<Output> {
    let none = None::<&str>;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace can be had")?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            for directory in DIRECTORIES {
                for program in programs {
                    // A name may be one of many of the same program.
                    let Ok(path) = fs::canonicalize(Path::new(directory).join(program)) else {
                        continue;
                    };
                    if path.is_file() {
                        mount(Some("/dev/null"), &path, none, MsFlags::MS_BIND, none)
                            .with_context(|| format!("cannot hide {}", path.display()))?;
                    }
                }
            }
            command.output().context("cannot run the command")
        });
        worker.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}
