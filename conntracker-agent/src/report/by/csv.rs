//! Groups as comma-separated values (RFC 4180, but with line feeds alone). Absent values are empty.

use std::io::{self, Write};

use super::{Groups, KeyText, MarkGroup, Sums};
use crate::report::csv::text;

/// The columns. A `kind` is `group` or `others`.
const COLUMNS: &str = "kind,key,flows,conntrack_flows,packets,bytes,reply_packets,reply_bytes,dropped_packets,\
lost_packets,related,parents,set_by";

/// Writes the names of the columns and the groups.
pub(in crate::report) fn render(groups: &Groups<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Vec::new();
    writeln!(lines, "{COLUMNS}")?;
    for group in &groups.listed {
        lines.extend_from_slice(b"group,");
        let key = match group.key {
            KeyText::None => String::new(),
            key => key.to_string(),
        };
        line(&mut lines, &key, &group.sums, group.mark.as_ref())?;
    }
    if let Some(others) = &groups.others {
        lines.extend_from_slice(b"others,");
        line(&mut lines, "", &others.sums, None)?;
    }
    out.write_all(&lines)
}

fn line(out: &mut Vec<u8>, key: &str, sums: &Sums, mark: Option<&MarkGroup<'_>>) -> io::Result<()> {
    let Sums { flows, conntrack_flows, counters, dropped, lost } = sums;
    text(out, key);
    write!(out, ",{flows},{conntrack_flows}")?;
    match counters {
        Some(directions) => directions
            .iter()
            .try_for_each(|counters| write!(out, ",{},{}", counters.packets, counters.bytes))?,
        None => out.extend_from_slice(b",,,,"),
    }
    write!(out, ",{dropped},{lost},")?;
    match mark {
        Some(mark) => {
            write!(out, "{},{},", mark.related, mark.parents())?;
            let setters = mark.set_by();
            let setters: Vec<String> = setters.iter().map(|(by, _)| by.to_string()).collect();
            text(out, setters.join(";").trim_start());
        }
        None => out.extend_from_slice(b",,"),
    }
    out.push(b'\n');
    Ok(())
}
