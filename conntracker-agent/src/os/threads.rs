//! Threads. The kernel may refuse one (RLIMIT_NPROC, pids.max of a control group): these functions return the error,
//! where `std::thread::spawn` would panic.

use std::{
    io,
    thread::{Builder, JoinHandle, Scope, ScopedJoinHandle},
};

/// Starts a thread of this name.
///
/// # Errors
/// The kernel refuses one.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|error| refused(&error))
}

/// Starts a thread that ends within a scope.
///
/// # Errors
/// The kernel refuses one.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(|error| refused(&error))
}

fn refused(error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("no thread can be had: {error} (`ulimit -u`, or pids.max of the control group)"),
    )
}
