//! How many descriptors this process may have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: each observed namespace takes some five descriptors, and the usual 1024 are
/// there only for programs that use select(2).
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
}

/// What to do about an error, if descriptors have run out.
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
