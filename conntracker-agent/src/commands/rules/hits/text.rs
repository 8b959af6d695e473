//! Hits as text: the ruleset with the flows and packets that met its rules, then the rules that none met.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{Count, Hits, RuleAt, Spot, evidence::Why, spot::What};
use crate::{
    commands::rules::{
        select::select,
        text::{CounterColumns, render_tables},
    },
    firewall::{
        Ruleset,
        model::{Chain, Rule, Table},
    },
    model::harmless::one_line,
};

/// Writes the tables, then the rest as comments. `out` should be buffered.
pub(super) fn render(
    hits: &Hits<'_>,
    notes: &[&String],
    ruleset: &Ruleset,
    out: &mut dyn Write,
) -> io::Result<()> {
    render_tables(&select(&ruleset.tables, None), &Columns(hits), out)?;
    writeln!(out, "# backend: {}", one_line(hits.backend))?;
    let Count { flows, packets } = hits.traced;
    writeln!(out, "# traced: {flows} flows, {packets} packets (counted at each hook)")?;
    let unused: Vec<_> = hits.unused(ruleset).collect();
    writeln!(out, "# rules that none of them matched: {}", unused.len())?;
    for place in unused {
        writeln!(out, "#   {}", name(place))?;
    }
    let mut unknown: BTreeMap<Why, Vec<RuleAt<'_>>> = BTreeMap::new();
    for (place, why) in hits.unknown(ruleset) {
        unknown.entry(why).or_default().push(place);
    }
    for (why, places) in unknown {
        writeln!(out, "# rules of which it cannot be told ({}): {}", why.text(), places.len())?;
        for place @ (table, chain, rule) in places {
            // Whoever moved the counter matched the rule.
            if let Some(packets @ 1..) = hits.evidence.counted(table, chain, rule) {
                writeln!(out, "#   {} (its counter moved by {packets})", name(place))?;
            }
        }
    }
    if !hits.gone.is_empty() {
        writeln!(out, "# met, and not in the ruleset any more: {}", hits.gone.len())?;
    }
    for (site, Count { flows, packets }) in &hits.gone {
        let position = site.position.unwrap_or_default();
        let place = format!("{}/{} {position}", site.label(), site.chain);
        let what = site.text.as_deref().unwrap_or(site.kind.name());
        let (place, what) = (one_line(&place), one_line(what));
        writeln!(out, "#   {place}: {what} (flows {flows}, packets {packets})")?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "# note: {}", one_line(note)))
}

/// `TABLE/CHAIN POSITION: TEXT`.
fn name((table, chain, rule): RuleAt<'_>) -> String {
    let place = format!("{}/{} {}", table.label(), chain.name, rule.position);
    format!("{}: {}", one_line(&place), one_line(&rule.text))
}

/// Columns of flows and packets instead of counters.
struct Columns<'a>(&'a Hits<'a>);

impl CounterColumns for Columns<'_> {
    fn heads(&self) -> [&'static str; 2] {
        ["flows", "packets"]
    }

    fn of_rule(&self, table: &Table, chain: &Chain, rule: &Rule) -> [String; 2] {
        match self.0.count(Spot::of_rule(table, chain, rule)) {
            Count { flows: 0, .. } if self.0.doubt((table, chain, rule)).is_some() => {
                ["?".to_owned(), "?".to_owned()]
            }
            Count { flows, packets } => [flows.to_string(), packets.to_string()],
        }
    }

    fn of_end(&self, table: &Table, chain: &Chain) -> [String; 2] {
        match self.0.count(Spot::of_chain(table, chain, What::End)) {
            Count { flows: 0, .. } => ["-".to_owned(), "-".to_owned()],
            Count { flows, packets } => [flows.to_string(), packets.to_string()],
        }
    }
}
