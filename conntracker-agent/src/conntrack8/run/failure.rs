//! Failures of commands.

use std::io;

use nix::errno::Errno;

use crate::conntrack::Error;
use crate::conntrack8::Rejection;

/// Why a command failed.
pub(super) enum Failure {
    /// An error in the words of conntrack(8).
    Rejected(Rejection),
    /// The kernel.
    Kernel(Error),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The reader has closed standard output.
    Closed,
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Output(error) }
    }
}

impl Failure {
    /// A line, and the exit status.
    pub fn reason(&self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection.clone(),
            Self::Kernel(error) => operation_failed(error),
            Self::Output(error) => {
                Rejection::failure(format!("cannot write to standard output: {error}"))
            }
            Self::Closed => Rejection::failure("nobody reads standard output any more"),
        }
    }
}

/// The message of conntrack(8) for an error of the kernel.
pub(super) fn operation_failed(error: &Error) -> Rejection {
    let why = match error {
        Error::Refused { errno: Errno::EPERM, .. } => {
            "sorry, you must be root or get CAP_NET_ADMIN capability to do this".to_owned()
        }
        Error::Refused { errno: Errno::EINVAL, .. } => "invalid parameters".to_owned(),
        Error::Refused { errno, .. } => strerror(&io::Error::from(*errno)),
        Error::System { call, source } => format!("{call}: {source}"),
        other => other.to_string(),
    };
    Rejection::failure(format!("Operation failed: {why}"))
}

/// The text of strerror(3).
pub(super) fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    // The standard library appends the number.
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_the_c_library() {
        let said = |errno| {
            operation_failed(&Error::Refused { request: "x", errno, message: None }).message
        };
        assert_eq!(said(Errno::ENOENT), "Operation failed: No such file or directory");
        assert_eq!(said(Errno::EBUSY), "Operation failed: Device or resource busy");
        assert_eq!(said(Errno::EINVAL), "Operation failed: invalid parameters");
        assert!(said(Errno::EPERM).contains("CAP_NET_ADMIN"));
    }
}
