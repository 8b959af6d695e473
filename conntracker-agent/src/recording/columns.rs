//! The columns of a block of events, by their numbers.

use super::{
    body::Columns,
    column::{ColumnReader, ColumnWriter, Malformed},
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

    /// Behind the last one. Rulesets have columns from 85 to 87 (part.rs): those are not of events.
    pub const COUNT_OF_COLUMNS: usize = 85;
}

/// The columns of a block that is being written.
#[derive(Debug)]
pub(super) struct WriteColumns(Vec<ColumnWriter>);

impl WriteColumns {
    pub fn new() -> Self {
        Self(vec![ColumnWriter::default(); column::COUNT_OF_COLUMNS])
    }

    /// The columns that are not empty; all are empty afterwards.
    pub fn take(&mut self) -> Columns {
        let columns = self.0.iter_mut().enumerate();
        columns
            .filter(|(_, column)| column.len() > 0)
            .map(|(id, column)| (id as u16, column.take()))
            .collect()
    }

    pub fn to(&mut self, column: u16) -> &mut ColumnWriter {
        &mut self.0[usize::from(column)]
    }

    /// A number of two bytes, each in a column of its own.
    pub fn halves(&mut self, column: u16, number: u16) {
        let [high, low] = number.to_be_bytes();
        self.to(column).byte(high);
        self.to(column + 1).byte(low);
    }

    /// A number that may be missing.
    pub fn option(&mut self, column: u16, number: Option<u64>) {
        // The highest one does not fit; no field has it.
        self.to(column).number(number.map_or(0, |number| number.saturating_add(1)));
    }
}

/// The columns of a block that is being read.
#[derive(Debug)]
pub(super) struct ReadColumns(Vec<ColumnReader>);

impl ReadColumns {
    pub fn new(mut columns: Columns) -> Self {
        let of = |id| columns.remove(&id).map_or_else(ColumnReader::absent, ColumnReader::new);
        Self((0..column::COUNT_OF_COLUMNS as u16).map(of).collect())
    }

    pub fn of(&mut self, column: u16) -> &mut ColumnReader {
        &mut self.0[usize::from(column)]
    }

    pub fn halves(&mut self, column: u16) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.of(column).byte()?, self.of(column + 1).byte()?]))
    }

    pub fn option(&mut self, column: u16) -> Result<Option<u64>, Malformed> {
        Ok(self.of(column).number()?.checked_sub(1))
    }

    pub fn flag(&mut self, column: u16) -> Result<bool, Malformed> {
        Ok(self.of(column).byte()? != 0)
    }
}
