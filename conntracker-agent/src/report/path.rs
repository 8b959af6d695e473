//! The paths of each flow's packets, for a person who reads them: below the line of a flow, as the text format has it,
//! direction by direction and hook by hook the steps in the order of evaluation, indented at jumps.
//!
//! ```text
//!     original (packets that were traced)
//!       forward: 7 new packets, DROPPED
//!         inet fw/forward 2    jump      iifname "lan" counter jump from_lan
//!           from_lan 3         jump      tcp dport 5432 counter jump database
//!             database 3       return    end of the chain
//!           from_lan 4         return    end of the chain
//!         inet fw/forward 3    REJECT    counter reject
//! ```

mod equal;
mod rows;
mod style;

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
};

pub(super) use self::equal::{EqualPaths, MarkChange, equal_paths};
pub use self::style::Style;
use self::{
    rows::{Row, same_chain},
    style::Colour,
};
use super::{
    FlowList, Header, OneLine, Report,
    steps::Visit,
    text::{self, explain::Explanation, marks::By},
};
use crate::model::{
    Flow, L4, Tuple,
    harmless::one_line,
    path::{Doubt, Outcome, Provenance, Site, SiteKind, Step, Traversal, Verdict},
};

/// Indents: of what is said of a flow, of its hooks, and of their steps; each chain that a jump leads to adds one.
const FLOW: usize = 4;
const HOOK: usize = 6;
const STEP: usize = 8;
const CHAIN: usize = 2;

/// Columns that chain and position take at most, so that the names of one chain do not move all rules to the right.
pub(crate) const WIDEST: usize = 44;

/// So many translations of equal paths are listed: a folded flow has one for each source port.
const TRANSLATIONS: usize = 3;

/// Writes the report. `out` should be buffered.
pub fn render<F: FlowList>(
    report: &Report<F>,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Header { folded, epochs, .. } = report.header;
    text::write(report, out, &|flow, names, out| {
        Explanation { flow, folded, names, indent: FLOW }.beside_paths(out)?;
        epochs.map_or(Ok(()), |_| paths(flow, style, out))
    })
}

fn paths(flow: &Flow, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if flow.paths.is_empty() {
        return writeln!(out, "{:FLOW$}no packet was traced", "");
    }
    let mut epochs = flow.paths.iter().map(|(path, _)| path.epoch);
    let first = epochs.next();
    let epochs = epochs.any(|epoch| Some(epoch) != first);
    let all = equal_paths(flow);
    let widths = all.iter().flat_map(|equal| {
        let unplaced = unplaced(equal.first).map(|step| chain(&step.site, 0));
        equal.rows.iter().map(|row| chain(&row.step.site, row.depth)).chain(unplaced)
    });
    let width = widths.map(|chain| chain.chars().count()).max().unwrap_or_default().min(WIDEST);
    let layout = Layout { style, width, epochs };
    for one_direction in all.chunk_by(|a, b| a.first.direction == b.first.direction) {
        let direction = one_direction.first().map_or("", |equal| equal.first.direction.name());
        writeln!(out, "{:FLOW$}{direction} (packets that were traced)", "")?;
        one_direction.iter().try_for_each(|equal| layout.write(equal, out))?;
    }
    Ok(())
}

/// How the paths of a flow are laid out.
struct Layout {
    style: Style,
    /// Of the column of chains and positions.
    width: usize,
    /// The flow met several epochs.
    epochs: bool,
}

