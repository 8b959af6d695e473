//! From the table to a report: the kernel's last counts, filter, folding, order, totals, losses.

use conntracker_common::counters::Counter;

use super::{Observer, notes};
use crate::{
    bpf::counts::Counters,
    capture::{BackendChoice, tracing::RuleTracer},
    model::{
        NetnsId,
        event::EventKind,
        loss::{Loss, LossCount},
    },
    report::{Footer, Header, Interface, Namespace, Report, assembly::Assembly},
};

/// Version of conntracker, as in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Takes what the report of now is made of. What could not be had for it is the second part; the report says so.
pub(super) fn assemble(observer: &mut Observer) -> (Assembly, Option<anyhow::Error>) {
    let at_ns = observer.clock.since_boot();
    let (backend, mut intake) = observer.intake();
    let failed = backend.take_flow_counts(&mut intake).err();
    intake.event(NetnsId::default(), at_ns, EventKind::Reported);
    let (report, failed) = without_flows(observer, at_ns, failed);
    observer.record_report(&report, at_ns);
    let mut flows = observer.table.snapshot();
    if let Some(owners) = observer.backend.owners() {
        flows.processes().for_each(|process| owners.names().complete(process));
    }
    let filters = vec![observer.config.filter.clone()];
    let fold = observer.config.fold && !observer.config.folds_at_once();
    (Assembly { report, flows, filters, fold, time_of_day: observer.time_of_day }, failed)
}

/// What a report at a time says besides flows. `failed`: what could not be had for it; what fails here is added.
pub(super) fn without_flows(
    observer: &mut Observer,
    at_ns: u64,
    mut failed: Option<anyhow::Error>,
) -> (Report<()>, Option<anyhow::Error>) {
    let time_of_day = observer.clocks();
    let backend = &observer.backend;
    let counters = backend.counters().unwrap_or_else(|error| {
        failed.get_or_insert(error);
        Some(Counters::default())
    });
    let missed = backend.missed().unwrap_or_else(|error| {
        failed.get_or_insert(error);
        None
    });
    let failed = failed.map(|error| error.context("not all could be read for the report"));
    let namespaces = observer
        .namespaces
        .iter()
        .map(|(&id, netns)| Namespace {
            id,
            name: netns.name.clone(),
            interfaces: observer
                .interfaces
                .all(id)
                .map(|(number, index, name)| Interface { number, index, name: name.to_owned() })
                .collect(),
            untraced: observer.backend.rules().map_or_else(Vec::new, |r| r.may_drop(id).to_vec()),
        })
        .collect();
    let seen = notes::Seen {
        flows: !observer.table.is_empty(),
        packets_without_conntrack: counters.map_or(0, |c| c.get(Counter::NoConntrack)),
    };
    let Observer { config, backend, namespaces: all, .. } = &mut *observer;
    let mut notes = notes::now(config, backend, all.values(), seen);
    let counted = observer.namespaces.iter().filter_map(|(id, netns)| {
        Some(notes::in_namespace(netns, &observer.statistics.note(*id, netns)?))
    });
    notes.extend(counted);
    notes.extend(observer.netns_watch.notes());
    let broken = observer.broken.iter().map(|why| format!("the trace ended early: {why}"));
    notes.extend(broken.chain(failed.iter().map(|error| format!("{error:#}"))));
    let (host, kernel) = host_and_kernel();
    let report = Report {
        header: Header {
            version: VERSION,
            host,
            kernel,
            backend: observer.backend.name().to_owned(),
            backend_reason: observer.backend_reason.short.clone(),
            namespaces,
            start_ns: time_of_day.of(observer.start_ns),
            end_ns: time_of_day.of(at_ns),
            filters: observer.config.filter_text.clone(),
            folded: observer.config.fold,
            epochs: observer.backend.rules().map(RuleTracer::epochs),
            notes,
        },
        flows: (),
        footer: footer(observer, counters.as_ref(), missed),
        coverage: match observer.backend.rules() {
            Some(rules) => Ok(rules.coverage(NetnsId(0))),
            None => Err(observer.backend.without_rules().to_owned()),
        },
        untold: untold(observer),
    };
    (report, failed)
}

/// What was to be told and is not, besides what is lost record by record.
pub(super) fn untold(observer: &Observer) -> Vec<String> {
    let Observer { config, backend, backend_reason, netns_watch, broken, .. } = observer;
    let mut untold = Vec::new();
    let netlink = !backend.sees_drops();
    let asked_for = config.backend == BackendChoice::Netlink;
    if netlink && !asked_for {
        untold.push(format!(
            "drops and rules are not seen: backend netlink ({})",
            backend_reason.short
        ));
    }
    match backend.rules() {
        Some(rules) => untold.extend(rules.untraced()),
        None if config.rules.is_some() && !netlink => {
            untold.push(format!("rules are not traced: {}", backend.without_rules()));
        }
        None => {}
    }
    if netns_watch.refused() > 0 {
        untold.push(format!("{} namespaces are not observed", netns_watch.refused()));
    }
    untold.extend(broken.clone());
    untold
}

/// What was lost of the ways that packets took.
fn rule_losses(rules: &RuleTracer, counters: &Counters) -> Vec<LossCount> {
    let get = |counter| counters.get(counter);
    let tally = &rules.tally;
    vec![
        Loss::PathRecordsLost.times(get(Counter::PathLost)),
        Loss::PathRaces.times(get(Counter::PathRaces)),
        Loss::PathFramesLost.times(get(Counter::FramesLost)),
        Loss::PathFramesFull.times(get(Counter::FramesFull)),
        Loss::PathsUnresolved.times(tally.unresolved),
        Loss::PathsContradicting.times(tally.contradictions),
        Loss::PathsNested.times(tally.nested),
        Loss::ProbeCallsMissed.times(get(Counter::CallsMissed)),
        Loss::RulesetRaces.times(tally.races),
        Loss::RulesetsFailed.times(tally.failed),
    ]
}

