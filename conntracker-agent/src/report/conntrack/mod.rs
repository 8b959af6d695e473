//! What conntrack(8) prints of the table, byte for byte, apart from its defects (docs/conntrack.md).
//!
//! [`Renderer`] is what programs call; [`plain`], [`xml`] and [`save`] write one entry each, [`expect`] one
//! expectation, [`stats`] counters. They append to a buffer and allocate nothing else, because a table may have
//! millions of entries. Names of labels and local times come from [`labels`] and [`calendar`], which the caller
//! reads.

pub mod calendar;
pub mod digits;
pub mod expect;
pub mod labels;
mod names;
mod options;
pub mod plain;
mod renderer;
pub mod save;
pub mod stats;
pub mod xml;

pub use self::calendar::Calendar;
pub use self::labels::LabelMap;
pub use self::options::{Options, Timestamp};
pub use self::renderer::{EventInfo, Format, Origin, Renderer};

#[cfg(test)]
mod tests;
