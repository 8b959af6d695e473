//! The fields of a packet that follow from its record, for the conditions of rules. Pure.
//!
//! A record has the tuples of the packet's conntrack entry, not its headers. Direction, hook and NAT decide what
//! these were at a base chain: `D` is the tuple of the packet's direction, as the packet came in; `T` is the other
//! direction's tuple inverted, as the packet goes out. Destinations change from `D` to `T` at PREROUTING and OUTPUT,
//! sources at INPUT and POSTROUTING, at NAT's priority (`nf_nat_packet` of net/netfilter/nf_nat_core.c). Where it is
//! uncertain whether a packet was translated yet, both are possible.

use std::net::IpAddr;

use conntracker_common::{
    FOLDED_PORT,
    conntrack::{
        IP_CT_ESTABLISHED_REPLY, IP_CT_NEW, IP_CT_RELATED, IP_CT_UNTRACKED, IPS_DST_NAT,
        IPS_DST_NAT_DONE, IPS_NAT, IPS_SRC_NAT, IPS_SRC_NAT_DONE,
    },
    hook::{FORWARD, LOCAL_IN, LOCAL_OUT, PRE_ROUTING},
    plan::{SEGMENT_EARLY, hook, segment},
};

use super::plan::{HookPlan, PlannedChain};
use crate::{
    attribution::{
        ChainId, Observation, Program,
        packet::{Endpoints, Headers, Interface, Maybe, Packet, Translation},
    },
    bpf::path::{Device, PathRecord},
    model::{L4, Tuple},
};

/// Bits of `ct state`: `NF_CT_STATE_BIT` and the similar macros.
const STATE_INVALID: u32 = 1;
const STATE_UNTRACKED: u32 = 64;

/// NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC.
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;

/// LOOPBACK_IFINDEX.
const LOOPBACK: u32 = 1;

/// IPv6 extension headers. A record with one as its protocol has no transport header.
const EXTENSIONS: [u8; 7] = [0, 43, 44, 50, 51, 60, 135];

/// The known fields of the packet of a record.
pub(super) fn packet(
    record: &PathRecord,
    plan: &HookPlan,
    program: &Program,
    seen: &Observation,
    folds: bool,
) -> Packet {
    let early = segment(record.hook_point) == SEGMENT_EARLY;
    let v6 = record.orig.src.is_ipv6();
    let entry = record.reply.filter(|_| !early);
    let related = entry.is_some() && matches!(record.info % IP_CT_ESTABLISHED_REPLY, IP_CT_RELATED);
    let chains: Vec<Option<&PlannedChain>> =
        seen.chains.iter().map(|chain| planned(plan, *chain)).collect();
    let from_headers = record.reply.is_none();
    let readable = if from_headers { !record.fragment } else { !related };
    let mut packet = Packet {
        v6: Some(v6),
        interfaces: [record.iif, record.oif].map(|device| Some(interface(device))),
        states: if early { Vec::new() } else { states(record, program) },
        entry: (!early).then_some(entry.is_some()),
        reply: entry.map(|_| record.info >= IP_CT_ESTABLISHED_REPLY),
        marks: marks(record, plan, seen),
        answered: record.answered
            && record.dropped
            && !record.nested
            && program.only_rejects_send(),
        ..Packet::default()
    };
    if program.keeps_headers() && !related {
        let proto = record.orig.proto;
        packet.proto = Some(proto).filter(|proto| {
            !(from_headers && v6 && (record.fragment || EXTENSIONS.contains(proto)))
        });
        packet.headers = match entry {
            Some(reply) => {
                let nat = Nat::of(record, reply, plan.translates);
                let mut all: Vec<Headers> =
                    chains.iter().map(|chain| nat.headers(*chain)).collect();
                if folds {
                    let client = usize::from(record.info >= IP_CT_ESTABLISHED_REPLY);
                    let translated = source_translated(&record.orig, &reply);
                    for headers in &mut all {
                        headers.ports[client] = folded(headers.ports[client], translated);
                    }
                }
                all
            }
            None => vec![headers(&record.orig, &record.orig, readable); chains.len()],
        };
    }
    if let Some(reply) = entry {
        packet.tuples = [
            Some(endpoints(&record.orig, folds.then_some(0))),
            // Another flow of the folded key may have another client port in the reply direction.
            Some(endpoints(&reply, folds.then_some(1))).filter(|_| {
                record.reply_before.is_none() && !(folds && source_translated(&record.orig, &reply))
            }),
        ];
        if record.reply_before.is_none() {
            packet.status = status(&record.orig, &reply);
            if folds && record.orig.src == reply.dst {
                // Another flow of the folded key may have kept its port, or not.
                packet.status.0 &= !IPS_SRC_NAT;
            }
        }
        packet.translation = translation(record, &reply, &chains);
        if let Some(translation) = packet.translation.as_mut().filter(|of| folds && of.source) {
            translation.port = None;
        }
    }
    packet
}

