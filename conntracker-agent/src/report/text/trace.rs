//! Trace lines: `table: T, chain: C, type: rule|policy|return, position: N`, below the flow.

use std::{
    fmt::{self, Display},
    io::{self, Write},
};

use super::INDENT;
use crate::{
    model::{
        Flow,
        path::{Direction, Invalidity, SiteKind, Traversal, Verdict},
    },
    report::{
        names::OneLine,
        steps::{SiteVisits, Visit, sites_visited},
    },
};

/// What trace lines say.
#[derive(Clone, Copy)]
pub(super) struct Trace {
    /// How each step is known, and what it did.
    pub explain: bool,
    /// The epochs of explained steps. In a report of one epoch all are of that one.
    pub epochs: bool,
}

/// Writes the lines of a flow.
pub(super) fn write(flow: &Flow, trace: Trace, out: &mut dyn Write) -> io::Result<()> {
    sites_visited(flow, trace.explain).iter().try_for_each(|place| {
        let SiteVisits { site, visits } = place;
        write!(
            out,
            "{:INDENT$}table: {}, chain: {}, type: {}, position: ",
            "",
            OneLine(&site.label()),
            OneLine(&site.chain),
            site.kind.name()
        )?;
        match site.position {
            Some(position) => write!(out, "{position}")?,
            None => write!(out, "-")?,
        }
        if trace.explain {
            explanation(place, flow, trace.epochs, out)?;
        } else {
            // The line of the rule that dropped a packet has the verdict.
            let told = |visit: &&Visit<'_>| site.kind == SiteKind::Chain || visit.ended();
            let verdicts = visits.iter().filter(told).map(|visit| visit.step.verdict.name());
            list("verdict", verdicts, out)?;
        }
        writeln!(out)
    })
}

fn explanation(
    place: &SiteVisits<'_>,
    flow: &Flow,
    epochs: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let SiteVisits { site, visits } = place;
    let ways = || visits.iter().map(|visit| visit.traversal);
    list("handle", site.handle.into_iter(), out)?;
    list("verdict", visits.iter().map(|visit| Shown(&visit.step.verdict)), out)?;
    list("packet mark", ways().filter_map(|way| Change::of(way.packet_mark)), out)?;
    list("connmark", ways().filter_map(|way| Change::of(way.connmark?)), out)?;
    list("provenance", visits.iter().map(|visit| visit.step.provenance.name()), out)?;
    // Most steps are of the original direction, so that alone is not said.
    let replies = ways().any(|way| way.direction == Direction::Reply);
    list("direction", ways().filter(|_| replies).map(|way| way.direction.name()), out)?;
    list("state", ways().map(|way| State::of(way, flow)), out)?;
    list("epoch", ways().filter(|_| epochs).map(|way| way.epoch), out)?;
    list("doubt", ways().filter_map(|way| Some(way.doubt?.name())), out)?;
    // The text is last, because it may have any characters.
    list("rule", site.text.iter().map(|text| crate::model::harmless::one_line(text)), out)
}

/// `, key: value`, with slashes between values, each once; nothing without values.
fn list<T: PartialEq + Display>(
    key: &str,
    values: impl Iterator<Item = T>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut told: Vec<T> = Vec::new();
    for value in values {
        if told.contains(&value) {
            continue;
        }
        let separator = if told.is_empty() { format!(", {key}: ") } else { "/".to_owned() };
        write!(out, "{separator}{value}")?;
        told.push(value);
    }
    Ok(())
}

/// The conntrack state of the packets of a path. Later fragments have no ports that a rule could match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct State {
    name: &'static str,
    invalid: Option<Invalidity>,
    fragment: bool,
}

impl State {
    /// Of packets of a flow.
    pub(in crate::report) fn of(way: &Traversal, flow: &Flow) -> Self {
        let Traversal { state, fragment, .. } = *way;
        Self { name: state.name(), invalid: flow.invalidity(state), fragment }
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.invalid {
            Some(Invalidity::NoEntry) => f.write_str(" (no entry)")?,
            Some(Invalidity::NotAccepted) => f.write_str(" (not accepted by its entry)")?,
            None => {}
        }
        if self.fragment { f.write_str(" fragment") } else { Ok(()) }
    }
}

/// A verdict with the chain that it leads to.
#[derive(PartialEq)]
struct Shown<'a>(&'a Verdict);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        self.0.target().map_or(Ok(()), |chain| write!(f, " {}", OneLine(chain)))
    }
}

/// A mark that is another one afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::report) struct Change {
    before: u32,
    after: u32,
}

impl Change {
    pub(super) fn of((before, after): (u32, u32)) -> Option<Self> {
        (before != after).then_some(Self { before, after })
    }

    /// Before and after.
    pub(in crate::report) fn values(self) -> (u32, u32) {
        (self.before, self.after)
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} -> {:#x}", self.before, self.after)
    }
}
