//! Why something about a packet or a rule is unknown: a closed list, so that a report can count by reason.

use std::fmt;

/// A value, or why it is unknown.
pub type Attr<T> = Result<T, Unknown>;

/// Why a rule cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unknown {
    /// A rate limit: it depends on the packets before.
    Limit,
    /// A quota of bytes: it depends on the packets before.
    Quota,
    /// A limit on the number of connections: it depends on the other flows.
    ConnLimit,
    /// A generated number: random, or one for each packet.
    Numgen,
    /// The time of the day or the date.
    Time,
    /// A set that packets change.
    DynamicSet,
    /// An extension of iptables that is not evaluated.
    Extension,
    /// An expression of nf_tables that is not evaluated.
    Expression,
    /// The route to an address that a new translation chose.
    RouteAfterNat,
    /// The address or port that NAT chooses from a range.
    TranslationChoice,
    /// A program in user space decides (`queue`).
    Queue,
    /// A handshake with the client comes first (`synproxy`).
    Synproxy,
    /// What packets after this one do (counters of the flow, its timeout).
    LaterPackets,
    /// More branches than are followed.
    Branches,
    /// An attribute of the packet that is not given or not recorded.
    Attribute(Attribute),
}

/// An attribute of a packet or of its conntrack entry that rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Attribute {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Protocol above IP.
    Protocol,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// Type and code of ICMP.
    IcmpType,
    /// Flags of TCP.
    TcpFlags,
    /// Options of TCP.
    TcpOptions,
    /// Other fields of the header above IP.
    TransportHeader,
    /// Bytes behind the header above IP.
    Payload,
    /// Length of the packet.
    Length,
    /// DSCP and ECN (traffic class).
    Dscp,
    /// TTL (hop limit).
    Ttl,
    /// Fragment offset.
    Fragment,
    /// Other fields of the IP header.
    IpHeader,
    /// Options of IPv4, extension headers of IPv6.
    IpOptions,
    /// MAC addresses.
    LinkAddresses,
    /// Ether type and VLAN.
    EtherType,
    /// Whether the frame was for this host, for all, or for another host.
    PacketType,
    /// Interface of input.
    InputInterface,
    /// Interface of output.
    OutputInterface,
    /// Group, kind, type or bridge port of an interface.
    InterfaceDetails,
    /// Packet mark.
    Mark,
    /// Priority of the packet (`skb->priority`).
    Priority,
    /// User and group of the socket.
    Owner,
    /// Socket, and what belongs to it.
    Socket,
    /// Other metadata of the packet (CPU, realm, security mark, …).
    Meta,
    /// Conntrack state.
    CtState,
    /// Direction within the flow.
    CtDirection,
    /// Status bits of the entry.
    CtStatus,
    /// Mark of the entry.
    CtMark,
    /// Zone of the entry.
    CtZone,
    /// Tuples of the entry.
    CtTuple,
    /// Helper of the entry.
    CtHelper,
    /// Labels of the entry.
    CtLabels,
    /// Other fields of the entry (id, security mark, …).
    CtEntry,
    /// Routing tables.
    Routes,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 37] = [
        Self::Source,
        Self::Destination,
        Self::Protocol,
        Self::SourcePort,
        Self::DestinationPort,
        Self::IcmpType,
        Self::TcpFlags,
        Self::TcpOptions,
        Self::TransportHeader,
        Self::Payload,
        Self::Length,
        Self::Dscp,
        Self::Ttl,
        Self::Fragment,
        Self::IpHeader,
        Self::IpOptions,
        Self::LinkAddresses,
        Self::EtherType,
        Self::PacketType,
        Self::InputInterface,
        Self::OutputInterface,
        Self::InterfaceDetails,
        Self::Mark,
        Self::Priority,
        Self::Owner,
        Self::Socket,
        Self::Meta,
        Self::CtState,
        Self::CtDirection,
        Self::CtStatus,
        Self::CtMark,
        Self::CtZone,
        Self::CtTuple,
        Self::CtHelper,
        Self::CtLabels,
        Self::CtEntry,
        Self::Routes,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source address",
            Self::Destination => "destination address",
            Self::Protocol => "protocol",
            Self::SourcePort => "source port",
            Self::DestinationPort => "destination port",
            Self::IcmpType => "ICMP type",
            Self::TcpFlags => "TCP flags",
            Self::TcpOptions => "TCP options",
            Self::TransportHeader => "transport header",
            Self::Payload => "payload",
            Self::Length => "length",
            Self::Dscp => "DSCP",
            Self::Ttl => "TTL",
            Self::Fragment => "fragment offset",
            Self::IpHeader => "IP header",
            Self::IpOptions => "IP options",
            Self::LinkAddresses => "MAC addresses",
            Self::EtherType => "ether type",
            Self::PacketType => "packet type",
            Self::InputInterface => "input interface",
            Self::OutputInterface => "output interface",
            Self::InterfaceDetails => "details of the interface",
            Self::Mark => "packet mark",
            Self::Priority => "packet priority",
            Self::Owner => "owner of the socket",
            Self::Socket => "socket",
            Self::Meta => "metadata of the packet",
            Self::CtState => "conntrack state",
            Self::CtDirection => "direction",
            Self::CtStatus => "conntrack status",
            Self::CtMark => "connmark",
            Self::CtZone => "conntrack zone",
            Self::CtTuple => "conntrack tuple",
            Self::CtHelper => "conntrack helper",
            Self::CtLabels => "conntrack labels",
            Self::CtEntry => "conntrack entry",
            Self::Routes => "routing table",
        }
    }
}

