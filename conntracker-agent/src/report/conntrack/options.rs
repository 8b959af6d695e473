//! The optional parts of a printed entry.

use super::{Calendar, LabelMap};

/// Nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// The optional parts to print. Some have no effect on some formats.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The layer 3 protocol (plain; the other formats always have it).
    pub extended: bool,
    /// Identifiers (plain; XML has them anyway).
    pub id: bool,
    /// When entries began and ended.
    pub ktimestamp: bool,
    /// Labels, and their names (save format always has labels, by number if there are no names).
    pub labels: Option<&'a LabelMap>,
    /// For times.
    pub calendar: &'a Calendar,
}

impl<'a> Options<'a> {
    /// Nothing besides.
    #[must_use]
    pub const fn new(calendar: &'a Calendar) -> Self {
        Self { extended: false, id: false, ktimestamp: false, labels: None, calendar }
    }
}

/// A time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: u64,
    /// Microseconds of the second.
    pub micros: u32,
}

impl Timestamp {
    /// Of nanoseconds since the epoch.
    #[must_use]
    pub const fn of_nanoseconds(time: u64) -> Self {
        Self { seconds: time / SECOND, micros: (time % SECOND / 1000) as u32 }
    }
}
