//! `conntracker rules hits`: which rules the traced packets met, and which none of them did.

mod json;
mod text;

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
};

use super::Format;
use crate::{
    flow::{
        NetnsId,
        path::{Site, SiteKind},
    },
    report::Report,
    ruleset::{
        Ruleset,
        model::{Backend, Chain, Family, Rule, Table},
    },
};

/// Prints how often the rules of a namespace were met by the packets of a report. The ruleset is that
/// at the end of the observation.
///
/// # Errors
/// `out` cannot be written.
pub fn render(
    report: &Report,
    netns: NetnsId,
    ruleset: &Ruleset,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    let hits = Hits::of(report, netns, ruleset);
    match format {
        Format::Text => text::render(&hits, ruleset, out),
        Format::Json => json::render(&hits, report, netns, ruleset, out),
    }
}

/// How often a place was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Flows of which a packet met it.
    flows: u64,
    /// Traced packets that met it, counted at each hook.
    packets: u64,
}

/// Where something stands, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spot<'a> {
    backend: Backend,
    family: Family,
    table: &'a str,
    chain: &'a str,
    what: What<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What<'a> {
    /// A rule of nf_tables, by its handle.
    Handle(u64),
    /// A rule of ip_tables, by its position and text: nothing else tells that it is still the same.
    Numbered(u32, &'a str),
    /// Policy or return.
    End,
}

impl<'a> Spot<'a> {
    fn of_site(site: &'a Site) -> Option<Self> {
        let Site { backend, family, table, chain, kind, position, handle, text, .. } = site;
        let what = match (kind, handle) {
            (SiteKind::Rule, Some(handle)) => What::Handle(*handle),
            (SiteKind::Rule, None) => What::Numbered((*position)?, text.as_deref()?),
            (SiteKind::Policy | SiteKind::Return, _) => What::End,
            // It is not known what was met there.
            (SiteKind::Chain, _) => return None,
        };
        Some(Self { backend: *backend, family: *family, table, chain, what })
    }

    fn of_chain(table: &'a Table, chain: &'a Chain, what: What<'a>) -> Self {
        let Table { backend, family, name, .. } = table;
        Self { backend: *backend, family: *family, table: name, chain: &chain.name, what }
    }

    fn of_rule(table: &'a Table, chain: &'a Chain, rule: &'a Rule) -> Self {
        let what = match rule.handle {
            Some(handle) => What::Handle(handle),
            None => What::Numbered(rule.position, &rule.text),
        };
        Self::of_chain(table, chain, what)
    }
}

/// A report and a ruleset, joined.
struct Hits<'a> {
    counts: HashMap<Spot<'a>, Count>,
    /// Flows and packets that were traced at all.
    traced: Count,
    /// What packets met and the ruleset does not have any more.
    gone: Vec<(&'a Site, Count)>,
}

impl<'a> Hits<'a> {
    fn of(report: &'a Report, netns: NetnsId, ruleset: &'a Ruleset) -> Self {
        let mut this = Self { counts: HashMap::new(), traced: Count::default(), gone: Vec::new() };
        let mut sites: HashMap<Spot<'a>, &'a Site> = HashMap::new();
        for flow in report.flows.iter().filter(|flow| flow.key.netns == netns) {
            let mut met: HashMap<Spot<'a>, u64> = HashMap::new();
            for (traversal, packets) in flow.paths.iter() {
                // A packet can meet a rule twice.
                let mut here = HashSet::new();
                for step in &*traversal.steps {
                    if let Some(spot) = Spot::of_site(&step.site)
                        && here.insert(spot)
                    {
                        *met.entry(spot).or_default() += packets;
                        sites.entry(spot).or_insert(&step.site);
                    }
                }
                this.traced.packets += packets;
            }
            this.traced.flows += u64::from(!flow.paths.is_empty());
            for (spot, packets) in met {
                let count = this.counts.entry(spot).or_default();
                count.flows += 1;
                count.packets += packets;
            }
        }
        for spot in spots(ruleset) {
            sites.remove(&spot);
        }
        this.gone = sites.into_iter().map(|(spot, site)| (site, this.count(spot))).collect();
        this.gone.sort_by_key(|(site, _)| {
            (site.label(), &site.chain, site.position, site.handle, site.text.as_deref())
        });
        this
    }

    fn count(&self, spot: Spot<'_>) -> Count {
        self.counts.get(&spot).copied().unwrap_or_default()
    }

    /// Rules that no traced packet met.
    fn unused(
        &self,
        ruleset: &'a Ruleset,
    ) -> impl Iterator<Item = (&'a Table, &'a Chain, &'a Rule)> {
        rules(ruleset).filter(|&(table, chain, rule)| {
            is_seen(table, rule) && self.count(Spot::of_rule(table, chain, rule)).flows == 0
        })
    }

    /// The number of rules of which it cannot be told whether packets met them.
    fn unknown(&self, ruleset: &'a Ruleset) -> usize {
        let unknown = |&(table, chain, rule): &(_, _, _)| {
            !is_seen(table, rule) && self.count(Spot::of_rule(table, chain, rule)).flows == 0
        };
        rules(ruleset).filter(unknown).count()
    }
}

/// Whether the counter of a rule tells of every packet that matches.
fn is_seen(table: &Table, rule: &Rule) -> bool {
    rule.counts_matches || table.backend == Backend::Legacy
}

fn rules(ruleset: &Ruleset) -> impl Iterator<Item = (&Table, &Chain, &Rule)> {
    ruleset.tables.iter().flat_map(|table| {
        table
            .chains
            .iter()
            .flat_map(move |chain| chain.rules.iter().map(move |rule| (table, chain, rule)))
    })
}

fn spots(ruleset: &Ruleset) -> impl Iterator<Item = Spot<'_>> {
    let chains = ruleset
        .tables
        .iter()
        .flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    let ends = chains.map(|(table, chain)| Spot::of_chain(table, chain, What::End));
    ends.chain(rules(ruleset).map(|(table, chain, rule)| Spot::of_rule(table, chain, rule)))
}

#[cfg(test)]
mod tests;
