//! How entries are printed.

use std::fs;

use crate::report::conntrack::{Calendar, Format, LabelMap, Options, Renderer};

/// How entries are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFormat {
    /// As conntrack(8) prints them.
    Conntrack(Format, With),
    /// Comma-separated values.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

/// The optional parts of conntrack(8)'s output (`-o`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct With {
    /// The layer 3 protocol (plain).
    pub extended: bool,
    /// Identifiers (plain; XML has them anyway).
    pub id: bool,
    /// Start and end of entries, if the kernel stores them (net.netfilter.nf_conntrack_timestamp).
    pub ktimestamp: bool,
    /// Labels, with their names from /etc/xtables/connlabel.conf.
    pub labels: bool,
    /// The time of events, if the kernel sends it (Linux 6.14+, nf_conntrack_timestamp), else the time when they were
    /// received.
    pub timestamp: bool,
}

impl EntryFormat {
    /// The format of conntrack(8); `None` for a format of our own.
    pub(super) fn conntrack_format(self) -> Option<ConntrackFormat> {
        match self {
            Self::Conntrack(format, with) => Some(ConntrackFormat::new(format, with)),
            Self::Csv | Self::Ndjson => None,
        }
    }
}

/// Formats of conntrack(8), with what a [`Renderer`] borrows.
pub(super) struct ConntrackFormat {
    format: Format,
    with: With,
    calendar: Calendar,
    labels: Option<LabelMap>,
}

impl ConntrackFormat {
    /// Reads what the format needs. Labels without a name are left out of plain lines and XML, as
    /// conntrack(8) does.
    fn new(format: Format, with: With) -> Self {
        let names = || LabelMap::parse(&fs::read_to_string(LabelMap::PATH).unwrap_or_default());
        Self { format, with, calendar: Calendar::utc(), labels: with.labels.then(names) }
    }

    /// The renderer at this time (nanoseconds since the epoch).
    pub(super) fn renderer(&self, now_ns: u64) -> Renderer<'_> {
        let Self { format, with, calendar, labels } = self;
        let With { extended, id, ktimestamp, labels: _, timestamp: _ } = *with;
        let options = Options { extended, id, ktimestamp, labels: labels.as_ref(), calendar };
        Renderer { format: *format, options, now: now_ns / 1_000_000_000 }
    }
}
