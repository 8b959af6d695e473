//! The rules as the kernel has them, asked where the listing leaves something open: marks that are computed,
//! statements that the model does not know, extensions of iptables.
//!
//! Only what cannot change without a new epoch of the ruleset is used: routes, and sets whose elements time out, are
//! not.

use std::{collections::HashMap, net::IpAddr};

use super::{
    ChainId, Spot,
    condition::{PacketAtRule, Tri},
    evaluate::Evaluation,
    packet::{Endpoints, Headers, Maybe},
    program::RuleOutcome,
};
use crate::{
    firewall::{
        Ruleset,
        evaluate::{
            Attr, Firewall, Packet,
            code::{ChainNumber, Code},
            context::Context,
            interface::Interface,
            packet::{Layer3, Side},
            routes::{Route, RouteQuery, RouteType, Routes},
            single::RuleEnds,
            state::StepVerdict,
            tracking::Tracking,
            unknown::Attribute,
            word::Word,
        },
        model::Chain,
    },
    model::{
        L4, Tuple,
        hook::Hook,
        path::{CtState, Direction},
    },
    netlink::nftables::key::set::{EVAL, TIMEOUT},
};

/// Bits of `ct state`, as [`super::Packet::states`] has them.
const STATES: [(u32, CtState); 5] = [
    (1, CtState::Invalid),
    (2, CtState::Established),
    (4, CtState::Related),
    (8, CtState::New),
    (64, CtState::Untracked),
];

/// The rules of a namespace.
#[derive(Debug)]
pub struct KernelRules {
    firewall: Firewall,
    /// By chain of the program: its number, and of a base chain its hook.
    numbers: Vec<Option<(ChainNumber, Option<Hook>)>>,
    chains: HashMap<ChainNumber, ChainId>,
}

impl KernelRules {
    /// The rules of a ruleset that was read with them; `None` if they cannot be decoded.
    #[must_use]
    pub fn new(ruleset: &Ruleset) -> Option<Self> {
        let (mut nft, legacy) = ruleset.objects.tables().ok()?;
        for set in nft.iter_mut().flat_map(|table| &mut table.sets) {
            if set.flags & TIMEOUT != 0 {
                // Elements are gone after a time; transactions that change others begin an epoch.
                set.flags |= EVAL;
            }
        }
        let firewall = Firewall::new(&nft, &legacy);
        let by_name = firewall.numbers();
        let listed = ruleset.tables.iter().flat_map(|table| {
            table.chains.iter().map(move |chain| {
                (chain, (table.backend, table.family, table.name.as_str(), chain.name.as_str()))
            })
        });
        let numbers: Vec<_> =
            listed.map(|(chain, name)| number(&firewall, *by_name.get(&name)?, chain)).collect();
        let numbered = numbers.iter().zip(0..);
        let chains = numbered.filter_map(|(of, id)| Some(((*of)?.0, ChainId(id)))).collect();
        Some(Self { firewall, numbers, chains })
    }

    /// What the listing left open of a rule, with what the kernel's rule says of the packet. `base`: the base chain
    /// that it is in.
    pub(super) fn refine(
        &self,
        found: Evaluation,
        (spot, base): (Spot, ChainId),
        outcomes: &[RuleOutcome],
        at: &PacketAtRule<'_>,
    ) -> Evaluation {
        let open = found.matches == Tri::Unknown || found.outcomes.is_none() && outcomes.len() > 1;
        match self.ask(spot, base, at).filter(|_| open) {
            Some(ends) => self.with(found, &ends, outcomes, at),
            None => found,
        }
    }

    fn number_of(&self, chain: ChainId) -> Option<(ChainNumber, Option<Hook>)> {
        *self.numbers.get(chain.0 as usize)?
    }

