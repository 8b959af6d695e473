//! Flows in a file, where they do not fit into memory: a recording may have more flows than that. What stays in memory
//! of each is 8 bytes for its key, and 8 if a reply is found by it.
//!
//! A flow has as many units of the file as it needs; what it leaves when it is taken out is used again.

use std::{cell::OnceCell, fs::File, hash::BuildHasher, io, os::unix::fs::FileExt};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{line::Line, store::Keyed};
use crate::model::{FlowBytes, FlowKey};

/// Space is taken in these many bytes.
const UNIT: usize = 64;

/// What is read at once: most flows are smaller.
const READ: usize = 512;

/// What is written at once where the file grows.
const WRITE: usize = 1 << 20;

/// Bytes before a flow: their number, whether a reply is found by it, and its entries that are known.
const HEAD: usize = 9;

/// A flow in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    /// Part of the hash of its key, or of its reply.
    hash: u32,
    /// Unit at which it begins.
    unit: u32,
}

/// The flows in the file.
#[derive(Debug)]
pub(super) struct Cold {
    file: File,
    in_memory: usize,
    bytes: FlowBytes,
    hasher: DefaultHashBuilder,
    by_key: HashTable<At>,
    by_reply: HashTable<At>,
    /// Units that are free, by the number of those that follow each other.
    free: Vec<Vec<u32>>,
    /// What stands behind the end of the file, and is not written yet.
    tail: Vec<u8>,
    /// Bytes of the file.
    written: u64,
    error: OnceCell<io::Error>,
}

impl Cold {
    pub fn new(file: File, in_memory: usize) -> Self {
        Self {
            file,
            in_memory: in_memory.max(1),
            bytes: FlowBytes::default(),
            hasher: DefaultHashBuilder::default(),
            by_key: HashTable::new(),
            by_reply: HashTable::new(),
            free: Vec::new(),
            tail: Vec::with_capacity(WRITE),
            written: 0,
            error: OnceCell::new(),
        }
    }

    /// How many flows stay in memory.
    pub fn in_memory(&self) -> usize {
        self.in_memory
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The first error of the file.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }

    pub fn contains(&self, key: &FlowKey) -> bool {
        self.find(key).is_some()
    }

    pub fn get(&self, key: &FlowKey) -> Option<Line> {
        let record = self.read(self.find(key)?.unit)?;
        Some(self.line(&record)?.0)
    }

    /// Takes a flow out, and says whether it was found by a reply.
    pub fn take(&mut self, key: &FlowKey) -> Option<(Line, bool)> {
        if self.by_key.is_empty() {
            return None;
        }
        let at = self.find(key)?;
        let record = self.read(at.unit)?;
        let (line, reply) = self.line(&record)?;
        remove(&mut self.by_key, at);
        if let Some(hash) = reply {
            remove(&mut self.by_reply, At { hash, ..at });
        }
        self.free(at.unit, record.len());
        Some((line, reply.is_some()))
    }

    /// Writes a flow, which is found by a reply as well.
    pub fn put(&mut self, line: Line, reply: Option<&FlowKey>) {
        let key = self.hash(&line.key());
        let reply = reply.map(|reply| self.hash(reply));
        let unit = self.write(line, reply);
        insert(&mut self.by_key, At { hash: key, unit });
        if let Some(hash) = reply {
            insert(&mut self.by_reply, At { hash, unit });
        }
    }

    /// The flows that are found by a reply.
    pub fn with_reply(&self, seen: &FlowKey, fold: bool) -> Vec<FlowKey> {
        if self.by_reply.is_empty() {
            return Vec::new();
        }
        let hash = self.hash(seen);
        let same = self.by_reply.iter_hash(spread(hash)).filter(|at| at.hash == hash);
        let lines = same.filter_map(|at| Some(self.line(&self.read(at.unit)?)?.0));
        lines.filter(|line| line.seen_as(fold) == Some(*seen)).map(|line| line.key()).collect()
    }

