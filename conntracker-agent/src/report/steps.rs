//! The sites that packets of a flow met, in the order of report lines.

use crate::model::{
    Flow,
    hook::Hook,
    path::{Outcome, Site, SiteKind, Step, Traversal, Verdict},
    table::{Backend, Family},
};

/// iptables' tables, in the order of report lines; all others come after them.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// A site that packets of a flow met.
#[derive(Debug)]
pub struct SiteVisits<'a> {
    /// The site; one of several if they print the same line.
    pub site: &'a Site,
    /// The step of each visit.
    pub visits: Vec<Visit<'a>>,
}

/// One step of one way.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The way.
    pub traversal: &'a Traversal,
    /// The step.
    pub step: &'a Step,
}

impl Visit<'_> {
    /// Whether the packet's way ended there.
    #[must_use]
    pub fn ended(&self) -> bool {
        let Self { traversal, step } = self;
        let last = || {
            let placed = traversal.steps.iter().rfind(|step| step.placed);
            placed.is_some_and(|last| std::ptr::eq(last, *step))
        };
        match step.verdict {
            Verdict::Drop | Verdict::Reject => true,
            Verdict::Queue | Verdict::Stolen | Verdict::Unknown => {
                traversal.outcome == Outcome::Dropped && last()
            }
            _ => false,
        }
    }
}

/// The sites that packets of a flow met, each once. `apart`: sites that differ in anything are separate, such as
/// rules of different epochs with the same position; otherwise sites that print the same line are one.
#[must_use]
pub fn sites_visited(flow: &Flow, apart: bool) -> Vec<SiteVisits<'_>> {
    let mut visits: Vec<Visit<'_>> = flow
        .paths
        .iter()
        .flat_map(|(traversal, _)| {
            traversal.steps.iter().map(move |step| Visit { traversal, step })
        })
        .collect();
    // The sort is stable: visits of one site stay in the order in which they were first seen.
    visits.sort_by(|a, b| line(a).cmp(&line(b)).then_with(|| rule(a).cmp(&rule(b))));
    let same = |a: &Visit<'_>, b: &Visit<'_>| line(a) == line(b) && (!apart || rule(a) == rule(b));
    let mut places: Vec<SiteVisits<'_>> = visits
        .chunk_by(same)
        .filter_map(|visits| {
            let site = &*visits.first()?.step.site;
            Some(SiteVisits { site, visits: visits.to_vec() })
        })
        .collect();
    places.sort_by(|a, b| order(a).cmp(&order(b)));
    places
}

/// The parts of the line of a site. Tables of iptables are printed by their name alone, those of iptables-legacy with
/// a mark.
fn line<'a>(
    visit: &Visit<'a>,
) -> (Option<Family>, Backend, &'a str, &'a str, SiteKind, Option<u32>) {
    let site = &*visit.step.site;
    let family = (!site.iptables).then_some(site.family);
    (family, site.backend, &site.table, &site.chain, site.kind, site.position)
}

/// The identity of rules that print the same line.
fn rule<'a>(visit: &Visit<'a>) -> (Family, Option<u64>, Option<&'a str>) {
    let site = &*visit.step.site;
    (site.family, site.handle, site.text.as_deref())
}

/// By table, hook and chain; within a chain by type and position.
fn order<'a>(
    place: &SiteVisits<'a>,
) -> (usize, Family, &'a str, Backend, Option<Hook>, &'a str, SiteKind, Option<u32>) {
    let SiteVisits { site, visits } = place;
    let known = TABLES.iter().position(|name| site.iptables && site.table == *name);
    let hook = visits.iter().map(|visit| visit.traversal.hook).min();
    let rank = known.unwrap_or(TABLES.len());
    (rank, site.family, &site.table, site.backend, hook, &site.chain, site.kind, site.position)
}