    fn ask(&self, spot: Spot, base: ChainId, at: &PacketAtRule<'_>) -> Option<RuleEnds> {
        let (number, _) = self.number_of(spot.chain)?;
        let (_, hook) = self.number_of(base)?;
        let hook = hook?;
        let packet = packet(at, hook)?;
        let context = Context { hook, routes: &Unasked };
        self.firewall.rule_ends((number, spot.index as usize), packet, &context)
    }

    fn with(
        &self,
        found: Evaluation,
        ends: &RuleEnds,
        outcomes: &[RuleOutcome],
        at: &PacketAtRule<'_>,
    ) -> Evaluation {
        let marks = |packet: &Packet| [packet.mark.get().ok(), packet.tracking.mark.get().ok()];
        let before = [at.mark, at.connmark];
        // A rule that sets a mark and then does not match is left to the model.
        let quiet = |packet: &Packet| {
            let after = marks(packet);
            (0..2).all(|of| after[of] == before[of] || before[of].is_none())
        };
        if !ends.misses.iter().all(quiet) {
            return found;
        }
        let matches = match (ends.misses.is_empty(), ends.matches.is_empty()) {
            (_, true) => Tri::No,
            (true, false) => Tri::Yes,
            (false, false) => found.matches,
        };
        if matches == Tri::No {
            return Evaluation { matches, ..found };
        }
        let mut behind = ends.matches.iter().map(|(_, packet)| marks(packet));
        let first = behind.next().unwrap_or_default();
        let marks = behind
            .fold(first, |all, one| [0, 1].map(|of| all[of].filter(|mark| one[of] == Some(*mark))));
        let possible: Option<Vec<RuleOutcome>> =
            ends.matches.iter().map(|(verdict, _)| self.outcome((*verdict)?, outcomes)).collect();
        let possible = possible.map(|mut possible| {
            possible.sort_unstable();
            possible.dedup();
            possible
        });
        Evaluation { matches, outcomes: found.outcomes.or(possible), marks: Some(marks) }
    }

    /// A verdict among the outcomes that the rule may have.
    fn outcome(&self, verdict: StepVerdict, outcomes: &[RuleOutcome]) -> Option<RuleOutcome> {
        let chain = |number| self.chains.get(&number).copied();
        let outcome = match verdict {
            StepVerdict::Reject => RuleOutcome::Reject,
            StepVerdict::Code(code) => match code {
                Code::Continue | Code::Break => RuleOutcome::Continue,
                Code::Accept => RuleOutcome::Accept,
                Code::Drop => RuleOutcome::Drop,
                Code::Return => RuleOutcome::Return,
                Code::Jump(to) => RuleOutcome::Jump(chain(to)?),
                Code::Goto(to) => RuleOutcome::Goto(chain(to)?),
                Code::Stolen | Code::Queue => return None,
            },
            StepVerdict::Unknown => return None,
        };
        outcomes.contains(&outcome).then_some(outcome)
    }
}

/// The number of a chain and its hook, if its rules are those that were listed.
fn number(
    firewall: &Firewall,
    number: ChainNumber,
    chain: &Chain,
) -> Option<(ChainNumber, Option<Hook>)> {
    let handles = chain.rules.iter().map(|rule| rule.handle);
    let same = firewall.handles(number).eq(handles);
    same.then(|| (number, chain.base.as_ref().map(|base| base.hook)))
}

