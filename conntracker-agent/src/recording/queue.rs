//! Blocks on their way from the thread that takes events to the one that writes them.
//!
//! A disk that is too slow must not stop the first: what finds no room is counted, and said in the file.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{head::BlockType, part::RawBlock, statement::Gap};

/// Bytes of events that wait, at most. What later events refer to always has room.
const MOST_WAITING: usize = 32 << 20;

/// What the writing thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Write a block.
    Block(RawBlock),
    /// Begin a new part.
    Part,
    /// End the recording.
    End,
}

/// What was not written.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing {
    records: u64,
    times: Option<(u64, u64)>,
}

impl Missing {
    /// Counts the events of a block.
    pub fn add(&mut self, block: &RawBlock) {
        self.records += u64::from(block.records);
        let (first, last) = self.times.unwrap_or(block.times);
        self.times = Some((first.min(block.times.0), last.max(block.times.1)));
    }

    /// The statement of it, if there is anything to say.
    pub fn gap(&self, why: String) -> Option<Gap> {
        let (first_ns, last_ns) = self.times?;
        Some(Gap { records: self.records, first_ns, last_ns, why })
    }
}

#[derive(Debug, Default)]
struct Waiting {
    work: VecDeque<Work>,
    bytes: usize,
    missing: Missing,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the blocks that wait.
    pub fn bytes(&self) -> usize {
        self.waiting().bytes
    }

    /// Adds work. Returns how many events found no room.
    pub fn add(&self, work: Work) -> u64 {
        let mut waiting = self.waiting();
        if let Work::Block(block) = &work {
            let size = block.size();
            if block.kind == BlockType::Events && waiting.bytes + size > MOST_WAITING {
                waiting.missing.add(block);
                return block.records.into();
            }
            waiting.bytes += size;
        }
        waiting.work.push_back(work);
        self.added.notify_one();
        0
    }

    /// The next work, and what found no room before it; `None` if nothing comes within a time.
    pub fn take(&self, within: Duration) -> Option<(Work, Missing)> {
        let waiting = self.waiting();
        let empty = |waiting: &mut Waiting| waiting.work.is_empty();
        let waited = self.added.wait_timeout_while(waiting, within, empty);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        let work = waiting.work.pop_front()?;
        if let Work::Block(block) = &work {
            waiting.bytes -= block.size();
        }
        // What found no room is younger than all that waits: it is said behind that.
        let missing = if waiting.work.is_empty() {
            std::mem::take(&mut waiting.missing)
        } else {
            Missing::default()
        };
        Some((work, missing))
    }
}
