//! Differences as text, Markdown for a change request, or JSON.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::compare::{Alone, Change, Differences, RuleChange};
use crate::model::harmless::{self, OneLine};

/// Version of the JSON document.
const SCHEMA: &str = "conntracker-diff/1";

/// Flows that appeared or vanished are listed up to so many in text.
const LISTED: usize = 20;

/// What differences look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines.
    #[default]
    Text,
    /// Markdown.
    Markdown,
    /// One JSON document.
    Json,
}

/// One of the two that are compared.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Side {
    pub host: String,
    pub start: String,
    pub end: String,
    pub flows: usize,
    pub notes: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    before: &'a Side,
    after: &'a Side,
    #[serde(flatten)]
    differences: &'a Differences,
}

pub(super) fn render(
    format: Format,
    [before, after]: &[Side; 2],
    found: &Differences,
    out: &mut dyn Write,
) -> io::Result<()> {
    if format == Format::Json {
        harmless::json(out, &Document { schema: SCHEMA, before, after, differences: found })?;
        return writeln!(out);
    }
    let page = Page { markdown: format == Format::Markdown };
    for (name, side) in [("before", before), ("after", after)] {
        let Side { host, start, end, flows, notes } = side;
        page.line(
            out,
            &format_args!("{name}: {}, {start} to {end}, {flows} flows", OneLine(host)),
        )?;
        for note in notes {
            page.line(out, &format_args!("note: {}", OneLine(note)))?;
        }
    }
    let Differences { fates, paths, nat, marks, rules, appeared, vanished, compared } = found;
    page.changes(out, "changes of fate", fates)?;
    page.changes(out, "changed paths", paths)?;
    page.changes(out, "changed translations", nat)?;
    page.changes(out, "changed connmarks", marks)?;
    page.head(out, "rules that packets met on one side alone", rules.len())?;
    for RuleChange { rule, before, after } in rules {
        let what = if *before == 0 { "gained" } else { "lost" };
        page.item(out, &format_args!("{what} {} packets: {rule}", before.max(after)))?;
    }
    page.alone(out, "flows that appeared", appeared)?;
    page.alone(out, "flows that vanished", vanished)?;
    page.line(out, &format_args!("{compared} flows are on both sides"))
}

struct Page {
    markdown: bool,
}

impl Page {
    fn line(&self, out: &mut dyn Write, text: &dyn fmt::Display) -> io::Result<()> {
        if self.markdown { writeln!(out, "{}\n", Escaped(text)) } else { writeln!(out, "# {text}") }
    }

    fn head(&self, out: &mut dyn Write, what: &str, count: usize) -> io::Result<()> {
        match (self.markdown, count) {
            (true, 0) => Ok(()),
            (true, _) => writeln!(out, "\n### {count} {what}\n"),
            (false, _) => writeln!(out, "{what}: {count}"),
        }
    }

    fn item(&self, out: &mut dyn Write, text: &dyn fmt::Display) -> io::Result<()> {
        if self.markdown { writeln!(out, "- {}", Escaped(text)) } else { writeln!(out, "  {text}") }
    }

    fn changes(&self, out: &mut dyn Write, what: &str, changes: &[Change]) -> io::Result<()> {
        self.head(out, what, changes.len())?;
        for Change { flow, at, before, after, before_by, after_by } in changes {
            let at = at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
            let by = |by: &Option<String>| {
                by.as_ref().map_or_else(String::new, |by| format!(" by {by}"))
            };
            self.item(
                out,
                &format_args!(
                    "{}{at}: {before}{}; now {after}{}",
                    flow,
                    by(before_by),
                    by(after_by)
                ),
            )?;
        }
        Ok(())
    }

    fn alone(&self, out: &mut dyn Write, what: &str, alone: &Alone) -> io::Result<()> {
        let Alone { flows, conntrack_flows, expected } = alone;
        let text = format!(
            "{what} ({conntrack_flows} conntrack flows; {expected:.0} are to be expected between two samples of the same traffic)"
        );
        self.head(out, &text, flows.len())?;
        for flow in flows.iter().take(LISTED) {
            self.item(out, flow)?;
        }
        if flows.len() > LISTED {
            self.item(
                out,
                &format_args!("and {} more (all of them in JSON)", flows.len() - LISTED),
            )?;
        }
        Ok(())
    }
}

/// Text in which Markdown finds nothing to do.
struct Escaped<'a>(&'a dyn fmt::Display);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '&' => f.write_str("&amp;")?,
                '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' => write!(f, "\\{c}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