/// Whether the source of a flow is translated.
fn source_translated(orig: &Tuple, reply: &Tuple) -> bool {
    status(orig, reply).1 & IPS_SRC_NAT != 0
}

fn planned(plan: &HookPlan, chain: ChainId) -> Option<&PlannedChain> {
    plan.chains.iter().find(|planned| planned.chain.is_some_and(|(_, id)| id == chain))
}

fn interface(device: Option<Device>) -> Interface {
    device.map_or(Interface::default(), |Device { index, name }| Interface { index, name })
}

/// Bits of `ct state` (`nft_ct_get_eval` of net/netfilter/nft_ct.c).
fn states(record: &PathRecord, program: &Program) -> Vec<u32> {
    match (record.reply, record.info) {
        (Some(_), info) if info < IP_CT_UNTRACKED => vec![2 << (info % IP_CT_ESTABLISHED_REPLY)],
        (Some(_), _) => Vec::new(),
        // A rule at this hook may have untracked it.
        (None, IP_CT_UNTRACKED) if program.untracks() => vec![STATE_INVALID, STATE_UNTRACKED],
        (None, IP_CT_UNTRACKED) => vec![STATE_UNTRACKED],
        (None, _) => vec![STATE_INVALID],
    }
}

/// The bits of `ct status` that NAT sets, derived from the tuples.
fn status(orig: &Tuple, reply: &Tuple) -> (u32, u32) {
    let Some(plain) = orig.inverted() else { return (0, 0) };
    let ports = |tuple: &Tuple| match tuple.l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src, dst),
        // The identifier belongs to the source.
        L4::Icmp { id, .. } => (0, id),
        L4::None => (0, 0),
    };
    let (one, other) = (ports(&plain), ports(reply));
    let mut set = 0;
    if plain.src != reply.src || one.0 != other.0 {
        set |= IPS_DST_NAT;
    }
    if plain.dst != reply.dst || one.1 != other.1 {
        set |= IPS_SRC_NAT;
    }
    (IPS_NAT, set)
}

/// Marks at the beginning of each chain, where links read them.
fn marks(
    record: &PathRecord,
    plan: &HookPlan,
    seen: &Observation,
) -> Vec<(Option<u32>, Option<u32>)> {
    let at = |chain: &ChainId| {
        let number = plan
            .chains
            .iter()
            .position(|planned| planned.chain.is_some_and(|(_, id)| id == *chain))?;
        let gap = plan.gaps.iter().position(|before| *before == number)?;
        record.marks.get(gap).copied()
    };
    let begin = (record.packet_mark.0, record.ct_mark.0);
    let all = seen.chains.iter().enumerate().map(|(index, chain)| {
        let known = if index == 0 { Some(begin) } else { at(chain) };
        known.map_or((None, None), |(packet, connection)| (Some(packet), Some(connection)))
    });
    all.collect()
}

/// `client`: which of the two ports is the client's, if flows are folded.
fn endpoints(tuple: &Tuple, client: Option<usize>) -> Endpoints {
    let mut all = ports(tuple).map_or([Maybe::Unknown; 2], |ports| ports.map(Maybe::Is));
    if let Some(client) = client {
        all[client] = folded(all[client], false);
    }
    Endpoints { addresses: [tuple.src, tuple.dst], ports: all }
}

/// The ports that a client's port stands for if flows are folded, because a record stands for all flows of its folded
/// key. `translated`: NAT may have given the other flows any port.
fn folded(port: Maybe<u16>, translated: bool) -> Maybe<u16> {
    match port {
        _ if translated => Maybe::Unknown,
        Maybe::Is(port) if port < FOLDED_PORT => Maybe::Is(port),
        Maybe::Is(_) => Maybe::Between(FOLDED_PORT, u16::MAX),
        _ => Maybe::Unknown,
    }
}

fn ports(tuple: &Tuple) -> Option<[u16; 2]> {
    match tuple.l4 {
        L4::Ports { src, dst } => Some([src, dst]),
        _ => None,
    }
}

/// Headers with the source of one of two tuples, and the destination of one of them.
fn headers(one: &Tuple, other: &Tuple, readable: bool) -> Headers {
    let addresses = [Maybe::either(one.src, other.src), Maybe::either(one.dst, other.dst)];
    let mut headers = Headers { addresses, ..Headers::default() };
    if readable {
        if let (Some([a, b]), Some([c, d])) = (ports(one), ports(other)) {
            headers.ports = [Maybe::either(a, c), Maybe::either(b, d)];
        }
        if let L4::Icmp { kind, code, .. } = one.l4 {
            headers.icmp = Some((kind, code));
        }
    }
    headers
}

