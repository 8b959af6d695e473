//! A thread that serves until its handle is dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a thread; `serve` returns soon after the flag is set.
    pub(super) fn start(
        address: SocketAddr,
        serve: impl FnOnce(&Arc<AtomicBool>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || serve(&flag)));
        Self { address, stop, thread }
    }

    /// Where it listens; the port is 0 for protocols without ports.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panicked server shows as missing answers in the test that needed them.
            let _ = thread.join();
        }
    }
}

/// Whether a receive only ran into its timeout, or failed with an ICMP error that belongs to an
/// earlier packet: no reason for a server to end.
pub(super) fn passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), ConnectionRefused | Interrupted | TimedOut | WouldBlock)
}
