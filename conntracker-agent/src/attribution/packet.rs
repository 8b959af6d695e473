//! The known fields of a packet at a hook, besides the counters that it moved.

use std::net::IpAddr;

use crate::firewall::clause::Field;

/// What is known; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packet {
    /// It is of IPv6.
    pub v6: Option<bool>,
    /// Protocol above IP.
    pub proto: Option<u8>,
    /// Its headers at each base chain of the observation.
    pub headers: Vec<Headers>,
    /// Interface of input, and of output.
    pub interfaces: [Option<Interface>; 2],
    /// The bits of `ct state`, of which it has one.
    pub states: Vec<u32>,
    /// Whether it has a conntrack entry.
    pub entry: Option<bool>,
    /// It is of the reply direction.
    pub reply: Option<bool>,
    /// The known bits of `ct status`, and those that are set.
    pub status: (u32, u32),
    /// The original and the reply direction of its entry.
    pub tuples: [Option<Endpoints>; 2],
    /// Packet mark and connmark at the beginning of each base chain of the observation, where known.
    pub marks: Vec<(Option<u32>, Option<u32>)>,
    /// The translation at this hook, if NAT decides about this packet.
    pub translation: Option<Translation>,
    /// The rule that dropped it sent an answer (reject).
    pub answered: bool,
}

/// An interface; all zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name, zeros behind it.
    pub name: [u8; 16],
}

/// Addresses and ports of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Source and destination address.
    pub addresses: [IpAddr; 2],
    /// Source and destination port.
    pub ports: [Maybe<u16>; 2],
}

/// The headers of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headers {
    /// Source and destination address.
    pub addresses: [Maybe<IpAddr>; 2],
    /// Source and destination port.
    pub ports: [Maybe<u16>; 2],
    /// Type and code of ICMP.
    pub icmp: Option<(u8, u8)>,
}

/// A value that may be unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Maybe<T> {
    /// It is not.
    #[default]
    Unknown,
    /// This one.
    Is(T),
    /// One of these.
    Either(T, T),
    /// A value in a range.
    Between(T, T),
}

impl<T: PartialEq> Maybe<T> {
    /// One of two.
    pub fn either(one: T, other: T) -> Self {
        if one == other { Self::Is(one) } else { Self::Either(one, other) }
    }
}

/// How NAT changed the addresses of a packet at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// It is about sources.
    pub source: bool,
    /// The address afterwards,
    pub address: IpAddr,
    /// and the port.
    pub port: Option<u16>,
    /// Whether the address changed.
    pub changed: bool,
}

/// The fields of a packet that rules compare; packets that differ in others alone are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u16);

impl Needs {
    const SOURCE: u16 = 1;
    const DESTINATION: u16 = 1 << 1;
    const SOURCE_PORT: u16 = 1 << 2;
    const DESTINATION_PORT: u16 = 1 << 3;
    const ICMP: u16 = 1 << 4;
    const INPUT: u16 = 1 << 5;
    const OUTPUT: u16 = 1 << 6;
    const MARKS: u16 = 1 << 7;
    const STATE: u16 = 1 << 8;
    const STATUS: u16 = 1 << 9;
    const TUPLES: u16 = 1 << 10;
    const PROTO: u16 = 1 << 11;
    const TRANSLATION: u16 = 1 << 12;
    const TRANSLATION_PORT: u16 = 1 << 13;

    /// Nothing.
    pub const NONE: Self = Self(0);
    /// What became of the addresses,
    pub const NAT: Self = Self(Self::TRANSLATION);
    /// and of the ports.
    pub const NAT_PORT: Self = Self(Self::TRANSLATION | Self::TRANSLATION_PORT);

    /// What marks are computed from.
    pub const COMPUTED: Self = Self(Self::MARKS | Self::STATE | Self::PROTO);

    /// What a condition on a field needs.
    pub(super) fn of(field: Field) -> Self {
        Self(match field {
            Field::Nfproto => 0,
            Field::L4Proto | Field::IpProtocol | Field::Other { .. } => Self::PROTO,
            Field::Interface { out: false } | Field::InterfaceName { out: false } => Self::INPUT,
            Field::Interface { out: true } | Field::InterfaceName { out: true } => Self::OUTPUT,
            Field::Mark => Self::MARKS,
            Field::CtMark => Self::MARKS | Self::STATE,
            Field::CtState | Field::CtDirection => Self::STATE,
            Field::CtStatus => Self::STATUS | Self::STATE,
            Field::CtFamily | Field::CtProto | Field::CtAddress { .. } | Field::CtPort { .. } => {
                Self::TUPLES | Self::STATE | Self::PROTO
            }
            Field::Address { dst: false, .. } => Self::SOURCE,
            Field::Address { dst: true, .. } => Self::DESTINATION,
            Field::Port { dst: false, .. } => Self::SOURCE_PORT | Self::PROTO,
            Field::Port { dst: true, .. } => Self::DESTINATION_PORT | Self::PROTO,
            Field::Icmp { .. } => Self::ICMP | Self::PROTO,
        })
    }

    /// These and others.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}

impl Packet {
    /// Without the parts that no rule asks for.
    pub(super) fn keep(&mut self, needs: Needs) {
        if needs == Needs::NONE {
            *self = Self { answered: self.answered, ..Self::default() };
            return;
        }
        for headers in &mut self.headers {
            for (at, address, port) in [
                (0, Needs::SOURCE, Needs::SOURCE_PORT),
                (1, Needs::DESTINATION, Needs::DESTINATION_PORT),
            ] {
                if !needs.has(address) {
                    headers.addresses[at] = Maybe::Unknown;
                }
                if !needs.has(port) {
                    headers.ports[at] = Maybe::Unknown;
                }
            }
            headers.icmp = headers.icmp.filter(|_| needs.has(Needs::ICMP));
        }
        self.proto = self.proto.filter(|_| needs.has(Needs::PROTO));
        for (at, bit) in [(0, Needs::INPUT), (1, Needs::OUTPUT)] {
            self.interfaces[at] = self.interfaces[at].filter(|_| needs.has(bit));
        }
        if !needs.has(Needs::MARKS) {
            self.marks.clear();
        }
        if !needs.has(Needs::STATE) {
            self.states.clear();
            (self.entry, self.reply) = (None, None);
        }
        if !needs.has(Needs::STATUS) {
            self.status = (0, 0);
        }
        if !needs.has(Needs::TUPLES) {
            self.tuples = [None, None];
        }
        self.translation = self.translation.filter(|_| needs.has(Needs::TRANSLATION));
        if let Some(translation) = &mut self.translation {
            translation.port = translation.port.filter(|_| needs.has(Needs::TRANSLATION_PORT));
        }
    }
}
