//! Groups of flows as a table.

use std::io::{self, Write};

use super::{footer, header};
use crate::{
    model::path::Site,
    report::{
        FlowList, Report,
        by::{Group, Groups, KeyText, MarkGroup, Sums},
        names::OneLine,
    },
};

/// The columns before the key, which may be long.
const COLUMNS: [&str; 8] =
    ["flows", "conntrack", "packets", "bytes", "replies", "reply bytes", "dropped", "lost"];

/// Those of connmarks besides.
const OF_MARKS: [&str; 2] = ["related", "parents"];

/// A line: its numbers, and what stands behind them.
struct Row {
    cells: Vec<String>,
    behind: String,
}

/// Writes the header of the report, the groups, and the footer.
pub(in crate::report) fn render<F: FlowList>(
    report: &Report<F>,
    groups: &Groups<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    header(&report.header, out)?;
    write!(out, "# by: {}, sorted by {}", groups.key, groups.sort.name())?;
    match groups.top {
        Some(top) => writeln!(out, ", the first {top}")?,
        None => writeln!(out)?,
    }
    let of_marks = groups.listed.iter().any(|group| group.mark.is_some());
    let marks = if of_marks { &OF_MARKS[..] } else { &[] };
    let heads = COLUMNS.iter().chain(marks).map(|head| (*head).to_owned()).collect();
    let mut rows = vec![Row { cells: heads, behind: groups.key.to_string() }];
    let row = |sums: &Sums, mark: Option<&MarkGroup<'_>>, behind: String| {
        let mut cells = cells(sums);
        if of_marks {
            cells.push(mark.map_or_else(dash, |mark| mark.related.to_string()));
            cells.push(mark.map_or_else(dash, |mark| mark.parents().to_string()));
        }
        Row { cells, behind }
    };
    for group in &groups.listed {
        rows.push(row(&group.sums, group.mark.as_ref(), described(group)));
    }
    if let Some(others) = &groups.others {
        rows.push(row(&others.sums, None, format!("others ({})", others.groups)));
    }
    rows.push(row(&groups.total, None, "total".to_owned()));
    table(&rows, out)?;
    footer(report, report.flows.count() as u64, out)
}

/// The key, with the text of a rule or what set a mark.
fn described(group: &Group<'_>) -> String {
    let mut all = group.key.to_string();
    if let KeyText::Rule(Site { text: Some(text), .. }) = group.key {
        all = format!("{all}: {}", OneLine(text));
    }
    for (by, flows) in group.mark.iter().flat_map(MarkGroup::set_by) {
        let plural = if flows == 1 { "flow" } else { "flows" };
        all = format!("{all}, {flows} {plural} set{by}");
    }
    all
}

fn dash() -> String {
    "-".to_owned()
}

fn cells(sums: &Sums) -> Vec<String> {
    let Sums { flows, conntrack_flows, counters, dropped, lost } = sums;
    let counters = match counters {
        Some([original, reply]) => {
            [original.packets, original.bytes, reply.packets, reply.bytes].map(|n| n.to_string())
        }
        None => [dash(), dash(), dash(), dash()],
    };
    let [packets, bytes, replies, reply_bytes] = counters;
    vec![
        flows.to_string(),
        conntrack_flows.to_string(),
        packets,
        bytes,
        replies,
        reply_bytes,
        dropped.to_string(),
        lost.to_string(),
    ]
}

/// Numbers to the right, each column as wide as its widest cell.
fn table(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let width = |column: usize| rows.iter().map(|row| row.cells[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for Row { cells, behind } in rows {
        for (cell, width) in cells.iter().zip(&widths) {
            write!(out, "{cell:>width$}  ")?;
        }
        writeln!(out, "{behind}")?;
    }
    Ok(())
}
