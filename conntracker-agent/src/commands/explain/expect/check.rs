//! Whether the packets of a line fare as it says.
//!
//! First all of them are asked about at once, as one packet of which the source, and the ports that may be any, are
//! not known: if that is decided, it is proved. Otherwise some are chosen and asked about one by one.

use std::{net::IpAddr, ops::RangeInclusive};

use anyhow::{Context, Result, bail};
use conntracker_common::has_ports;
use ipnet::IpNet;

use super::{
    class::{Chosen, addresses, ports},
    line::Line,
};
use crate::{
    commands::explain::{
        AskedPacket, Sides,
        answer::{Answer, Judge, verdict},
        packet,
    },
    firewall::evaluate::{
        interface::Interface,
        packet::Side,
        routes::{RouteQuery, RouteType, Routes as _},
        unknown::Attribute,
    },
};

/// Source ports of packets that are chosen, where they may be any.
const SOURCE_PORTS: [u16; 3] = [40_000, 1, u16::MAX];

/// What came of a line.
pub(super) enum Outcome {
    /// All packets fare so.
    Proved,
    /// The packets that were chosen do: so many.
    Tried(u64),
    /// A packet does not.
    Fails(Box<Counterexample>),
    /// Of a packet it is not decided.
    Undecided(Box<Counterexample>),
}

/// A packet that does not fare as a line says, or of which that is not decided.
pub(super) struct Counterexample {
    pub packet: AskedPacket,
    pub arrives: String,
    /// The verdict in one word.
    pub verdict: &'static str,
    /// Why, where that is no rule.
    pub reason: Option<String>,
    /// The rule that decides, with its text.
    pub by: Option<String>,
}

/// Packets that a line is about.
struct Class<'a> {
    line: &'a Line,
    source: IpNet,
    destination: IpNet,
    input: Option<String>,
    /// Ports of source and destination, if they are one each.
    ports: [Option<u16>; 2],
}

/// Looks at a line.
pub(super) fn check(line: &Line, sides: &Sides) -> Result<Outcome> {
    let judge = sides.judge().context("no rules")?;
    let (mut tried, mut proved) = (0, true);
    let mut undecided = None;
    let ports = each(&line.source.ports, &line.destination.ports);
    for v6 in line.families() {
        let (source, to) = (line.source.network(v6), line.destination.network(v6));
        // Where the interface of output is said, the route, and so the destination, need not be known.
        let known = line.output.is_some() || !sides.host;
        let destinations: Vec<IpNet> = if known {
            vec![to]
        } else {
            let chosen = addresses(to);
            proved &= chosen.all;
            chosen.values.into_iter().map(IpNet::from).collect()
        };
        for input in inputs(line, source, sides)? {
            for (destination, ports) in
                destinations.iter().flat_map(|to| ports.iter().map(move |ports| (*to, *ports)))
            {
                let class = Class { line, source, destination, input: input.clone(), ports };
                match class.check(sides, judge)? {
                    Outcome::Proved => tried += 1,
                    Outcome::Tried(packets) => {
                        tried += packets;
                        proved = false;
                    }
                    fails @ Outcome::Fails(_) => return Ok(fails),
                    Outcome::Undecided(packet) => undecided = undecided.or(Some(packet)),
                }
            }
        }
    }
    Ok(match undecided {
        Some(packet) => Outcome::Undecided(packet),
        None if proved => Outcome::Proved,
        None => Outcome::Tried(tried),
    })
}

/// The ports of source and destination one by one, where they are few.
fn each(source: &[RangeInclusive<u16>], to: &[RangeInclusive<u16>]) -> Vec<[Option<u16>; 2]> {
    let [from, to] = [source, to].map(|ranges| {
        let Chosen { values, all } = ports(ranges);
        if all { values.into_iter().map(Some).collect() } else { vec![None] }
    });
    from.iter().flat_map(|from| to.iter().map(|to| [*from, *to])).collect()
}

