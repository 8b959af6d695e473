//! One format with its options.

use super::digits::{decimal, zero_padded};
use super::options::{Options, Timestamp};
use super::{expect, plain, save, xml};
use crate::conntrack::{Entry, Expectation, Kind};
use crate::model::harmless;

/// The format of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line of `key=value`.
    #[default]
    Plain,
    /// XML.
    Xml,
    /// Arguments of conntrack(8).
    Save,
}

/// The process that caused an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its netlink port.
    pub portid: u32,
    /// Its name, if it was found.
    pub program: Option<&'a [u8]>,
}

/// The facts about an event, besides the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventInfo<'a> {
    /// What happened.
    pub kind: Kind,
    /// When it happened, or was received; `None` to leave it out.
    pub at: Option<Timestamp>,
    /// The process that caused it; `None` for packets and timeouts. XML has no element for it.
    pub by: Option<Origin<'a>>,
}

/// Appends entries to a buffer, line by line.
#[derive(Clone, Copy, Debug)]
pub struct Renderer<'a> {
    /// The format.
    pub format: Format,
    /// Its options.
    pub options: Options<'a>,
    /// Seconds since the epoch, for the age of entries.
    pub now: u64,
}

impl Renderer<'_> {
    /// Appends what stands before all entries.
    pub fn begin(&self, out: &mut Vec<u8>) {
        if self.format == Format::Xml {
            out.extend_from_slice(xml::HEADER);
        }
    }

    /// Appends what stands behind all entries.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.format == Format::Xml {
            out.extend_from_slice(xml::FOOTER);
        }
    }

    /// Appends an entry.
    pub fn entry(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        self.done(out, Kind::New, entry);
    }

    /// Appends an entry that was removed or changed; in save format, the arguments that would do that again.
    pub fn done(&self, out: &mut Vec<u8>, kind: Kind, entry: &Entry<'_>) {
        match self.format {
            Format::Plain => plain::entry(out, entry, &self.options, self.now),
            Format::Xml => xml::entry(out, None, None, entry, &self.options, self.now),
            Format::Save => save::entry(out, kind, entry, self.options.labels),
        }
        out.push(b'\n');
    }

    /// Appends an event.
    pub fn event(&self, out: &mut Vec<u8>, happening: &EventInfo<'_>, entry: &Entry<'_>) {
        let EventInfo { kind, at, by } = *happening;
        match self.format {
            Format::Plain => {
                if let Some(at) = at {
                    time(out, at);
                }
                plain::tag(out, kind);
                plain::entry(out, entry, &self.options, self.now);
            }
            Format::Xml => xml::entry(out, Some(kind), at, entry, &self.options, self.now),
            Format::Save => save::entry(out, kind, entry, self.options.labels),
        }
        if let Some(by) = by.filter(|_| self.format != Format::Xml) {
            origin(out, by);
        }
        out.push(b'\n');
    }

    /// Appends what stands before all expectations.
    pub fn begin_expectations(&self, out: &mut Vec<u8>) {
        if self.format == Format::Xml {
            out.extend_from_slice(expect::HEADER);
        }
    }

    /// Appends what stands behind all expectations.
    pub fn end_expectations(&self, out: &mut Vec<u8>) {
        if self.format == Format::Xml {
            out.extend_from_slice(expect::FOOTER);
        }
    }

    /// Appends an expectation, after a time if there is one (plain). Save format has no arguments for expectations,
    /// so they are printed plain.
    pub fn expectation(
        &self,
        out: &mut Vec<u8>,
        at: Option<Timestamp>,
        expectation: &Expectation<'_>,
    ) {
        match self.format {
            Format::Xml => expect::xml(out, None, at, expectation, &self.options),
            Format::Plain | Format::Save => {
                if let Some(at) = at {
                    time(out, at);
                }
                expect::plain(out, expectation);
            }
        }
        out.push(b'\n');
    }

    /// Appends an event of an expectation.
    pub fn expectation_event(
        &self,
        out: &mut Vec<u8>,
        happening: &EventInfo<'_>,
        expectation: &Expectation<'_>,
    ) {
        let EventInfo { kind, at, by } = *happening;
        match self.format {
            Format::Xml => expect::xml(out, Some(kind), at, expectation, &self.options),
            Format::Plain | Format::Save => {
                if let Some(at) = at {
                    time(out, at);
                }
                plain::tag(out, kind);
                expect::plain(out, expectation);
            }
        }
        if let Some(by) = by.filter(|_| self.format != Format::Xml) {
            origin(out, by);
        }
        out.push(b'\n');
    }
}

fn time(out: &mut Vec<u8>, at: Timestamp) {
    out.push(b'[');
    decimal(out, at.seconds);
    out.push(b'.');
    zero_padded(out, at.micros, 6);
    out.extend_from_slice(b"]\t");
}

fn origin(out: &mut Vec<u8>, by: Origin<'_>) {
    out.extend_from_slice(b" [USERSPACE] portid=");
    decimal(out, by.portid);
    if let Some(program) = by.program {
        out.extend_from_slice(b" progname=");
        harmless::bytes(out, program);
    }
}
