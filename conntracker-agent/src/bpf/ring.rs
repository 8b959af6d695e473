//! The ring buffer's reading end.
//!
//! The programs write faster than the agent reads whenever the agent does something that takes long: it reads an index
//! of the rules, or copies a million flows for a report. A thread of its own moves the records out of the ring
//! meanwhile, into a queue in the agent's memory.

use std::{
    collections::VecDeque,
    io::{self, PipeWriter, pipe},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;

use crate::os::threads;

/// Records taken per call, so that a flood of records cannot keep the loop from its other work.
const BATCH: usize = 8192;

/// Records are queued in pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// The queue holds this many times what the ring holds. Then records stay in the ring, and once that is full, the
/// programs count those that they cannot send.
const QUEUE_PER_RING: usize = 2;

/// While few records come, the thread looks this often.
const REST: Duration = Duration::from_millis(50);

/// The reading end of map `RECORDS`.
pub struct RecordRing {
    shared: Arc<Shared>,
    /// Records that were taken from the queue and not handed out yet.
    taken: Piece,
    /// Moves records; ends when the pipe is closed.
    mover: Option<(JoinHandle<()>, PipeWriter)>,
}

/// What the thread and the loop share. The ring is locked before the queue.
struct Shared {
    ring: Mutex<RingBuf<MapData>>,
    queue: Mutex<Queue>,
    filled: Notify,
}

/// Records in order, each behind its length.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// What was handed out.
    read: usize,
}

/// Records that were moved out of the ring.
struct Queue {
    pieces: VecDeque<Piece>,
    /// Bytes of all pieces, and how many there may be.
    bytes: usize,
    most: usize,
}

impl Piece {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(&(record.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(record);
    }

    fn next(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.bytes.get(self.read..)?.split_first_chunk()?;
        let record = rest.get(..u32::from_ne_bytes(*length) as usize)?;
        self.read += length.len() + record.len();
        Some(record)
    }
}

impl Queue {
    fn new(most: usize) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, most }
    }

    /// Whether there is room for one more.
    fn has_room(&self) -> bool {
        self.bytes < self.most
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes += size_of::<u32>() + record.len();
        if let Some(piece) = self.pieces.back_mut().filter(|piece| piece.bytes.len() < PIECE) {
            return piece.push(record);
        }
        let mut piece = Piece::default();
        piece.push(record);
        self.pieces.push_back(piece);
    }

    /// The records that came first.
    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front();
        if self.pieces.is_empty() {
            self.bytes = 0;
        } else if let Some(piece) = &piece {
            self.bytes = self.bytes.saturating_sub(piece.bytes.len());
        }
        piece
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the records that are in the ring to the queue, as far as there is room. Returns how many bytes.
    fn move_records(&self) -> usize {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.queue();
        let mut moved = 0;
        while queue.has_room()
            && let Some(record) = ring.next()
        {
            queue.push(&record);
            moved += record.len();
        }
        moved
    }

    /// Moves records until the other end of the pipe is closed. The programs wake it when a quarter of the ring is full.
    fn keep_moving(&self, ring: BorrowedFd<'_>, end: BorrowedFd<'_>, ring_bytes: usize) {
        loop {
            let mut ready =
                [PollFd::new(ring, PollFlags::POLLIN), PollFd::new(end, PollFlags::POLLIN)];
            let polled = poll(&mut ready, PollTimeout::NONE);
            if polled.is_err_and(|error| error != nix::errno::Errno::EINTR)
                || ready[1].any().unwrap_or(true)
            {
                return;
            }
            let moved = self.move_records();
            if moved > 0 {
                self.filled.notify_one();
            }
            // The loop looks by itself, too: it need not be woken for each record.
            if moved < ring_bytes / 8 {
                let mut end = [PollFd::new(end, PollFlags::POLLIN)];
                let rest = PollTimeout::try_from(REST).unwrap_or(PollTimeout::ZERO);
                if poll(&mut end, rest).is_ok_and(|ready| ready > 0) {
                    return;
                }
            }
        }
    }
}

impl RecordRing {
    /// Begins to read a ring of so many bytes.
    ///
    /// # Errors
    /// No descriptor can be had.
    pub fn new(ring: RingBuf<MapData>, ring_bytes: u32) -> io::Result<Self> {
        let ring_bytes = ring_bytes as usize;
        let readable = ring.as_fd().try_clone_to_owned()?;
        let queue = Queue::new(QUEUE_PER_RING * ring_bytes);
        let (ring, queue) = (Mutex::new(ring), Mutex::new(queue));
        let shared = Arc::new(Shared { ring, queue, filled: Notify::new() });
        let (end, pipe) = pipe()?;
        let moves = Arc::clone(&shared);
        let work = move || moves.keep_moving(readable.as_fd(), end.as_fd(), ring_bytes);
        let thread = threads::spawn("ring", work);
        let mover = match thread {
            Ok(thread) => Some((thread, pipe)),
            Err(error) => {
                log::warn!("records stay in the ring while the agent does something else: {error}");
                None
            }
        };
        Ok(Self { shared, taken: Piece::default(), mover })
    }

    /// Waits until the ring is filling. The programs do not wake the agent for a few records, so the caller must drain
    /// by timer too.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.shared.filled.notified().await;
        Ok(())
    }

    /// Hands out the records that are there, in order; true if there may be more.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        for _ in 0..BATCH {
            if let Some(record) = self.taken.next() {
                each(record);
                continue;
            }
            // What is in the ring by now is among those that are there.
            self.shared.move_records();
            match self.shared.queue().pop() {
                Some(piece) => self.taken = piece,
                None => return false,
            }
        }
        true
    }
}

impl Drop for RecordRing {
    fn drop(&mut self) {
        if let Some((thread, pipe)) = self.mover.take() {
            drop(pipe);
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_of_the_queue_as_they_went_in() {
        let mut queue = Queue::new(3 * PIECE);
        let record = |n: usize| vec![n as u8; n % 300];
        let mut pushed = 0;
        while queue.has_room() {
            queue.push(&record(pushed));
            pushed += 1;
        }
        assert!(queue.pieces.len() >= 3 && queue.bytes >= 3 * PIECE);
        let mut popped = 0;
        while let Some(mut piece) = queue.pop() {
            while let Some(found) = piece.next() {
                assert_eq!(found, record(popped));
                popped += 1;
            }
        }
        assert_eq!((popped, queue.bytes, queue.has_room()), (pushed, 0, true));
    }
}