    /// Changes all flows.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut Line)) {
        for at in self.in_order() {
            let Some(record) = self.read(at.unit) else { continue };
            let Some((mut line, reply)) = self.line(&record) else { continue };
            remove(&mut self.by_key, at);
            if let Some(hash) = reply {
                remove(&mut self.by_reply, At { hash, ..at });
            }
            self.free(at.unit, record.len());
            change(&mut line);
            let unit = self.write(line, reply);
            insert(&mut self.by_key, At { unit, ..at });
            if let Some(hash) = reply {
                insert(&mut self.by_reply, At { hash, unit });
            }
        }
    }

    /// All flows.
    pub fn into_lines(mut self) -> impl Iterator<Item = io::Result<Line>> {
        let all = self.in_order();
        all.into_iter().map(move |at| {
            let line = self.read(at.unit).and_then(|record| Some(self.line(&record)?.0));
            line.ok_or_else(|| self.error.take().unwrap_or_else(|| io::ErrorKind::Other.into()))
        })
    }

    /// In the order of the file.
    fn in_order(&self) -> Vec<At> {
        let mut all: Vec<At> = self.by_key.iter().copied().collect();
        all.sort_unstable_by_key(|at| at.unit);
        all
    }

    fn hash(&self, key: &FlowKey) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    fn find(&self, key: &FlowKey) -> Option<At> {
        if self.by_key.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        let is = |at: &At| {
            at.hash == hash
                && self.read(at.unit).is_some_and(|record| {
                    FlowBytes::key(record.get(HEAD..).unwrap_or_default()) == Some(*key)
                })
        };
        self.by_key.find(spread(hash), is).copied()
    }

    /// The flow in a record, and the hash of the reply that it is found by.
    fn line(&self, record: &[u8]) -> Option<(Line, Option<u32>)> {
        let (head, flow) = record.split_first_chunk::<HEAD>()?;
        let [has_reply, a, b, c, d, members @ ..] = *head;
        let Some(flow) = self.bytes.read(flow) else {
            self.fails(io::Error::other("it has other bytes than were written"));
            return None;
        };
        let reply = (has_reply != 0).then(|| u32::from_le_bytes([a, b, c, d]));
        Some((Line::of_flow(flow, u32::from_le_bytes(members)), reply))
    }

    /// Writes a record where there is space, and returns the unit at which it begins.
    fn write(&mut self, line: Line, reply: Option<u32>) -> u32 {
        let mut record = vec![0; 4];
        record.push(reply.is_some().into());
        record.extend(reply.unwrap_or(0).to_le_bytes());
        record.extend(line.members.to_le_bytes());
        self.bytes.write(line.flow(), &mut record);
        let len = (record.len() - 4) as u32;
        record[..4].copy_from_slice(&len.to_le_bytes());
        let units = record.len().div_ceil(UNIT);
        record.resize(units * UNIT, 0);
        if let Some(unit) = self.free.get_mut(units).and_then(Vec::pop) {
            let offset = u64::from(unit) * UNIT as u64;
            if offset >= self.written {
                let at = (offset - self.written) as usize;
                self.tail[at..at + record.len()].copy_from_slice(&record);
            } else if let Err(error) = self.file.write_all_at(&record, offset) {
                self.fails(error);
            }
            return unit;
        }
        let unit = (self.written + self.tail.len() as u64) / UNIT as u64;
        self.tail.extend_from_slice(&record);
        if self.tail.len() >= WRITE {
            if let Err(error) = self.file.write_all_at(&self.tail, self.written) {
                self.fails(error);
            }
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        u32::try_from(unit).unwrap_or_else(|_| {
            self.fails(io::Error::other("it has more than 256 GB"));
            u32::MAX
        })
    }

    /// The record at a unit, without the number of its bytes.
    fn read(&self, unit: u32) -> Option<Vec<u8>> {
        let offset = u64::from(unit) * UNIT as u64;
        let mut bytes = vec![0; READ];
        self.read_at(&mut bytes, offset)?;
        let len = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let end = len.checked_add(4)?;
        if end > bytes.len() {
            // Not longer than the file, which ends with a whole unit.
            let whole = (self.written + self.tail.len() as u64).saturating_sub(offset);
            if end as u64 > whole {
                self.fails(io::Error::other("it has other bytes than were written"));
                return None;
            }
            bytes.resize(end, 0);
            self.read_at(&mut bytes, offset)?;
        }
        bytes.truncate(end);
        bytes.drain(..4);
        Some(bytes)
    }

    /// Reads bytes of the file and of what will be behind it; zeroes behind both.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        let of_file = (self.written.saturating_sub(offset) as usize).min(bytes.len());
        let (of_file, of_tail) = bytes.split_at_mut(of_file);
        if let Err(error) = self.file.read_exact_at(of_file, offset) {
            self.fails(error);
            return None;
        }
        let from = offset.saturating_sub(self.written) as usize;
        let tail = self.tail.get(from..).unwrap_or_default();
        let len = tail.len().min(of_tail.len());
        of_tail[..len].copy_from_slice(&tail[..len]);
        Some(())
    }

    /// The units of a record are free: `len` is its length without the number of its bytes.
    fn free(&mut self, unit: u32, len: usize) {
        let units = (len + 4).div_ceil(UNIT);
        if self.free.len() <= units {
            self.free.resize_with(units + 1, Vec::new);
        }
        self.free[units].push(unit);
    }

    fn fails(&self, error: io::Error) {
        // The first one tells why the others are there.
        let _ = self.error.set(error);
    }
}

/// Of a hash of 32 bits, one of as many bits as the table looks at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn insert(table: &mut HashTable<At>, at: At) {
    table.insert_unique(spread(at.hash), at, |at| spread(at.hash));
}

fn remove(table: &mut HashTable<At>, at: At) {
    if let Ok(entry) = table.find_entry(spread(at.hash), |other| *other == at) {
        entry.remove();
    }
}
