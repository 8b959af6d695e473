//! Recordings: what the sources told of flows, as a file from which every offline answer is made.
//!
//! A recording is a sequence of *parts*, each a file that stands alone. A part is a head of 64 bytes and blocks; a block
//! is a head of 64 bytes and columns. Numbers are little-endian. Every head and every body has a CRC-32, and blocks
//! begin with a word that is the part's own, so that a reader finds the next whole block behind a damaged one. What is
//! damaged is never shown, and never repaired.
//!
//! [`FlowEvent`](crate::model::event::FlowEvent)s stand in blocks of up to [`EVENTS_PER_BLOCK`], in the order in which
//! the flow table took them: the flow table that takes them again has the same flows. Strings and paths are stated once
//! in a part and referred to by number. All else, which is rare, is JSON in a block of its own ([`statement`]).
//!
//! docs/recording.md is the format as a table.

mod body;
mod column;
mod columns;
mod dictionary;
mod events;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod head;
#[cfg(feature = "fuzz")]
pub mod made_up;
mod part;
mod queue;
mod reader;
mod recorder;
mod scan;
pub mod statement;
#[cfg(test)]
mod tests;
mod tuples;

pub(crate) use self::files::parts;
pub use self::{
    head::{BlockType, MAJOR, PartHead},
    reader::{Damage, Item, Reader},
    recorder::{Options, Recorder, Rotate},
    scan::End,
};

/// Events of one block, at most.
pub const EVENTS_PER_BLOCK: usize = 8_192;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is something else.
    #[error("this is no recording of conntracker: it begins with {0:02x?}")]
    NotARecording(Vec<u8>),
    /// A later version of the format.
    #[error(
        "the recording has format {found}, and this conntracker reads {MAJOR} and earlier: use the conntracker that \
         wrote it, or a newer one"
    )]
    TooNew {
        /// Its major number.
        found: u16,
    },
    /// A block that must be understood is of a kind that this conntracker does not know.
    #[error(
        "the recording has a block of kind {0} that must be understood: use the conntracker that wrote it, or a newer one"
    )]
    MustUnderstand(u8),
}
