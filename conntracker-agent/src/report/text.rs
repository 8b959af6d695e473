//! The report as text: a comment header, a line for each flow, a comment footer.
//!
//! The lines are those of version 0.1, which scripts search: a flow, and below it the rules that its packets met.
//! Facts that 0.1 did not have follow at the end of a line; `--explain` prints the rest.

pub(super) mod drop;
pub(super) mod explain;
pub(super) mod groups;
pub(super) mod marks;
pub(super) mod trace;

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
};

use self::{explain::Explanation, trace::Trace};
use super::{
    FlowList, Footer, Header, Report,
    line::{Ends, Numbering},
    names::{Names, OneLine, time},
};
use crate::model::{
    ConntrackCause, Drops, Flow, Zone, loss::LossCount, order, other::FlowSums, protocol,
};

/// Indent of the lines below a flow, which aligns them with the addresses.
const INDENT: usize = 32;

/// How much to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Print all other known facts below each flow.
    pub explain: bool,
}

/// Writes the report. `out` should be buffered.
pub fn render<F: FlowList>(
    report: &Report<F>,
    options: &TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let TextOptions { explain } = *options;
    let Header { folded, epochs, .. } = report.header;
    write(report, out, &|flow, names, out| {
        if explain {
            Explanation { flow, folded, names, indent: INDENT }.write(out)?;
        }
        epochs
            .map_or(Ok(()), |epochs| trace::write(flow, Trace { explain, epochs: epochs > 1 }, out))
    })
}

/// Writes what is said below the line of a flow.
type Below<'a> = dyn Fn(&Flow, &Names<'_>, &mut dyn Write) -> io::Result<()> + 'a;

/// Writes the header, a line for each flow with what `below` writes under it, and the footer.
pub(super) fn write<F: FlowList>(
    report: &Report<F>,
    out: &mut dyn Write,
    below: &Below<'_>,
) -> io::Result<()> {
    header(&report.header, out)?;
    let lines = flows(report, below, out)?;
    footer(report, lines, out)
}

/// Values side by side, `-` for none.
fn joined<T: fmt::Display>(
    separator: &str,
    values: impl Iterator<Item = T> + Clone,
) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let mut values = values.clone();
        let Some(first) = values.next() else { return f.write_str("-") };
        first.fmt(f)?;
        values.try_for_each(|value| write!(f, "{separator}{value}"))
    })
}

fn header(header: &Header, out: &mut dyn Write) -> io::Result<()> {
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
    writeln!(out, "# conntracker {version}")?;
    writeln!(out, "# host: {}", OneLine(host))?;
    writeln!(out, "# kernel: {}", OneLine(kernel))?;
    writeln!(out, "# backend: {} ({})", OneLine(backend), OneLine(backend_reason))?;
    let names = namespaces.iter().map(|namespace| OneLine(&namespace.name));
    writeln!(out, "# namespaces: {}", joined(", ", names))?;
    writeln!(out, "# start: {}", time(*start_ns))?;
    writeln!(out, "# end: {}", time(*end_ns))?;
    writeln!(out, "# filters: {}", joined(" ", filters.iter().map(|filter| OneLine(filter))))?;
    let folding = if *folded { "source ports above 1023 print as 1024" } else { "none" };
    writeln!(out, "# folding: {folding}")?;
    match epochs {
        Some(epochs) => writeln!(out, "# epochs: {epochs}")?,
        None => writeln!(out, "# rules: not traced")?,
    }
    notes.iter().try_for_each(|note| writeln!(out, "# note: {}", OneLine(note)))
}

/// Writes the flows and returns the number of their lines, those below them aside.
fn flows<F: FlowList>(
    report: &Report<F>,
    below: &Below<'_>,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let names = Names::new(&report.header);
    let many_namespaces = report.header.namespaces.len() > 1;
    let mut numbering = Numbering::default();
    let mut lines = 0;
    // ICMP identifiers are not printed, nor is the namespace if there is only one.
    let place =
        |flow: &Flow| (many_namespaces.then_some(flow.key.netns), flow.key.zone, !flow.key.entry);
    report.flows.each(&mut |flows| {
        for alike in flows.chunk_by(|a, b| order::same_ends(&a.key, &b.key)) {
            let mut alike: Vec<&Flow> = alike.iter().collect();
            alike.sort_by_key(|flow| place(flow));
            for same_line in alike.chunk_by(|a, b| place(a) == place(b)) {
                let Some(flow) = merged(same_line) else { continue };
                let (netns, zone, _) = place(&flow);
                let tuple = flow.key.orig;
                write!(out, "{} {}{}", numbering.next(&tuple), Ends::from(tuple), flags(&flow))?;
                if let Some(netns) = netns {
                    write!(out, " [netns {}]", names.netns(netns))?;
                }
                if zone != Zone::DEFAULT {
                    write!(out, " [zone {zone}]")?;
                }
                writeln!(out)?;
                lines += 1;
                below(&flow, &names, out)?;
            }
        }
        Ok(())
    })?;
    Ok(lines)
}

