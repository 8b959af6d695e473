//! Flows added up.

use super::{keys::KeyText, marks::MarkGroup};
use crate::model::{Flow, counters::Counters};

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
    pub fn add(&mut self, flow: &Flow, dropped: u64, lost: u64) {
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
