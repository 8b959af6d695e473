//! The statements of a rule of nf_tables, in order. A statement that this parser does not understand becomes an
//! unknown clause, because it may end the rule.

use std::{net::IpAddr, sync::Arc};

use super::action::{Action, Target};

/// A statement, in the order in which the kernel evaluates them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clause {
    /// The rule ends here for packets that do not meet it.
    Condition(Condition),
    /// The rule may end here.
    Unknown,
    /// A verdict map: the rule ends here, with the verdict of the matching element.
    Map(VerdictMap),
    /// The rule's own counter.
    Counter,
    /// A verdict, or a statement that can give one.
    Verdict,
    /// Sets a mark.
    Mark {
        /// Of the connection, not the packet.
        connection: bool,
        /// The new value; `None` if it is unknown.
        value: Option<u32>,
    },
    /// Changes headers: later conditions see other values than conntrack's tuples have.
    Headers,
    /// Translates addresses (a [`Clause::Verdict`] follows).
    Translate(Translate),
}

/// A condition on one value, or on several at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub operands: Vec<Operand>,
    /// The condition is met by values that are not in the set.
    pub negated: bool,
    /// The values that it is compared with.
    pub set: Elements,
}

/// A value that conditions compare, under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// What.
    pub field: Field,
    /// Bits of it that count.
    pub mask: u128,
}

/// A field of a packet, or of the kernel's data about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `meta nfproto`.
    Nfproto,
    /// `meta l4proto`.
    L4Proto,
    /// `ip protocol`.
    IpProtocol,
    /// Index of the interface of input, or of output.
    Interface {
        /// Of output.
        out: bool,
    },
    /// Its name.
    InterfaceName {
        /// Of output.
        out: bool,
    },
    /// Packet mark.
    Mark,
    /// Mark of the connection.
    CtMark,
    /// `ct state`, a bit.
    CtState,
    /// `ct direction`.
    CtDirection,
    /// `ct status`, bits.
    CtStatus,
    /// `ct l3proto`.
    CtFamily,
    /// `ct protocol`.
    CtProto,
    /// An address of the connection.
    CtAddress {
        /// Of the reply direction.
        reply: bool,
        /// Destination.
        dst: bool,
        /// IPv6; `None`: of the connection's family.
        v6: Option<bool>,
    },
    /// A port of the connection.
    CtPort {
        /// Of the reply direction.
        reply: bool,
        /// Destination.
        dst: bool,
    },
    /// Address in the packet's header.
    Address {
        /// Destination.
        dst: bool,
        /// IPv6.
        v6: bool,
    },
    /// Port in the packet's header.
    Port {
        /// Destination.
        dst: bool,
        /// Of packets of this protocol only.
        proto: Option<u8>,
    },
    /// Type or code of ICMP.
    Icmp {
        /// Code.
        code: bool,
        /// ICMPv6.
        v6: bool,
    },
    /// A field whose value is unknown, which only packets of this family or protocol have.
    Other {
        /// IPv6, or IPv4.
        v6: Option<bool>,
        /// Protocol.
        proto: Option<u8>,
    },
}

/// The right side of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// These, each with a test for each operand.
    Listed(Arc<[Tests]>),
    /// Single ranges that do not overlap, ascending.
    Sorted(Arc<[(u128, u128)]>),
    /// Those of a named set.
    Named(String),
    /// Not known, or changed by packets.
    Unknown,
}

/// Tests for each operand.
pub type Tests = Box<[Test]>;

/// A test of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is between these.
    Range(u128, u128),
    /// It has one of these bits.
    Bits(u128),
    /// It is this name, zeros behind it.
    Name([u8; 16]),
    /// It is a name that begins so.
    NameStart(Box<[u8]>),
    /// Any value.
    Any,
    /// Not known.
    Unknown,
}

/// A verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictMap {
    /// What is looked up.
    pub operands: Vec<Operand>,
    /// Where.
    pub elements: MapElements,
}

/// The elements of a verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapElements {
    /// These.
    Listed(Arc<[MapElement]>),
    /// Those of a named map.
    Named(String),
    /// Not known, or changed by packets.
    Unknown,
}

/// An element of a verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapElement {
    /// Its key.
    pub key: Tests,
    /// Its verdict.
    pub verdict: MapVerdict,
}

/// The verdict of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapVerdict {
    /// The rule goes on.
    Continue,
    /// One without a chain.
    Plain(Action),
    /// To a chain.
    To(Target),
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translate {
    /// Of sources (snat, masquerade), not destinations.
    pub source: bool,
    /// The range of addresses, if the rule has one.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The range of ports, if the rule has one.
    pub ports: Option<(u16, u16)>,
}

impl Clause {
    /// Whether a rule can end here without a match.
    #[must_use]
    pub fn is_fallible(&self) -> bool {
        matches!(self, Self::Condition(_) | Self::Unknown | Self::Map(_))
    }

    /// Whether a verdict can be given here.
    #[must_use]
    pub fn gives_verdict(&self) -> bool {
        matches!(self, Self::Verdict | Self::Map(_))
    }
}

impl Operand {
    /// All of a field.
    #[must_use]
    pub fn all(field: Field) -> Self {
        Self { field, mask: u128::MAX }
    }
}
