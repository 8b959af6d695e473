//! `conntracker explain`: what the firewall would do with a packet, hook by hook, rule by rule.

mod json;
mod packet;
pub(super) mod path;
mod text;

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{
    firewall::{
        Ruleset,
        evaluate::{evaluate, state::Fate, unknown::UnknownSet},
        objects::KernelObjects,
    },
    model::path::CtState,
    os::{messages, netns::Netns, output::Destination},
};

use self::path::Path;

/// Exit status of a packet that is dropped, and of one about which nothing certain can be said.
const DROPPED: u8 = 1;
const UNDECIDED: u8 = 4;

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// A packet, as far as it was said what it is.
#[derive(Clone, Debug)]
pub struct Question {
    /// Namespace; `None` is our own.
    pub netns: Option<String>,
    /// Format.
    pub format: Format,
    /// Protocol above IP.
    pub proto: u8,
    /// Addresses of source and destination.
    pub addresses: [IpAddr; 2],
    /// Ports, where the protocol has them.
    pub ports: [Option<u16>; 2],
    /// Interface of input; `None`: where the route to the source leads, or none if this host is the source.
    pub input: Option<String>,
    /// Packet mark at the beginning.
    pub mark: u32,
    /// What conntrack says about it.
    pub state: CtState,
    /// Flags of TCP; `None`: SYN of a new flow, ACK of others.
    pub flags: Option<u8>,
}

/// What becomes of the packet.
struct Answer {
    /// Decided, or why not.
    fate: std::result::Result<Fate, UnknownSet>,
    /// The possible paths, at least one.
    paths: Vec<Path>,
    /// How the packet comes to the firewall.
    arrives: String,
}

/// Answers a question on standard output.
///
/// # Errors
/// The rules or the routes cannot be read; the packet cannot be.
pub fn explain(question: &Question) -> Result<ExitCode> {
    messages::to_stderr();
    let netns = match &question.netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current()?,
    };
    let objects = netns
        .enter(|| Ok(KernelObjects::read()))
        .with_context(|| format!("cannot enter network namespace `{}`", netns.name))?;
    if let Some(missing) = objects.missing.first() {
        bail!("{missing}: without that nothing can be said about packets");
    }
    let (firewall, routes) = (objects.firewall()?, objects.routes()?);
    let packet::Start { packet, origin, arrives } = packet::start(question, &routes)?;
    // Only for the text of rules.
    let listed = Ruleset::load(&netns).unwrap_or_else(|error| {
        log::warn!("rules have no text: {error:#}");
        Ruleset::default()
    });
    let evaluation = evaluate(&firewall, packet, origin, &routes);
    let paths = evaluation.endings.iter().map(|end| path::path(end, &firewall, &listed)).collect();
    let answer = Answer { fate: evaluation.fate(), paths, arrives };
    Destination::Stdout.write(|out| match question.format {
        Format::Text => text::render(question, &answer, out),
        Format::Json => json::render(&answer, out),
    })?;
    Ok(match answer.fate {
        Ok(Fate::Accept | Fate::Stolen) => ExitCode::SUCCESS,
        Ok(Fate::Drop | Fate::Reject | Fate::NoRoute | Fate::Expired) => ExitCode::from(DROPPED),
        Ok(Fate::Queue | Fate::Unknown) | Err(_) => ExitCode::from(UNDECIDED),
    })
}

/// The verdict in one word, and what there is to say about it.
fn verdict(fate: std::result::Result<Fate, UnknownSet>) -> (&'static str, Option<String>) {
    match fate {
        Ok(Fate::Accept) => ("accept", None),
        Ok(Fate::Stolen) => ("accept", Some("a rule sends it elsewhere".to_owned())),
        Ok(Fate::Drop) => ("drop", None),
        Ok(Fate::Reject) => ("reject", None),
        Ok(Fate::NoRoute) => ("drop", Some("no route".to_owned())),
        Ok(Fate::Expired) => ("drop", Some("its TTL ends here".to_owned())),
        Ok(Fate::Queue) => ("undecided", Some("a program decides (queue)".to_owned())),
        Ok(Fate::Unknown) => ("undecided", None),
        Err(why) => ("undecided", Some(why.to_string())),
    }
}
