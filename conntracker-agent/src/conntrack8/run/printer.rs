//! Standard output, written in large pieces.

use std::env;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Failure, Names};
use crate::conntrack8::values::Output;
use crate::report::conntrack::{Calendar, Format, Options, Renderer, Timestamp, digits};

/// A piece.
const PIECE: usize = 256 * 1024;

/// A buffer for output, which is written in large pieces.
#[derive(Default)]
pub(super) struct Printer {
    buffer: Vec<u8>,
    /// Whether the beginning of the format was printed, so that its end must be too.
    begun: bool,
}

impl Printer {
    /// The buffer to append lines to.
    pub fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The buffer for an entry. Before the first one `begin` appends the beginning of the format, because without
    /// entries conntrack(8) prints nothing, and callers rely on that.
    pub fn begun(&mut self, begin: impl FnOnce(&mut Vec<u8>)) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.begun, true) {
            begin(&mut self.buffer);
        }
        &mut self.buffer
    }

    /// Appends the end of the format by `end`, if there was an entry.
    pub fn ended(&mut self, end: impl FnOnce(&mut Vec<u8>)) {
        if std::mem::take(&mut self.begun) {
            end(&mut self.buffer);
        }
    }

    /// A line with a number.
    pub fn number(&mut self, number: u64) {
        digits::decimal(&mut self.buffer, number);
        self.buffer.push(b'\n');
    }

    /// A line is complete.
    pub fn line(&mut self) -> Result<(), Failure> {
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Writes what there is.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.clear();
        Ok(written?)
    }
}

/// A renderer of a format, with local times.
pub(super) fn renderer<'a>(
    output: Output,
    names: &'a Names,
    calendar: &'a Calendar,
) -> Renderer<'a> {
    let Output { format, extended, id, ktimestamp, timestamp: _, labels } = output;
    let save = format == Format::Save;
    let labels = (labels || save).then_some(&names.labels);
    let options = Options { extended, id, ktimestamp, labels, calendar };
    Renderer { format, options, now: now().seconds }
}

/// The calendar of the environment.
pub(super) fn calendar() -> Calendar {
    Calendar::local(env::var("TZ").ok().as_deref())
}

/// Now.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs(), micros: since.subsec_micros() }
}
