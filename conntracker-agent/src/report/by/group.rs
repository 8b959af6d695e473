//! Flows added up.

use std::collections::HashMap;

use super::{
    GroupOptions, Groups, Key, Sort,
    keys::{KeyText, Keys},
    marks::MarkGroup,
};
use crate::{
    model::{Drops, Flow, counters::Counters},
    report::Report,
};

/// Sums of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::report) struct Sums {
    /// Lines that a report has of them.
    pub flows: u64,
    /// Conntrack flows in these lines.
    pub conntrack_flows: u64,
    /// Packets and bytes of the original and the reply direction, where accounting is on.
    pub counters: Option<[Counters; 2]>,
    /// Packets that netfilter dropped.
    pub dropped: u64,
    /// Packets that got lost elsewhere in the kernel.
    pub lost: u64,
}

/// Flows with the same key.
pub(in crate::report) struct Group<'a> {
    pub key: KeyText<'a>,
    pub sums: Sums,
    /// What is known of their connmark, if they are grouped by it.
    pub mark: Option<MarkGroup<'a>>,
}

/// Groups that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) struct Others {
    /// How many.
    pub groups: u64,
    /// Their flows, each once.
    pub sums: Sums,
}

impl Sums {
    /// Adds a flow, and so many of its dropped and lost packets.
    fn add(&mut self, flow: &Flow, dropped: u64, lost: u64) {
        self.flows += 1;
        self.conntrack_flows += flow.merged();
        if let Some(theirs) = flow.counters {
            let ours = self.counters.get_or_insert_default();
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                ours.packets += theirs.packets;
                ours.bytes += theirs.bytes;
            }
        }
        self.dropped += dropped;
        self.lost += lost;
    }
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
        let listed = top.map_or(groups.len(), |top| top.get().min(groups.len()));
        let rest: Vec<Group<'a>> = groups.split_off(listed);
        let others = (!rest.is_empty()).then(|| others(report, keys, &rest));
        Self { key, sort, top, groups, others, total }
    }
}

/// The flows of groups, each once though it be in several of them.
fn others(report: &Report, keys: &Keys, rest: &[Group<'_>]) -> Others {
    let rest: HashMap<KeyText<'_>, ()> = rest.iter().map(|group| (group.key, ())).collect();
    let mut sums = Sums::default();
    for flow in &report.flows {
        let of = keys.of(flow);
        let mut of = of.iter().filter(|of| rest.contains_key(&of.key)).peekable();
        if of.peek().is_some() {
            let (dropped, lost) = of.fold((0, 0), |(d, l), of| (d + of.dropped, l + of.lost));
            sums.add(flow, dropped, lost);
        }
    }
    Others { groups: rest.len() as u64, sums }
}
