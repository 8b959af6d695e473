//! `conntracker rules suggest`: rules that accept the flows that passed in a recording, and drop the others.

mod iptables;
mod json;
mod nft;
mod services;

use std::{collections::BTreeMap, io, process::ExitCode};

use anyhow::{Result, bail};

use self::services::Services;
use super::{
    Format,
    origin::{Loaded, recording},
};
use crate::{
    commands::report::Source,
    firewall::analyse::suggest::{AcceptRule, PassedFlow, Suggestion, suggest},
    model::{Flow, L4, NetnsId, Status, harmless::OneLine, hook::Hook},
    os::{messages, output::Destination},
    report::{Header, Report, time},
};

/// What rules are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// nft, both families in one table.
    Nft,
    /// iptables-restore.
    Iptables,
    /// ip6tables-restore.
    Ip6tables,
}

/// What to write.
pub struct Suggest {
    /// The recording.
    pub source: Box<Source>,
    /// Its namespace; `None`: its only one.
    pub netns: Option<String>,
    /// What the rules are written for.
    pub language: Language,
    /// Subnets stand for the addresses of which several were seen.
    pub aggregate: bool,
    /// Format.
    pub format: Format,
}

/// Writes the rules.
///
/// # Errors
/// The recording cannot be read; no flow passed; an interface has a name that rules cannot have.
pub fn run(asked: &Suggest) -> Result<ExitCode> {
    messages::to_stderr();
    let recorded = recording(&asked.source, asked.netns.as_deref())?;
    let report = asked.source.report(&asked.source.inputs()?, 0..=u64::MAX)?;
    let netns = NetnsId(recorded.recorded.unwrap_or_default());
    let passed = Passed::of(&report, netns, asked.language);
    if passed.flows.is_empty() {
        bail!("no flow passed in {}: there is nothing to accept", OneLine(&recorded.name));
    }
    let suggestion = suggest(&passed.flows, asked.aggregate);
    for rule in &suggestion.rules {
        if let Some(name) = rule.interfaces.iter().flatten().find(|name| !is_plain(name)) {
            bail!("interface `{}` cannot be written into rules", OneLine(name));
        }
    }
    let services = Services::read();
    let remarks = remarks(&recorded, &report, &suggestion, &passed);
    Destination::Stdout.write(|out| match (asked.format, asked.language) {
        (Format::Json, language) => {
            json::render(language, &recorded.name, &suggestion, &passed, &services, out)
        }
        (Format::Text, Language::Nft) => nft::render(&remarks, &suggestion, &services, out),
        (Format::Text, language) => {
            iptables::render(language, &remarks, &suggestion, &services, out)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a name of an interface means itself in rules: no quotes, no wildcards.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@:".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

/// The flows of a recording that rules have to accept, and those that need none.
#[derive(Default)]
struct Passed {
    flows: BTreeMap<PassedFlow, u64>,
    /// Flows that were dropped and had no answer.
    dropped: u64,
    /// Flows of other flows (`ct state related`), and of this host to itself.
    related: u64,
    loopback: u64,
    /// Flows that began before, so that their interfaces are not known, or that conntrack does not track.
    unclear: u64,
}

impl Passed {
    fn of(report: &Report, netns: NetnsId, language: Language) -> Self {
        let mut passed = Self::default();
        for flow in report.flows.iter().filter(|flow| flow.key.netns == netns) {
            let v6 = flow.key.orig.src.is_ipv6();
            if language != Language::Nft && v6 != (language == Language::Ip6tables) {
                continue;
            }
            let count = flow.merged().max(1);
            if flow.drops.is_some() && !flow.status.contains(Status::SEEN_REPLY) {
                passed.dropped += count;
            } else if flow.parent.is_some() || flow.status.contains(Status::EXPECTED) {
                passed.related += count;
            } else if !flow.key.entry {
                passed.unclear += count;
            } else {
                match seen(flow, &report.header) {
                    None => passed.unclear += count,
                    Some(of) if of.interfaces.iter().flatten().any(|name| name == "lo") => {
                        passed.loopback += count;
                    }
                    Some(of) => *passed.flows.entry(of).or_default() += count,
                }
            }
        }
        passed
    }
}

/// A flow as the filter chains see its first packet: behind the translation of its destination, before that of its source.
fn seen(flow: &Flow, header: &Header) -> Option<PassedFlow> {
    let orig = &flow.key.orig;
    let reply = flow.reply.as_ref().filter(|reply| reply.src.is_ipv6() == orig.src.is_ipv6());
    let (input, output) = flow.interfaces?;
    let namespace = header.namespaces.iter().find(|of| of.id == flow.key.netns)?;
    let name = |number: u32| {
        let interface = namespace.interfaces.iter().find(|of| of.number == number);
        interface.map(|of| of.name.clone())
    };
    let source = Some(orig.src);
    let destination = Some(reply.map_or(orig.dst, |reply| reply.src));
    let (hook, interfaces, addresses) = match (input, output) {
        (0, 0) => return None,
        (input, 0) => (Hook::Input, [Some(name(input)?), None], [source, None]),
        (0, output) => (Hook::Output, [None, Some(name(output)?)], [None, destination]),
        (input, output) => {
            (Hook::Forward, [Some(name(input)?), Some(name(output)?)], [source, destination])
        }
    };
    let service = match (orig.l4, reply.map(|reply| reply.l4)) {
        (L4::Ports { .. }, Some(L4::Ports { src, .. })) => Some(src),
        (L4::Ports { dst, .. }, _) => Some(dst),
        (L4::Icmp { kind, .. }, _) => Some(kind.into()),
        (L4::Gre { .. } | L4::None, _) => None,
    };
    let v6 = orig.src.is_ipv6();
    Some(PassedFlow { hook, interfaces, addresses, v6, protocol: orig.proto, service })
}

/// What a reader of the rules must know, line by line.
fn remarks(
    recorded: &Loaded,
    report: &Report,
    suggestion: &Suggestion,
    passed: &Passed,
) -> Vec<String> {
    let Header { start_ns, end_ns, .. } = report.header;
    let Passed { dropped, related, loopback, unclear, .. } = passed;
    let Suggestion { flows, kinds, once, .. } = suggestion;
    let mut remarks = vec![
        format!("made by conntracker rules suggest of {}", OneLine(&recorded.name)),
        format!(
            "{flows} flows of {kinds} kinds passed from {} to {}",
            time(start_ns),
            time(end_ns)
        ),
        format!(
            "to be expected outside of these rules: {:.1} % of future flows (Good-Turing: {once} of {flows} were the only \
             one of their kind)",
            suggestion.outside().unwrap_or_default() * 100.0
        ),
        format!(
            "without a rule of their own: {related} related flows, {loopback} of this host to itself; not accepted: \
             {dropped} that were dropped, {unclear} whose interfaces or entry are not known"
        ),
        "filter rules alone: translations stay as they are, and destinations are those behind them"
            .to_owned(),
    ];
    if !report.header.filters.is_empty() {
        let filters = report.header.filters.join(" ");
        remarks.push(format!("the recording has only flows of a filter: {}", OneLine(&filters)));
    }
    remarks
}

/// What is said of a rule: its services by name, how often it was met, and how much more it admits.
fn remark(rule: &AcceptRule, services: &Services) -> String {
    let names: Vec<&str> =
        rule.services.iter().filter_map(|port| services.name(*port, rule.protocol)).collect();
    let mut text = names.join(", ");
    if !text.is_empty() {
        text.push_str(": ");
    }
    text.push_str(&format!("{} flows", rule.flows));
    for (word, side) in [("sources", 0), ("destinations", 1)] {
        let subnets = &rule.addresses[side];
        if subnets.iter().any(|of| !of.is_single()) {
            let hosts = subnets.iter().map(|of| of.hosts()).fold(0, u128::saturating_add);
            text.push_str(&format!("; {word}: admits {hosts} addresses, {} seen", rule.seen[side]));
        }
    }
    text
}

/// The chains, with their names in nft and in iptables.
const CHAINS: [(Hook, &str, &str); 3] = [
    (Hook::Input, "input", "INPUT"),
    (Hook::Forward, "forward", "FORWARD"),
    (Hook::Output, "output", "OUTPUT"),
];

/// Writes lines of comments.
fn comments(lines: &[String], out: &mut dyn io::Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "# {line}"))
}
