//! A flow as tests compare it: what every source can tell of it. Kept apart from the types of the
//! program under test, so that an error there cannot hide itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a protocol has for ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    /// TCP, UDP, SCTP.
    Ports(u16, u16),
    /// ICMP and ICMPv6: type, code, identifier.
    Icmp(u8, u8, u16),
    /// GRE.
    Keys(u16, u16),
    /// Any other protocol.
    Nothing,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// IP protocol.
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The rest.
    pub l4: L4,
}

impl Tuple {
    /// A direction of a protocol with ports.
    #[must_use]
    pub fn ports(proto: u8, from: SocketAddr, to: SocketAddr) -> Self {
        Self { proto, src: from.ip(), dst: to.ip(), l4: L4::Ports(from.port(), to.port()) }
    }

    /// The other direction, without address translation.
    #[must_use]
    pub fn turned(self) -> Self {
        let l4 = match self.l4 {
            L4::Ports(src, dst) => L4::Ports(dst, src),
            L4::Icmp(8, code, id) => L4::Icmp(0, code, id),
            L4::Icmp(128, code, id) => L4::Icmp(129, code, id),
            L4::Keys(src, dst) => L4::Keys(dst, src),
            other => other,
        };
        Self { proto: self.proto, src: self.dst, dst: self.src, l4 }
    }

    /// Folded as reports are without `--no-fold`.
    #[must_use]
    pub fn folded(self) -> Self {
        let l4 = match self.l4 {
            L4::Ports(src, dst) => L4::Ports(src.min(1024), dst),
            L4::Icmp(kind, code, _) => L4::Icmp(kind, code, 0),
            other => other,
        };
        Self { l4, ..self }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, src, dst, l4 } = self;
        write!(f, "{src} > {dst} proto {proto}")?;
        match l4 {
            L4::Ports(src, dst) => write!(f, " ports {src} > {dst}"),
            L4::Icmp(kind, code, id) => write!(f, " type {kind} code {code} id {id}"),
            L4::Keys(src, dst) => write!(f, " keys {src} > {dst}"),
            L4::Nothing => Ok(()),
        }
    }
}

/// The one direction that a zone is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Of the first packet.
    Original,
    /// Of the answers.
    Reply,
}

/// A flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction.
    pub reply: Option<Tuple>,
    /// Conntrack zone.
    pub zone: u16,
    /// The one direction that the zone is for, if it is not for both.
    pub zone_direction: Option<Direction>,
    /// Connmark.
    pub mark: u32,
    /// Packets were seen in both directions.
    pub replied: bool,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orig, reply, zone, zone_direction, mark, replied } = self;
        write!(f, "{orig}")?;
        match reply {
            Some(reply) => write!(f, " | {reply}")?,
            None => write!(f, " | -")?,
        }
        write!(f, " | zone {zone}")?;
        if let Some(direction) = zone_direction {
            write!(f, " {direction:?}")?;
        }
        write!(f, " mark {mark:#x}{}", if *replied { " replied" } else { "" })
    }
}

/// One flow of all that a source told, in the order in which it did: confirmed for good once it was,
/// with the last mark that was told.
#[must_use]
pub fn merge(told: impl IntoIterator<Item = Flow>) -> Vec<Flow> {
    let mut flows: BTreeMap<_, Flow> = BTreeMap::new();
    for flow in told {
        let merged = flows.entry((flow.orig, flow.reply, flow.zone)).or_insert(flow);
        merged.replied |= flow.replied;
        if flow.mark != 0 {
            merged.mark = flow.mark;
        }
    }
    flows.into_values().collect()
}