/// The interfaces that the packets of a line come in through; `None` is this host itself.
fn inputs(line: &Line, source: IpNet, sides: &Sides) -> Result<Vec<Option<String>>> {
    if line.input.is_some() || !sides.host {
        return Ok(vec![line.input.clone()]);
    }
    if source.prefix_len() == 0 {
        // From everywhere.
        let interfaces = sides.routes.interfaces().into_iter().map(Interface::text);
        return Ok(interfaces.filter(|name| name != "lo").map(Some).collect());
    }
    let mut inputs = Vec::new();
    for address in addresses(source).values {
        let kind = sides.routes.address_type(&RouteQuery::to(address));
        if kind == Ok(RouteType::Local) && source.prefix_len() < source.max_prefix_len() {
            // One host of the network is this one; the line is about the others.
            continue;
        }
        let input = packet::input_of(address, &sides.routes).ok();
        let input = input.map(|interface| interface.map(Interface::text));
        if let Some(input) = input.filter(|input| !inputs.contains(input)) {
            inputs.push(input);
        }
    }
    if inputs.is_empty() {
        bail!(
            "line {}: through which interface packets of {source} come is not known: add `in NAME`",
            line.number
        );
    }
    Ok(inputs)
}

impl Class<'_> {
    fn check(&self, sides: &Sides, judge: &Judge) -> Result<Outcome> {
        let Self { line, source, destination, .. } = self;
        let asked = self.packet(source.addr(), destination.addr(), self.ports);
        let mut start = packet::start(&asked, None, &sides.routes, sides.host)?;
        for (side, network) in [(Side::Source, source), (Side::Destination, destination)] {
            start.packet.forget_host(side, network.prefix_len());
        }
        if source.prefix_len() < source.max_prefix_len() {
            start.packet.tracking.original = Err(Attribute::CtTuple.into());
            start.packet.tracking.reply = Err(Attribute::CtTuple.into());
        }
        let answer = sides.ask(judge, &asked, &start)?;
        if answer.passes() == Some(line.allow) {
            return Ok(Outcome::Proved);
        }
        self.try_some(sides, judge)
    }

    /// Asks about packets one by one.
    fn try_some(&self, sides: &Sides, judge: &Judge) -> Result<Outcome> {
        let Self { line, source, destination, .. } = self;
        let all_of = |side: usize, ranges: &[RangeInclusive<u16>]| match self.ports[side] {
            Some(port) => vec![Some(port)],
            None if !has_ports(line.proto) => vec![None],
            // Nobody chooses the port of a client.
            None if ranges.is_empty() && side == 0 => SOURCE_PORTS.map(Some).into(),
            None => ports(ranges).values.into_iter().map(Some).collect(),
        };
        let from_ports = all_of(0, &line.source.ports);
        let to_ports = all_of(1, &line.destination.ports);
        let (mut tried, mut undecided) = (0, None);
        // Other hosts alone send what an interface receives.
        let other = |address: &IpAddr| {
            !sides.host
                || self.input.is_none()
                || sides.routes.address_type(&RouteQuery::to(*address)) == Ok(RouteType::Unicast)
        };
        for from in addresses(*source).values.into_iter().filter(other) {
            for to in addresses(*destination).values {
                for (from_port, to_port) in
                    from_ports.iter().flat_map(|from| to_ports.iter().map(move |to| (*from, *to)))
                {
                    let asked = self.packet(from, to, [from_port, to_port]);
                    let start = packet::start(&asked, None, &sides.routes, sides.host)?;
                    let answer = sides.ask(judge, &asked, &start)?;
                    tried += 1;
                    let example = |packet, answer: &Answer| {
                        let (verdict, reason) = verdict(answer.fate);
                        let (by, arrives) = (answer.decider(), start.arrives);
                        Box::new(Counterexample { packet, arrives, verdict, reason, by })
                    };
                    match answer.passes() {
                        Some(passes) if passes == line.allow => {}
                        Some(_) => return Ok(Outcome::Fails(example(asked, &answer))),
                        None if undecided.is_none() => undecided = Some(example(asked, &answer)),
                        None => {}
                    }
                }
            }
        }
        Ok(undecided.map_or(Outcome::Tried(tried), Outcome::Undecided))
    }

    fn packet(&self, from: IpAddr, to: IpAddr, ports: [Option<u16>; 2]) -> AskedPacket {
        let Self { line, input, .. } = self;
        AskedPacket {
            proto: line.proto,
            addresses: [from, to],
            ports,
            input: input.clone(),
            output: line.output.clone(),
            mark: line.mark,
            state: line.state,
            flags: None,
        }
    }
}
