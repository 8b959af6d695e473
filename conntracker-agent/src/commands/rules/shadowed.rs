//! `conntracker rules shadowed`: rules that no packet can meet, each with its proof or a packet that meets it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    Format,
    listed::{Listed, RuleObject, named},
    origin::{Loaded, Origin},
    packet::PacketObject,
};
use crate::{
    firewall::analyse::{
        reading::RuleAt,
        shadowed::{Finding, Proof, Unproved, Witness, shadowed},
    },
    model::{harmless, path::Site},
    os::{messages, output::Destination},
};

/// Name and version of the format.
const SCHEMA: &str = "conntracker-shadowed/1";

/// What an answer hangs on, printed with it.
const LIMITS: &str = "sets and maps as they are now; packets of IP whose headers are whole; other packets of a flow \
                      and other hooks are not looked at";

/// What to look at.
pub struct Shadowed {
    /// Where the rules come from.
    pub origin: Origin,
    /// Only this table, or only this chain of it.
    pub only: Option<String>,
    /// Rules that packets meet are listed, too.
    pub all: bool,
    /// Format.
    pub format: Format,
}

/// Writes what is known of each rule.
///
/// # Errors
/// The rules cannot be read, or there is no such table or chain.
pub fn run(asked: &Shadowed) -> Result<ExitCode> {
    messages::to_stderr();
    let loaded = asked.origin.load()?;
    let Loaded { rules, firewall, routes, .. } = &loaded;
    let listed = Listed::new(rules, firewall, asked.only.as_deref()).with_context(|| {
        format!("no table or chain `{}`", asked.only.as_deref().unwrap_or_default())
    })?;
    let found: Vec<(Site, RuleAt, Finding)> = shadowed(firewall, routes)
        .into_iter()
        .filter_map(|(at, finding)| Some((listed.site(at)?, at, finding)))
        .collect();
    Destination::Stdout.write(|out| match asked.format {
        Format::Text => text(&loaded, &listed, &found, asked.all, out),
        Format::Json => json(&loaded, &listed, &found, out),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Rules by what is known of them.
#[derive(Default, Serialize)]
struct Sums {
    rules: usize,
    proved: usize,
    reachable: usize,
    not_proved: usize,
}

impl Sums {
    fn of(found: &[(Site, RuleAt, Finding)]) -> Self {
        let mut sums = Self { rules: found.len(), ..Self::default() };
        for (.., finding) in found {
            *match finding {
                Finding::Proved(_) => &mut sums.proved,
                Finding::Reachable(_) => &mut sums.reachable,
                Finding::NotProved(_) => &mut sums.not_proved,
            } += 1;
        }
        sums
    }
}

fn why(unproved: Unproved) -> &'static str {
    match unproved {
        Unproved::Budget => "the budget of comparisons was used up",
        Unproved::NoWitness => "no packet was found that meets it, and no proof that none does",
        Unproved::NoHook => "packets of IP do not come to its chain",
    }
}

fn text(
    loaded: &Loaded,
    listed: &Listed<'_>,
    found: &[(Site, RuleAt, Finding)],
    all: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (site, (chain, _), finding) in found {
        if matches!(finding, Finding::Reachable(_)) && !all {
            continue;
        }
        writeln!(out, "{}", named(site))?;
        match finding {
            Finding::Proved(Proof::Covered(by)) => {
                let word = if by.len() == 1 { "this one takes" } else { "these together take" };
                writeln!(out, "  proved: no packet meets it, {word} them before:")?;
                for site in by.iter().filter_map(|index| listed.site((*chain, *index))) {
                    writeln!(out, "    {}", named(&site))?;
                }
            }
            Finding::Proved(Proof::NoPacket) => {
                writeln!(
                    out,
                    "  proved: no packet that comes to its chain fulfils its conditions"
                )?;
            }
            Finding::Proved(Proof::NotCalled) => {
                writeln!(out, "  proved: no rule and no element of a map leads to its chain")?;
            }
            Finding::Reachable(Witness { packet, open, .. }) => {
                write!(out, "  reachable: {}", PacketObject::of(packet).text())?;
                if open.is_empty() { writeln!(out)? } else { writeln!(out, " (perhaps: {open})")? }
            }
            Finding::NotProved(unproved) => writeln!(out, "  not proved: {}", why(*unproved))?,
        }
    }
    let Sums { rules, proved, reachable, not_proved } = Sums::of(found);
    writeln!(out, "# rules of {}: {rules}", harmless::OneLine(&loaded.name))?;
    writeln!(out, "# proved: {proved}, reachable: {reachable}, not proved: {not_proved}")?;
    writeln!(out, "# limits: {LIMITS}")?;
    loaded.notes.iter().try_for_each(|note| writeln!(out, "# note: {}", harmless::one_line(note)))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    origin: &'a str,
    sums: Sums,
    rules: Vec<FindingObject<'a>>,
    limits: &'static str,
    notes: &'a [String],
}

#[derive(Serialize)]
struct FindingObject<'a> {
    #[serde(flatten)]
    rule: RuleObject<'a>,
    /// `proved`, `reachable` or `not_proved`.
    finding: &'static str,
    /// Of `proved`: `covered`, `no_packet` or `not_called`. Of `not_proved`: `budget`, `no_witness` or `no_hook`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Positions of the rules that take its packets, in its chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    covered_by: Vec<CoveringObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<PacketObject>,
    /// What decides besides whether the witness meets the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    perhaps: Option<String>,
}

/// A covering rule.
#[derive(Serialize)]
struct CoveringObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// The finding and its reason in JSON.
fn words(finding: &Finding) -> (&'static str, Option<&'static str>) {
    match finding {
        Finding::Proved(Proof::Covered(_)) => ("proved", Some("covered")),
        Finding::Proved(Proof::NoPacket) => ("proved", Some("no_packet")),
        Finding::Proved(Proof::NotCalled) => ("proved", Some("not_called")),
        Finding::Reachable(_) => ("reachable", None),
        Finding::NotProved(Unproved::Budget) => ("not_proved", Some("budget")),
        Finding::NotProved(Unproved::NoWitness) => ("not_proved", Some("no_witness")),
        Finding::NotProved(Unproved::NoHook) => ("not_proved", Some("no_hook")),
    }
}

fn json(
    loaded: &Loaded,
    listed: &Listed<'_>,
    found: &[(Site, RuleAt, Finding)],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rules = found.iter().map(|(site, (chain, _), finding)| {
        let (word, reason) = words(finding);
        let by = match finding {
            Finding::Proved(Proof::Covered(by)) => &by[..],
            _ => &[],
        };
        let covering = by.iter().filter_map(|index| listed.site((*chain, *index)));
        let witness = match finding {
            Finding::Reachable(witness) => Some(witness),
            _ => None,
        };
        FindingObject {
            rule: RuleObject::of(site),
            finding: word,
            reason,
            covered_by: covering
                .map(|Site { position, handle, text, .. }| CoveringObject {
                    position,
                    handle,
                    text,
                })
                .collect(),
            witness: witness.map(|witness| PacketObject::of(&witness.packet)),
            perhaps: witness
                .filter(|witness| !witness.open.is_empty())
                .map(|witness| witness.open.to_string()),
        }
    });
    let document = Document {
        schema: SCHEMA,
        origin: &loaded.name,
        sums: Sums::of(found),
        rules: rules.collect(),
        limits: LIMITS,
        notes: &loaded.notes,
    };
    harmless::json(&mut *out, &document)?;
    out.write_all(b"\n")
}
