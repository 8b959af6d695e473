//! `conntracker rules hits`: which rules the traced packets met, and which none of them did.

mod evidence;
mod json;
mod spot;
mod text;

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
};

pub(super) use self::evidence::OF_ALL_RULES;
pub use self::evidence::incomplete;
use self::{
    evidence::{Evidence, Why},
    spot::{Spot, rules, spots},
};
use super::Format;
use crate::{
    firewall::{
        Ruleset,
        model::{Chain, Rule, Table},
    },
    model::{NetnsId, path::Site},
    report::Report,
};

/// Prints how often the packets of a report met the rules of a namespace. The rulesets are those at the beginning and
/// at the end of the observation.
///
/// # Errors
/// `out` cannot be written.
pub fn render(
    report: &Report,
    netns: NetnsId,
    (before, ruleset): (&Ruleset, &Ruleset),
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    let hits = Hits::of(report, netns, (before, ruleset));
    let mut notes: Vec<&String> = ruleset.all_notes().collect();
    if let Ok(coverage) = &report.coverage {
        let of_ruleset = notes.clone();
        notes.extend(coverage.notes.iter().filter(|note| !of_ruleset.contains(note)));
    }
    match format {
        Format::Text => text::render(&hits, &notes, ruleset, out),
        Format::Json => json::render(&hits, report, netns, &notes, ruleset, out),
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

/// A report and a ruleset, joined.
struct Hits<'a> {
    counts: HashMap<Spot<'a>, Count>,
    /// All flows and packets that were traced.
    traced: Count,
    /// Rules that packets met and that the ruleset has no more.
    gone: Vec<(&'a Site, Count)>,
    evidence: Evidence<'a>,
    /// What saw the packets.
    backend: &'a str,
}

/// A rule, and where it stands.
type RuleAt<'a> = (&'a Table, &'a Chain, &'a Rule);

impl<'a> Hits<'a> {
    fn of(
        report: &'a Report,
        netns: NetnsId,
        (before, ruleset): (&'a Ruleset, &'a Ruleset),
    ) -> Self {
        let mut this = Self {
            counts: HashMap::new(),
            traced: Count::default(),
            gone: Vec::new(),
            evidence: Evidence::of(report, before),
            backend: &report.header.backend,
        };
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

    /// Why an unseen packet may have matched a rule; `None` if none can, or if one was seen.
    fn doubt(&self, (table, chain, rule): RuleAt<'_>) -> Option<Why> {
        let met = self.count(Spot::of_rule(table, chain, rule)).flows > 0;
        if met { None } else { self.evidence.doubt(table, chain, rule) }
    }

    /// Rules that no traced packet met.
    fn unused(&self, ruleset: &'a Ruleset) -> impl Iterator<Item = RuleAt<'a>> {
        rules(ruleset).filter(|&(table, chain, rule)| {
            self.count(Spot::of_rule(table, chain, rule)).flows == 0
                && self.evidence.doubt(table, chain, rule).is_none()
        })
    }

    /// Rules without a seen match that an unseen packet may have matched, with the reason.
    fn unknown(&self, ruleset: &'a Ruleset) -> impl Iterator<Item = (RuleAt<'a>, Why)> {
        rules(ruleset).filter_map(|place| Some((place, self.doubt(place)?)))
    }
}

#[cfg(test)]
mod tests;
