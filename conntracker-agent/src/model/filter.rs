//! Which flows to report: the filters of the command line, resolved.
//!
//! Values of one option are alternatives, different options must all hold, `!` negates. A negated
//! value excludes: `-p tcp -p '!udp'` is "tcp, and not udp".

mod describe;
mod rule;

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

pub use self::rule::RuleFilter;
use super::state::ProtoState;
use super::{Flow, L4, Mark, Status, Tuple, Zone};

/// A value that must, or must not, match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term<T> {
    /// Excludes instead of includes.
    pub negated: bool,
    /// The value.
    pub value: T,
}

/// All values of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyOf<T>(pub Vec<Term<T>>);

impl<T> Default for AnyOf<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> AnyOf<T> {
    /// Whether the option was not given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of the plain values matches (or there are none), and none of the negated ones.
    pub fn allows(&self, matches: impl Fn(&T) -> bool) -> bool {
        let mut plain = self.0.iter().filter(|t| !t.negated).peekable();
        (plain.peek().is_none() || plain.any(|t| matches(&t.value)))
            && !self.0.iter().any(|t| t.negated && matches(&t.value))
    }

    /// The values as text.
    fn texts(&self, text: impl Fn(&T) -> String) -> Vec<String> {
        let sign = |negated| if negated { "!" } else { "" };
        self.0.iter().map(|t| format!("{}{}", sign(t.negated), text(&t.value))).collect()
    }

    /// The value, if there is exactly one and it is plain: what a kernel filter can take.
    #[must_use]
    pub fn single(&self) -> Option<&T> {
        match &self.0[..] {
            [Term { negated: false, value }] => Some(value),
            _ => None,
        }
    }
}

/// A mark, of which only the bits of the mask count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedMark {
    /// Value.
    pub value: u32,
    /// Mask.
    pub mask: u32,
}

/// A status, as reports and lists print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusIs {
    /// All of these bits are set.
    Set(Status),
    /// No answer was seen, which lists call `[UNREPLIED]`: SEEN_REPLY is not set.
    Unreplied,
}

impl StatusIs {
    /// Name of [`Self::Unreplied`].
    const UNREPLIED: &str = "unreplied";

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Status::NAMES.into_iter().chain([Self::UNREPLIED])
    }

    /// A status by its name, in any case.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case(Self::UNREPLIED) {
            return Some(Self::Unreplied);
        }
        let bit = Status::NAMES.iter().position(|name| text.eq_ignore_ascii_case(name))?;
        Some(Self::Set(Status(1 << bit)))
    }

    /// Whether an entry has it.
    #[must_use]
    pub fn of(self, status: Status) -> bool {
        match self {
            Self::Set(bits) => status.contains(bits),
            Self::Unreplied => !status.contains(Status::SEEN_REPLY),
        }
    }

    /// Bits that must be set, and those that count.
    #[must_use]
    pub fn bits(self) -> (u32, u32) {
        match self {
            Self::Set(bits) => (bits.0, bits.0),
            Self::Unreplied => (0, Status::SEEN_REPLY.0),
        }
    }
}

impl fmt::Display for StatusIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(bits) => f.write_str(&bits.names().collect::<Vec<_>>().join("+")),
            Self::Unreplied => f.write_str(Self::UNREPLIED),
        }
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    Ipv4,
    /// AF_INET6.
    Ipv6,
}

