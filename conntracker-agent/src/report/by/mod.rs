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

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

pub(super) use self::{
    group::{Group, Others, Sums},
    keys::{KeyText, Keys},
    marks::MarkGroup,
};
pub use self::{
    key::{Key, NoKey},
    sort::Sort,
};
use super::Report;
use crate::model::Drops;

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
    pub listed: Vec<Group<'a>>,
    /// Groups that are not listed; `None` if all are.
    pub others: Option<Others>,
    /// Each flow once.
    pub total: Sums,
}

impl<'a> Groups<'a> {
    /// Those of a report. `keys` has the names in their keys.
    pub fn of(report: &'a Report, keys: &'a Keys, options: &GroupOptions) -> Self {
        let GroupOptions { key, sort, top } = *options;
        let mut by_key: HashMap<KeyText<'a>, Group<'a>> = HashMap::new();
        let mut total = Sums::default();
        for flow in &report.flows {
            let all = |count: fn(&Drops) -> u64| flow.drops.as_deref().map_or(0, count);
            total.add(flow, all(Drops::packets), all(Drops::lost_packets));
            for of in keys.of(flow) {
                let group = by_key.entry(of.key).or_insert_with(|| Group {
                    key: of.key,
                    sums: Sums::default(),
                    mark: matches!(key, Key::Mark(_)).then(MarkGroup::default),
                });
                group.sums.add(flow, of.dropped, of.lost);
                if let (Some(mark), KeyText::Mark(value, mask)) = (&mut group.mark, of.key) {
                    mark.add(flow, value, mask);
                }
            }
        }
        let mut groups: Vec<Group<'a>> = by_key.into_values().collect();
        let sort = sort.unwrap_or_else(|| Sort::of(key, &groups));
        sort.sort(&mut groups);
        let first = top.map_or(groups.len(), |top| top.get().min(groups.len()));
        let rest: Vec<Group<'a>> = groups.split_off(first);
        let others = (!rest.is_empty()).then(|| others(report, keys, &rest));
        Self { key, sort, top, listed: groups, others, total }
    }
}

/// The flows of groups, each once though it be in several of them.
fn others(report: &Report, keys: &Keys, rest: &[Group<'_>]) -> Others {
    let rest: HashSet<KeyText<'_>> = rest.iter().map(|group| group.key).collect();
    let mut sums = Sums::default();
    for flow in &report.flows {
        let of = keys.of(flow);
        let mut of = of.iter().filter(|of| rest.contains(&of.key)).peekable();
        if of.peek().is_some() {
            let (dropped, lost) = of.fold((0, 0), |(d, l), of| (d + of.dropped, l + of.lost));
            sums.add(flow, dropped, lost);
        }
    }
    Others { groups: rest.len() as u64, sums }
}

#[cfg(test)]
mod tests;
