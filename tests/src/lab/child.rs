//! A process that does not outlive its guard, and whose output can be waited for.

use std::io::Read;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(5);

/// A child process, killed and waited for when dropped. Piped output is collected as it comes, so
/// the child never blocks on a full pipe.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    command: String,
    stdout: Collected,
    stderr: Collected,
}

impl Guarded {
    /// Starts a command. Outputs that are to be collected must be `Stdio::piped()`.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = Collected::start(child.stdout.take());
        let stderr = Collected::start(child.stderr.take());
        Ok(Self { child, command: format!("{command:?}"), stdout, stderr })
    }

    /// The process id, for signals and for /proc.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.id().try_into().context("process id out of range")?);
        signal::kill(pid, signal).with_context(|| format!("{signal} to {}", self.command))
    }

    /// Whether the process has not ended yet.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.stdout.finish();
                self.stderr.finish();
                return Ok(status);
            }
            if start.elapsed() > timeout {
                bail!("{} still runs after {timeout:?}; it said: {}", self.command, self.stderr());
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(timeout)
    }

    /// Waits until the standard output or the standard error contains a text.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            // Looked at before the output, so that the last words of a dead process count.
            let running = self.running()?;
            if !running {
                self.stdout.finish();
                self.stderr.finish();
            }
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return Ok(());
            }
            if !running || start.elapsed() > timeout {
                let state = if running { "has not said" } else { "ended without" };
                bail!("{} {state} {text:?}; it said: {}", self.command, self.stderr());
            }
            thread::sleep(POLL);
        }
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe has given so far.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|mut pipe| {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                    bytes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend_from_slice(&buffer[..read]);
                }
            })
        });
        Self { bytes, reader }
    }

    /// Reads to the end; call it when the process has ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The reader cannot panic, and there is nothing to do about it here.
            let _ = reader.join();
        }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Stdio;

    use super::*;

    fn spawn(program: &str, args: &[&str]) -> Guarded {
        let mut command = Command::new(program);
        Guarded::spawn(command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap()
    }

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let child = spawn("sleep", &["60"]);
        let entry = Path::new("/proc").join(child.id().to_string());
        assert!(entry.exists());
        drop(child);
        assert!(!entry.exists());
    }

    #[test]
    fn the_last_words_of_a_process_are_heard() {
        let mut child = spawn("echo", &["ready"]);
        child.wait_for("ready", Duration::from_secs(5)).unwrap();
        assert!(child.wait(Duration::from_secs(5)).unwrap().success());
        let error = child.wait_for("never", Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("ended without"), "{error}");
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let mut child = spawn("head", &["-c", "1000000", "/dev/zero"]);
        assert!(child.wait(Duration::from_secs(5)).unwrap().success());
        assert_eq!(child.stdout().len(), 1_000_000);
    }
}
