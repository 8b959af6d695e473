//! Flows as columns: a number for each flow in each of them, and of drop points as many as the flow has.

use std::{fmt::Display, io, iter, net::IpAddr};

use serde::Serialize;

use super::{
    columns::{Columns, zigzag},
    dictionary::{Dictionary, Words},
    facts::clean,
    rules::Rules,
};
use crate::{
    model::{Cause, DropPoint, DroppedAt, Flow, L4, Mark, Tuple, hook::Hook, process::Process},
    report::{
        Header,
        names::{self, Name, Names},
        text::{
            explain::{Explanation, owner},
            protocol_name,
        },
    },
};

/// Bits of the column `flags`.
const FLAGS: [fn(&Flow) -> bool; 7] = [
    |flow| flow.key.entry,
    Flow::confirmed,
    Flow::dropped,
    Flow::lost,
    |flow| flow.fits_several,
    |flow| flow.resumed,
    |flow| flow.counters.is_some(),
];

pub(super) struct FlowColumns<'a> {
    header: &'a Header,
    flows: &'a [Flow],
    names: Names<'a>,
    addresses: Dictionary<IpAddr>,
    causes: Dictionary<Why>,
}

/// Why packets were dropped or lost.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Why {
    /// A rule or a policy, by the number of its site.
    Rule { site: u32 },
    /// Conntrack itself.
    Conntrack { name: &'static str },
    /// Another part of the kernel.
    Kernel { name: String, function: bool, meaning: Option<&'static str> },
    /// A rule that is not known.
    Unknown,
    /// More drop points than are kept.
    More { lost: bool },
}

impl<'a> FlowColumns<'a> {
    pub(super) fn new(header: &'a Header, flows: &'a [Flow]) -> Self {
        Self {
            header,
            flows,
            names: Names::new(header),
            addresses: Dictionary::default(),
            causes: Dictionary::default(),
        }
    }

    pub(super) fn write(
        mut self,
        words: &mut Words,
        rules: &mut Rules<'a>,
        columns: &mut Columns<'_>,
    ) -> io::Result<()> {
        self.keys(words, columns)?;
        self.described(words, columns)?;
        self.counted(columns)?;
        self.drops(words, rules, columns)?;
        let addresses: Vec<String> =
            self.addresses.values().into_iter().map(IpAddr::to_string).collect();
        columns.json("addresses", &addresses)?;
        columns.json("causes", &self.causes.values())
    }

    /// Who talks to whom.
    fn keys(&mut self, words: &mut Words, columns: &mut Columns<'_>) -> io::Result<()> {
        let flows = self.flows;
        let Self { names, addresses, header, .. } = self;
        let folded = header.folded;
        let mut address = |of: IpAddr| u64::from(addresses.number(of).0);
        let tuples = || flows.iter().map(|flow| flow.key.orig);
        columns
            .numbers("netns", flows.iter().map(|flow| words.number(names.netns(flow.key.netns))))?;
        columns.numbers("zone", flows.iter().map(|flow| flow.key.zone.0.into()))?;
        columns.numbers(
            "protocol",
            tuples().map(|tuple| words.number(protocol_name(tuple.proto).to_string())),
        )?;
        columns.numbers("layout", tuples().map(|tuple| layout(tuple.l4)))?;
        columns.numbers("src", tuples().map(|tuple| address(tuple.src)))?;
        columns.numbers("dst", tuples().map(|tuple| address(tuple.dst)))?;
        columns.numbers("sport", tuples().map(|tuple| ports(tuple.l4).0))?;
        columns.numbers("dport", tuples().map(|tuple| ports(tuple.l4).1))?;
        // Of flows whose addresses are not translated, one behind the number of an address is 0.
        let replies: Vec<Option<Tuple>> = flows
            .iter()
            .map(|flow| Explanation { flow, folded, names, indent: 0 }.translated_reply())
            .collect();
        columns.numbers(
            "reply_src",
            replies.iter().map(|of| of.map_or(0, |of| 1 + address(of.src))),
        )?;
        columns.numbers(
            "reply_dst",
            replies.iter().map(|of| of.map_or(0, |of| 1 + address(of.dst))),
        )?;
        columns
            .numbers("reply_sport", replies.iter().map(|of| of.map_or(0, |of| ports(of.l4).0)))?;
        columns.numbers("reply_dport", replies.iter().map(|of| of.map_or(0, |of| ports(of.l4).1)))
    }

    /// What is known of each, as text.
    fn described(&mut self, words: &mut Words, columns: &mut Columns<'_>) -> io::Result<()> {
        let flows = self.flows;
        let Self { names, header, .. } = self;
        let folded = header.folded;
        columns.numbers(
            "status",
            flows.iter().map(|flow| words.number(joined(flow.status.names()))),
        )?;
        columns.numbers(
            "state",
            flows.iter().map(|flow| words.optional(flow.state.map(names::state))),
        )?;
        columns.numbers("mark", flows.iter().map(|flow| mark(flow.mark, words)))?;
        columns.numbers("packet_mark", flows.iter().map(|flow| mark(flow.packet_mark, words)))?;
        for (name, end) in [("iif", 0), ("oif", 1)] {
            columns.numbers(
                name,
                flows.iter().map(|flow| {
                    let of = flow.interfaces.map(|(iif, oif)| [iif, oif][end]);
                    words.optional(of.map(|of| interface(names, flow, of)))
                }),
            )?;
        }
        let process = |flow: &'a Flow| flow.process.as_deref();
        columns.numbers(
            "program",
            flows.iter().map(|flow| words.optional(process(flow).map(program))),
        )?;
        columns.numbers(
            "process",
            flows.iter().map(|flow| words.optional(process(flow).map(owner))),
        )?;
        let mut remarks = Vec::new();
        columns.numbers(
            "remarks",
            flows.iter().map(|flow| {
                remarks.clear();
                // Writing to memory does not fail.
                let _ = Explanation { flow, folded, names, indent: 0 }.remarks(&mut remarks);
                words.number(String::from_utf8_lossy(remarks.trim_ascii_end()))
            }),
        )
    }

    /// Counts and times.
    fn counted(&self, columns: &mut Columns<'_>) -> io::Result<()> {
        let flows = self.flows;
        let bits = |flow: &Flow| {
            FLAGS.iter().rev().fold(0, |bits, flag| bits << 1 | u64::from(flag(flow)))
        };
        columns.numbers("flags", flows.iter().map(bits))?;
        columns.numbers("flows", flows.iter().map(Flow::merged))?;
        columns.numbers("ended", flows.iter().map(|flow| flow.ended))?;
        for (direction, packets, bytes) in
            [(0, "packets", "bytes"), (1, "reply_packets", "reply_bytes")]
        {
            let of =
                |flow: &Flow| flow.counters.map(|counters| counters[direction]).unwrap_or_default();
            columns.numbers(packets, flows.iter().map(|flow| of(flow).packets))?;
            columns.numbers(bytes, flows.iter().map(|flow| of(flow).bytes))?;
        }
        // Microseconds, which JavaScript's numbers have exactly, from the beginning: a flow may be older.
        let start = (self.header.start_ns / 1_000).cast_signed();
        let since = |ns: u64| zigzag((ns / 1_000).cast_signed().wrapping_sub(start));
        columns.numbers("first", flows.iter().map(|flow| since(flow.first_ns)))?;
        columns.numbers("last", flows.iter().map(|flow| since(flow.last_ns)))
    }

    /// Drop points.
    fn drops(
        &mut self,
        words: &mut Words,
        rules: &mut Rules<'a>,
        columns: &mut Columns<'_>,
    ) -> io::Result<()> {
        let flows = self.flows;
        let Self { names, causes, .. } = self;
        let mut counts = Vec::new();
        let mut points: [Vec<u64>; 5] = Default::default();
        for flow in flows {
            let before = points[0].len();
            let Some(drops) = flow.drops.as_deref() else {
                counts.push(0);
                continue;
            };
            let mut point = |why: Why, hook: u64, iif: u64, oif: u64, packets: u64| {
                let row = [causes.number(why).0.into(), hook, iif, oif, packets];
                points.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            };
            for at in drops.at() {
                let DroppedAt { place: DropPoint { cause: _, hook, iif, oif }, by: _, packets } =
                    *at;
                let suspected = !names.suspects(flow.key.netns, at).is_empty();
                let hook = hook.filter(|_| !suspected).map_or(0, hook_number);
                let mut name = |of| words.number(interface(names, flow, of));
                let (iif, oif) = (name(iif), name(oif));
                point(why(flow, at, rules), hook, iif, oif, packets);
            }
            for (lost, packets) in [(false, drops.elsewhere()), (true, drops.lost_elsewhere())] {
                if packets > 0 {
                    point(Why::More { lost }, 0, 0, 0, packets);
                }
            }
            counts.push((points[0].len() - before) as u64);
        }
        columns.numbers("drops", counts)?;
        let names = ["drop_cause", "drop_hook", "drop_iif", "drop_oif", "drop_packets"];
        iter::zip(names, points).try_for_each(|(name, column)| columns.numbers(name, column))
    }
}

fn why<'a>(flow: &Flow, at: &'a DroppedAt, rules: &mut Rules<'a>) -> Why {
    let kernel = |name: &'static str, function| Why::Kernel {
        name: clean(name),
        function,
        meaning: names::meaning(name),
    };
    match (at.place.cause, &at.by) {
        (Cause::Conntrack(cause), _) => Why::Conntrack { name: cause.name() },
        (Cause::Reason(name), _) => kernel(name, false),
        (Cause::Function(name), _) => kernel(name, true),
        (Cause::Netfilter, Some(step)) => {
            Why::Rule { site: rules.site(flow.key.netns, &step.site) }
        }
        (Cause::Netfilter, None) => Why::Unknown,
    }
}

