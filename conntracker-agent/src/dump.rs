//! `conntracker dump`: the flows that conntrack has now, listed once.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    conntrack::DumpStats,
    flow::{Flow, FlowTable, NetnsId, filter::Filter, order},
    messages,
    observe::{
        NetnsChoice,
        assemble::{VERSION, fold, host_and_kernel},
        clock::Clock,
        dumps,
        notes::{HOW_TO_ACTIVATE, Settings},
    },
    output::Destination,
    report::{Footer, Format, Header, Loss, Namespace, Report},
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
    /// What the list looks like.
    pub format: Format,
}

/// Lists the flows on standard output.
pub fn run(dump: &Dump) -> Result<ExitCode> {
    messages::to_stderr();
    let Dump { netns, filter, filter_text, fold: folded, format } = dump;
    let clock = Clock::new()?;
    let start_ns = clock.now();
    let namespaces = netns.open()?;
    let mut table = FlowTable::new(false);
    let mut total = DumpStats::default();
    let mut notes = Vec::new();
    for (id, netns) in (0..).map(NetnsId).zip(&namespaces) {
        let current = table.begin_dump(id, clock.now());
        let stats = dumps::for_each(netns, &dumps::request(filter), |entry| {
            if filter.allows_tuple(&entry.orig, entry.zone) {
                table.dumped(current, &entry, clock.now());
            }
        })?;
        table.end_dump(current);
        total.entries += stats.entries;
        total.rejected += stats.rejected;
        total.interrupted += stats.interrupted;
        notes.extend(Settings::of(netns).ok().and_then(|settings| settings.fullness()));
    }
    if total.entries == 0 && filter_text.is_empty() {
        let note = format!("the conntrack table is empty. If there is traffic: {HOW_TO_ACTIVATE}");
        log::info!("{note}");
        notes.push(note);
    }
    let mut flows: Vec<Flow> =
        table.flows().filter(|flow| filter.allows(flow, |_| None)).cloned().collect();
    if *folded {
        flows = fold(flows);
    }
    order::sort(&mut flows);
    let (host, kernel) = host_and_kernel();
    let report = Report {
        header: Header {
            version: VERSION,
            host,
            kernel,
            backend: "dump".to_owned(),
            backend_reason: "a list of the flows of one moment".to_owned(),
            namespaces: (0..)
                .map(NetnsId)
                .zip(&namespaces)
                .map(|(id, netns)| Namespace {
                    id,
                    name: netns.name.clone(),
                    interfaces: Vec::new(),
                })
                .collect(),
            start_ns,
            end_ns: clock.now(),
            filters: filter_text.clone(),
            folded: *folded,
            epochs: None,
            notes,
        },
        flows,
        footer: Footer {
            sources: vec![("dump_entries", total.entries)],
            losses: dump_losses(total.rejected, total.interrupted),
        },
    };
    for loss in report.footer.losses.iter().filter(|loss| loss.count > 0) {
        log::warn!("{}: {}", loss.count, loss.meaning);
    }
    Destination::Stdout.write(|out| report.render(*format, out))?;
    Ok(ExitCode::SUCCESS)
}

/// What dumps can lose.
pub(crate) fn dump_losses(rejected: u64, interrupted: u64) -> Vec<Loss> {
    vec![
        Loss {
            name: "dump_entries_rejected",
            meaning: "dumped entries that could not be decoded",
            count: rejected,
        },
        Loss {
            name: "dumps_interrupted",
            meaning: "dumps during which the table was resized: entries may be missing or double",
            count: interrupted,
        },
    ]
}
