//! Messages to people: to standard error in the foreground, to syslog (so the journal) as a daemon.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, anyhow};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::harmless::OneLine;

/// Erases the line that the cursor is on.
const CLEAR_LINE: &str = "\r\x1b[K";

/// The status line now on the terminal, if any.
static STATUS: Mutex<Option<String>> = Mutex::new(None);

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("conntracker") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        let text = record.args().to_string();
        let text = OneLine(&text);
        let status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut err = io::stderr().lock();
        // Nobody can be told that standard error is gone.
        let _ = match &*status {
            Some(line) => write!(err, "{CLEAR_LINE}conntracker: {level}{text}\n{line}"),
            None => writeln!(err, "conntracker: {level}{text}"),
        };
    }

    fn flush(&self) {}
}

/// Messages in a form that neither a log nor whoever looks at it can take for anything else.
struct Syslog(syslog::BasicLogger);

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        self.0.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{}", OneLine(&text)))
                .build(),
        );
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Messages go to standard error.
pub fn to_stderr() {
    // Only the first logger of a process counts.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level());
    }
}

/// Messages go to syslog, facility daemon.
///
/// # Errors
/// Nobody listens at /dev/log.
pub fn to_syslog() -> Result<()> {
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process: "conntracker".to_owned(),
        pid: std::process::id(),
    };
    let logger = syslog::unix(formatter).map_err(|e| anyhow!("no syslog at /dev/log: {e}"))?;
    log::set_boxed_logger(Box::new(Syslog(syslog::BasicLogger::new(logger))))
        .map_err(|e| anyhow!("cannot send messages to syslog: {e}"))?;
    log::set_max_level(level());
    Ok(())
}

/// From now on details are said, too.
pub fn say_details() {
    log::set_max_level(LevelFilter::Debug);
}

/// What is said: details only where `CONNTRACKER_LOG=debug` asks for them.
fn level() -> LevelFilter {
    match std::env::var_os("CONNTRACKER_LOG") {
        Some(level) if level == "debug" => LevelFilter::Debug,
        _ => LevelFilter::Info,
    }
}

/// Whether a status line makes sense.
#[must_use]
pub fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Shows or replaces the status line.
pub fn show_status(line: String) {
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut err = io::stderr().lock();
    let _ = write!(err, "{CLEAR_LINE}{line}").and_then(|()| err.flush());
    *status = Some(line);
}

/// Removes the status line.
pub fn clear_status() {
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if status.take().is_some() {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{CLEAR_LINE}").and_then(|()| err.flush());
    }
}
