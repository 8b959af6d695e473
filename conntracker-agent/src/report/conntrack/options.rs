//! What is printed of an entry besides what each format has anyway.

use super::{Calendar, LabelMap};

/// Nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// What is printed besides. Not all of it concerns each format.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The layer 3 protocol (plain; the others have it anyway).
    pub extended: bool,
    /// Identifiers (plain; XML has them anyway).
    pub id: bool,
    /// When entries began and ended.
    pub ktimestamp: bool,
    /// Labels, and their names (arguments have labels anyway, by number if there are no names).
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
