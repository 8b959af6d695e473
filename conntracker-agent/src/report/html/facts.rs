//! What the page says besides flows and rules: header, footer, timeline.

use serde::Serialize;

use super::Background;
use crate::{
    model::{harmless::OneLine, loss::LossCount, other::FlowSums, protocol},
    report::{
        Footer, Header, Report, Totals,
        timeline::{Column, Timeline},
    },
};

/// Times are microseconds since the epoch, which JavaScript's numbers have exactly.
#[derive(Serialize)]
pub(super) struct ReportObject {
    version: &'static str,
    host: String,
    kernel: String,
    backend: String,
    backend_reason: String,
    /// Number and name.
    namespaces: Vec<(u32, String)>,
    start: u64,
    end: u64,
    filters: Vec<String>,
    folded: bool,
    /// Number of epochs; `None` where rules are not traced.
    epochs: Option<u64>,
    notes: Vec<String>,
    untold: Vec<String>,
    totals: Totals,
    sources: Vec<(String, u64)>,
    /// Name, count, sentence.
    losses: Vec<(&'static str, u64, &'static str)>,
    others: Vec<Others>,
    timeline: Option<TimelineObject>,
    /// Namespace, number, and when it was first there.
    changes: Vec<(u32, u32, u64)>,
}

/// Flows of a protocol that are not listed.
#[derive(Serialize)]
struct Others {
    protocol: String,
    flows: u64,
    packets: u64,
    dropped: u64,
    lost: u64,
}

#[derive(Serialize)]
struct TimelineObject {
    start: u64,
    width: u64,
    new_flows: Vec<u64>,
    dropped: Vec<u64>,
    lost: Vec<u64>,
}

impl ReportObject {
    pub(super) fn new<F>(report: &Report<F>, totals: Totals, background: &Background) -> Self {
        let Report { header, flows: _, footer, coverage: _, untold } = report;
        let Header {
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces,
            start_ns,
            end_ns,
            filters,
            folded,
            epochs,
            notes,
        } = header;
        let Footer { sources, losses, others } = footer;
        let timeline = background.timeline.as_ref();
        let all = |texts: &[String]| texts.iter().map(|text| clean(text)).collect();
        Self {
            version,
            host: clean(host),
            kernel: clean(kernel),
            backend: clean(backend),
            backend_reason: clean(backend_reason),
            namespaces: namespaces.iter().map(|of| (of.id.0, clean(&of.name))).collect(),
            start: start_ns / 1_000,
            end: end_ns / 1_000,
            filters: all(filters),
            folded: *folded,
            epochs: *epochs,
            notes: all(notes),
            untold: all(untold),
            totals,
            sources: sources.iter().map(|(name, count)| (clean(name), *count)).collect(),
            losses: losses.iter().map(loss).collect(),
            others: others.by_protocol().map(other).collect(),
            timeline: timeline
                .and_then(|of| of.columns().map(|(at, all)| columns(at, of.width_ns(), &all))),
            changes: timeline
                .into_iter()
                .flat_map(Timeline::epochs)
                .map(|(netns, epoch, at)| (netns.0, epoch, at / 1_000))
                .collect(),
        }
    }
}

fn columns(start_ns: u64, width_ns: u64, all: &[Column]) -> TimelineObject {
    let of = |count: fn(&Column) -> u64| all.iter().map(count).collect();
    TimelineObject {
        start: start_ns / 1_000,
        width: width_ns / 1_000,
        new_flows: of(|column| column.new_flows),
        dropped: of(|column| column.dropped),
        lost: of(|column| column.lost),
    }
}

fn loss(LossCount { loss, count }: &LossCount) -> (&'static str, u64, &'static str) {
    (loss.name(), *count, loss.sentence())
}

fn other((proto, sums): (u8, FlowSums)) -> Others {
    let FlowSums { flows, packets, dropped_packets, lost_packets, .. } = sums;
    let protocol = protocol::name(proto).map_or_else(|| format!("protocol {proto}"), str::to_owned);
    Others { protocol, flows, packets, dropped: dropped_packets, lost: lost_packets }
}

pub(super) fn clean(text: &str) -> String {
    OneLine(text).to_string()
}
