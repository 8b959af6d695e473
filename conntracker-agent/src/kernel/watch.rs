//! Registering kernel descriptors with the event loop.

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

/// A source of events that owns the one descriptor it is polled by.
///
/// # Safety
/// `as_raw_fd` returns the same open descriptor for the whole life of the value.
pub unsafe trait Watched: AsRawFd {}

// SAFETY: the map's descriptor lives in the ring and never changes.
unsafe impl Watched for aya::maps::RingBuf<aya::maps::MapData> {}

// SAFETY: the socket lives in the event source and never changes.
unsafe impl Watched for crate::kernel::netlink::ctnetlink::Events {}

/// Registers `inner` with the running tokio runtime.
pub fn watch<T: Watched>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the promise of `Watched`.
    unsafe { AsyncFd::register(inner) }.map_err(|e| e.into_parts().1)
}
