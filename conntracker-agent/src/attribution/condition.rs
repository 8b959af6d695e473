//! Evaluates conditions of rules with the known fields of a packet: met, not met, or unknown.
//!
//! A condition is met, or not met, only if that is so for every value that the packet can have.

use std::net::IpAddr;

use super::packet::{Maybe, Packet};
use crate::firewall::clause::{Condition, Elements, Field, Operand, Test};

/// The result of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tri {
    Yes,
    No,
    Unknown,
}

impl Tri {
    pub fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }

    pub fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    /// The same of two possibilities.
    fn both(self, other: Self) -> Self {
        if self == other { self } else { Self::Unknown }
    }
}

/// A packet at a rule.
#[derive(Clone, Copy)]
pub(super) struct PacketAtRule<'a> {
    pub packet: &'a Packet,
    /// Index of the base chain in the observation.
    pub base: usize,
    /// Its marks now, where known.
    pub mark: Option<u32>,
    pub connmark: Option<u32>,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    /// The packet lacks the field, so the rule ends.
    Absent,
    Unknown,
    Is(u128),
    Either(u128, u128),
    Between(u128, u128),
    /// The known bits, and those of them that are set.
    Bits(u128, u128),
    Name(&'a [u8; 16]),
}

impl PacketAtRule<'_> {
    /// Whether a condition is met.
    pub fn meets(&self, condition: &Condition) -> Tri {
        let Condition { operands, negated, set } = condition;
        let values: Vec<Value<'_>> = operands.iter().map(|operand| self.operand(operand)).collect();
        if values.contains(&Value::Absent) {
            return Tri::No;
        }
        let found = match set {
            Elements::Named(_) | Elements::Unknown => Tri::Unknown,
            Elements::Sorted(ranges) => match values[..] {
                [Value::Is(value)] => Tri::of(is_among(ranges, value)),
                [Value::Either(a, b)] => {
                    Tri::of(is_among(ranges, a)).both(Tri::of(is_among(ranges, b)))
                }
                [value] => {
                    any(ranges.iter().map(|&(first, last)| value.is(&Test::Range(first, last))))
                }
                _ => Tri::Unknown,
            },
            Elements::Listed(all) => any(all.iter().map(|tests| all_of(&values, tests))),
        };
        match (negated, self.may_be_absent(operands)) {
            // An absent field matches neither the condition nor its negation.
            (true, true) if found == Tri::No => Tri::Unknown,
            (false, true) if found == Tri::Yes => Tri::Unknown,
            (true, _) => found.not(),
            (false, _) => found,
        }
    }

    /// Whether the key of an element equals the packet's values.
    pub fn looks_up(&self, operands: &[Operand], key: &[Test]) -> Tri {
        let values: Vec<Value<'_>> = operands.iter().map(|operand| self.operand(operand)).collect();
        if values.contains(&Value::Absent) {
            return Tri::No;
        }
        match all_of(&values, key) {
            Tri::Yes if self.may_be_absent(operands) => Tri::Unknown,
            found => found,
        }
    }

    /// Whether the packet may lack one of the operands.
    fn may_be_absent(&self, operands: &[Operand]) -> bool {
        let Packet { v6, proto, entry, .. } = self.packet;
        operands.iter().any(|operand| match operand.field {
            Field::Nfproto
            | Field::L4Proto
            | Field::Interface { .. }
            | Field::InterfaceName { .. }
            | Field::Mark
            | Field::CtState => false,
            Field::CtMark
            | Field::CtDirection
            | Field::CtStatus
            | Field::CtFamily
            | Field::CtProto => entry.is_none(),
            Field::CtAddress { v6: family, .. } => {
                entry.is_none() || (family.is_some() && v6.is_none())
            }
            Field::CtPort { .. } => entry.is_none() || proto.is_none(),
            Field::IpProtocol | Field::Address { .. } => v6.is_none(),
            Field::Port { .. } => proto.is_none(),
            Field::Icmp { .. } => v6.is_none() || proto.is_none(),
            Field::Other { .. } => true,
        })
    }

    fn operand(&self, operand: &Operand) -> Value<'_> {
        let Operand { field, mask } = *operand;
        match self.value(field) {
            Value::Is(value) => Value::Is(value & mask),
            Value::Either(a, b) if a & mask == b & mask => Value::Is(a & mask),
            Value::Either(a, b) => Value::Either(a & mask, b & mask),
            Value::Between(..) if mask != u128::MAX => Value::Unknown,
            Value::Bits(known, set) if mask & known == mask => Value::Is(set & mask),
            Value::Bits(known, set) if mask == u128::MAX => Value::Bits(known, set),
            Value::Bits(..) => Value::Unknown,
            other => other,
        }
    }

    fn value(&self, field: Field) -> Value<'_> {
        let Packet { v6, proto, entry, reply, .. } = *self.packet;
        let known = |number: Option<u128>| number.map_or(Value::Unknown, Value::Is);
        let needs_entry = |value: Value<'static>| match entry {
            Some(true) => value,
            Some(false) => Value::Absent,
            None => Value::Unknown,
        };
        match field {
            Field::Nfproto => known(v6.map(|v6| if v6 { 10 } else { 2 })),
            Field::L4Proto => known(proto.map(u128::from)),
            Field::IpProtocol if v6 == Some(true) => Value::Absent,
            Field::IpProtocol => known(proto.filter(|_| v6.is_some()).map(u128::from)),
            Field::Interface { out } => {
                let interface = self.packet.interfaces[usize::from(out)];
                known(interface.map(|interface| interface.index.into()))
            }
            Field::InterfaceName { out } => match &self.packet.interfaces[usize::from(out)] {
                Some(interface) => Value::Name(&interface.name),
                None => Value::Unknown,
            },
            Field::Mark => known(self.mark.map(u128::from)),
            Field::CtMark => needs_entry(match self.connmark {
                Some(mark) => Value::Is(mark.into()),
                None => Value::Unknown,
            }),
            Field::CtState => match self.packet.states[..] {
                [state] => Value::Is(state.into()),
                [one, other] => Value::Either(one.into(), other.into()),
                _ => Value::Unknown,
            },
            Field::CtDirection => needs_entry(match reply {
                Some(reply) => Value::Is(reply.into()),
                None => Value::Unknown,
            }),
            Field::CtStatus => {
                let (known, set) = self.packet.status;
                needs_entry(Value::Bits(known.into(), (set & known).into()))
            }
            Field::CtFamily => needs_entry(match v6 {
                Some(v6) => Value::Is(if v6 { 10 } else { 2 }),
                None => Value::Unknown,
            }),
            Field::CtProto => needs_entry(match proto {
                Some(proto) => Value::Is(proto.into()),
                None => Value::Unknown,
            }),
            Field::CtAddress { v6: Some(of), .. } if v6.is_some_and(|v6| v6 != of) => Value::Absent,
            Field::CtAddress { reply, dst, v6: Some(_) } => {
                needs_entry(match self.packet.tuples[usize::from(reply)] {
                    Some(tuple) => Value::Is(number(tuple.addresses[usize::from(dst)])),
                    None => Value::Unknown,
                })
            }
            Field::CtPort { reply, dst } => {
                let tuple = self.packet.tuples[usize::from(reply)];
                needs_entry(match tuple {
                    Some(tuple) => tuple.ports[usize::from(dst)].map(u128::from).into(),
                    None => Value::Unknown,
                })
            }
            // The length of its value depends on the family of the connection, which the key does not have.
            Field::CtAddress { v6: None, .. } => needs_entry(Value::Unknown),
            Field::Address { v6: of, .. } if v6.is_some_and(|v6| v6 != of) => Value::Absent,
            Field::Address { dst, .. } => {
                self.header(|headers| headers.addresses[usize::from(dst)].map(number))
            }
            Field::Port { proto: Some(of), .. } if proto.is_some_and(|proto| proto != of) => {
                Value::Absent
            }
            Field::Port { proto: None, .. }
                if !proto.is_some_and(conntracker_common::has_ports) =>
            {
                Value::Unknown
            }
            Field::Port { dst, .. } => {
                self.header(|headers| headers.ports[usize::from(dst)].map(u128::from))
            }
            Field::Icmp { v6: of, .. } if self.lacks(Some(of), Some(icmp(of))) => Value::Absent,
            Field::Icmp { code, .. } => self.header(|headers| match headers.icmp {
                Some((kind, of)) => Maybe::Is(if code { of } else { kind }.into()),
                None => Maybe::Unknown,
            }),
            Field::Other { v6: of, proto } if self.lacks(of, proto) => Value::Absent,
            Field::Other { .. } => Value::Unknown,
        }
    }

    /// Whether the packet is known to be of another family or protocol.
    fn lacks(&self, v6: Option<bool>, proto: Option<u8>) -> bool {
        let differs =
            |of: Option<bool>| of.is_some_and(|of| self.packet.v6.is_some_and(|v6| v6 != of));
        let other =
            |of: Option<u8>| of.is_some_and(|of| self.packet.proto.is_some_and(|is| is != of));
        differs(v6) || other(proto)
    }

    fn header(&self, part: impl Fn(&super::packet::Headers) -> Maybe<u128>) -> Value<'_> {
        self.packet.headers.get(self.base).map_or(Maybe::Unknown, part).into()
    }
}

