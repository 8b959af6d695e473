//! `conntracker explain`: what the firewall would do with a packet, hook by hook, rule by rule.

mod answer;
mod expect;
mod flow;
mod host;
mod json;
mod observe;
mod packet;
pub(super) mod path;
mod text;
mod through;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};

pub use self::expect::{Expectations, expect};
use self::{
    answer::{Answer, Judge},
    observe::ObservedHook,
    packet::Start,
    through::Through,
};
use super::report::{Source, When};
use crate::{
    firewall::{
        evaluate::{routes::Routes, routing_tables::RoutingTables},
        rules::Rules,
        scratch::{self, Compiled},
    },
    model::path::CtState,
    netlink::routing::objects::RoutingObjects,
    os::{messages, output::Destination},
};

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

/// The host that a question is about.
pub enum HostSource {
    /// What a namespace has now; `None` is our own.
    Live {
        /// Namespace.
        netns: Option<String>,
    },
    /// What a recording has.
    Recording {
        /// The recording.
        source: Box<Source>,
        /// The time whose rules are asked for; otherwise its last.
        at: Option<When>,
        /// The namespace; `None`: its only one.
        netns: Option<String>,
    },
    /// None: rules of files alone.
    None,
}

/// The rules that a question is about.
pub struct RulesSource {
    /// The host.
    pub host: HostSource,
    /// Files that would be loaded on it.
    pub against: Vec<PathBuf>,
}

/// A packet, as far as it was said what it is.
#[derive(Clone, Debug)]
pub struct AskedPacket {
    /// Protocol above IP.
    pub proto: u8,
    /// Addresses of source and destination.
    pub addresses: [IpAddr; 2],
    /// Ports, where the protocol has them.
    pub ports: [Option<u16>; 2],
    /// Interface of input; `None`: where the route to the source leads, or none if this host is the source.
    pub input: Option<String>,
    /// Interface of output; `None`: where the route to the destination leads.
    pub output: Option<String>,
    /// Packet mark at the beginning.
    pub mark: u32,
    /// What conntrack says about it.
    pub state: CtState,
    /// Flags of TCP; `None`: SYN of a new flow, ACK of others.
    pub flags: Option<u8>,
}

/// What `conntracker explain` is to do.
pub struct Question {
    /// The rules.
    pub rules: RulesSource,
    /// The packet.
    pub packet: AskedPacket,
    /// It belongs to a flow that conntrack's table, or the recording, has.
    pub of_flow: bool,
    /// Observe for so long what really becomes of such packets.
    pub watch: Option<Duration>,
    /// Format.
    pub format: Format,
}

/// All that is printed.
struct Explanation<'a> {
    asked: &'a AskedPacket,
    /// How the packet comes to the firewall.
    arrives: &'a str,
    answer: &'a Answer,
    /// What the rules of today say, if the answer is about others.
    today: Option<&'a Answer>,
    /// What became of such packets, if that was observed.
    observed: Option<Vec<ObservedHook>>,
}

/// The rules and the routes that packets are asked about.
struct Sides {
    /// A host is known.
    host: bool,
    /// The rules of today, if a host is known.
    today: Option<Judge>,
    /// The rules that files would leave.
    against: Option<Judge>,
    /// Interfaces and routes; where no host is known, interfaces alone.
    routes: RoutingTables,
}

impl Sides {
    fn load(source: &RulesSource) -> Result<Self> {
        let ruleset = host::load(&source.host)?;
        let today = ruleset.as_ref().map(Rules::of).transpose()?.map(Judge::new);
        let routes = ruleset.as_ref().map(|ruleset| ruleset.objects.routes()).transpose()?;
        if source.against.is_empty() {
            let Some(routes) = routes else { bail!("no rules: name a file with --against") };
            return Ok(Self { host: true, today, against: None, routes });
        }
        let Compiled { rules, routing, notes } =
            scratch::compile(&source.against, ruleset.as_ref())?;
        for note in notes {
            log::info!("{note}");
        }
        let host = routes.is_some();
        let routes = match routes {
            Some(routes) => routes,
            None => RoutingTables::new(RoutingObjects::decode(&routing)?),
        };
        Ok(Self { host, today, against: Some(Judge::new(rules)), routes })
    }

    /// The rules that the answer is about.
    fn judge(&self) -> Option<&Judge> {
        self.against.as_ref().or(self.today.as_ref())
    }

    /// What these rules make of a packet.
    fn ask(&self, judge: &Judge, asked: &AskedPacket, start: &Start) -> Result<Answer> {
        let output = packet::output(asked, &self.routes, self.host)?;
        let Start { packet, origin, .. } = start;
        if self.host && output.is_none() {
            return Ok(judge.ask(packet.clone(), *origin, &self.routes));
        }
        let routes = self.host.then_some(&self.routes as &dyn Routes);
        let through = Through { routes, output, source: asked.addresses[0] };
        Ok(judge.ask(packet.clone(), *origin, &through))
    }
}

/// Answers a question on standard output.
///
/// # Errors
/// The rules or the routes cannot be read; the packet cannot be.
pub fn explain(question: &Question) -> Result<ExitCode> {
    messages::to_stderr();
    let sides = Sides::load(&question.rules)?;
    let mut asked = question.packet.clone();
    let known =
        if question.of_flow { Some(flow::find(&question.rules.host, &mut asked)?) } else { None };
    let start = packet::start(&asked, known, &sides.routes, sides.host)?;
    let Some(judge) = sides.judge() else { bail!("no rules") };
    let answer = sides.ask(judge, &asked, &start)?;
    let today = match (&sides.against, &sides.today) {
        (Some(_), Some(today)) => Some(sides.ask(today, &asked, &start)?),
        _ => None,
    };
    let observed = match (question.watch, &question.rules.host) {
        (Some(time), HostSource::Live { netns }) => {
            Some(observe::observe(&asked, netns.clone(), time, &answer)?)
        }
        _ => None,
    };
    let (today, arrives) = (today.as_ref(), start.arrives.as_str());
    let all = Explanation { asked: &asked, arrives, answer: &answer, today, observed };
    Destination::Stdout.write(|out| match question.format {
        Format::Text => text::render(&all, out),
        Format::Json => json::render(&all, out),
    })?;
    Ok(match answer.passes() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(DROPPED),
        None => ExitCode::from(UNDECIDED),
    })
}
