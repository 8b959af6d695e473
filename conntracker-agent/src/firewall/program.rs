//! Runs the programs that list rules, without a shell and only to read, with limits on time and output. A program
//! that hangs or prints without end is killed.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Directories that are searched after PATH, because the PATH of cron or of a user may lack them.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How long all listings of one ruleset may take together.
const TIME: Duration = Duration::from_secs(30);

/// How much one listing may be.
const BYTES: usize = 256 << 20;

/// Bytes that are kept of a program's standard error.
const SAID: usize = 4096;

/// Interval between two checks of the limits.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Time that a killed program may take to end.
const KILLED: Duration = Duration::from_secs(1);

/// Limits on one reading of the ruleset.
#[derive(Clone, Debug)]
pub struct Limits {
    until: Instant,
    time: Duration,
    bytes: usize,
    stopped: Arc<AtomicBool>,
    /// What programs printed, by their command line, if it is kept.
    kept: Option<Arc<Mutex<BTreeMap<String, String>>>>,
    /// What is read of the kernel itself, besides.
    pub(super) objects: Objects,
}

/// What is read of the kernel itself, beside the listings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Objects {
    /// Nothing.
    #[default]
    None,
    /// The rules.
    Rules,
    /// The rules, interfaces, addresses and routes.
    All,
}

impl Limits {
    /// The usual limits, counted from now. When `stopped` is set, programs are killed.
    #[must_use]
    pub fn new(stopped: &Arc<AtomicBool>) -> Self {
        let stopped = Arc::clone(stopped);
        let until = Instant::now() + TIME;
        let objects = Objects::None;
        Self { until, time: TIME, bytes: BYTES, stopped, kept: None, objects }
    }

    /// The same limits; what programs print is kept, and what the kernel has is read.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { kept: Some(Arc::default()), objects: Objects::All, ..self }
    }

    /// The same limits, and the kernel's own rules are read.
    #[must_use]
    pub fn with_kernel_rules(self) -> Self {
        Self { objects: Objects::Rules, ..self }
    }

    /// What programs have printed, with their command lines; nothing if it was not kept.
    pub(super) fn take_kept(&self) -> Vec<(String, String)> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.into_iter().collect()
    }

    /// Whether nothing may be started any more.
    pub(super) fn are_over(&self) -> bool {
        self.exceeded(0).is_some()
    }

    /// Why a program that has printed so many bytes must end; `None` if it may go on.
    fn exceeded(&self, printed: usize) -> Option<String> {
        if self.stopped.load(Ordering::Relaxed) {
            Some("was stopped".to_owned())
        } else if printed > self.bytes {
            Some(format!("printed more than {} MiB", self.bytes >> 20))
        } else if Instant::now() > self.until {
            Some(format!("did not end within {} s", self.time.as_secs()))
        } else {
            None
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&Arc::default())
    }
}

/// Searches a program in PATH and then in [`SYSTEM`]; relative directories in PATH are ignored.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Runs a program to its end, in the network namespace of the calling thread, and returns its whole
/// output. Bytes that are no UTF-8 (comments may hold any) are replaced.
pub(super) fn output(program: &Path, args: &[&str], limits: &Limits) -> Result<String> {
    let line = || format!("{} {}", program.display(), args.join(" ")).trim_end().to_owned();
    let cannot = || format!("cannot run `{}`", line());
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A process group, so that its own children are killed with it and Ctrl-C does not reach it.
        .process_group(0)
        .spawn()
        .with_context(cannot)?;
    let mut printed = Printed::default();
    let ended = listen(&mut child, &mut printed, limits).with_context(cannot);
    let Printed { out, said } = printed;
    let status = match ended {
        Ok(Ok(status)) => status,
        Ok(Err(why)) => {
            kill(&mut child);
            bail!("`{}` {why}", line());
        }
        Err(error) => {
            kill(&mut child);
            return Err(error);
        }
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        bail!("`{}` failed with {status}: {said}", line());
    }
    let out = String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    if let Some(kept) = &limits.kept {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let line = format!("{name} {}", args.join(" ")).trim_end().to_owned();
        // A later attempt replaces an earlier one.
        kept.lock().unwrap_or_else(PoisonError::into_inner).insert(line, out.clone());
    }
    Ok(out)
}

/// The output of a program.
#[derive(Default)]
struct Printed {
    out: Vec<u8>,
    said: Vec<u8>,
}

