//! ctnetlink: the conntrack table over netlink (net/netfilter/nf_conntrack_netlink.c).
//!
//! [`uapi`] has the numbers, [`decode`] turns a message into an [`Entry`] without copying,
//! [`mod@tuple`] and [`state`] do its two larger parts, [`owned`] is the copy that outlives the
//! receive buffer. [`mod@dump`], [`events`] and [`stats`] talk to the kernel.

pub mod decode;
pub mod dump;
pub mod events;
pub mod owned;
pub mod state;
pub mod stats;
pub mod tuple;
pub mod uapi;

pub use decode::{Counters, Entry, SeqAdj, SynProxy};
pub use dump::{DumpRequest, DumpStats, dump};
pub use events::{Drained, Event, Events, Kind};
pub use owned::ConntrackEntry;
pub use state::ProtoState;

#[cfg(test)]
mod tests;
