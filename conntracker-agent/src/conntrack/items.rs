//! Options and items of an event stream.

use crate::netlink::DecodeError;
use crate::netlink::ctnetlink::{
    ConntrackEntry, ConntrackExpectation, DumpRequest, DumpStats, Entry, EventBuffer, EventGroups,
    Expectation, Kind,
};

/// Options of an event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventOptions {
    /// Kinds of events.
    pub groups: EventGroups,
    /// Entries to report, of events and of a resync. DESTROY events have fewer attributes than others, and absent
    /// ones count as 0.
    pub filter: DumpRequest,
    /// The socket's receive buffer.
    pub buffer: EventBuffer,
    /// Whether to dump the table after events were lost.
    pub resync: bool,
}

impl Default for EventOptions {
    /// All events of entries, a buffer that grows, and resync.
    fn default() -> Self {
        Self {
            groups: EventGroups::ENTRIES,
            filter: DumpRequest::default(),
            buffer: EventBuffer::default(),
            resync: true,
        }
    }
}

impl EventOptions {
    /// Listens to these kinds of events.
    #[must_use]
    pub fn groups(self, groups: EventGroups) -> Self {
        Self { groups, ..self }
    }

    /// Tells of these entries alone.
    #[must_use]
    pub fn filter(self, filter: DumpRequest) -> Self {
        Self { filter, ..self }
    }

    /// With a receive buffer of this size.
    #[must_use]
    pub fn buffer(self, buffer: EventBuffer) -> Self {
        Self { buffer, ..self }
    }

    /// Reads the table anew after events were lost, or does not.
    #[must_use]
    pub fn resync(self, resync: bool) -> Self {
        Self { resync, ..self }
    }
}

/// Events were lost: the receive buffer was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Number of overruns so far, this one included.
    pub overruns: u64,
    /// Events lost so far; more may be lost until the next [`Item::ResyncBegin`], which has the sum. `None` before
    /// Linux 4.12, which does not count them.
    pub lost: Option<u64>,
    /// Bytes of the receive buffer from now on.
    pub buffer: usize,
}

/// An item of the stream.
///
/// A gap comes before the events that were still in the buffer when the loss was noticed. Then, if resync is on, the
/// stream dumps the table: between `ResyncBegin` and `ResyncEnd` it has every entry of the table. An entry that is
/// not among them has ended, though its DESTROY event was lost. Events that arrive during the dump come after
/// `ResyncEnd`; some repeat what the dump had, so a `New` may be about an entry that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item<E, X> {
    /// An event of an entry.
    Event {
        /// What.
        kind: Kind,
        /// Netlink port of the process that did it; 0 when traffic or time did.
        portid: u32,
        /// The entry, as far as this kind of event describes it.
        entry: E,
    },
    /// An event of an expectation.
    Expect {
        /// What: New or Destroy.
        kind: Kind,
        /// Netlink port of the process that did it; 0 when traffic or time did.
        portid: u32,
        /// The expectation.
        expectation: X,
    },
    /// Events were lost.
    Gap(Gap),
    /// The entries of the table follow. The number of events lost so far, if the kernel counts them.
    ResyncBegin(Option<u64>),
    /// An entry of the table.
    Resync(E),
    /// An expectation, if expectations are listened to.
    ResyncExpect(X),
    /// That was all.
    ResyncEnd(DumpStats),
    /// A message that cannot be decoded.
    Rejected(DecodeError),
}

/// An item lent by the stream.
pub type EventItem<'a> = Item<Entry<'a>, Expectation<'a>>;

/// An item of its own.
pub type OwnedItem = Item<ConntrackEntry, ConntrackExpectation>;

impl From<&EventItem<'_>> for OwnedItem {
    fn from(item: &EventItem<'_>) -> Self {
        match item {
            Item::Event { kind, portid, entry } => {
                Self::Event { kind: *kind, portid: *portid, entry: entry.into() }
            }
            Item::Expect { kind, portid, expectation } => {
                Self::Expect { kind: *kind, portid: *portid, expectation: expectation.into() }
            }
            Item::Gap(gap) => Self::Gap(*gap),
            Item::ResyncBegin(lost) => Self::ResyncBegin(*lost),
            Item::Resync(entry) => Self::Resync(entry.into()),
            Item::ResyncExpect(expectation) => Self::ResyncExpect(expectation.into()),
            Item::ResyncEnd(stats) => Self::ResyncEnd(*stats),
            Item::Rejected(error) => Self::Rejected(*error),
        }
    }
}

/// What a stream has told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStats {
    /// Events received.
    pub events: u64,
    /// Events received that the filter left out.
    pub left_out: u64,
    /// Messages that could not be decoded.
    pub rejected: u64,
    /// Times that the receive buffer was full.
    pub overruns: u64,
    /// Events lost; `None` before Linux 4.12, which does not count them.
    pub lost: Option<u64>,
    /// Times that the table was read anew.
    pub resyncs: u64,
    /// Bytes of the receive buffer.
    pub buffer: usize,
}
