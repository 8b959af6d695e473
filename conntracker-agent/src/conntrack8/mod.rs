//! The command line of conntrack(8), argument for argument.
//!
//! The pure part takes arguments and returns a [`Command`]: [`getopt`] splits the arguments, [`options`] and
//! [`protocols`] define the options and which of them go together, [`values`] parses their values, [`arguments`]
//! collects them, [`command`] checks and resolves them (with `create` for new entries), [`filter`] selects entries.
//! `run` carries the command out with the library.
//!
//! docs/conntrack.md describes the compatibility.

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

/// The version of conntrack(8) that this behaves like, and prints as its own.
pub const VERSION: &str = "1.4.9";

/// Bad usage.
const USAGE: u8 = 2;
/// Anything else that did not work.
const FAILURE: u8 = 1;

/// Why a command line or its command was refused.
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

    /// Any other failure.
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