impl Unknown {
    /// Those that are no attributes.
    const OTHERS: [Self; 14] = [
        Self::Limit,
        Self::Quota,
        Self::ConnLimit,
        Self::Numgen,
        Self::Time,
        Self::DynamicSet,
        Self::Extension,
        Self::Expression,
        Self::RouteAfterNat,
        Self::TranslationChoice,
        Self::Queue,
        Self::Synproxy,
        Self::LaterPackets,
        Self::Branches,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::OTHERS.into_iter().chain(Attribute::ALL.into_iter().map(Self::Attribute))
    }

    /// Its bit in an [`UnknownSet`].
    const fn bit(self) -> u64 {
        let number = match self {
            Self::Limit => 0,
            Self::Quota => 1,
            Self::ConnLimit => 2,
            Self::Numgen => 3,
            Self::Time => 4,
            Self::DynamicSet => 5,
            Self::Extension => 6,
            Self::Expression => 7,
            Self::RouteAfterNat => 8,
            Self::TranslationChoice => 9,
            Self::Queue => 10,
            Self::Synproxy => 11,
            Self::LaterPackets => 12,
            Self::Branches => 13,
            Self::Attribute(attribute) => 14 + attribute as u8,
        };
        1 << number
    }
}

impl From<Attribute> for Unknown {
    fn from(attribute: Attribute) -> Self {
        Self::Attribute(attribute)
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "limit",
            Self::Quota => "quota",
            Self::ConnLimit => "connlimit",
            Self::Numgen => "numgen",
            Self::Time => "time",
            Self::DynamicSet => "dynamic set",
            Self::Extension => "unknown xt extension",
            Self::Expression => "expression that is not evaluated",
            Self::RouteAfterNat => "route after a new translation",
            Self::TranslationChoice => "translation that the kernel chooses from a range",
            Self::Queue => "queue",
            Self::Synproxy => "synproxy",
            Self::LaterPackets => "later packets",
            Self::Branches => "too many branches",
            Self::Attribute(attribute) => return write!(f, "{} unknown", attribute.name()),
        })
    }
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnknownSet(u64);

impl UnknownSet {
    /// None: everything is decided.
    pub const NONE: Self = Self(0);

    /// Whether there is no reason.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a reason is among them.
    #[must_use]
    pub const fn contains(self, unknown: Unknown) -> bool {
        self.0 & unknown.bit() != 0
    }

    /// One of the reasons.
    #[must_use]
    pub fn first(self) -> Option<Unknown> {
        self.iter().next()
    }

    /// Each reason.
    pub fn iter(self) -> impl Iterator<Item = Unknown> {
        Unknown::all().filter(move |unknown| self.contains(*unknown))
    }
}

impl From<Unknown> for UnknownSet {
    fn from(unknown: Unknown) -> Self {
        Self(unknown.bit())
    }
}

impl From<Attribute> for UnknownSet {
    fn from(attribute: Attribute) -> Self {
        Unknown::Attribute(attribute).into()
    }
}

impl fmt::Display for UnknownSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, unknown) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{unknown}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_bit_and_a_name_of_its_own() {
        let (mut bits, mut names) = (UnknownSet::NONE, std::collections::BTreeSet::new());
        for unknown in Unknown::all() {
            assert!(!bits.contains(unknown), "{unknown}");
            bits = bits.union(unknown.into());
            assert!(names.insert(unknown.to_string()), "{unknown}");
        }
        assert_eq!(bits.iter().count(), Unknown::all().count());
        for (index, attribute) in Attribute::ALL.into_iter().enumerate() {
            assert_eq!(attribute as usize, index);
        }
    }
}
