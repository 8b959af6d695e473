//! The keys of a flow.

use std::{cmp::Ordering, collections::HashMap, fmt, net::IpAddr};

use super::Key;
use crate::{
    model::{
        Cause, Drops, Flow, L4, NetnsId, Zone,
        path::{Site, SiteKind, Step},
        process::Process,
        protocol,
    },
    report::{Header, names::OneLine},
};

/// The key of a group. Its order is that of names: numbers as numbers, what is unknown last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::report) enum KeyText<'a> {
    Address(IpAddr),
    /// Port and protocol.
    Service(u16, u8),
    Protocol(u8),
    Zone(Zone),
    /// Of a namespace, an interface or a process.
    Name(&'a str),
    User(u32, Option<&'a str>),
    Rule(&'a Site),
    Reason(Cause),
    /// Value and mask.
    Mark(u32, u32),
    /// Packets were dropped by a rule that is not known.
    UnknownRule,
    /// The flow has none, or it is not known.
    None,
}

/// A key of a flow, and what of its packets counts for that key.
pub(in crate::report) struct KeyOf<'a> {
    pub key: KeyText<'a>,
    pub dropped: u64,
    pub lost: u64,
}

/// Finds the keys of flows.
pub(in crate::report) struct Keys {
    key: Key,
    namespaces: HashMap<NetnsId, String>,
    /// By number, with the namespace where there are several.
    interfaces: HashMap<(NetnsId, u32), String>,
}

impl Keys {
    pub fn new(key: Key, header: &Header) -> Self {
        let several = header.namespaces.len() > 1;
        let mut keys = Self { key, namespaces: HashMap::new(), interfaces: HashMap::new() };
        for namespace in &header.namespaces {
            keys.namespaces.insert(namespace.id, namespace.name.clone());
            for interface in &namespace.interfaces {
                let name = &interface.name;
                let text =
                    if several { format!("{}/{name}", namespace.name) } else { name.clone() };
                keys.interfaces.insert((namespace.id, interface.number), text);
            }
        }
        keys
    }

    /// Those of a flow, each once.
    pub fn of<'a>(&'a self, flow: &'a Flow) -> Vec<KeyOf<'a>> {
        let orig = &flow.key.orig;
        let one = match self.key {
            Key::Rule => return rules(flow),
            Key::Reason => return reasons(flow),
            Key::Src => KeyText::Address(orig.src),
            Key::Dst => KeyText::Address(orig.dst),
            Key::Dport => match orig.l4 {
                L4::Ports { dst, .. } => KeyText::Service(dst, orig.proto),
                L4::Icmp { .. } | L4::Gre { .. } | L4::None => KeyText::None,
            },
            Key::Proto => KeyText::Protocol(orig.proto),
            Key::Netns => self.name(self.namespaces.get(&flow.key.netns)),
            Key::Zone => KeyText::Zone(flow.key.zone),
            Key::Iif => self.interface(flow, |(iif, _)| iif),
            Key::Oif => self.interface(flow, |(_, oif)| oif),
            Key::Process => {
                let comm = flow.process.as_deref().and_then(|process| process.comm.as_deref());
                comm.map_or(KeyText::None, KeyText::Name)
            }
            Key::User => match flow.process.as_deref() {
                Some(Process { uid, user, .. }) => KeyText::User(*uid, user.as_deref()),
                None => KeyText::None,
            },
            Key::Mark(mask) => {
                flow.mark.map_or(KeyText::None, |mark| KeyText::Mark(mark.0 & mask, mask))
            }
        };
        let dropped = |count: fn(&Drops) -> u64| flow.drops.as_deref().map_or(0, count);
        vec![KeyOf {
            key: one,
            dropped: dropped(Drops::packets),
            lost: dropped(Drops::lost_packets),
        }]
    }

    #[expect(clippy::unused_self, reason = "the name is of this")]
    fn name<'a>(&'a self, name: Option<&'a String>) -> KeyText<'a> {
        name.map_or(KeyText::None, |name| KeyText::Name(name))
    }

    /// An interface of the first packet; of a flow of which only dropped packets are known, of the first of these.
    fn interface(&self, flow: &Flow, which: fn((u32, u32)) -> u32) -> KeyText<'_> {
        let dropped = || {
            let first = flow.drops.as_deref()?.at().first()?;
            Some((first.place.iif, first.place.oif))
        };
        let number = flow.interfaces.or_else(dropped).map_or(0, which);
        self.name(self.interfaces.get(&(flow.key.netns, number)))
    }
}

/// Adds packets to the key of a flow.
fn add<'a>(keys: &mut Vec<KeyOf<'a>>, key: KeyText<'a>, dropped: u64, lost: u64) {
    match keys.iter_mut().find(|known| known.key == key) {
        Some(known) => {
            known.dropped += dropped;
            known.lost += lost;
        }
        None => keys.push(KeyOf { key, dropped, lost }),
    }
}

