//! Messages to the user: to standard error in the foreground, to syslog (and so the journal) as a daemon.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Result, anyhow};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::model::harmless::OneLine;

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
        // An error here has nowhere to go: standard error is gone.
        let _ = match &*status {
            Some(line) => write!(err, "{CLEAR_LINE}conntracker: {level}{text}\n{line}"),
            None => writeln!(err, "conntracker: {level}{text}"),
        };
    }

    fn flush(&self) {}
}

/// Messages go to standard error.
pub fn to_stderr() {
    // A process takes its first logger only.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level());
    }
}

/// Sends messages to syslog, facility daemon.
///
/// # Errors
/// Nobody listens at /dev/log.
pub fn to_syslog() -> Result<()> {
    let syslog = SYSLOG.get_or_init(|| Syslog(Mutex::new(None)));
    syslog.connect()?;
    log::set_logger(syslog).map_err(|e| anyhow!("cannot send messages to syslog: {e}"))?;
    log::set_max_level(level());
    Ok(())
}

/// Connects to syslog again, because syslog may have been restarted.
pub fn reopen() {
    if let Some(Err(error)) = SYSLOG.get().map(Syslog::connect) {
        log::warn!("{error:#}");
    }
}

/// Syslog, if messages go there.
static SYSLOG: OnceLock<Syslog> = OnceLock::new();

struct Syslog(Mutex<Option<syslog::BasicLogger>>);

impl Syslog {
    fn connect(&self) -> Result<()> {
        let logger = connect()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(logger);
        Ok(())
    }
}

impl Log for Syslog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if let Some(logger) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // A message must not look like another line of the log.
            logger.log(
                &Record::builder()
                    .metadata(record.metadata().clone())
                    .args(format_args!("{}", OneLine(&text)))
                    .build(),
            );
        }
    }

    fn flush(&self) {}
}

fn connect() -> Result<syslog::BasicLogger> {
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process: "conntracker".to_owned(),
        pid: std::process::id(),
    };
    let logger =
        syslog::unix(formatter).map_err(|e| anyhow!("no syslog listens at /dev/log: {e}"))?;
    Ok(syslog::BasicLogger::new(logger))
}

/// From now on details are said, too.
pub fn say_details() {
    log::set_max_level(LevelFilter::Debug);
}

/// The level of messages: details only with `CONNTRACKER_LOG=debug`.
fn level() -> LevelFilter {
    match std::env::var_os("CONNTRACKER_LOG") {
        Some(level) if level == "debug" => LevelFilter::Debug,
        _ => LevelFilter::Info,
    }
}

/// Writes to standard error. An error is ignored, because there is nowhere else to write it.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
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
