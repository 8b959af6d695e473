//! Reports: the contents in [`Report`], and the renderers that write them.

pub(crate) mod anonymous;
pub(crate) mod assembly;
pub mod by;
pub mod conntrack;
pub(crate) mod coverage;
pub mod csv;
pub mod drops;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod html;
pub mod json;
mod line;
mod list;
mod names;
pub mod path;
pub(crate) mod recorded;
pub(crate) mod sorter;
mod steps;
pub mod text;
pub mod timeline;
pub mod v01;

use std::io;

use serde::Serialize;

pub use self::list::FlowList;
pub(crate) use self::names::{Name, Names, OneLine, time};
use self::{
    by::{GroupFormat, GroupOptions, Groups, KeptKeys, Keys},
    coverage::Coverage,
    drops::{DropFormat, DropOutput},
    sorter::Sorted,
};
use crate::model::{Drops, Flow, NetnsId, loss::LossCount, other::OtherFlows};

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic report.
    Text {
        /// Whether to print all other known facts about each flow.
        explain: bool,
    },
    /// The paths of each flow's packets, for a person who reads them.
    Path(path::Style),
    /// The bytes of the original tool's version 0.1.
    V01,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A page for a browser.
    Html,
    /// Groups of flows in the place of the flows.
    Groups(GroupOptions, GroupFormat),
}

impl Format {
    /// The same for a terminal, if that shows colours.
    #[must_use]
    pub fn coloured(self, colours: bool) -> Self {
        match self {
            Self::Path(_) if colours => Self::Path(path::Style::Coloured),
            other => other,
        }
    }
}

/// Everything a report says. Flows stand in report order (see [`crate::model::order`]).
#[derive(Clone, Debug)]
pub struct Report<F = Vec<Flow>> {
    /// First lines.
    pub header: Header,
    /// The flows, sorted: in memory, or in a file (`sorter::Sorted`).
    pub flows: F,
    /// Last lines.
    pub footer: Footer,
    /// Coverage of the rules of the first namespace, if it was asked for; or why rules were not traced.
    pub(crate) coverage: Result<Coverage, String>,
    /// What the report was asked for and lacks, besides losses: the backend or the rules that were not available.
    pub untold: Vec<String>,
}

/// A network namespace that was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Index by which flows refer to it.
    pub id: NetnsId,
    /// Name, `-` for the agent's own.
    pub name: String,
    /// Interfaces that the flows refer to.
    pub interfaces: Vec<Interface>,
    /// Base chains at hooks where packets are not traced, which may have dropped some.
    pub untraced: Vec<String>,
}

/// An interface with a name that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Number by which flows refer to it.
    pub number: u32,
    /// The kernel's index.
    pub index: u32,
    /// Its name when packets met it.
    pub name: String,
}

/// What was observed, where, and with what.
#[derive(Clone, Debug)]
pub struct Header {
    /// Version of conntracker.
    pub version: &'static str,
    /// Host name.
    pub host: String,
    /// Kernel release (uname -r).
    pub kernel: String,
    /// `links`, `netlink`, or `dump` for a one-shot list.
    pub backend: String,
    /// Why this backend: one sentence.
    pub backend_reason: String,
    /// Namespaces, by [`NetnsId`].
    pub namespaces: Vec<Namespace>,
    /// Start and end of observation, nanoseconds since the epoch.
    pub start_ns: u64,
    /// See `start_ns`.
    pub end_ns: u64,
    /// The filters as given on the command line; empty for none.
    pub filters: Vec<String>,
    /// Source ports above 1023 and ICMP identifiers are folded.
    pub folded: bool,
    /// Ruleset epochs seen; `None` where rules are not traced.
    pub epochs: Option<u64>,
    /// Remarks that the reader needs: conntrack inactive, accounting off, drops not visible.
    pub notes: Vec<String>,
}

/// Totals and losses.
#[derive(Clone, Debug, Default)]
pub struct Footer {
    /// Counts of what the BPF programs and netlink delivered, by name (records, events, dumped entries …).
    pub sources: Vec<(&'static str, u64)>,
    /// Every loss counter, those at zero too.
    pub losses: Vec<LossCount>,
    /// Flows that are not listed.
    pub others: OtherFlows,
}

impl Footer {
    /// Whether anything at all was lost.
    #[must_use]
    pub fn lost_anything(&self) -> bool {
        self.losses.iter().any(|loss| loss.count > 0)
    }

