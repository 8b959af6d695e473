//! FlowEvents as columns.
//!
//! The column [`column::KIND`] has the kind of each event in the order in which the flow table took them. Each other
//! column has the values of the events that have its field. A reader that does not know a kind leaves its events out:
//! their fields stand in columns of their own.

mod read;
#[cfg(test)]
pub(in crate::recording) mod tests;
mod write;

pub(super) use self::{
    read::{EventReader, ReadColumns},
    write::{EventWriter, WriteColumns},
};

/// Numbers of the columns. One that a version has dropped is not used again.
pub(super) mod column {
    pub const KIND: u16 = 1;
    pub const NETNS: u16 = 2;
    /// Delta.
    pub const TIME: u16 = 3;

    // Tuples: see `tuples.rs`.
    pub const TUPLE: u16 = 4;
    pub const FORM: u16 = 5;
    pub const L4: u16 = 6;
    pub const PROTO: u16 = 7;
    pub const SRC: u16 = 8;
    pub const DST: u16 = 9;
    pub const OTHER_SRC: u16 = 10;
    pub const OTHER_DST: u16 = 11;
    /// Upper half, and the lower one in the next column.
    pub const FIRST: u16 = 12;
    pub const SECOND: u16 = 14;
    pub const ICMP_TYPE: u16 = 16;
    pub const ICMP_CODE: u16 = 17;
    pub const FAMILY: u16 = 18;
    /// Four columns.
    pub const IPV4: u16 = 19;
    pub const IPV6: u16 = 23;

    // Entries.
    pub const ZONE: u16 = 24;
    pub const ZONE_DIR: u16 = 25;
    /// Of New.
    pub const NEW_STATUS: u16 = 26;
    /// Of Replied.
    pub const REPLIED_STATUS: u16 = 27;
    /// Of Dropped.
    pub const DROPPED_STATUS: u16 = 28;
    /// Of Ended.
    pub const ENDED_STATUS: u16 = 29;
    /// Of Entry.
    pub const ENTRY_STATUS: u16 = 30;
    /// 0 for none, or the mark and 1.
    pub const MARK: u16 = 31;
    pub const PACKET_MARK: u16 = 32;
    /// 0 for none, or 1 and the interfaces follow.
    pub const INTERFACES: u16 = 33;
    pub const IIF: u16 = 34;
    pub const OIF: u16 = 35;
    pub const COUNTED: u16 = 36;
    pub const COUNTED_SINCE: u16 = 37;
    pub const COUNT: u16 = 38;
    pub const COUNT_REPLIED: u16 = 39;

    // Processes.
    /// Which fields there are; 0 for no process.
    pub const PROCESS: u16 = 40;
    pub const UID: u16 = 41;
    pub const USER: u16 = 42;
    pub const PID: u16 = 43;
    pub const COMM: u16 = 44;
    pub const CGROUP_ID: u16 = 45;
    pub const CGROUP: u16 = 46;
    pub const INODE: u16 = 47;

    // Dropped.
    pub const DROPPED_ENTRY: u16 = 48;
    pub const CAUSE: u16 = 49;
    pub const CAUSE_NAME: u16 = 50;
    /// 0 for none, or the hook and 1.
    pub const HOOK: u16 = 51;
    pub const PACKETS: u16 = 52;
    /// How long before the time of the event.
    pub const FIRST_BEFORE: u16 = 53;
    /// How many distinct hashes of the block ago it was stated, 0 for a new one.
    pub const PATH_HASH: u16 = 54;
    pub const NEW_HASH: u16 = 55;

    // Ended and Entry.
    /// Which fields there are.
    pub const ENDED: u16 = 56;
    pub const ENTRY: u16 = 57;
    pub const ENTRY_SOURCE: u16 = 58;
    /// Packets and bytes of the original direction, then of the reply: four columns.
    pub const COUNTERS: u16 = 59;
    /// Delta.
    pub const START: u16 = 63;
    /// Delta to the time of the event (Ended).
    pub const STOP_BEFORE: u16 = 64;
    /// Delta (Entry).
    pub const STOP: u16 = 65;
    pub const STATE_KIND: u16 = 66;
    pub const STATE: u16 = 67;
    /// Which further fields of the state there are.
    pub const STATE_FIELDS: u16 = 68;
    pub const STATE_VALUE: u16 = 69;
    pub const TIMEOUT: u16 = 70;
    /// Delta.
    pub const ID: u16 = 71;
    pub const USE_COUNT: u16 = 72;
    pub const HELPER: u16 = 73;
    pub const LABELS: u16 = 74;
    pub const LABEL: u16 = 75;
    pub const SECCTX: u16 = 76;

    // Path.
    pub const HAS_ENTRY: u16 = 77;
    pub const PATH: u16 = 78;
    pub const NAT: u16 = 79;
    /// Zone of Path and Dropped, which may be unknown.
    pub const PACKET_ZONE: u16 = 80;

    // Others.
    pub const WHOLE: u16 = 81;
    pub const SEEN: u16 = 82;
    /// Time since boot, then time of day.
    pub const CLOCK_BOOT: u16 = 83;
    pub const CLOCK_EPOCH: u16 = 84;

    /// Behind the last one.
    pub const COUNT_OF_COLUMNS: usize = 85;
}

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

/// Values of [`column::ENTRY_SOURCE`].
const SOURCES: [crate::model::event::EntrySource; 4] = {
    use crate::model::event::EntrySource::{Dump, EndEvent, NewEvent, UpdateEvent};
    [Dump, NewEvent, UpdateEvent, EndEvent]
};

/// Values of [`column::ZONE_DIR`].
const ZONE_DIRS: [crate::model::ZoneDir; 3] = {
    use crate::model::ZoneDir::{Both, Original, Reply};
    [Both, Original, Reply]
};
