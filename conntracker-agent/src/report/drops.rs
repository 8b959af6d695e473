//! Dropped packets as they happen (`--follow-drops`): what one line of them says.

use std::sync::Arc;

use crate::model::{
    DropPoint, Tuple, Zone,
    path::{Direction, Step, Traversal},
    process::Process,
};

/// How dropped packets are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropFormat {
    /// A line of text.
    Text,
    /// A JSON object in a line.
    Ndjson,
}

/// A dropped packet, or several that the kernel has counted together.
#[derive(Clone, Debug)]
pub struct DropLine {
    /// When the last one was dropped, nanoseconds since the epoch.
    pub at_ns: u64,
    /// When the first one was.
    pub first_ns: u64,
    /// Name of their namespace.
    pub netns: String,
    /// Other namespaces are observed, too.
    pub several_namespaces: bool,
    /// Conntrack zone.
    pub zone: Zone,
    /// Original direction of their conntrack entry, or their headers.
    pub orig: Tuple,
    /// The kernel has counted them together whatever their source port above 1023, or ICMP identifier, was.
    pub folded: bool,
    /// They had a conntrack entry.
    pub has_entry: bool,
    /// Who dropped them, and where; numbers of interfaces mean nothing here.
    pub point: DropPoint,
    /// Name of the input interface.
    pub iif: Option<String>,
    /// Name of the output interface.
    pub oif: Option<String>,
    /// Their path through the hook, if it is known.
    pub path: Option<Arc<Traversal>>,
    /// The process at this machine's end.
    pub process: Option<Box<Process>>,
    /// How many.
    pub packets: u64,
}

/// What is printed of drops.
#[derive(Clone, Debug)]
pub enum DropOutput {
    /// Packets.
    Drop(Box<DropLine>),
    /// So many packets were dropped that no line tells of.
    NotPrinted {
        /// Until when, nanoseconds since the epoch.
        at_ns: u64,
        /// How many.
        packets: u64,
    },
}

impl DropLine {
    /// The rule, policy or chain that dropped them, if it is known.
    #[must_use]
    pub fn by(&self) -> Option<&Step> {
        self.path.as_deref().and_then(Traversal::dropped_by)
    }

    /// Their direction within the flow, if it is known. Without an entry, `orig` is what they were.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        self.path.as_ref().filter(|_| self.has_entry).map(|path| path.direction)
    }
}

#[cfg(test)]
mod tests;
