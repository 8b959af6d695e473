//! Which flows of a report are printed, and in which order.

use std::rc::Rc;

use anyhow::Result;

use crate::{
    model::{Flow, L4, Status, counters::Counters},
    report::{
        FlowList, Report,
        assembly::in_order,
        sorter::{Order, Sorted, Sorter},
    },
};

/// Order of the flows, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Bytes of both directions.
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Packets that netfilter dropped.
    Drops,
    /// Packets that got lost elsewhere.
    Lost,
    /// Conntrack flows.
    Flows,
    /// When they began.
    First,
    /// When something was seen last.
    Last,
    /// From the first to the last packet seen.
    Duration,
}

impl Sort {
    fn key(self, flow: &Flow) -> u64 {
        let both = |of: fn(&Counters) -> u64| flow.counters.iter().flatten().map(of).sum();
        match self {
            Self::Bytes => both(|counters| counters.bytes),
            Self::Packets => both(|counters| counters.packets),
            Self::Drops => flow.drops.as_ref().map_or(0, |drops| drops.packets()),
            Self::Lost => flow.drops.as_ref().map_or(0, |drops| drops.lost_packets()),
            Self::Flows => flow.merged(),
            Self::First => flow.first_ns,
            Self::Last => flow.last_ns,
            Self::Duration => flow.last_ns.saturating_sub(flow.first_ns),
        }
    }
}

/// The flows of a report that `keep` says yes of, in an order.
fn select(
    report: Report<Sorted>,
    order: Order,
    in_memory: usize,
    keep: impl Fn(&Flow) -> bool,
) -> Result<Report<Sorted>> {
    let mut sorter = Sorter::new(order, in_memory);
    let (report, flows) = report.split();
    flows.drain(|flow| if keep(&flow) { sorter.push(flow) } else { Ok(()) })?;
    Ok(report.with_flows(sorter.finish()?))
}

/// The flows in another order; equal ones stay in that of a report.
pub(super) fn sorted(
    report: Report<Sorted>,
    in_memory: usize,
    sort: Sort,
) -> Result<Report<Sorted>> {
    let order: Order = Rc::new(move |a, b| sort.key(b).cmp(&sort.key(a)));
    select(report, order, in_memory, |_| true)
}

/// The flows whose source was translated to a port at a time (nanoseconds since the epoch).
pub(super) fn with_nat_port(
    mut report: Report<Sorted>,
    in_memory: usize,
    port: u16,
    at_ns: u64,
) -> Result<Report<Sorted>> {
    if report.header.folded {
        report.header.notes.push(
            "flows are folded: of those of one line the translation of the first is known; record with --no-fold"
                .to_owned(),
        );
    }
    select(report, in_order(), in_memory, |flow| has_nat_port(flow, port, at_ns))
}

/// The first flows, and a note of how many others there are.
pub(super) fn first(report: Report<Sorted>, top: usize) -> Result<Report<Sorted>> {
    let left_out = report.flows.count().saturating_sub(top);
    if left_out == 0 {
        return Ok(report);
    }
    let (report, flows) = report.split();
    let mut report = report.with_flows(flows.first(top)?);
    report.header.notes.push(format!("{left_out} more flows are not listed (--top {top})"));
    Ok(report)
}

fn has_nat_port(flow: &Flow, port: u16, at_ns: u64) -> bool {
    let translated = flow.status.contains(Status::SRC_NAT)
        && flow.reply.is_some_and(|reply| matches!(reply.l4, L4::Ports { dst, .. } if dst == port));
    let timeout = flow.timeout.map(|seconds| u64::from(seconds) * 1_000_000_000);
    let timed_out = timeout.is_some_and(|timeout| flow.last_ns.saturating_add(timeout) < at_ns);
    translated && flow.ended == 0 && !timed_out
}