    /// Says on standard error what was lost.
    pub(crate) fn warn(&self) {
        for LossCount { loss, count } in self.losses.iter().filter(|loss| loss.count > 0) {
            log::warn!("{count}: {}", loss.sentence());
        }
    }
}

/// Totals over the flows of a report; in JSON in this order, by these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Flows of conntrack, folded.
    pub flows: u64,
    /// Lines of packets without a conntrack entry.
    pub no_entry: u64,
    /// Conntrack flows behind them: more where flows were folded.
    pub merged: u64,
    /// Confirmed: packets seen in both directions.
    pub confirmed: u64,
    /// With dropped packets.
    pub dropped: u64,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// Flows with packets that another part of the kernel dropped.
    pub lost: u64,
    /// Packets that got lost there.
    pub lost_packets: u64,
}

impl<F> Report<F> {
    /// The report without its flows, and these.
    pub(crate) fn split(self) -> (Report<()>, F) {
        let Self { header, flows, footer, coverage, untold } = self;
        (Report { header, flows: (), footer, coverage, untold }, flows)
    }

    /// The same with other flows.
    pub(crate) fn with_flows<G>(self, flows: G) -> Report<G> {
        let (Report { header, footer, coverage, untold, .. }, _) = self.split();
        Report { header, flows, footer, coverage, untold }
    }
}

impl Report<Sorted> {
    /// The same with the flows in memory.
    pub(crate) fn in_memory(self) -> anyhow::Result<Report> {
        let (report, flows) = self.split();
        Ok(report.with_flows(flows.into_vec()?))
    }
}

impl<F: FlowList> Report<F> {
    /// Prints the report.
    pub fn render(&self, format: Format, out: &mut dyn io::Write) -> io::Result<()> {
        match format {
            Format::Text { explain } => text::render(self, &text::TextOptions { explain }, out),
            Format::Path(style) => path::render(self, style, out),
            Format::V01 => v01::render(self, out),
            Format::Json => json::render(json::Style::Document, self, out),
            Format::Ndjson => json::render(json::Style::Lines, self, out),
            Format::Html => html::render(self, &html::Background::default(), out),
            Format::Groups(options, format) => self.render_groups(&options, format, out),
        }
    }

    fn render_groups(
        &self,
        options: &GroupOptions,
        format: GroupFormat,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let keys = Keys::new(options.key, &self.header);
        let kept = KeptKeys::default();
        let groups = Groups::of(self, &keys, &kept, options)?;
        match format {
            GroupFormat::Text => text::groups::render(self, &groups, out),
            GroupFormat::Json => json::groups::render(json::Style::Document, self, &groups, out),
            GroupFormat::Ndjson => json::groups::render(json::Style::Lines, self, &groups, out),
            GroupFormat::Csv => by::csv::render(&groups, out),
        }
    }

    /// Counts.
    pub fn totals(&self) -> io::Result<Totals> {
        let mut totals = Totals::default();
        self.flows.each(&mut |flows| {
            totals.add(flows);
            Ok(())
        })?;
        Ok(totals)
    }
}

impl Totals {
    /// Those of flows.
    #[must_use]
    pub fn of(flows: &[Flow]) -> Self {
        let mut totals = Self::default();
        totals.add(flows);
        totals
    }

    fn add(&mut self, flows: &[Flow]) {
        for flow in flows {
            self.flows += u64::from(flow.key.entry);
            self.no_entry += u64::from(!flow.key.entry);
            self.merged += flow.merged();
            self.confirmed += u64::from(flow.confirmed());
            self.dropped += u64::from(flow.dropped());
            self.dropped_packets += flow.drops.as_deref().map_or(0, Drops::packets);
            self.lost += u64::from(flow.lost());
            self.lost_packets += flow.drops.as_deref().map_or(0, Drops::lost_packets);
        }
    }
}

impl DropOutput {
    /// Appends the line.
    pub fn render(&self, format: DropFormat, out: &mut Vec<u8>) -> io::Result<()> {
        match (format, self) {
            (DropFormat::Text, Self::Drop(line)) => text::drop::write(line, out),
            (DropFormat::Text, Self::NotPrinted { at_ns, packets }) => {
                text::drop::not_printed(*at_ns, *packets, out)
            }
            (DropFormat::Ndjson, Self::Drop(line)) => json::drop::write(line, out),
            (DropFormat::Ndjson, Self::NotPrinted { at_ns, packets }) => {
                json::drop::not_printed(*at_ns, *packets, out);
                Ok(())
            }
        }
    }
}