/// The rules, policies and chains that the packets of a flow met, and dropped packets by what dropped them.
fn rules(flow: &Flow) -> Vec<KeyOf<'_>> {
    let mut keys = Vec::new();
    let steps = flow.paths.iter().flat_map(|(traversal, _)| traversal.steps.iter());
    for Step { site, .. } in steps.filter(|step| step.site.kind != SiteKind::Return) {
        add(&mut keys, KeyText::Rule(site), 0, 0);
    }
    if let Some(drops) = flow.drops.as_deref() {
        for at in drops.dropped() {
            let key = match (at.place.cause, &at.by) {
                (Cause::Conntrack(_), _) => KeyText::Reason(at.place.cause),
                (_, Some(step)) => KeyText::Rule(&step.site),
                (_, None) => KeyText::UnknownRule,
            };
            add(&mut keys, key, at.packets, 0);
        }
        if drops.elsewhere() > 0 {
            add(&mut keys, KeyText::UnknownRule, drops.elsewhere(), 0);
        }
        if drops.lost_packets() > 0 {
            add(&mut keys, KeyText::None, 0, drops.lost_packets());
        }
    }
    if keys.is_empty() {
        add(&mut keys, KeyText::None, 0, 0);
    }
    keys
}

/// Why packets of a flow were dropped.
fn reasons(flow: &Flow) -> Vec<KeyOf<'_>> {
    let mut keys = Vec::new();
    if let Some(drops) = flow.drops.as_deref() {
        for at in drops.at() {
            let cause = at.place.cause;
            let lost = cause.is_elsewhere();
            let (dropped, lost) = if lost { (0, at.packets) } else { (at.packets, 0) };
            add(&mut keys, KeyText::Reason(cause), dropped, lost);
        }
        // Drop points that are not kept apart.
        let (dropped, lost) = (drops.elsewhere(), drops.lost_elsewhere());
        if dropped > 0 {
            add(&mut keys, KeyText::Reason(Cause::Netfilter), dropped, 0);
        }
        if lost > 0 {
            add(&mut keys, KeyText::None, 0, lost);
        }
    }
    if keys.is_empty() {
        add(&mut keys, KeyText::None, 0, 0);
    }
    keys
}

impl KeyText<'_> {
    /// Of different kinds.
    fn rank(&self) -> u8 {
        match self {
            Self::UnknownRule => 2,
            Self::None => 3,
            Self::Reason(_) => 1,
            _ => 0,
        }
    }
}

impl Ord for KeyText<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |site: &Site| {
            (
                site.label().into_owned(),
                site.backend,
                site.family,
                site.chain.clone(),
                site.kind,
                site.position,
            )
        };
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => a.cmp(b),
            (Self::Service(a, of_a), Self::Service(b, of_b)) => (a, of_a).cmp(&(b, of_b)),
            (Self::Protocol(a), Self::Protocol(b)) => a.cmp(b),
            (Self::Zone(a), Self::Zone(b)) => a.cmp(b),
            (Self::Name(a), Self::Name(b)) => a.cmp(b),
            (Self::User(a, name_a), Self::User(b, name_b)) => (a, name_a).cmp(&(b, name_b)),
            (Self::Rule(a), Self::Rule(b)) => {
                order(a).cmp(&order(b)).then_with(|| (a.handle, &a.text).cmp(&(b.handle, &b.text)))
            }
            (Self::Reason(a), Self::Reason(b)) => a.cmp(b),
            (Self::Mark(a, of_a), Self::Mark(b, of_b)) => (a, of_a).cmp(&(b, of_b)),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for KeyText<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address(address) => address.fmt(f),
            Self::Service(port, proto) => write!(f, "{port}/{}", Self::Protocol(proto)),
            Self::Protocol(proto) => match protocol::name(proto) {
                Some(name) => f.write_str(name),
                None => proto.fmt(f),
            },
            Self::Zone(zone) => zone.fmt(f),
            Self::Name(name) | Self::User(_, Some(name)) => OneLine(name).fmt(f),
            Self::User(uid, None) => uid.fmt(f),
            Self::Rule(site) => {
                write!(f, "{}/{}", OneLine(&site.label()), OneLine(&site.chain))?;
                match (site.kind, site.position) {
                    (SiteKind::Rule, Some(position)) => write!(f, "/{position}"),
                    (kind, _) => write!(f, " {}", kind.name()),
                }
            }
            Self::Reason(Cause::Netfilter) => f.write_str("netfilter"),
            Self::Reason(Cause::Conntrack(cause)) => write!(f, "conntrack: {}", cause.name()),
            Self::Reason(Cause::Function(name)) => write!(f, "{name}()"),
            Self::Reason(Cause::Reason(name)) => f.write_str(name),
            Self::Mark(value, u32::MAX) => write!(f, "{value:#x}"),
            Self::Mark(value, mask) => write!(f, "{value:#x}/{mask:#x}"),
            Self::UnknownRule => f.write_str("a rule that is not known"),
            Self::None => f.write_str("-"),
        }
    }
}
