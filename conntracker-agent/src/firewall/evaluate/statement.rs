//! Expressions that do something with a packet, and those whose values are unknown.

use conntracker_common::{IPPROTO_TCP, IPPROTO_UDP};

use super::{
    code::Code,
    effect::Effect,
    packet::{Layer3, Packet},
    registers::Registers,
    translation::{Translation, TranslationKind},
    unknown::{Attr, Attribute, Unknown},
};
use crate::netlink::nftables::{
    expression::{Expression, NatRegisters, Register},
    key::{exthdr, nat},
};

/// NFPROTO_IPV4 and NFPROTO_IPV6.
const IPV4: u32 = 2;
const IPV6: u32 = 10;

/// NFT_OBJECT_ numbers.
const OBJECT_QUOTA: u32 = 2;
const OBJECT_LIMIT: u32 = 4;
const OBJECT_CONNLIMIT: u32 = 5;
const OBJECT_SYNPROXY: u32 = 10;

/// Bytes of the longest values: the name of an operating system, an address of IPv6.
const LONGEST: usize = 16;

/// Evaluates an expression that neither loads from the packet nor computes.
pub(super) fn evaluate(
    expression: &Expression,
    packet: &Packet,
    registers: &mut Registers,
) -> Effect {
    use Expression as E;
    match expression {
        E::Counter { .. } | E::Log { .. } | E::Last | E::Dup { .. } => Effect::Next,
        E::Limit { .. } | E::Quota { .. } | E::Connlimit { .. } => stateful(expression),
        E::ObjectRef { kind, .. } => object(*kind),
        E::Reject { .. } => Effect::Reject,
        E::Queue { .. } => Effect::Verdict(Code::Queue),
        E::Fwd { .. } => Effect::Verdict(Code::Stolen),
        E::Nat { kind, family, registers: of, flags } => {
            // In tables of inet packets of the other family pass (`nft_nat_inet_eval`).
            let own = if packet.layer3() == Layer3::Ip { IPV4 } else { IPV6 };
            if *family != own {
                return Effect::Next;
            }
            let kind = match *kind {
                nat::SNAT => TranslationKind::Source,
                _ => TranslationKind::Destination,
            };
            Effect::Translate(translation(kind, *of, *flags, packet, registers))
        }
        E::Masq { registers: of, flags } => Effect::Translate(translation(
            TranslationKind::Masquerade,
            *of,
            *flags,
            packet,
            registers,
        )),
        E::Redir { registers: of, flags } => Effect::Translate(translation(
            TranslationKind::Redirect,
            *of,
            *flags,
            packet,
            registers,
        )),
        E::Numgen { to, .. } | E::Hash { to, .. } => {
            registers.store_unknown(*to, 4, Unknown::Numgen.into());
            Effect::Next
        }
        E::Dynset { invert, expressions, .. } => dynset(*invert, expressions),
        E::FlowOffload { .. } => flow_offload(packet),
        E::Tproxy { .. } => with_ports(packet, Effect::NextOrBreak(Attribute::Socket.into())),
        E::Synproxy { .. } => match packet.protocol() {
            Ok(IPPROTO_TCP) => Effect::Unknown(Unknown::Synproxy.into()),
            Ok(_) => Effect::Break,
            Err(why) => Effect::Unknown(why.into()),
        },
        E::Socket { to, .. } | E::Osf { to, .. } => {
            registers.store_unknown(*to, LONGEST, Attribute::Socket.into());
            Effect::NextOrBreak(Attribute::Socket.into())
        }
        E::Exthdr { op, flags, len, to, .. } => option(packet, *op, (*flags, *len), *to, registers),
        E::ExthdrSet { .. } => match packet.protocol() {
            // What it changes no rule reads, because options are unknown.
            Ok(IPPROTO_TCP) => Effect::NextOrBreak(Attribute::TcpOptions.into()),
            Ok(_) => Effect::Break,
            Err(why) => Effect::NextOrBreak(why.into()),
        },
        E::Rt { to, .. } => {
            registers.store_unknown(*to, LONGEST, Attribute::Routes.into());
            Effect::NextOrBreak(Attribute::Routes.into())
        }
        E::Xfrm { to, .. } | E::Tunnel { to, .. } => {
            registers.store_unknown(*to, LONGEST, Attribute::Meta.into());
            Effect::NextOrBreak(Attribute::Meta.into())
        }
        // New ones, those on packets inside of tunnels, and those whose set or chain is not in the dump.
        _ => Effect::Unknown(Unknown::Expression.into()),
    }
}

