//! nf_tables over netlink (include/uapi/linux/netfilter/nf_tables.h).
//!
//! [`Changes`] hears that rules changed. `dump` reads all of them, as the bytes that the kernel sends: a recording
//! can keep these, and `ruleset` makes tables, chains, rules, `expression`s and `set`s of them, then or later.

mod changes;
#[cfg(feature = "cli")]
pub mod data;
#[cfg(feature = "cli")]
pub mod dump;
#[cfg(feature = "cli")]
pub mod expression;
#[cfg(feature = "cli")]
mod fields;
#[cfg(feature = "cli")]
pub mod key;
#[cfg(feature = "cli")]
pub mod ruleset;
#[cfg(feature = "cli")]
pub mod set;

#[cfg(feature = "cli")]
#[cfg(test)]
mod tests;

pub(super) use changes::request_generation;
pub use changes::{Changes, generation};