/// The tuple that an end of the headers comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
    Either,
}

/// A packet of a conntrack entry at a hook.
struct Nat {
    hook: u8,
    before: Tuple,
    after: Tuple,
    /// Whether NAT had not decided about the source, and the destination, before this hook.
    fresh: (bool, bool),
    /// Whether it came in through the loopback interface, so that its translations on output are done.
    looped: bool,
    /// Whether NAT translates packets here. (Entries stay translated after the last NAT rule was removed.)
    works: bool,
}

impl Nat {
    fn of(record: &PathRecord, reply: Tuple, works: bool) -> Self {
        let (mine, other) = if record.info >= IP_CT_ESTABLISHED_REPLY {
            (reply, record.orig)
        } else {
            (record.orig, reply)
        };
        let first = record.info == IP_CT_NEW;
        let fresh = |done| first && record.status & done == 0;
        Self {
            hook: hook(record.hook_point),
            before: mine,
            after: turned(&mine, &other),
            fresh: (fresh(IPS_SRC_NAT_DONE), fresh(IPS_DST_NAT_DONE)),
            looped: record.iif.is_some_and(|device| device.index == LOOPBACK),
            works,
        }
    }

    fn headers(&self, chain: Option<&PlannedChain>) -> Headers {
        let Some(chain) = chain else { return headers(&self.before, &self.after, true) };
        let (source, destination) =
            if self.works { self.sides(chain) } else { (Side::Either, Side::Either) };
        let one = pick(&self.before, &self.after, source, destination, true);
        let other = pick(&self.before, &self.after, source, destination, false);
        headers(&one, &other, true)
    }

    /// The tuples that source and destination come from at a chain.
    fn sides(&self, chain: &PlannedChain) -> (Side, Side) {
        let passed = |priority: i32| match chain.priority {
            _ if chain.nat => Some(false),
            at if at == priority => None,
            at => Some(at > priority),
        };
        // A packet can pass PREROUTING and POSTROUTING twice (VRF). Only for the first packet of a flow is it certain
        // that this is the first time.
        let side = |passed: Option<bool>, fresh: bool| match passed {
            Some(true) => Side::After,
            Some(false) if fresh => Side::Before,
            _ => Side::Either,
        };
        let source = if self.looped { Side::Either } else { Side::Before };
        match self.hook {
            PRE_ROUTING => (source, side(passed(NAT_DST), self.fresh.1 && !self.looped)),
            LOCAL_OUT => (Side::Before, side(passed(NAT_DST), self.fresh.1)),
            LOCAL_IN => (side(passed(NAT_SRC), !self.looped), Side::After),
            FORWARD => (source, Side::After),
            _ => (side(passed(NAT_SRC), self.fresh.0), Side::After),
        }
    }
}

/// A tuple with the source of one and the destination of another. Where both are possible, that of `before` if
/// `first`.
fn pick(before: &Tuple, after: &Tuple, source: Side, destination: Side, first: bool) -> Tuple {
    let of = |side| match side {
        Side::Before => before,
        Side::Either if first => before,
        Side::After | Side::Either => after,
    };
    let (source, destination) = (of(source), of(destination));
    let l4 = match (source.l4, destination.l4) {
        (L4::Ports { src, .. }, L4::Ports { dst, .. }) => L4::Ports { src, dst },
        (l4, _) => l4,
    };
    Tuple { src: source.src, dst: destination.dst, l4, ..*before }
}

/// The other direction's tuple inverted: the packet as it goes out.
fn turned(mine: &Tuple, other: &Tuple) -> Tuple {
    let l4 = match other.l4 {
        L4::Ports { src, dst } => L4::Ports { src: dst, dst: src },
        // NAT does not change the ICMP type and code.
        _ => mine.l4,
    };
    Tuple { src: other.dst, dst: other.src, l4, ..*mine }
}

/// The translation of a packet, if NAT decided about it at this hook.
fn translation(
    record: &PathRecord,
    reply: &Tuple,
    chains: &[Option<&PlannedChain>],
) -> Option<Translation> {
    if record.info != IP_CT_NEW || !chains.iter().flatten().any(|chain| chain.nat) {
        return None;
    }
    let source = !matches!(hook(record.hook_point), PRE_ROUTING | LOCAL_OUT);
    let before: IpAddr = if source { record.orig.src } else { record.orig.dst };
    let (address, port) = if source {
        (reply.dst, ports(reply).map(|ports| ports[1]))
    } else {
        (reply.src, ports(reply).map(|ports| ports[0]))
    };
    Some(Translation { source, address, port, changed: address != before })
}

#[cfg(test)]
mod tests;