/// (host name, kernel release), as uname(2) has them.
pub fn host_and_kernel() -> (String, String) {
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    nix::sys::utsname::uname()
        .map(|uname| (text(uname.nodename()), text(uname.release())))
        .unwrap_or_default()
}

/// `missed`: runs of probes that the kernel left out, where there are probes.
pub(super) fn footer(
    observer: &Observer,
    counters: Option<&Counters>,
    missed: Option<u64>,
) -> Footer {
    let tally = &observer.tally;
    let mut sources = vec![
        ("dumps", tally.dumps),
        ("dump_entries", tally.dump_entries),
        ("resyncs", tally.resyncs),
    ];
    let mut losses = vec![
        Loss::DumpEntriesRejected.times(tally.dump_rejected),
        Loss::DumpsInterrupted.times(tally.dump_interrupted),
    ];
    losses.push(Loss::DumpsFailed.times(tally.dump_failed));
    losses.extend([
        Loss::FlowsEvicted.times(observer.table.flows_evicted()),
        Loss::EntriesForgotten.times(observer.table.entries_forgotten()),
        Loss::DropPathsForgotten.times(observer.table.drop_paths_forgotten()),
    ]);
    if let Some(drops) = &observer.drops {
        losses.push(Loss::DropsUnprinted.times(drops.unprinted()));
    }
    if let Some(recorder) = &observer.recorder {
        losses.push(Loss::EventsNotRecorded.times(recorder.lost()));
    }
    if let Some(counters) = counters {
        let get = |counter| counters.get(counter);
        if let Some(missed) = missed {
            losses.push(Loss::ProbeRunsMissed.times(missed));
        }
        sources.extend([
            ("records", tally.records),
            ("new_flows", get(Counter::NewFlows)),
            ("new_flow_records", get(Counter::NewRecords)),
            ("new_flows_folded", get(Counter::NewFolded)),
            ("replies", get(Counter::Replies)),
            ("reply_records", get(Counter::ReplyRecords)),
            // Read before the counts of drops were taken: these may have a few packets more.
            ("drop_packets", tally.drop_packets.max(observer.table.drops_counted())),
            ("drop_records", get(Counter::DropRecords)),
            ("drop_packets_folded", get(Counter::DropFolded)),
            (
                "lost_packets",
                (tally.lost_packets - tally.not_lost.min(tally.lost_packets))
                    .max(observer.table.lost_counted()),
            ),
            ("lost_records", get(Counter::LostRecords)),
            ("lost_packets_folded", get(Counter::LostFolded)),
            ("lost_packets_unknown", get(Counter::LostUnknown)),
            ("packets_without_conntrack", get(Counter::NoConntrack)),
        ]);
        if observer.backend.sees_ends() {
            sources.extend([
                ("flow_ends", get(Counter::Ends)),
                ("end_records", get(Counter::EndRecords)),
            ]);
            losses.push(Loss::EndRecordsLost.times(get(Counter::EndLost)));
        }
        if let Some(rules) = observer.backend.rules() {
            sources.extend([
                ("epochs", rules.epochs()),
                ("rule_links", rules.links() as u64),
                ("traced_packets", get(Counter::TracedPackets)),
                ("path_records", get(Counter::PathRecords)),
                ("paths_folded", get(Counter::PathFolded)),
                ("paths_trusted", get(Counter::PathTrusted)),
            ]);
            losses.extend(rule_losses(rules, counters));
        }
        losses.extend([
            Loss::NewFlowRecordsLost.times(get(Counter::NewLost)),
            Loss::ReplyRecordsLost.times(get(Counter::ReplyLost)),
            Loss::DropRecordsLost.times(get(Counter::DropLost)),
            Loss::LostRecordsLost.times(get(Counter::LostUnsent)),
            Loss::DedupMapFull.times(get(Counter::MapFull)),
            Loss::KernelReadsFailed.times(get(Counter::ReadFailed)),
            Loss::DropsUnknown.times(get(Counter::DropUnknown)),
            Loss::RecordsRejected.times(tally.records_rejected),
            Loss::RecordsForeign.times(tally.records_foreign),
        ]);
        if observer.config.filter.allows_every_tuple() {
            losses.push(
                Loss::DropsUncounted
                    .times(tally.drop_packets.saturating_sub(observer.table.drops_counted())),
            );
            losses.push(Loss::LostUncounted.times(
                tally.lost_packets.saturating_sub(observer.table.lost_counted() + tally.not_lost),
            ));
        }
        if let Some(before) = observer.folded_from
            && observer.config.filter.allows_every_tuple()
        {
            let counted = observer.table.counted_by_kernel();
            losses.push(
                Loss::NewFlowsUncounted
                    .times(get(Counter::NewFlows).saturating_sub(before + counted)),
            );
        }
    } else {
        sources.push(("events", tally.events));
        losses.extend([
            Loss::EventOverruns.times(tally.event_overruns),
            Loss::EventsRejected.times(tally.events_rejected),
            Loss::EventsForeign.times(tally.events_foreign),
        ]);
    }
    Footer { sources, losses, others: observer.table.others().clone() }
}
