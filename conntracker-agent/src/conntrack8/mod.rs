//! The command line of conntrack(8), argument for argument.
//!
//! The pure part takes arguments and returns a [`Command`]: [`getopt`] finds options, [`options`] and
//! [`protocols`] say which there are and what goes with what, [`values`] reads what stands behind
//! them, [`arguments`] puts it together, [`command`] checks and resolves it (with `create` for new entries), [`filter`] is which
//! entries it is about. `run` does it with the library.
//!
//! What is compatible, and with what: docs/conntrack.md.

pub mod arguments;
pub mod command;
mod create;
mod edit;
pub mod filter;
pub mod getopt;
mod names;
pub mod options;
pub mod proto_opt;
pub mod protocols;
mod run;
pub mod values;

#[cfg(test)]
mod tests;

pub use self::command::Command;
pub use self::filter::Filter;
pub use self::names::Names;
pub use self::run::run;

/// The version of conntrack(8) that this behaves as, and calls itself where that one says its version.
pub const VERSION: &str = "1.4.9";

/// Bad usage.
const USAGE: u8 = 2;
/// Anything else that did not work.
const FAILURE: u8 = 1;

/// Why a command line, or what it asks for, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One line.
    pub message: String,
    /// Exit status.
    pub status: u8,
}

impl Rejection {
    /// Bad usage.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: USAGE }
    }

    /// Anything else.
    #[must_use]
    pub fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: FAILURE }
    }

    /// Whether the help says more.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.status == USAGE
    }
}
