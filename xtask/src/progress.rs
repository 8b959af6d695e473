//! A slow command with a progress line instead of its output.

use std::env;
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cmd::show;

const TICK: Duration = Duration::from_millis(200);

/// Where no terminal rewrites its line: a sign of life from time to time, for the log of a CI.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// How much of the output of a command that failed is shown.
const LAST_LINES: usize = 40;

/// Runs a command under a title. Its output is shown only if it fails.
pub fn run(title: &str, command: &mut Command) -> Result<()> {
    // Not in the target directory: a read-only or shared one is none of our business here.
    let log = env::temp_dir().join(format!("conntracker-xtask-{}.log", std::process::id()));
    let result = run_logged(title, command, &log);
    // Its text is in the error if it mattered.
    let _ = fs::remove_file(&log);
    result
}

fn run_logged(title: &str, command: &mut Command, log: &std::path::Path) -> Result<()> {
    let output = File::create_new(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut line = Line::start(title);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", show(command)))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        line.tick();
        thread::sleep(TICK);
    };
    line.end(if status.success() { "done" } else { "failed" });
    if !status.success() {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{} failed with {status}:\n{tail}", show(command));
    }
    Ok(())
}

/// The progress line on standard error.
struct Line<'a> {
    title: &'a str,
    start: Instant,
    shown: Instant,
    terminal: bool,
}

impl<'a> Line<'a> {
    fn start(title: &'a str) -> Self {
        let now = Instant::now();
        let line =
            Self { title, start: now, shown: now, terminal: std::io::stderr().is_terminal() };
        if line.terminal {
            line.rewrite("");
        } else {
            eprintln!("setup: {title} …");
        }
        line
    }

    fn tick(&mut self) {
        if self.terminal {
            self.rewrite("");
        } else if self.shown.elapsed() >= SIGN_OF_LIFE {
            self.shown = Instant::now();
            eprintln!("setup: {} … {} s", self.title, self.start.elapsed().as_secs());
        }
    }

    fn end(&self, word: &str) {
        if self.terminal {
            self.rewrite(word);
            eprintln!();
        } else {
            eprintln!("setup: {} … {word}, {} s", self.title, self.start.elapsed().as_secs());
        }
    }

    fn rewrite(&self, word: &str) {
        let mut stderr = std::io::stderr().lock();
        // A progress line that cannot be written is no reason to stop.
        let _ =
            write!(stderr, "\rsetup: {} … {} s {word}", self.title, self.start.elapsed().as_secs());
        let _ = stderr.flush();
    }
}
