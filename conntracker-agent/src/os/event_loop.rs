//! The event loop: tokio's runtime on the calling thread alone. Waiting for sockets, signals and timers needs no more
//! threads, and each thread has a network namespace of its own.

use anyhow::{Context, Result};

/// Runs a future to its end on the calling thread.
///
/// # Errors
/// The kernel refuses what an event loop needs (RLIMIT_NOFILE), or the future fails.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(future)
}