/// The filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Protocol.
    pub proto: AnyOf<u8>,
    /// Source address, original direction.
    pub src: AnyOf<IpNet>,
    /// Destination address, original direction.
    pub dst: AnyOf<IpNet>,
    /// Source port, original direction, before folding.
    pub sport: AnyOf<RangeInclusive<u16>>,
    /// Destination port, original direction.
    pub dport: AnyOf<RangeInclusive<u16>>,
    /// Source address, reply direction.
    pub reply_src: AnyOf<IpNet>,
    /// Destination address, reply direction.
    pub reply_dst: AnyOf<IpNet>,
    /// Source port, reply direction.
    pub reply_sport: AnyOf<RangeInclusive<u16>>,
    /// Destination port, reply direction.
    pub reply_dport: AnyOf<RangeInclusive<u16>>,
    /// Source or destination address of either direction.
    pub host: AnyOf<IpNet>,
    /// Source or destination port of either direction, before folding.
    pub port: AnyOf<RangeInclusive<u16>>,
    /// Translated source or destination address, as in [`Self::src_nat`] and [`Self::dst_nat`].
    pub nat: AnyOf<Option<IpNet>>,
    /// The address that the source was translated to; `None` is any: translated at all.
    pub src_nat: AnyOf<Option<IpNet>>,
    /// The address that the destination was translated to; `None` is any: translated at all.
    pub dst_nat: AnyOf<Option<IpNet>>,
    /// Protocol state, lower case.
    pub state: AnyOf<String>,
    /// Status.
    pub status: AnyOf<StatusIs>,
    /// Connmark.
    pub mark: AnyOf<MaskedMark>,
    /// Labels, by number.
    pub label: AnyOf<u16>,
    /// Connection tracking helper.
    pub helper: AnyOf<String>,
    /// Conntrack zone.
    pub zone: AnyOf<Zone>,
    /// Address family.
    pub family: AnyOf<Family>,
    /// Input interface.
    pub iif: AnyOf<String>,
    /// Output interface.
    pub oif: AnyOf<String>,
    /// Only flows with dropped or lost packets.
    pub dropped: bool,
    /// Rules and chains that a packet of the flow met.
    pub rule: AnyOf<RuleFilter>,
}

impl Filter {
    /// Whether the folded key of a flow is enough to decide. If it is not, flows must stay apart until they were
    /// filtered, and are folded afterwards.
    #[must_use]
    pub fn folded_key_decides(&self) -> bool {
        let Self {
            proto: _,
            src: _,
            dst: _,
            sport,
            dport: _,
            reply_src,
            reply_dst,
            reply_sport,
            reply_dport,
            host,
            port,
            nat,
            src_nat,
            dst_nat,
            state,
            status,
            mark,
            label,
            helper,
            zone: _,
            family: _,
            iif,
            oif,
            // A flow's drops are counted by its folded key as well, and the steps of its packets are
            // those of all flows that fold into it: what a report prints below its line.
            dropped: _,
            rule: _,
        } = self;
        sport.is_empty()
            && reply_src.is_empty()
            && reply_dst.is_empty()
            && reply_sport.is_empty()
            && reply_dport.is_empty()
            && host.is_empty()
            && port.is_empty()
            && nat.is_empty()
            && src_nat.is_empty()
            && dst_nat.is_empty()
            && state.is_empty()
            && status.is_empty()
            && mark.is_empty()
            && label.is_empty()
            && helper.is_empty()
            && iif.is_empty()
            && oif.is_empty()
    }