/// One flow of several that print the same line.
fn merged<'a>(same_line: &[&'a Flow]) -> Option<Cow<'a, Flow>> {
    let (&first, rest) = same_line.split_first()?;
    let mut all = Cow::Borrowed(first);
    for &flow in rest {
        all.to_mut().merge(flow.clone());
    }
    Some(all)
}

/// What stands in parentheses behind the addresses.
fn flags(flow: &Flow) -> impl fmt::Display {
    let conntrack = flow.drops.as_deref().map(Drops::by_conntrack).unwrap_or_default();
    let conntrack: Vec<&str> = conntrack.into_iter().map(ConntrackCause::name).collect();
    let reasons = flow.drops.as_deref().map(reasons).unwrap_or_default();
    let flags = [
        ("confirmed", flow.confirmed(), &[][..]),
        ("dropped", flow.dropped() && conntrack.is_empty(), &[]),
        ("dropped, conntrack", flow.dropped() && !conntrack.is_empty(), &conntrack),
        ("lost", flow.lost(), &reasons),
        ("no entry", !flow.key.entry, &[]),
        ("fits several flows", flow.fits_several, &[]),
    ];
    let set: Vec<String> = flags
        .into_iter()
        .filter(|&(_, set, _)| set)
        .map(|(flag, _, why)| match why {
            [] => flag.to_owned(),
            why => format!("{flag}: {}", why.join("/")),
        })
        .collect();
    fmt::from_fn(move |f| if set.is_empty() { Ok(()) } else { write!(f, " ({})", set.join(", ")) })
}

/// Reasons of drops by other parts of the kernel, each once.
fn reasons(drops: &Drops) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for reason in drops.lost().filter_map(|at| at.place.cause.elsewhere()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

fn footer<F: FlowList>(report: &Report<F>, lines: u64, out: &mut dyn Write) -> io::Result<()> {
    let Footer { sources, losses, others } = &report.footer;
    let totals = report.totals()?;
    let totals = [
        ("lines", lines),
        ("flows", totals.flows),
        ("no_entry", totals.no_entry),
        ("merged", totals.merged),
        ("confirmed", totals.confirmed),
        ("dropped", totals.dropped),
        ("dropped_packets", totals.dropped_packets),
        ("lost", totals.lost),
        ("lost_packets", totals.lost_packets),
    ];
    writeln!(out, "# totals: {}", counts(totals.into_iter()))?;
    if !others.is_empty() {
        writeln!(out, "# other: {}", sums(others.total()))?;
        for (proto, other) in others.by_protocol() {
            writeln!(out, "# other {}: {}", protocol_name(proto), sums(other))?;
        }
    }
    writeln!(out, "# sources: {}", counts(sources.iter().copied()))?;
    writeln!(out, "# lost: {}", counts(losses.iter().map(|lost| (lost.loss.name(), lost.count))))?;
    for LossCount { loss, count } in losses.iter().filter(|lost| lost.count > 0) {
        writeln!(out, "# warning: {count} {}", loss.sentence())?;
    }
    Ok(())
}

/// A protocol by its name, or by its number.
pub(crate) fn protocol_name(proto: u8) -> impl fmt::Display {
    fmt::from_fn(move |f| match protocol::name(proto) {
        Some(name) => f.write_str(name),
        None => write!(f, "protocol {proto}"),
    })
}

/// Flows that are not listed.
fn sums(other: FlowSums) -> impl fmt::Display {
    let FlowSums { flows, packets, dropped_packets, lost_packets, .. } = other;
    fmt::from_fn(move |f| {
        write!(f, "{flows} flows, {packets} packets, {dropped_packets} drops")?;
        if lost_packets > 0 {
            write!(f, ", {lost_packets} lost")?;
        }
        Ok(())
    })
}

fn counts(counts: impl Iterator<Item = (&'static str, u64)> + Clone) -> impl fmt::Display {
    joined(" ", counts.map(|(name, count)| fmt::from_fn(move |f| write!(f, "{name}={count}"))))
}

#[cfg(test)]
mod tests;
