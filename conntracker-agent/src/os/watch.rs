//! Registering kernel descriptors with the event loop.

#[cfg(feature = "cli")]
use std::{collections::BTreeMap, future::poll_fn, task::Poll};
use std::{io, os::fd::AsRawFd};

#[cfg(feature = "cli")]
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A source of events that owns the descriptor it is polled by.
///
/// # Safety
/// `as_raw_fd` returns the same open descriptor for the whole life of the value.
pub unsafe trait Watched: AsRawFd {}

/// Registers `inner` with the running tokio runtime.
pub fn watch<T: Watched>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the promise of `Watched`.
    unsafe { AsyncFd::register(inner) }.map_err(|e| e.into_parts().1)
}

/// Waits until one of the sources has something.
#[cfg(feature = "cli")]
pub async fn any_ready<K, T: Watched>(sources: &mut BTreeMap<K, AsyncFd<T>>) -> io::Result<()> {
    poll_fn(|cx| {
        for source in sources.values_mut() {
            if let Poll::Ready(guard) = source.poll_read_ready_mut(cx) {
                return Poll::Ready(guard.map(|_| ()));
            }
        }
        Poll::Pending
    })
    .await
}

/// Clears the readiness of a source that was read to its end, so that the next data makes it ready again.
#[cfg(feature = "cli")]
pub fn drained<T: Watched>(source: &mut AsyncFd<T>) {
    let _ =
        source.try_io_mut(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}