impl Layout {
    /// A line for the hook, and one for each step and for each change of the packet.
    fn write(&self, equal: &EqualPaths<'_>, out: &mut dyn Write) -> io::Result<()> {
        let EqualPaths { first: path, rows, marks, packets: _, nat: _ } = equal;
        write!(out, "{:HOOK$}{}: {}", "", path.hook.name(), equal.taken_by(self.epochs))?;
        if path.outcome == Outcome::Dropped {
            write!(out, ", {}", self.style.paint(Colour::Red, "DROPPED"))?;
        }
        writeln!(out)?;
        let mut changes: Vec<_> = marks.iter().map(|mark| (after(rows, &mark.2), mark)).collect();
        for (n, row) in rows.iter().enumerate() {
            self.step(row.step, row.depth, path, out)?;
            for (_, mark) in changes.extract_if(.., |(after, _)| *after == Some(n)) {
                writeln!(out, "{:STEP$}{}", "", changed(mark))?;
            }
        }
        let mut unplaced = unplaced(path).peekable();
        if unplaced.peek().is_some() {
            writeln!(out, "{:STEP$}met as well, in an order that is not known:", "")?;
            unplaced.try_for_each(|step| self.step(step, 0, path, out))?;
        }
        let says =
            |out: &mut dyn Write, text: &dyn fmt::Display| writeln!(out, "{:STEP$}{text}", "");
        if let Some(unknown) = unknown_steps(path) {
            says(out, &unknown)?;
        }
        changes.into_iter().try_for_each(|(_, mark)| says(out, &changed(mark)))?;
        translations(equal).iter().try_for_each(|line| says(out, line))?;
        path.doubt.map_or(Ok(()), |doubt| says(out, &doubted(doubt)))
    }

    /// Chain and position, verdict, and what stands there.
    fn step(
        &self,
        step: &Step,
        depth: usize,
        traversal: &Traversal,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let width = self.width;
        write!(out, "{:STEP$}{:width$}  ", "", chain(&step.site, depth))?;
        let Step { site, verdict, provenance, placed: _ } = step;
        let name = verdict.name();
        let blanks = Verdict::Continue.name().len().saturating_sub(name.len());
        // Of a packet that was dropped, capitals are where.
        if (Visit { traversal, step }).ended() {
            write!(out, "{}", self.style.paint(Colour::Red, name.to_ascii_uppercase()))?;
        } else if *verdict == Verdict::Accept {
            write!(out, "{}", self.style.paint(Colour::Green, name))?;
        } else {
            write!(out, "{name}")?;
        }
        write!(out, "{:blanks$}  ", "")?;
        if site.kind == SiteKind::Chain {
            let unknown = "which of its rules the packets met is not known";
            return writeln!(out, "{}", self.style.paint(Colour::Dim, unknown));
        }
        write!(out, "{}", described(site, verdict))?;
        let how = match provenance {
            Provenance::Exact => return writeln!(out),
            how => format!(" ({})", how.name()),
        };
        writeln!(out, "{}", self.style.paint(Colour::Dim, how))
    }
}

/// What stands at a site that is no whole chain, and the chain that its verdict leads to.
pub(crate) fn described(site: &Site, verdict: &Verdict) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        match (site.kind, &site.text) {
            (SiteKind::Policy, _) => f.write_str("policy")?,
            (SiteKind::Return, _) => f.write_str("end of the chain")?,
            (_, Some(text)) => write!(f, "{}", one_line(text))?,
            (_, None) => f.write_str("(no text)")?,
        }
        // Verdict maps lead to many chains, and have no names themselves.
        match verdict.target() {
            Some(target)
                if !site.text.as_deref().is_some_and(|text| {
                    text.strip_suffix(target).is_some_and(|before| before.ends_with(' '))
                }) =>
            {
                write!(f, " -> {}", OneLine(target))
            }
            _ => Ok(()),
        }
    })
}

/// What a reader of the steps must know of them.
pub(super) fn remarks(path: &Traversal) -> Vec<String> {
    let unknown = unknown_steps(path).map(str::to_owned);
    unknown.into_iter().chain(path.doubt.map(|doubt| doubted(doubt).to_string())).collect()
}

/// What is not known of the steps, if the outcome shows that something is not.
fn unknown_steps(path: &Traversal) -> Option<&'static str> {
    if path.steps.is_empty() {
        Some("no step is known")
    } else if path.outcome == Outcome::Dropped && !dropped_by_a_step(path) {
        Some("none of these steps is known to have dropped them")
    } else {
        None
    }
}

