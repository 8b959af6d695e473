//! What each format must say of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use conntracker_tests::tracer::report;
use conntracker_tests::tracer::{Flow, L4, Tuple, backend};
use serde_json::Value;

use crate::plan::{Dropped, Row};
use crate::run::Outcome;

/// Fails with the differences of two sets, and nothing else.
pub fn same<T: Ord + Display>(what: &str, got: &BTreeSet<T>, want: &BTreeSet<T>) {
    let mut text = String::new();
    for extra in got.difference(want) {
        let _ = writeln!(text, "  not expected: {extra}");
    }
    for missing in want.difference(got) {
        let _ = writeln!(text, "  missing:      {missing}");
    }
    assert!(text.is_empty(), "{what}\n{text}");
}

/// Rows that a backend reports.
pub fn reported(outcome: &Outcome) -> impl Iterator<Item = &Row> {
    let sees_drops = outcome.backend == backend();
    outcome.plan.iter().filter(move |row| row.tracked || sees_drops)
}

/// Drops that a backend reports.
pub fn drops(outcome: &Outcome, row: &Row) -> Option<Dropped> {
    row.dropped.filter(|_| outcome.backend == backend())
}

/// Drops that a backend reports if it does not trace rules.
pub fn drops_without_rules(outcome: &Outcome, row: &Row) -> Option<Dropped> {
    let dropped = drops(outcome, row)?;
    Some(Dropped { hook: dropped.hook.filter(|_| !dropped.told_by_rules), ..dropped })
}

/// Flows of the plan that get into the conntrack table.
pub fn tracked(outcome: &Outcome) -> BTreeSet<Flow> {
    outcome.plan.iter().filter(|row| row.tracked).map(|row| row.flow).collect()
}

/// A flow with what became of its packets.
pub fn described(flow: &Flow, dropped: Option<&Dropped>) -> String {
    match dropped {
        None => flow.to_string(),
        Some(Dropped { packets, hook, iif, oif, told_by_rules: _ }) => {
            format!("{flow} dropped {packets} at {hook:?}, {iif:?} to {oif:?}")
        }
    }
}

/// The `dropped` of a flow object, which the plan has in one place.
pub fn dropped_of(object: &Value) -> Result<Option<(u64, Vec<Place>)>> {
    let Some(dropped) = object.get("dropped") else { return Ok(None) };
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let places = dropped["places"].as_array().context("no places")?;
    let place =
        |p: &Value| Place { hook: text(p, "hook"), iif: text(p, "in"), oif: text(p, "out") };
    let packets = dropped["packets"].as_u64().context("no packets")?;
    Ok(Some((packets, places.iter().map(place).collect())))
}

/// Where packets died, as JSON has it.
#[derive(Debug)]
pub struct Place {
    pub hook: Option<String>,
    pub iif: Option<String>,
    pub oif: Option<String>,
}

/// A flow object in the words of [`described`].
pub fn describe_object(object: &Value) -> Result<String> {
    let flow = report::flow(object)?;
    let Some((packets, places)) = dropped_of(object)? else { return Ok(described(&flow, None)) };
    Ok(match &places[..] {
        [Place { hook, iif, oif }] => {
            let (hook, iif, oif) = (hook.as_deref(), iif.as_deref(), oif.as_deref());
            format!("{flow} dropped {packets} at {hook:?}, {iif:?} to {oif:?}")
        }
        places => format!("{flow} dropped {packets} at {places:?}"),
    })
}

/// A line of the text report: label, and all after the index.
pub type TextLine = (String, String);

/// The lines of the text report, in their order.
pub fn text_lines(outcome: &Outcome, fold: bool) -> Vec<TextLine> {
    type Key = ((u16, IpAddr, IpAddr), (u16, u16), u16);
    let mut lines: BTreeMap<Key, (Tuple, [bool; 3])> = BTreeMap::new();
    for row in reported(outcome) {
        let orig = if fold { row.flow.orig.folded() } else { row.flow.orig };
        // Identifiers of ICMP do not print.
        let numbers = match orig.l4 {
            L4::Ports(a, b) | L4::Keys(a, b) => (a, b),
            L4::Icmp(kind, code, _) => (kind.into(), code.into()),
            L4::Nothing => (0, 0),
        };
        let key = ((block(&orig), orig.src, orig.dst), numbers, row.flow.zone);
        let (_, [replied, dropped, no_entry]) = lines.entry(key).or_insert((orig, [false; 3]));
        *replied |= row.flow.replied;
        *dropped |= drops(outcome, row).is_some();
        *no_entry |= row.no_entry();
    }
    let line = |((_, _, zone), (orig, flags)): (Key, (Tuple, [bool; 3]))| {
        let flags: Vec<&str> = ["confirmed", "dropped", "no entry"]
            .into_iter()
            .zip(flags)
            .filter_map(|(flag, set)| set.then_some(flag))
            .collect();
        let flags =
            if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(", ")) };
        let zone = if zone == 0 { String::new() } else { format!(" [zone {zone}]") };
        (label(&orig), format!("{}{flags}{zone}", ends(&orig)))
    };
    lines.into_iter().map(line).collect()
}

/// Blocks in the order of the original tool, then the others.
fn block(orig: &Tuple) -> u16 {
    match (orig.proto, orig.src.is_ipv4()) {
        (6, true) => 0,
        (17, true) => 1,
        (1, true) => 2,
        (6, false) => 3,
        (17, false) => 4,
        (58, false) => 5,
        (proto, v4) => 10 + 2 * u16::from(proto) + u16::from(!v4),
    }
}

fn label(orig: &Tuple) -> String {
    let version = if orig.src.is_ipv4() { 4 } else { 6 };
    let name = match orig.proto {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        132 => "SCTP",
        58 => return "ICMPv6".to_owned(),
        number => return format!("P{number}v{version}"),
    };
    format!("{name}v{version}")
}

fn ends(Tuple { src, dst, l4, .. }: &Tuple) -> String {
    match l4 {
        L4::Ports(sport, dport) => {
            format!("src = {src} (port={sport}) to dst = {dst} (port={dport})")
        }
        L4::Icmp(kind, code, _) => {
            format!("src = {src} to dst = {dst} (type={kind} | code={code})")
        }
        L4::Keys(skey, dkey) => format!("src = {src} (key={skey}) to dst = {dst} (key={dkey})"),
        L4::Nothing => format!("src = {src} to dst = {dst}"),
    }
}

/// What `--explain` says of a translated flow's reply direction; `None` where nothing is translated.
pub fn translated_reply(flow: &Flow) -> Option<String> {
    let Tuple { src, dst, l4, .. } = flow.reply.filter(|reply| *reply != flow.orig.turned())?;
    Some(match l4 {
        L4::Ports(sport, dport) => {
            format!("{} -> {}", SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
        }
        L4::Icmp(kind, code, id) => format!("{src} -> {dst} (type={kind} | code={code} | id={id})"),
        other => panic!("no such translation in the plan: {other:?}"),
    })
}
