//! Hits as JSON. docs/rules.md describes the objects, so a change here needs one there.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    Count, Hits, RuleAt, Spot,
    evidence::{Why, losses},
    spot::What,
};
use crate::{
    commands::rules::listed::ListedRule,
    firewall::{
        Ruleset, Skipped,
        model::{Base, Chain, Rule, Table},
    },
    model::{
        NetnsId, harmless,
        table::{Backend, Family},
    },
    report::{Name, Names, Report, time},
};

/// Name and version of the format; the version grows as that of the report does (docs/schema.md).
const SCHEMA: &str = "conntracker-hits/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    netns: Name<'a>,
    backend: &'a str,
    start: String,
    end: String,
    flows: u64,
    packets: u64,
    tables: Vec<TableObject<'a>>,
    unused: Vec<ListedRule<'a>>,
    unknown: Vec<UnknownObject<'a>>,
    gone: Vec<GoneObject<'a>>,
    lost: BTreeMap<&'static str, u64>,
    notes: &'a [&'a String],
    skipped: &'a Skipped,
}

#[derive(Serialize)]
struct TableObject<'a> {
    table: Cow<'a, str>,
    family: Family,
    name: &'a str,
    backend: Backend,
    iptables: bool,
    chains: Vec<ChainObject<'a>>,
}

#[derive(Serialize)]
struct ChainObject<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<&'a Base>,
    rules: Vec<RuleObject<'a>>,
    end: EndObject,
}

#[derive(Serialize)]
struct RuleObject<'a> {
    position: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    text: &'a str,
    all_seen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<u64>,
    flows: u64,
    packets: u64,
}

/// What happens after the last rule.
#[derive(Serialize)]
struct EndObject {
    #[serde(rename = "type")]
    kind: &'static str,
    position: u32,
    flows: u64,
    packets: u64,
}

/// A rule that packets may have met.
#[derive(Serialize)]
struct UnknownObject<'a> {
    #[serde(flatten)]
    place: ListedRule<'a>,
    why: Why,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<u64>,
}

#[derive(Serialize)]
struct GoneObject<'a> {
    #[serde(flatten)]
    place: ListedRule<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    flows: u64,
    packets: u64,
}

/// Writes one document. `out` should be buffered.
pub(super) fn render(
    hits: &Hits<'_>,
    report: &Report,
    netns: NetnsId,
    notes: &[&String],
    ruleset: &Ruleset,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Ruleset { tables, skipped, notes: _, unread: _, printed: _, objects: _ } = ruleset;
    let Count { flows, packets } = hits.traced;
    let document = Document {
        schema: SCHEMA,
        netns: Names::new(&report.header).netns(netns),
        backend: hits.backend,
        start: time(report.header.start_ns).to_string(),
        end: time(report.header.end_ns).to_string(),
        flows,
        packets,
        tables: tables.iter().map(|table| table_object(hits, table)).collect(),
        unused: hits.unused(ruleset).map(site_object).collect(),
        unknown: hits.unknown(ruleset).map(|found| unknown_object(hits, found)).collect(),
        gone: gone_objects(hits).collect(),
        lost: losses(&report.footer).map(|lost| (lost.loss.name(), lost.count)).collect(),
        notes,
        skipped,
    };
    harmless::json(&mut *out, &document)?;
    out.write_all(b"\n")
}

fn table_object<'a>(hits: &Hits<'_>, table: &'a Table) -> TableObject<'a> {
    TableObject {
        table: table.label(),
        family: table.family,
        name: &table.name,
        backend: table.backend,
        iptables: table.iptables,
        chains: table.chains.iter().map(|chain| chain_object(hits, table, chain)).collect(),
    }
}

fn chain_object<'a>(hits: &Hits<'_>, table: &Table, chain: &'a Chain) -> ChainObject<'a> {
    let rule = |rule: &'a Rule| {
        let Count { flows, packets } = hits.count(Spot::of_rule(table, chain, rule));
        RuleObject {
            position: rule.position,
            handle: rule.handle,
            text: &rule.text,
            all_seen: hits.evidence.doubt(table, chain, rule).is_none(),
            counted: hits.evidence.counted(table, chain, rule),
            flows,
            packets,
        }
    };
    let Count { flows, packets } = hits.count(Spot::of_chain(table, chain, What::End));
    ChainObject {
        name: &chain.name,
        base: chain.base.as_ref(),
        rules: chain.rules.iter().map(rule).collect(),
        end: EndObject {
            kind: if chain.base.is_some() { "policy" } else { "return" },
            position: chain.end_position(),
            flows,
            packets,
        },
    }
}

fn site_object((table, chain, rule): RuleAt<'_>) -> ListedRule<'_> {
    ListedRule {
        table: table.label(),
        chain: &chain.name,
        position: Some(rule.position),
        handle: rule.handle,
        text: Some(&rule.text),
    }
}

fn unknown_object<'a>(hits: &Hits<'_>, (place, why): (RuleAt<'a>, Why)) -> UnknownObject<'a> {
    let (table, chain, rule) = place;
    let counted = hits.evidence.counted(table, chain, rule);
    UnknownObject { place: site_object(place), why, counted }
}

fn gone_objects<'a>(hits: &Hits<'a>) -> impl Iterator<Item = GoneObject<'a>> {
    hits.gone.iter().map(|&(site, Count { flows, packets })| GoneObject {
        place: ListedRule {
            table: site.label(),
            chain: &site.chain,
            position: site.position,
            handle: site.handle,
            text: site.text.as_deref(),
        },
        kind: site.kind.name(),
        flows,
        packets,
    })
}