fn doubted(doubt: Doubt) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "doubt: {}, {}", doubt.name(), why(doubt)))
}

/// Steps of which only that they were met is known.
pub(super) fn unplaced(path: &Traversal) -> impl Iterator<Item = &Step> {
    path.steps.iter().filter(|step| !step.placed)
}

fn dropped_by_a_step(traversal: &Traversal) -> bool {
    traversal.steps.iter().any(|step| Visit { traversal, step }.ended())
}

/// `inet fw/forward 3` in a base chain, `database 3` in a chain that a jump led to.
pub(crate) fn chain(site: &Site, depth: usize) -> String {
    let table = if depth == 0 { format!("{}/", OneLine(&site.label())) } else { String::new() };
    let position = site.position.map(|position| format!(" {position}")).unwrap_or_default();
    format!("{:indent$}{table}{}{position}", "", OneLine(&site.chain), indent = depth * CHAIN)
}

/// The row behind which a mark had changed: that of the rule, or the last one of the base chain.
pub(super) fn after(rows: &[Row<'_>], by: &By<'_>) -> Option<usize> {
    match by {
        By::Rule(site) => rows.iter().rposition(|row| *row.step.site == **site),
        By::Chain(site) => rows.iter().rposition(|row| same_chain(row.base, site)),
        By::Table(_) | By::Unknown => None,
    }
}

/// What a mark became, and where.
pub(super) fn changed<'a>((kind, change, by): &'a MarkChange<'_>) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        write!(f, "{}: {change}", kind.name())?;
        match by {
            By::Unknown => f.write_str(" at this hook"),
            by => write!(f, "{by}"),
        }
    })
}

/// What became of source and destination, a line for each. The entry's reply direction has them the other way round.
pub(super) fn translations(EqualPaths { nat, .. }: &EqualPaths<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (&(before, after), &packets) in nat.iter().take(TRANSLATIONS) {
        let count = match packets {
            _ if nat.len() == 1 => String::new(),
            1 => " (1 packet)".to_owned(),
            packets => format!(" ({packets} packets)"),
        };
        for (key, end) in [("snat", source as fn(Tuple) -> String), ("dnat", destination)] {
            let (before, after) = (end(before), end(after));
            if before != after {
                lines.push(format!("{key}: {before} -> {after}{count}"));
            }
        }
    }
    if let Some(others @ 1..) = nat.len().checked_sub(TRANSLATIONS) {
        let plural = if others == 1 { "" } else { "s" };
        lines.push(format!("{others} other translation{plural}"));
    }
    lines
}

/// Where the packets of the original direction come from, by the reply tuple.
fn source(reply: Tuple) -> String {
    let Tuple { dst: address, l4, .. } = reply;
    match l4 {
        L4::Ports { dst: port, .. } => SocketAddr::new(address, port).to_string(),
        L4::Icmp { id, .. } => format!("{address} (id={id})"),
        L4::Gre { dst: key, .. } => format!("{address} (key={key})"),
        L4::None => address.to_string(),
    }
}

/// Where they go to.
fn destination(reply: Tuple) -> String {
    let Tuple { src: address, l4, .. } = reply;
    match l4 {
        L4::Ports { src: port, .. } => SocketAddr::new(address, port).to_string(),
        L4::Gre { src: key, .. } => format!("{address} (key={key})"),
        L4::Icmp { .. } | L4::None => address.to_string(),
    }
}

/// Why steps are less exact than they could be.
fn why(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Nested => "another packet ran on the same CPU meanwhile and moved the same counters",
        Doubt::Capped => "the chain has more counters than are read",
        Doubt::Mismatch => "the rules in kernel memory differ from those that are listed",
    }
}

#[cfg(test)]
mod tests;