/// Reads a program's output until it ends; the reason if a limit ended it.
fn listen(
    child: &mut Child,
    Printed { out, said }: &mut Printed,
    limits: &Limits,
) -> io::Result<Result<ExitStatus, String>> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut piece = vec![0; 64 * 1024];
    let mut ended = None;
    loop {
        if let Some(why) = limits.exceeded(out.len()) {
            return Ok(Err(why));
        }
        let wait = if ended.is_some() { Duration::ZERO } else { CHECK_EVERY };
        let fds = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        let ready = readable(fds, wait)?;
        if ready == [false; 2] {
            // Children of the program may keep the pipes open after it has ended. Its last output is read once more.
            match ended {
                Some(status) => return Ok(Ok(status)),
                None => ended = child.try_wait()?,
            }
            continue;
        }
        if let (true, Some(pipe)) = (ready[0], &mut stdout) {
            let read = pipe.read(&mut piece)?;
            out.extend_from_slice(&piece[..read]);
            if read == 0 {
                stdout = None;
            }
        }
        if let (true, Some(pipe)) = (ready[1], &mut stderr) {
            let read = pipe.read(&mut piece)?;
            said.extend_from_slice(&piece[..read.min(SAID.saturating_sub(said.len()))]);
            if read == 0 {
                stderr = None;
            }
        }
        if stdout.is_none() && stderr.is_none() && ended.is_none() {
            ended = child.try_wait()?;
        }
    }
}

/// Which of the pipes are readable or at their end. Without pipes it waits for [`CHECK_EVERY`].
fn readable(pipes: [Option<BorrowedFd<'_>>; 2], wait: Duration) -> io::Result<[bool; 2]> {
    let mut fds: Vec<PollFd<'_>> =
        pipes.iter().flatten().map(|pipe| PollFd::new(*pipe, PollFlags::POLLIN)).collect();
    let wait = if fds.is_empty() { wait.min(Duration::from_millis(1)) } else { wait };
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, wait) {
        Err(Errno::EINTR) => return Ok([false; 2]),
        polled => polled?,
    };
    let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(pipes.map(|pipe| pipe.is_some() && ready.next().unwrap_or(false)))
}

/// Kills a program and its children.
fn kill(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let start = Instant::now();
    // A process that hangs inside the kernel is not waited for any longer.
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < KILLED {
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(time: Duration, bytes: usize) -> Limits {
        Limits { until: Instant::now() + time, time, bytes, ..Limits::default() }
    }

    /// Runs a script of the shell.
    fn run(script: &str, limits: &Limits) -> Result<String> {
        output(Path::new("/bin/sh"), &["-c", script], limits)
    }

    #[test]
    fn all_output_comes_and_a_failure_tells_what_was_said() {
        let limits = Limits::default();
        let whole = run("head -c 1000000 /dev/zero | tr '\\0' x; echo noise >&2", &limits).unwrap();
        assert_eq!(whole.len(), 1_000_000);
        let error = run("echo some; echo no  right >&2; exit 3", &limits).unwrap_err().to_string();
        assert!(error.ends_with("failed with exit status: 3: no right"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Without `exec`: the shell waits for another process.
        let script = format!("sleep 1000 & echo $! > {}; wait", file.path().display());
        let start = Instant::now();
        let error = run(&script, &limits(Duration::from_millis(500), BYTES)).unwrap_err();
        assert!(error.to_string().ends_with("did not end within 0 s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        let pid = std::fs::read_to_string(file.path()).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(start.elapsed() < Duration::from_secs(20), "it is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_that_prints_without_end_or_is_stopped_is_ended() {
        let error = run("exec cat /dev/zero", &limits(TIME, 1 << 20)).unwrap_err().to_string();
        assert!(error.ends_with("printed more than 1 MiB"), "{error}");
        let stopped = limits(TIME, BYTES);
        stopped.stopped.store(true, Ordering::Relaxed);
        let error = run("exec sleep 1000", &stopped).unwrap_err().to_string();
        assert!(error.ends_with("was stopped"), "{error}");
    }

    #[test]
    fn a_program_that_leaves_somebody_with_its_pipes_has_ended() {
        let start = Instant::now();
        let said = run("sleep 20 & echo done", &Limits::default()).unwrap();
        assert_eq!(said, "done\n");
        assert!(start.elapsed() < Duration::from_secs(15));
    }
}