/// One behind a hook's number in the order of [`Hook`].
fn hook_number(number: u8) -> u64 {
    Hook::BY_NUMBER.get(usize::from(number)).map_or(0, |&hook| hook as u64 + 1)
}

/// Which kind of ports a tuple has.
fn layout(l4: L4) -> u64 {
    match l4 {
        L4::None => 0,
        L4::Ports { .. } => 1,
        L4::Icmp { .. } => 2,
        L4::Gre { .. } => 3,
    }
}

/// Source and destination port, or what the protocol has for them: of ICMP the identifier, and type and code.
fn ports(l4: L4) -> (u64, u64) {
    match l4 {
        L4::None => (0, 0),
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src.into(), dst.into()),
        L4::Icmp { kind, code, id } => (id.into(), u64::from(kind) << 8 | u64::from(code)),
    }
}

fn joined(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn mark(mark: Option<Mark>, words: &mut Words) -> u64 {
    let set = mark.filter(|&mark| mark != Mark::NONE);
    words.optional(set.map(|mark| format!("{mark:#x}")))
}

fn interface<'a>(names: &Names<'a>, flow: &Flow, number: u32) -> Name<'a> {
    names.interface(flow.key.netns, number).unwrap_or(Name::Known("-".into()))
}

/// The short name of a process.
fn program(process: &Process) -> impl Display {
    match &process.comm {
        Some(comm) => clean(comm),
        None => format!("uid {}", process.uid),
    }
}
