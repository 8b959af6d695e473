//! ctnetlink: the conntrack table over netlink (net/netfilter/nf_conntrack_netlink.c).
//!
//! [`uapi`] has the numbers, [`decode`] turns a message into an [`Entry`] without copying,
//! [`mod@tuple`] and `state` do its two larger parts, [`unknown`] finds what it has no field for,
//! [`owned`] is the copy that outlives the receive buffer, `flow_event` the part of it that flows are described by. [`change`] is what requests say, which
//! `encode` turns into attributes. [`expect`] is both for expectations. [`filter`], [`mod@dump`], [`requests`],
//! [`expect_requests`], [`events`] (by a [`listener`]) and [`stats`] talk
//! to the kernel; [`support`] asks it what it can.

mod ahead;
pub mod change;
pub mod decode;
pub mod dump;
mod encode;
pub mod events;
pub mod expect;
pub mod expect_requests;
pub mod filter;
#[cfg(feature = "cli")]
mod flow_event;
pub mod listener;
pub mod owned;
pub mod requests;
mod state;
pub mod stats;
pub mod support;
pub mod tuple;
pub mod uapi;
pub mod unknown;

pub use change::{
    Change, EntryKey, EntryZone, LabelChange, MarkChange, NatRange, NewEntry, ProtoChange,
};
pub use decode::{Entry, SeqAdj, SynProxy};
pub use dump::{Cursor, DumpStats, List, Progress, dump};
pub use events::{Drained, Event, Events, ExpectEvent, Kind};
pub use expect::{
    ConntrackExpectation, ExpectKey, ExpectNat, ExpectRequest, Expectation, NewExpectation,
};
pub use filter::{DumpRequest, FilterSupport, TupleFilter};
pub use listener::{EventBuffer, EventGroups, Listener, Received};
pub use owned::ConntrackEntry;
pub use unknown::{OwnedAttribute, UnknownAttribute, UnknownAttributes};

#[cfg(test)]
mod tests;