/// An expression that counts, and may end the rule for that.
pub(super) fn stateful(expression: &Expression) -> Effect {
    match expression {
        Expression::Limit { .. } => Effect::NextOrBreak(Unknown::Limit.into()),
        Expression::Quota { .. } => Effect::NextOrBreak(Unknown::Quota.into()),
        Expression::Connlimit { .. } => Effect::NextOrBreak(Unknown::ConnLimit.into()),
        _ => Effect::Next,
    }
}

/// An object of a kind.
pub(super) fn object(kind: u32) -> Effect {
    match kind {
        OBJECT_LIMIT => Effect::NextOrBreak(Unknown::Limit.into()),
        OBJECT_QUOTA => Effect::NextOrBreak(Unknown::Quota.into()),
        OBJECT_CONNLIMIT => Effect::NextOrBreak(Unknown::ConnLimit.into()),
        OBJECT_SYNPROXY => Effect::Unknown(Unknown::Synproxy.into()),
        // Counters, helpers, timeouts, expectations and security marks let the rule go on.
        _ => Effect::Next,
    }
}

/// An element that is added, updated or removed: the rule goes on if there was room for it, and with `invert` if
/// there was not.
fn dynset(invert: bool, expressions: &[Expression]) -> Effect {
    let stateful = expressions.iter().map(stateful).find(|effect| *effect != Effect::Next);
    match stateful {
        Some(effect) => effect,
        None if invert => Effect::NextOrBreak(Unknown::DynamicSet.into()),
        None => Effect::Next,
    }
}

/// Gives established flows of TCP and UDP to a flowtable; ends the rule for others (`nft_flow_offload_eval`).
fn flow_offload(packet: &Packet) -> Effect {
    use conntracker_common::conntrack::IPS_CONFIRMED;
    let status = packet.tracking.status;
    let first = status.known() & IPS_CONFIRMED != 0 && status.value() & IPS_CONFIRMED == 0;
    if first || packet.tracking.has_entry() == Ok(false) {
        return Effect::Break;
    }
    Effect::NextOrBreak(Unknown::LaterPackets.into())
}

/// An effect on packets of TCP and UDP that are no later fragments; the rule ends for others.
fn with_ports(packet: &Packet, effect: Effect) -> Effect {
    match (packet.protocol(), packet.fragment_offset()) {
        (Ok(IPPROTO_TCP | IPPROTO_UDP), Ok(0)) => effect,
        (Ok(_), Ok(_)) => Effect::Break,
        (Err(why), _) | (_, Err(why)) => Effect::NextOrBreak(why.into()),
    }
}

/// Loads from an option or an extension header, or whether it is there.
fn option(
    packet: &Packet,
    op: u32,
    (flags, len): (u32, u32),
    to: Register,
    registers: &mut Registers,
) -> Effect {
    const PRESENT: u32 = 1;
    let (why, possible) = match op {
        exthdr::IPV6 => (Attribute::IpOptions, packet.has_extension_headers() != Ok(false)),
        exthdr::IPV4 => (Attribute::IpOptions, packet.layer3() == Layer3::Ip),
        exthdr::TCPOPT => {
            (Attribute::TcpOptions, packet.protocol().map_or(true, |own| own == IPPROTO_TCP))
        }
        _ => (Attribute::Payload, true),
    };
    match (possible, flags & PRESENT != 0) {
        (false, true) => registers.store(to, &[0]),
        (false, false) => return Effect::Break,
        (true, true) => registers.store_unknown(to, 1, why.into()),
        (true, false) => {
            registers.store_unknown(to, len as usize, why.into());
            return Effect::NextOrBreak(why.into());
        }
    }
    Effect::Next
}

/// What a rule asks NAT to do.
fn translation(
    kind: TranslationKind,
    of: NatRegisters,
    flags: u32,
    packet: &Packet,
    registers: &Registers,
) -> Translation {
    let choice = Unknown::TranslationChoice;
    let address = |register| -> Attr<std::net::IpAddr> {
        match packet.layer3() {
            Layer3::Ip => registers.array::<4>(register).map(Into::into),
            Layer3::Ip6 => registers.array::<16>(register).map(Into::into),
        }
        .map_err(|why| why.first().unwrap_or(choice))
    };
    let port = |register| -> Attr<u16> {
        let bytes = registers.array(register).map_err(|why| why.first().unwrap_or(choice))?;
        Ok(u16::from_be_bytes(bytes))
    };
    // A last one that is not there equals the first.
    let [first, last] = of.addresses;
    let addresses = first.map(|first| [address(first), address(last.unwrap_or(first))]);
    let [first, last] = of.ports;
    let ports = first.map(|first| [port(first), port(last.unwrap_or(first))]);
    Translation { kind, addresses, ports, flags }
}