    /// Options that only packets can answer: conntrack knows neither interfaces nor drops nor rules.
    #[must_use]
    pub fn of_packets(&self) -> Vec<&'static str> {
        let Self { iif, oif, dropped, rule, .. } = self;
        [
            ("--iif", !iif.is_empty()),
            ("--oif", !oif.is_empty()),
            ("--dropped", *dropped),
            ("--rule", !rule.is_empty()),
        ]
        .into_iter()
        .filter_map(|(option, given)| given.then_some(option))
        .collect()
    }

    /// Whether [`Self::allows_tuple`] holds for every tuple there is.
    #[must_use]
    pub fn allows_every_tuple(&self) -> bool {
        let Self { proto, src, dst, sport, dport, zone, family, .. } = self;
        proto.is_empty()
            && src.is_empty()
            && dst.is_empty()
            && sport.is_empty()
            && dport.is_empty()
            && zone.is_empty()
            && family.is_empty()
    }

    /// Whether the flow's original direction passes, which can be decided before anything is stored.
    #[must_use]
    pub fn allows_tuple(&self, tuple: &Tuple, zone: Zone) -> bool {
        let family = if tuple.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let ports = ports(tuple);
        self.proto.allows(|p| *p == tuple.proto)
            && self.family.allows(|f| *f == family)
            && self.zone.allows(|z| *z == zone)
            && self.src.allows(|net| net.contains(&tuple.src))
            && self.dst.allows(|net| net.contains(&tuple.dst))
            && self.sport.allows(|range| ports.is_some_and(|(src, _)| range.contains(&src)))
            && self.dport.allows(|range| ports.is_some_and(|(_, dst)| range.contains(&dst)))
    }

    /// Whether the filters that mean either direction allow the addresses and ports.
    pub(crate) fn allows_ends(&self, orig: &Tuple, reply: Option<&Tuple>) -> bool {
        let both = || [Some(orig), reply].into_iter().flatten();
        let host = |net: &IpNet| both().any(|of| net.contains(&of.src) || net.contains(&of.dst));
        let port = |range: &RangeInclusive<u16>| {
            both().filter_map(ports).any(|(src, dst)| range.contains(&src) || range.contains(&dst))
        };
        self.host.allows(host) && self.port.allows(port)
    }

    /// Whether the fields that entries and flows have in common pass.
    pub(crate) fn allows_common(&self, known: &CommonFields<'_>) -> bool {
        let CommonFields { reply, status, state, mark } = *known;
        let ports = reply.and_then(ports);
        let to = |bit, address: fn(&Tuple) -> IpAddr, net: &Option<IpNet>| {
            status.contains(bit)
                && net.is_none_or(|net| reply.is_some_and(|reply| net.contains(&address(reply))))
        };
        // Replies go to the address that the source was translated to, and come from the address that the destination
        // was translated to.
        let src_nat = |net: &Option<IpNet>| to(Status::SRC_NAT, |reply| reply.dst, net);
        let dst_nat = |net: &Option<IpNet>| to(Status::DST_NAT, |reply| reply.src, net);
        let state = state.and_then(|state| state.name());
        self.reply_src.allows(|net| reply.is_some_and(|reply| net.contains(&reply.src)))
            && self.reply_dst.allows(|net| reply.is_some_and(|reply| net.contains(&reply.dst)))
            && self.reply_sport.allows(|range| ports.is_some_and(|(src, _)| range.contains(&src)))
            && self.reply_dport.allows(|range| ports.is_some_and(|(_, dst)| range.contains(&dst)))
            && self.nat.allows(|net| src_nat(net) || dst_nat(net))
            && self.src_nat.allows(src_nat)
            && self.dst_nat.allows(dst_nat)
            && self.state.allows(|wanted| state.is_some_and(|s| s.eq_ignore_ascii_case(wanted)))
            && self.status.allows(|wanted| wanted.of(status))
            && self.mark.allows(|m| mark.unwrap_or_default().0 & m.mask == m.value & m.mask)
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a flow is reported. `interface` names an interface index of the flow's namespace.
    pub fn allows(&self, flow: &Flow, interface: impl Fn(u32) -> Option<String>) -> bool {
        let Flow { key, reply, status, state, mark, details, .. } = flow;
        let known =
            CommonFields { reply: reply.as_ref(), status: *status, state: *state, mark: *mark };
        // Interfaces of packets that passed, and of those that were dropped.
        let interfaces = || {
            let dropped = flow.drops.iter().flat_map(|drops| drops.at());
            let dropped = dropped.map(|at| (at.place.iif, at.place.oif));
            flow.interfaces.into_iter().chain(dropped)
        };
        let met = |which: &dyn Fn((u32, u32)) -> u32, wanted: &String| {
            let mut indices = interfaces().map(which).filter(|&index| index != 0);
            indices.any(|index| interface(index).is_some_and(|name| name == *wanted))
        };
        let steps = || flow.paths.iter().flat_map(|(traversal, _)| &*traversal.steps);
        let details = details.as_deref();
        let helper = details.and_then(|details| details.helper.as_ref());
        self.allows_tuple(&key.orig, key.zone)
            && self.allows_ends(&key.orig, known.reply)
            && self.allows_common(&known)
            && self.label.allows(|wanted| details.is_some_and(|of| of.labels.contains(wanted)))
            && self.helper.allows(|wanted| helper == Some(wanted))
            && self.iif.allows(|wanted| met(&|(iif, _)| iif, wanted))
            && self.oif.allows(|wanted| met(&|(_, oif)| oif, wanted))
            && (!self.dropped || flow.drops.is_some())
            && self.rule.allows(|place| steps().any(|step| place.matches(&step.site)))
    }
}

/// The fields, besides the original direction, that entries and flows have in common.
pub(crate) struct CommonFields<'a> {
    pub reply: Option<&'a Tuple>,
    pub status: Status,
    pub state: Option<ProtoState>,
    pub mark: Option<Mark>,
}

fn ports(tuple: &Tuple) -> Option<(u16, u16)> {
    match tuple.l4 {
        L4::Ports { src, dst } => Some((src, dst)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
