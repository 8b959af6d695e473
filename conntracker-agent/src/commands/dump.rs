//! `conntracker dump`: the flows that conntrack has now, listed once. This module makes the classic report, which is
//! folded and sorted; [`list`](crate::commands::table::list) has the formats that are written while the table is
//! read.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;

use crate::{
    capture::{NetnsChoice, dumps},
    commands::table::printer::no_entries,
    conntrack::DumpStats,
    flowtable::FlowTable,
    live::{
        asked,
        assemble::{VERSION, host_and_kernel},
        notes::Settings,
    },
    model::{
        Flow, NetnsId,
        event::{EntrySource, EventKind, FlowEvent},
        filter::Filter,
        loss::Loss,
        order,
        other::OtherFlows,
    },
    os::{clock::Clock, messages, netns::Netns, output::Destination},
    report::{Footer, Format, Header, Namespace, Report, assembly},
};

/// What to list.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Namespaces.
    pub netns: NetnsChoice,
    /// Which flows.
    pub filter: Filter,
    /// The filters as options, for the header.
    pub filter_text: Vec<String>,
    /// Merge flows by their folded key.
    pub fold: bool,
    /// Whether to print all other known facts about each flow.
    pub explain: bool,
}

/// Lists the flows on standard output.
pub fn run(dump: &Dump) -> Result<ExitCode> {
    messages::to_stderr();
    let Dump { netns, filter, filter_text, fold: folded, explain } = dump;
    asked::tell(filter);
    let clock = Clock::new()?;
    let start_ns = clock.now();
    let namespaces = netns.open()?;
    let mut table = FlowTable::new(false, usize::MAX);
    let mut total = DumpStats::default();
    for (id, netns) in (0..).map(NetnsId).zip(&namespaces) {
        let mut event = |kind| table.take(FlowEvent { netns: id, at_ns: clock.now(), kind });
        event(EventKind::DumpBegan);
        let stats = dumps::for_each(netns, &dumps::request(filter), |entry| {
            if filter.allows_tuple(&entry.orig, entry.zone) {
                event(EventKind::Entry(EntrySource::Dump, Box::new(entry)));
            }
        })?;
        event(EventKind::DumpEnded { whole: true });
        total.entries += stats.entries;
        total.rejected += stats.rejected;
        total.interrupted += stats.interrupted;
    }
    let mut notes = fullness(&namespaces);
    if total.entries == 0 && filter_text.is_empty() {
        let note = no_entries();
        log::info!("{note}");
        notes.push(note);
    }
    let mut flows: Vec<Flow> =
        table.snapshot().into_flows().filter(|flow| filter.allows(flow, |_| None)).collect();
    if *folded {
        flows = assembly::fold(flows);
    } else {
        order::sort(&mut flows);
    }
    let header = Header {
        end_ns: clock.now(),
        folded: *folded,
        ..header(&namespaces, start_ns, filter_text.clone(), notes)
    };
    let coverage = Err("a list of the table has no rules".to_owned());
    let report = Report { header, flows, footer: footer(&total), coverage, untold: Vec::new() };
    report.footer.warn();
    let format = Format::Text { explain: *explain };
    Destination::Stdout.write(|out| report.render(format, out))?;
    Ok(ExitCode::SUCCESS)
}

/// The header of a report without an observation.
pub(crate) fn header(
    namespaces: &[Arc<Netns>],
    at_ns: u64,
    filters: Vec<String>,
    notes: Vec<String>,
) -> Header {
    let (host, kernel) = host_and_kernel();
    let namespace = |(id, netns): (NetnsId, &Arc<Netns>)| Namespace {
        id,
        name: netns.name.clone(),
        interfaces: Vec::new(),
        untraced: Vec::new(),
    };
    Header {
        version: VERSION,
        host,
        kernel,
        backend: "dump".to_owned(),
        backend_reason: "a list of the flows of one moment".to_owned(),
        namespaces: (0..).map(NetnsId).zip(namespaces).map(namespace).collect(),
        start_ns: at_ns,
        end_ns: at_ns,
        filters,
        folded: false,
        epochs: None,
        notes,
    }
}

/// The footer of such a list.
pub(crate) fn footer(stats: &DumpStats) -> Footer {
    Footer {
        sources: vec![("dump_entries", stats.entries)],
        losses: vec![
            Loss::DumpEntriesRejected.times(stats.rejected),
            Loss::DumpsInterrupted.times(stats.interrupted),
        ],
        others: OtherFlows::default(),
    }
}

/// Remarks about tables that are full or nearly full.
pub(crate) fn fullness(namespaces: &[Arc<Netns>]) -> Vec<String> {
    namespaces.iter().filter_map(|netns| Settings::of(netns).ok()?.fullness()).collect()
}
