//! Groups of flows instead of flows (`--by KEY`): what the flows of each address, port, rule or mark add up to.
//!
//! Keys of which a flow may have several (rules, reasons) count it in the group of each; `others` and `total` count it
//! once. Dropped packets count in one group: that of the rule or reason that dropped them.

pub(super) mod csv;
mod group;
mod kept;
mod key;
mod keys;
mod marks;
mod sort;

use std::{
    collections::{HashMap, HashSet},
    io,
    num::NonZeroUsize,
};

pub(super) use self::{
    group::{Group, Others, Sums},
    kept::KeptKeys,
    keys::{KeyText, Keys},
    marks::MarkGroup,
};
pub use self::{
    key::{Key, NoKey},
    sort::Sort,
};
use super::{FlowList, Report};
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
    /// Those of a report. `keys` has the names in their keys, and `kept` is where these stay.
    ///
    /// # Errors
    /// Those of the file that the flows are in.
    pub fn of<F: FlowList>(
        report: &Report<F>,
        keys: &Keys,
        kept: &'a KeptKeys,
        options: &GroupOptions,
    ) -> io::Result<Self> {
        let GroupOptions { key, sort, top } = *options;
        let of_marks = matches!(key, Key::Mark(_));
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut index: HashMap<KeyText<'a>, usize> = HashMap::new();
        let mut total = Sums::default();
        report.flows.each(&mut |flows| {
            for flow in flows {
                let all = |count: fn(&Drops) -> u64| flow.drops.as_deref().map_or(0, count);
                total.add(flow, all(Drops::packets), all(Drops::lost_packets));
                for of in keys.of(flow) {
                    let at = find(&index, &of.key).unwrap_or_else(|| {
                        let key = kept.keep(of.key);
                        let mark = of_marks.then(MarkGroup::default);
                        groups.push(Group { key, sums: Sums::default(), mark });
                        index.insert(key, groups.len() - 1);
                        groups.len() - 1
                    });
                    let group = &mut groups[at];
                    group.sums.add(flow, of.dropped, of.lost);
                    if let (Some(mark), KeyText::Mark(value, mask)) = (&mut group.mark, of.key) {
                        mark.add(flow, value, mask, kept);
                    }
                }
            }
            Ok(())
        })?;
        let sort = sort.unwrap_or_else(|| Sort::of(key, &groups));
        sort.sort(&mut groups);
        let first = top.map_or(groups.len(), |top| top.get().min(groups.len()));
        let rest: Vec<Group<'a>> = groups.split_off(first);
        let others = if rest.is_empty() { None } else { Some(others(report, keys, &rest)?) };
        Ok(Self { key, sort, top, listed: groups, others, total })
    }
}

/// The group of a key, whose names may not stay.
fn find<'k>(index: &HashMap<KeyText<'k>, usize>, key: &KeyText<'k>) -> Option<usize> {
    index.get(key).copied()
}

/// The flows of groups, each once though it be in several of them.
fn others<F: FlowList>(report: &Report<F>, keys: &Keys, rest: &[Group<'_>]) -> io::Result<Others> {
    let rest: HashSet<KeyText<'_>> = rest.iter().map(|group| group.key).collect();
    let mut sums = Sums::default();
    report.flows.each(&mut |flows| {
        for flow in flows {
            let of = keys.of(flow);
            let mut of = of.iter().filter(|of| has(&rest, &of.key)).peekable();
            if of.peek().is_some() {
                let (dropped, lost) = of.fold((0, 0), |(d, l), of| (d + of.dropped, l + of.lost));
                sums.add(flow, dropped, lost);
            }
        }
        Ok(())
    })?;
    Ok(Others { groups: rest.len() as u64, sums })
}

fn has<'k>(keys: &HashSet<KeyText<'k>>, key: &KeyText<'k>) -> bool {
    keys.contains(key)
}

#[cfg(test)]
mod tests;
