//! Which flows to report: the filters of the command line, resolved.
//!
//! Values of one option are alternatives, different options must all hold, `!` negates. A negated
//! value excludes: `-p tcp -p '!udp'` is "tcp, and not udp".

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use super::{
    Flow, L4, Status, Tuple,
    path::{Site, SiteKind},
    protocol,
};
use crate::{kernel::netlink::ctnetlink::Entry, ruleset::model::Backend};

/// A value, or everything but it.
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
pub struct Mark {
    /// Value.
    pub value: u32,
    /// Mask.
    pub mask: u32,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    Ipv4,
    /// AF_INET6.
    Ipv6,
}

/// A place in the ruleset: `TABLE/CHAIN` or `TABLE/CHAIN/HANDLE`. Names may hold slashes themselves, so
/// that only a site can tell how the text is to be taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlace(String);

impl RulePlace {
    /// `None` if it names no chain.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (table, chain) = text.split_once('/')?;
        (!table.is_empty() && !chain.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Whether it means a site, or the chain of one. A table goes by its name or by family and name, a
    /// rule by its handle, or by its position in ip_tables, which has no handles.
    #[must_use]
    pub fn matches(&self, site: &Site) -> bool {
        let text = self.0.as_str();
        let qualified = text
            .strip_prefix(site.family.name())
            .and_then(|rest| rest.strip_prefix(' ')?.strip_prefix(&site.table));
        let tables = [text.strip_prefix(&site.table), qualified];
        tables.into_iter().flatten().any(|rest| {
            let chain = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(&site.chain));
            chain.is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix('/').is_some_and(|n| is_rule(n, site))
            })
        })
    }
}

/// Whether a site is the rule of a number.
fn is_rule(number: &str, site: &Site) -> bool {
    let own = match site.backend {
        Backend::Nft => site.handle,
        Backend::Legacy => site.position.map(u64::from),
    };
    site.kind == SiteKind::Rule && own.is_some() && number.parse().ok() == own
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
    /// Only flows with (or with `Some(false)`: without) address translation.
    pub nat: Option<bool>,
    /// Protocol state, lower case.
    pub state: AnyOf<String>,
    /// Status bits.
    pub status: AnyOf<Status>,
    /// Connmark.
    pub mark: AnyOf<Mark>,
    /// Conntrack zone.
    pub zone: AnyOf<u16>,
    /// Address family.
    pub family: AnyOf<Family>,
    /// Input interface.
    pub iif: AnyOf<String>,
    /// Output interface.
    pub oif: AnyOf<String>,
    /// Only flows with dropped packets.
    pub dropped: bool,
    /// Rules and chains that a packet of the flow met.
    pub rule: AnyOf<RulePlace>,
}

