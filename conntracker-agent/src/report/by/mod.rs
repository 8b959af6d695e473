//! Groups of flows instead of flows (`--by KEY`): what the flows of each address, port, rule or mark add up to.
//!
//! Keys of which a flow may have several (rules, reasons) count it in the group of each; `others` and `total` count it
//! once. Dropped packets count in one group: that of the rule or reason that dropped them.

pub(super) mod csv;
mod group;
mod key;
mod keys;
mod marks;
mod sort;

use std::num::NonZeroUsize;

pub(super) use self::{
    group::{Group, Others, Sums},
    keys::{KeyText, Keys},
    marks::MarkGroup,
};
pub use self::{
    key::{Key, NoKey},
    sort::Sort,
};

/// How flows are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// By this.
    pub key: Key,
    /// In this order; `None` for that of the key.
    pub sort: Option<Sort>,
    /// Only the first ones; the rest is summed up.
    pub top: Option<NonZeroUsize>,
}

/// How groups are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFormat {
    /// A table.
    Text,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values.
    Csv,
}

/// The groups of a report.
pub(super) struct Groups<'a> {
    pub key: Key,
    /// The order that was taken.
    pub sort: Sort,
    pub top: Option<NonZeroUsize>,
    /// In this order.
    pub groups: Vec<Group<'a>>,
    /// Groups that are not listed; `None` if all are.
    pub others: Option<Others>,
    /// Each flow once.
    pub total: Sums,
}

#[cfg(test)]
mod tests;
