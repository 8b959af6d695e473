//! Which flows exist on this firewall, and what became of them, without a TRACE rule.
//!
//! The pure half takes values and returns values: [`flow`] (tuples, folding, the merged table) and
//! [`report`] (renderers). [`kernel`] holds every contact with the kernel.

mod asked;
pub mod attribution;
pub mod compat;
pub mod conntrack;
pub mod daemon;
pub mod doctor;
pub mod dump;
pub mod flow;
pub mod harmless;
pub mod kernel;
pub mod messages;
pub mod observe;
pub mod output;
pub mod report;
pub mod rules;
pub mod ruleset;
mod signals;
pub mod table;
pub mod trace;

pub use conntrack::Conntrack;
