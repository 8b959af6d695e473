//! How many descriptors this process may have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the kernel allows: each namespace that is observed takes some five descriptors, and
/// the usual limit of 1024 is a courtesy to programs that use select(2).
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
}

/// Says of an error what to do about it, if descriptors have run out.
#[must_use]
pub fn hint(error: &anyhow::Error) -> &'static str {
    let ran_out =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(ran_out) {
        " (raise the hard limit of open files: `ulimit -Hn`, LimitNOFILE= of the service)"
    } else {
        ""
    }
}
