//! FlowEvents as columns.
//!
//! The column [`KIND`](super::columns::column::KIND) has the kind of each event in the order in which the flow table took them. Each other
//! column has the values of the events that have its field. A reader that does not know a kind leaves its events out:
//! their fields stand in columns of their own.

mod read;
#[cfg(test)]
pub(in crate::recording) mod tests;
mod write;

pub(super) use self::{read::EventReader, write::EventWriter};

/// Numbers of the kinds of events.
pub(super) mod kind {
    pub const NEW: u8 = 0;
    pub const REPLIED: u8 = 1;
    pub const RELATED: u8 = 2;
    pub const DROPPED: u8 = 3;
    pub const DROP_COUNTS_TAKEN: u8 = 4;
    pub const COUNTED: u8 = 5;
    pub const ENDED: u8 = 6;
    pub const ENTRY: u8 = 7;
    pub const DUMP_BEGAN: u8 = 8;
    pub const DUMP_ENDED: u8 = 9;
    pub const PATH: u8 = 10;
    pub const KERNEL_COUNTS: u8 = 11;
    pub const PACKETS_SEEN: u8 = 12;
    pub const CLOCK: u8 = 13;
    pub const REPORTED: u8 = 14;
}

/// Which fields of a process there are.
mod process {
    pub const THERE: u64 = 1;
    pub const REPLY: u64 = 2;
    pub const USER: u64 = 4;
    pub const PID: u64 = 8;
    pub const COMM: u64 = 16;
    pub const CGROUP_ID: u64 = 32;
    pub const CGROUP: u64 = 64;
    pub const INODE: u64 = 128;
}

/// Which fields of an entry, or of its end, there are.
mod entry {
    pub const REPLY: u64 = 1;
    pub const PARENT: u64 = 2;
    pub const STATE: u64 = 4;
    /// Of the original direction, and of the reply.
    pub const COUNTERS: [u64; 2] = [8, 16];
    pub const START: u64 = 32;
    pub const STOP: u64 = 64;
    pub const TIMEOUT: u64 = 128;
    pub const ID: u64 = 256;
    pub const USE_COUNT: u64 = 512;
    pub const HELPER: u64 = 1024;
    pub const SECCTX: u64 = 2048;
    pub const CONFIRMED: u64 = 4096;
}

/// Causes of drops.
mod cause {
    pub const NETFILTER: u8 = 0;
    pub const CONNTRACK_FULL: u8 = 1;
    pub const CONNTRACK_INSERT_FAILED: u8 = 2;
    pub const CONNTRACK_CHAIN_TOO_LONG: u8 = 3;
    pub const CONNTRACK_OTHER: u8 = 4;
    pub const REASON: u8 = 5;
    pub const FUNCTION: u8 = 6;
}

/// What is known of the entry of dropped packets.
mod dropped {
    pub const NONE: u8 = 0;
    pub const QUOTES: u8 = 1;
    pub const TUPLE: u8 = 2;
    pub const STATE: u8 = 3;
}

/// Protocols with states.
mod state {
    pub const TCP: u8 = 1;
    pub const SCTP: u8 = 2;
    pub const DCCP: u8 = 3;
}

/// Values of the column ENTRY_SOURCE.
const SOURCES: [crate::model::event::EntrySource; 4] = {
    use crate::model::event::EntrySource::{Dump, EndEvent, NewEvent, UpdateEvent};
    [Dump, NewEvent, UpdateEvent, EndEvent]
};

/// Values of the column ZONE_DIR.
const ZONE_DIRS: [crate::model::ZoneDir; 3] = {
    use crate::model::ZoneDir::{Both, Original, Reply};
    [Both, Original, Reply]
};