/// The packet at a rule, as the evaluator takes it; `None` if its family or protocol is not known.
fn packet(at: &PacketAtRule<'_>, hook: Hook) -> Option<Packet> {
    let super::Packet {
        v6, proto, headers, interfaces, states, entry, reply, status, tuples, ..
    } = at.packet;
    let any = if (*v6)? { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
    let mut packet = Packet::new(any, any, (*proto)?)?;
    let headers = headers.get(at.base).copied().unwrap_or_default();
    set_headers(&mut packet, &headers);
    packet.mark = word(at.mark, Attribute::Mark);
    let [input, output] = interfaces.map(|interface| interface.map(self::interface));
    packet.input = input.ok_or(Attribute::InputInterface.into());
    packet.output = output.ok_or(Attribute::OutputInterface.into());
    packet.tracking = Tracking {
        direction: match reply {
            Some(true) => Ok(Direction::Reply),
            Some(false) => Ok(Direction::Original),
            None => Err(Attribute::CtDirection.into()),
        },
        status: Word::partly(status.1, status.0, Attribute::CtStatus.into()),
        mark: word(at.connmark, Attribute::CtMark),
        original: tuple(tuples[0], packet.protocol().ok()?),
        reply: tuple(tuples[1], packet.protocol().ok()?),
        ..Tracking::unknown()
    };
    if let ([bit], Some(entry)) = (states.as_slice(), entry) {
        let state = STATES.iter().find(|(of, _)| of == bit).map(|(_, state)| *state)?;
        packet.tracking.state = Ok(state);
        if packet.tracking.has_entry() != Ok(*entry) {
            return None;
        }
    }
    if matches!(hook, Hook::Ingress | Hook::Prerouting | Hook::Forward) {
        packet.owner = Ok(None);
    }
    Some(packet)
}

fn set_headers(packet: &mut Packet, headers: &Headers) {
    let mut readable = false;
    for (at, side) in [Side::Source, Side::Destination].into_iter().enumerate() {
        match headers.addresses[at] {
            Maybe::Is(address) => packet.set_address(side, address),
            _ => packet.forget_address(side),
        }
        match headers.ports[at] {
            Maybe::Is(port) => packet.set_port(side, port),
            Maybe::Between(first, last) => {
                // The bits that all ports of the range have in common.
                let same = (first ^ last).leading_zeros();
                let mask = !u16::MAX.checked_shr(same).unwrap_or_default();
                packet.set_port_bits(side, first, mask);
            }
            Maybe::Either(..) | Maybe::Unknown => {}
        }
        readable |= headers.ports[at] != Maybe::Unknown;
    }
    if let Some((kind, code)) = headers.icmp {
        packet.set_icmp(kind, code);
        readable = true;
    }
    if !readable || packet.layer3() == Layer3::Ip6 {
        packet.forget_layout();
        if readable {
            packet.set_fragment_offset(0);
        }
    }
}

fn word(value: Option<u32>, attribute: Attribute) -> Word {
    value.map_or(Word::unknown(attribute.into()), |value| Word::new(value, attribute.into()))
}

/// An interface; `None` inside: none.
fn interface(of: super::packet::Interface) -> Option<Interface> {
    let super::packet::Interface { index, name } = of;
    let details = Attribute::InterfaceDetails.into();
    let found = Interface { index: Ok(index), name, hardware: Err(details), group: Err(details) };
    (index != 0).then_some(found)
}

fn tuple(endpoints: Option<Endpoints>, proto: u8) -> Attr<Tuple> {
    let unknown = Attribute::CtTuple.into();
    let Endpoints { addresses: [src, dst], ports } = endpoints.ok_or(unknown)?;
    match ports {
        [Maybe::Is(from), Maybe::Is(to)] => {
            Ok(Tuple { src, dst, proto, l4: L4::Ports { src: from, dst: to } })
        }
        _ => Err(unknown),
    }
}

/// Routes, which are not asked: they may be others now.
struct Unasked;

impl Routes for Unasked {
    fn route(&self, _: &RouteQuery<'_>) -> Attr<Route> {
        Err(Attribute::Routes.into())
    }

    fn depends_on_source(&self) -> bool {
        true
    }

    fn address_type(&self, _: &RouteQuery<'_>) -> Attr<RouteType> {
        Err(Attribute::Routes.into())
    }

    fn address_of(&self, _: &Interface, _: Layer3, _: Option<IpAddr>) -> Attr<Option<IpAddr>> {
        Err(Attribute::Routes.into())
    }
}
