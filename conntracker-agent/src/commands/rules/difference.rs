//! `conntracker rules diff`: packets that two rulesets treat otherwise, and the rules that decide.

use std::{
    collections::HashSet,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    Format,
    listed::{Listed, ListedRule, named},
    origin::{Loaded, Origin, recording},
    packet::PacketObject,
};
use crate::{
    commands::{report::Source, what_if::interfaces},
    firewall::{
        analyse::difference::{Comparison, Difference, Outcome, Relation, boundaries},
        evaluate::{Firewall, evaluate, state::Fate},
        packets::{Recorded, Sample},
    },
    model::{NetnsId, harmless, hook::Hook, path::Site},
    os::{messages, output::Destination},
    report::Names,
};

/// Name and version of the format.
const SCHEMA: &str = "conntracker-rules-diff/1";

/// Exit status if packets are treated otherwise.
const EXIT_DIFFERENT: u8 = 1;

/// Differences in text.
const LISTED: usize = 20;

/// What to compare.
pub struct RulesDiff {
    /// The two rulesets.
    pub sides: [Origin; 2],
    /// A recording whose flows are evaluated, too.
    pub flows: Option<Box<Source>>,
    /// Its namespace; `None`: its only one.
    pub netns: Option<String>,
    /// Packets at and beside constants of rules, at most.
    pub packets: usize,
    /// Format.
    pub format: Format,
}

/// Writes which packets are treated otherwise.
///
/// # Errors
/// Rules or flows cannot be read.
pub fn run(asked: &RulesDiff) -> Result<ExitCode> {
    messages::to_stderr();
    let [one, two] = &asked.sides;
    let (one, two) = (one.load()?, two.load()?);
    let firewalls = [&one.firewall, &two.firewall];
    let mut found = Comparison::default();
    let mut flows = 0;
    // A recording has flows itself.
    let own = match &asked.sides[0] {
        Origin::File { source, .. } if one.recorded.is_some() => Some(source),
        _ => None,
    };
    if let Some(source) = asked.flows.as_ref().or(own) {
        let recorded = recording(source, asked.netns.as_deref())?;
        let report = source.report(&source.inputs()?, 0..=u64::MAX)?;
        let netns = NetnsId(recorded.recorded.unwrap_or_default());
        let names = Names::new(&report.header);
        let mut seen = HashSet::new();
        for flow in report.flows.iter().filter(|flow| flow.key.netns == netns) {
            let interface = interfaces(&names, &recorded.routes, netns);
            let of = Recorded::new(flow, report.header.folded, interface);
            let Some(first) = of.first(&recorded.routes) else { continue };
            if !seen.insert(first.clone()) {
                continue;
            }
            flows += 1;
            let outcome = |firewall: &Firewall| {
                let Sample { packet, origin } = first.clone();
                Outcome::of(&evaluate(firewall, packet, origin, &recorded.routes))
            };
            found.add(None, &first.packet, firewalls.map(outcome));
        }
    }
    boundaries(firewalls, [&one.routes, &two.routes], asked.packets, &mut found);
    let sides = [&one, &two];
    let listed = sides.map(|side| Listed::new(&side.rules, &side.firewall, None));
    let [Some(before), Some(after)] = listed else { bail!("there are no rules") };
    let answer = Answer { sides, listed: [&before, &after], found: &found, flows };
    Destination::Stdout.write(|out| match asked.format {
        Format::Text => answer.text(out),
        Format::Json => answer.json(out),
    })?;
    Ok(if found.different > 0 { ExitCode::from(EXIT_DIFFERENT) } else { ExitCode::SUCCESS })
}

/// What was found, with the names of rules.
struct Answer<'a> {
    sides: [&'a Loaded; 2],
    listed: [&'a Listed<'a>; 2],
    found: &'a Comparison,
    flows: usize,
}

/// A fate in one word.
fn word(outcome: &Outcome) -> String {
    match outcome.fate {
        Ok(Fate::Accept) => "accept".to_owned(),
        Ok(Fate::Drop) => "drop".to_owned(),
        Ok(Fate::Reject) => "reject".to_owned(),
        Ok(Fate::Queue) => "queue".to_owned(),
        Ok(Fate::Stolen) => "elsewhere".to_owned(),
        Ok(Fate::NoRoute) => "no route".to_owned(),
        Ok(Fate::Expired) => "expired".to_owned(),
        Ok(Fate::Unknown) => "undecided".to_owned(),
        Err(why) => format!("undecided ({why})"),
    }
}

fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::Verdict => "verdict",
        Relation::Packet => "packet",
        Relation::Perhaps => "perhaps",
        Relation::Undecided => "undecided",
        Relation::Same => "same",
    }
}

impl Answer<'_> {
    fn sites(&self, difference: &Difference) -> [Option<Site>; 2] {
        [0, 1].map(|side| difference.outcomes[side].by.and_then(|at| self.listed[side].site(at)))
    }

    /// How many packets were compared, and what was not.
    fn limits(&self) -> String {
        let Comparison { packets, undecided, .. } = self.found;
        let boundaries = packets - self.flows;
        format!(
            "{} flows by their first packets, {boundaries} packets at and beside the constants of both rulesets, each at \
             one hook; {undecided} of them undecided in the same manner; packets of IP; what was not tried may differ",
            self.flows
        )
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for difference in self.found.differences.iter().take(LISTED) {
            let at = match difference.hook {
                Some(hook) => format!("at {}", hook.name()),
                None => "recorded flow".to_owned(),
            };
            let packet = PacketObject::of(&difference.packet).text();
            writeln!(out, "{} {at}: {packet}", relation(difference.relation))?;
            let sites = self.sites(difference);
            for (name, (outcome, site)) in
                ["a", "b"].into_iter().zip(difference.outcomes.iter().zip(&sites))
            {
                write!(out, "  {name}: {}", word(outcome))?;
                match site {
                    Some(site) => writeln!(out, " by {}", named(site))?,
                    None => writeln!(out)?,
                }
            }
        }
        let Comparison { differences, different, .. } = self.found;
        if let Some(more) = differences.len().checked_sub(LISTED).filter(|more| *more > 0) {
            writeln!(out, "# {more} more pairs of rules decide otherwise (--format json has all)")?;
        }
        for (name, side) in ["a", "b"].into_iter().zip(self.sides) {
            writeln!(out, "# {name}: {}", harmless::OneLine(&side.name))?;
        }
        writeln!(out, "# packets that are treated otherwise: {different}")?;
        writeln!(out, "# compared: {}", self.limits())?;
        let notes = self.sides.into_iter().flat_map(|side| &side.notes);
        notes.into_iter().try_for_each(|note| writeln!(out, "# note: {}", harmless::one_line(note)))
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let sites: Vec<[Option<Site>; 2]> =
            self.found.differences.iter().map(|of| self.sites(of)).collect();
        let differences = self.found.differences.iter().zip(&sites);
        let document = Document {
            schema: SCHEMA,
            a: &self.sides[0].name,
            b: &self.sides[1].name,
            flows: self.flows,
            packets: self.found.packets - self.flows,
            undecided: self.found.undecided,
            different: self.found.different,
            differences: differences
                .map(|(of, sites)| DifferenceObject {
                    relation: relation(of.relation),
                    hook: of.hook.map(Hook::name),
                    packet: PacketObject::of(&of.packet),
                    a: OutcomeObject::of(&of.outcomes[0], sites[0].as_ref()),
                    b: OutcomeObject::of(&of.outcomes[1], sites[1].as_ref()),
                })
                .collect(),
            limits: self.limits(),
            notes: self.sides.into_iter().flat_map(|side| &side.notes).collect(),
        };
        harmless::json(&mut *out, &document)?;
        out.write_all(b"\n")
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    a: &'a str,
    b: &'a str,
    flows: usize,
    packets: usize,
    undecided: usize,
    different: usize,
    differences: Vec<DifferenceObject<'a>>,
    limits: String,
    notes: Vec<&'a String>,
}

#[derive(Serialize)]
struct DifferenceObject<'a> {
    /// `verdict`, `packet` or `perhaps`.
    relation: &'static str,
    /// Absent of recorded flows, which are evaluated from end to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'static str>,
    packet: PacketObject,
    a: OutcomeObject<'a>,
    b: OutcomeObject<'a>,
}

#[derive(Serialize)]
struct OutcomeObject<'a> {
    verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<ListedRule<'a>>,
}

impl<'a> OutcomeObject<'a> {
    fn of(outcome: &Outcome, site: Option<&'a Site>) -> Self {
        Self { verdict: word(outcome), by: site.map(ListedRule::of) }
    }
}