impl Filter {
    /// Whether the folded key of a flow decides: if not, flows must be kept apart until they were
    /// filtered, and fold afterwards.
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
            nat,
            state,
            status,
            mark,
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
            && nat.is_none()
            && state.is_empty()
            && status.is_empty()
            && mark.is_empty()
            && iif.is_empty()
            && oif.is_empty()
    }

    /// The filter as options of the command line, for the header of a report.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let Self {
            proto,
            src,
            dst,
            sport,
            dport,
            reply_src,
            reply_dst,
            nat,
            state,
            status,
            mark,
            zone,
            family,
            iif,
            oif,
            dropped,
            rule,
        } = self;
        let mut all = Vec::new();
        let mut option = |name: &str, terms: Vec<String>| {
            all.extend(terms.into_iter().map(|term| format!("--{name} {term}")));
        };
        let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        };
        option("proto", proto.texts(|p| protocol::name(*p).map_or(p.to_string(), str::to_owned)));
        option("src", src.texts(ToString::to_string));
        option("dst", dst.texts(ToString::to_string));
        option("sport", sport.texts(range));
        option("dport", dport.texts(range));
        option("reply-src", reply_src.texts(ToString::to_string));
        option("reply-dst", reply_dst.texts(ToString::to_string));
        option("state", state.texts(Clone::clone));
        option("status", status.texts(|s| s.names().collect::<Vec<_>>().join("+")));
        option("mark", mark.texts(|m| format!("{:#x}/{:#x}", m.value, m.mask)));
        option("zone", zone.texts(ToString::to_string));
        option("family", family.texts(|f| format!("{f:?}").to_lowercase()));
        option("iif", iif.texts(Clone::clone));
        option("oif", oif.texts(Clone::clone));
        option("rule", rule.texts(|place| place.0.clone()));
        match nat {
            Some(true) => all.push("--nat".to_owned()),
            Some(false) => all.push("--no-nat".to_owned()),
            None => {}
        }
        if *dropped {
            all.push("--dropped".to_owned());
        }
        all
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

    /// Whether the flow's original direction passes: what can be told before anything is stored.
    #[must_use]
    pub fn allows_tuple(&self, tuple: &Tuple, zone: u16) -> bool {
        let family = if tuple.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let ports = match tuple.l4 {
            L4::Ports { src, dst } => Some((src, dst)),
            _ => None,
        };
        self.proto.allows(|p| *p == tuple.proto)
            && self.family.allows(|f| *f == family)
            && self.zone.allows(|z| *z == zone)
            && self.src.allows(|net| net.contains(&tuple.src))
            && self.dst.allows(|net| net.contains(&tuple.dst))
            && self.sport.allows(|range| ports.is_some_and(|(src, _)| range.contains(&src)))
            && self.dport.allows(|range| ports.is_some_and(|(_, dst)| range.contains(&dst)))
    }

    /// Whether an entry of conntrack's table passes. What only packets can answer
    /// ([`Self::of_packets`]) is not looked at.
    #[must_use]
    pub fn allows_entry(&self, entry: &Entry<'_>) -> bool {
        let reply = |address: fn(&Tuple) -> IpAddr, net: &IpNet| {
            entry.reply.as_ref().is_some_and(|reply| net.contains(&address(reply)))
        };
        let translated = entry.status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
        let state = entry.state.and_then(|state| state.name());
        self.allows_tuple(&entry.orig, entry.zone)
            && self.reply_src.allows(|net| reply(|t| t.src, net))
            && self.reply_dst.allows(|net| reply(|t| t.dst, net))
            && self.nat.is_none_or(|wanted| wanted == translated)
            && self.state.allows(|wanted| state.is_some_and(|s| s.eq_ignore_ascii_case(wanted)))
            && self.status.allows(|wanted| entry.status.contains(*wanted))
            && self.mark.allows(|m| entry.mark.unwrap_or(0) & m.mask == m.value & m.mask)
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a flow is reported. `interface` names an interface index of the flow's namespace.
    pub fn allows(&self, flow: &Flow, interface: impl Fn(u32) -> Option<String>) -> bool {
        let reply = |address: fn(&Tuple) -> IpAddr, net: &IpNet| {
            flow.reply.as_ref().is_some_and(|reply| net.contains(&address(reply)))
        };
        let named = |index: Option<u32>, wanted: &String| {
            index.filter(|i| *i != 0).and_then(&interface).is_some_and(|name| name == *wanted)
        };
        let translated = flow.status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
        let state = flow.state.and_then(|state| state.name());
        let steps = || flow.paths.iter().flat_map(|(traversal, _)| &*traversal.steps);
        self.allows_tuple(&flow.key.orig, flow.key.zone)
            && self.reply_src.allows(|net| reply(|t| t.src, net))
            && self.reply_dst.allows(|net| reply(|t| t.dst, net))
            && self.nat.is_none_or(|wanted| wanted == translated)
            && self.state.allows(|wanted| state.is_some_and(|s| s.eq_ignore_ascii_case(wanted)))
            && self.status.allows(|wanted| flow.status.contains(*wanted))
            && self.mark.allows(|m| flow.mark.unwrap_or(0) & m.mask == m.value & m.mask)
            && self.iif.allows(|wanted| named(flow.interfaces.map(|(iif, _)| iif), wanted))
            && self.oif.allows(|wanted| named(flow.interfaces.map(|(_, oif)| oif), wanted))
            && (!self.dropped || flow.dropped())
            && self.rule.allows(|place| steps().any(|step| place.matches(&step.site)))
    }
}

#[cfg(test)]
mod tests;