impl<T> Maybe<T> {
    fn map<U>(self, f: impl Fn(T) -> U) -> Maybe<U> {
        match self {
            Self::Unknown => Maybe::Unknown,
            Self::Is(value) => Maybe::Is(f(value)),
            Self::Either(a, b) => Maybe::Either(f(a), f(b)),
            Self::Between(first, last) => Maybe::Between(f(first), f(last)),
        }
    }
}

impl From<Maybe<u128>> for Value<'_> {
    fn from(value: Maybe<u128>) -> Self {
        match value {
            Maybe::Unknown => Value::Unknown,
            Maybe::Is(value) => Value::Is(value),
            Maybe::Either(a, b) => Value::Either(a, b),
            Maybe::Between(first, last) => Value::Between(first, last),
        }
    }
}

impl Value<'_> {
    fn is(self, test: &Test) -> Tri {
        match (self, test) {
            (Self::Absent, _) => Tri::No,
            (_, Test::Any) => Tri::Yes,
            (Self::Unknown, _) | (_, Test::Unknown) => Tri::Unknown,
            (Self::Is(value), test) => number_is(value, test),
            (Self::Either(a, b), test) => number_is(a, test).both(number_is(b, test)),
            (Self::Between(first, last), Test::Range(low, high)) => {
                if *low <= first && last <= *high {
                    Tri::Yes
                } else if *high < first || last < *low {
                    Tri::No
                } else {
                    Tri::Unknown
                }
            }
            (Self::Bits(known, set), Test::Bits(bits)) => {
                if set & bits != 0 {
                    Tri::Yes
                } else if bits & known == *bits {
                    Tri::No
                } else {
                    Tri::Unknown
                }
            }
            (Self::Name(name), Test::Name(other)) => Tri::of(name == other),
            (Self::Name(name), Test::NameStart(start)) => Tri::of(name.starts_with(start)),
            (Self::Between(..) | Self::Bits(..) | Self::Name(_), _) => Tri::Unknown,
        }
    }
}

fn number_is(value: u128, test: &Test) -> Tri {
    match test {
        Test::Range(first, last) => Tri::of((*first..=*last).contains(&value)),
        Test::Bits(bits) => Tri::of(value & bits != 0),
        Test::Any => Tri::Yes,
        Test::Name(_) | Test::NameStart(_) | Test::Unknown => Tri::Unknown,
    }
}

/// Whether all values pass the tests of an element.
fn all_of(values: &[Value<'_>], tests: &[Test]) -> Tri {
    let each = values.iter().zip(tests).map(|(value, test)| value.is(test));
    each.fold(Tri::of(values.len() == tests.len()), Tri::and)
}

fn any(each: impl Iterator<Item = Tri>) -> Tri {
    let mut found = Tri::No;
    for next in each {
        found = found.or(next);
        if found == Tri::Yes {
            break;
        }
    }
    found
}

fn is_among(ranges: &[(u128, u128)], value: u128) -> bool {
    let at = ranges.partition_point(|(_, last)| *last < value);
    ranges.get(at).is_some_and(|(first, _)| *first <= value)
}

fn icmp(v6: bool) -> u8 {
    if v6 { 58 } else { 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}
