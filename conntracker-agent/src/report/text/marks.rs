//! Changes of marks: the values, the chain, and the rule, as far as they are known.

use std::fmt::{self, Display};

use super::trace::{Change, State};
use crate::{
    model::{
        Flow,
        hook::Hook,
        path::{Direction, Provenance, Site, SiteKind, Step, Traversal, Verdict},
    },
    report::names::OneLine,
};

/// A mark.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::report) enum Kind {
    /// Of the connection.
    Connmark,
    /// Of the packet.
    Packet,
}

impl Kind {
    /// Its name in reports.
    pub(in crate::report) fn name(self) -> &'static str {
        match self {
            Self::Connmark => "connmark",
            Self::Packet => "packet mark",
        }
    }

    fn of(self, way: &Traversal) -> Option<Change> {
        match self {
            Self::Connmark => Change::of(way.connmark?),
            Self::Packet => Change::of(way.packet_mark),
        }
    }

    /// Whether a rule can set the mark, by its text as nft or iptables-save writes it. In doubt it can.
    fn is_set_by(self, rule: &str) -> bool {
        let has = |words: &[&str]| words.iter().any(|words| rule.contains(words));
        // A program that reads a queue may change any mark.
        has(&["QUEUE", "queue", "xt target"])
            || match self {
                Self::Connmark => {
                    has(&["ct mark set"]) || (has(&["CONNMARK"]) && !has(&["--restore-mark"]))
                }
                Self::Packet => has(&[
                    "meta mark set",
                    "-j MARK",
                    "HMARK",
                    "TPROXY",
                    "--map-mark",
                    "--restore-mark",
                    "--restore-skmark",
                ]),
            }
    }
}

/// A change of a mark.
#[derive(PartialEq)]
pub(super) struct Marked<'a> {
    change: Change,
    hook: Hook,
    direction: Direction,
    state: State,
    by: By<'a>,
}

/// The rule or chain that changed a mark, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::report) enum By<'a> {
    Rule(&'a Site),
    /// One of its rules, or of the chains that they lead to.
    Chain(&'a Site),
    Table(&'a Site),
    Unknown,
}

/// The changes of a mark on the paths of a flow, each once.
pub(super) fn changes(flow: &Flow, kind: Kind) -> Vec<Marked<'_>> {
    let mut all: Vec<Marked<'_>> = Vec::new();
    for (way, _) in flow.paths.iter() {
        for (change, by) in changes_on(way, kind) {
            let marked = Marked {
                change,
                hook: way.hook,
                direction: way.direction,
                state: State::of(way, flow),
                by,
            };
            if !all.contains(&marked) {
                all.push(marked);
            }
        }
    }
    all
}

/// The changes on one path: a single one, or one for each part of the hook between two links.
pub(in crate::report) fn changes_on(way: &Traversal, kind: Kind) -> Vec<(Change, By<'_>)> {
    let Some(whole) = kind.of(way) else { return Vec::new() };
    let mut parts = parts(way, kind);
    match parts.as_mut_slice() {
        [] => vec![(whole, by(way, kind))],
        [(_, part)] => {
            if let whole @ (By::Rule(_) | By::Chain(_)) = by(way, kind) {
                *part = whole;
            }
            parts
        }
        _ => parts,
    }
}

/// The changes between base chains, which links saw. Behind the last link the chain is unknown.
fn parts(way: &Traversal, kind: Kind) -> Vec<(Change, By<'_>)> {
    let of = |packet: u32, connection: u32| match kind {
        Kind::Packet => packet,
        Kind::Connmark => connection,
    };
    let connmark = way.connmark.unwrap_or_default();
    let mut before = of(way.packet_mark.0, connmark.0);
    let mut parts = Vec::new();
    for behind in way.marks.iter() {
        let after = of(behind.packet, behind.connection);
        let by = if behind.alone { By::Chain(&behind.chain) } else { By::Unknown };
        parts.extend(Change::of((before, after)).map(|change| (change, by)));
        before = after;
    }
    if !way.marks.is_empty() {
        let after = of(way.packet_mark.1, connmark.1);
        parts.extend(Change::of((before, after)).map(|change| (change, By::Unknown)));
    }
    parts
}

fn by(way: &Traversal, kind: Kind) -> By<'_> {
    let steps = || way.steps.iter();
    // A rule that continues and has no counter leaves no step. Rules of iptables all have counters.
    let all_told = way.doubt.is_none()
        && steps().all(|step| step.site.iptables && step.provenance == Provenance::Exact);
    let sets = |step: &&Step| step.site.text.as_deref().is_some_and(|text| kind.is_set_by(text));
    let mut setters = steps().filter(sets);
    if let (true, Some(step), None) = (all_told, setters.next(), setters.next()) {
        return By::Rule(&step.site);
    }
    // A packet gets one verdict in each base chain.
    let mut deciders = steps().filter(|step| decides(step));
    match (deciders.next(), deciders.next()) {
        (Some(step), None) if is_of_base(step) => By::Chain(&step.site),
        (Some(step), None) => By::Table(&step.site),
        _ => By::Unknown,
    }
}

fn is_of_base(step: &Step) -> bool {
    matches!(step.site.kind, SiteKind::Policy | SiteKind::Chain)
}

/// Whether a step ends the path through a base chain, or may.
fn decides(step: &Step) -> bool {
    use Verdict::{Accept, Drop, Queue, Reject, Stolen, Unknown};
    is_of_base(step) || matches!(step.verdict, Accept | Drop | Queue | Reject | Stolen | Unknown)
}

impl Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, hook, direction, state, by } = self;
        write!(f, "{change} set at {} ({}, {state}){by}", hook.name(), direction.name())
    }
}

impl Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(site) => {
                let position = site.position.unwrap_or_default();
                let (label, chain) = (site.label(), OneLine(&site.chain));
                write!(f, " by rule {position} of {}/{chain}", OneLine(&label))
            }
            Self::Chain(site) => {
                write!(f, " in {}/{}", OneLine(&site.label()), OneLine(&site.chain))
            }
            Self::Table(site) => write!(f, " in {}", OneLine(&site.label())),
            Self::Unknown => Ok(()),
        }
    }
}
