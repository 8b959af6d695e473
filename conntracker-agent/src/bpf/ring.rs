//! The ring buffer's reading end.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use crate::os::watch::watch;

/// Records taken per call, so that a flood of records cannot keep the loop from its other work.
const BATCH: usize = 8192;

/// The reading end of map `RECORDS`.
pub struct RecordRing {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl RecordRing {
    /// Registers the ring with the running tokio runtime.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self { ring: watch(ring)? })
    }

    /// Waits until the programs wake the agent. They do not for a few records, so the caller must drain by timer too.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Hands out the records that are there, in order; true if there may be more.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let ring = self.ring.get_mut();
        for _ in 0..BATCH {
            match ring.next() {
                Some(item) => each(&item),
                None => return false,
            }
        }
        true
    }
}
