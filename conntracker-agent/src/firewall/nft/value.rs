//! Converts the values in conditions, as nft writes them (libnftables-json(5), "EXPRESSIONS"), to tests of numbers
//! and names.

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

use crate::firewall::clause::{Elements, Field, Operand, Test, Tests};

/// Length of the name of an interface (include/uapi/linux/if.h).
const IFNAMSIZ: usize = 16;

/// The test that the value on the right side of a condition stands for.
pub(super) fn test(operand: Operand, value: &Value) -> Test {
    let Operand { field, .. } = operand;
    match value {
        Value::String(text) if text == "*" => return Test::Any,
        Value::String(text) if matches!(field, Field::InterfaceName { .. }) => return name(text),
        Value::Object(object) => {
            if let Some(prefix) = object.get("prefix") {
                return self::prefix(field, prefix).unwrap_or(Test::Unknown);
            }
            if let Some(ends) = object.get("range") {
                let end = |at| ends.get(at).and_then(|end| number(field, end));
                return match (end(0), end(1)) {
                    (Some(first), Some(last)) => Test::Range(first, last),
                    _ => Test::Unknown,
                };
            }
        }
        _ => {}
    }
    number(field, value).map_or(Test::Unknown, |number| Test::Range(number, number))
}

/// The test for bits of which one must be set.
pub(super) fn bits(field: Field, value: &Value) -> Test {
    number(field, value).map_or(Test::Unknown, Test::Bits)
}

/// The key of an element of a set, without its counter and comment; `None` if the element has a statement that may
/// end the rule (a limit).
pub(super) fn element(value: &Value) -> Option<&Value> {
    let Some(inner) = value.get("elem") else { return Some(value) };
    let harmless = |key: &String| {
        ["val", "comment", "counter", "last", "timeout", "expires"].contains(&key.as_str())
    };
    inner.as_object()?.keys().all(harmless).then(|| inner.get("val")).flatten()
}

/// The tests that an element of a set stands for.
pub(super) fn tests(operands: &[Operand], value: &Value) -> Tests {
    let unknown = || vec![Test::Unknown; operands.len()].into();
    let Some(value) = element(value) else { return unknown() };
    if value.as_str() == Some("*") {
        return vec![Test::Any; operands.len()].into();
    }
    match (operands, value.get("concat").and_then(Value::as_array)) {
        ([only], None) => [test(*only, value)].into(),
        (_, Some(parts)) if parts.len() == operands.len() => {
            operands.iter().zip(parts).map(|(operand, part)| test(*operand, part)).collect()
        }
        _ => unknown(),
    }
}

/// The elements of a set.
pub(super) fn elements(operands: &[Operand], values: &[Value]) -> Elements {
    let all: Vec<Tests> = values.iter().map(|value| tests(operands, value)).collect();
    let range = |tests: &Tests| match **tests {
        [Test::Range(first, last)] => Some((first, last)),
        _ => None,
    };
    if let Some(mut ranges) = all.iter().map(range).collect::<Option<Vec<_>>>() {
        ranges.sort_unstable();
        if ranges.windows(2).all(|pair| pair[0].1 < pair[1].0) {
            return Elements::Sorted(ranges.into());
        }
    }
    Elements::Listed(Arc::from(all))
}

fn name(text: &str) -> Test {
    let mut bytes = text.as_bytes().to_vec();
    let mut begins = false;
    if bytes.last() == Some(&b'*') {
        bytes.pop();
        // An asterisk of the name itself is escaped.
        if bytes.last() == Some(&b'\\') {
            bytes.pop();
            bytes.push(b'*');
        } else {
            begins = true;
        }
    }
    if bytes.len() >= IFNAMSIZ {
        return Test::Unknown;
    }
    if begins {
        return Test::NameStart(bytes.into());
    }
    bytes.resize(IFNAMSIZ, 0);
    bytes.try_into().map_or(Test::Unknown, Test::Name)
}

fn prefix(field: Field, prefix: &Value) -> Option<Test> {
    let bits = width(field)?;
    let first = number(field, prefix.get("addr")?)?;
    let len = u32::try_from(prefix.get("len")?.as_u64()?).ok().filter(|len| *len <= bits)?;
    let host = if len == 0 { u128::MAX } else { (1 << (bits - len)) - 1 };
    let host = host & (u128::MAX >> (128 - bits));
    Some(Test::Range(first & !host, first | host))
}

/// Bits of a field that has prefixes.
fn width(field: Field) -> Option<u32> {
    match field {
        Field::Address { v6, .. } | Field::CtAddress { v6: Some(v6), .. } => {
            Some(if v6 { 128 } else { 32 })
        }
        _ => None,
    }
}

/// A value as a number.
pub(super) fn number(field: Field, value: &Value) -> Option<u128> {
    match value {
        Value::Number(number) => number.as_u64().map(u128::from),
        Value::String(text) => named(field, text),
        // Several bits.
        Value::Array(parts) => either(field, parts),
        Value::Object(object) => either(field, object.get("|")?.as_array()?),
        _ => None,
    }
}

fn either(field: Field, parts: &[Value]) -> Option<u128> {
    let add = |sum: u128, part| Some(sum | number(field, part)?);
    parts.iter().try_fold(0, add)
}

fn named(field: Field, text: &str) -> Option<u128> {
    Some(match field {
        Field::Nfproto | Field::CtFamily => match text {
            "ipv4" => 2,
            "ipv6" => 10,
            _ => return None,
        },
        Field::L4Proto | Field::IpProtocol | Field::CtProto => protocol(text)?.into(),
        Field::CtState => state(text)?,
        Field::CtStatus => status(text)?,
        Field::CtDirection => match text {
            "original" => 0,
            "reply" => 1,
            _ => return None,
        },
        Field::Address { v6, .. } | Field::CtAddress { v6: Some(v6), .. } => {
            match text.parse().ok()? {
                IpAddr::V4(address) if !v6 => u32::from(address).into(),
                IpAddr::V6(address) if v6 => address.into(),
                _ => return None,
            }
        }
        Field::Icmp { code: false, v6: false } => icmp(text)?.into(),
        Field::Icmp { code: false, v6: true } => icmpv6(text)?.into(),
        // LOOPBACK_IFINDEX. Other names may have belonged to another interface when the rule was made.
        Field::Interface { .. } if text == "lo" => 1,
        _ => return None,
    })
}

/// Protocols by their names in /etc/protocols.
pub(super) fn protocol(name: &str) -> Option<u8> {
    Some(match name {
        "icmp" => 1,
        "igmp" => 2,
        "ipencap" | "ipip" => 4,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "ipv6" => 41,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "ipv6-icmp" | "icmpv6" => 58,
        "ospf" => 89,
        "pim" => 103,
        "comp" | "ipcomp" => 108,
        "vrrp" => 112,
        "l2tp" => 115,
        "sctp" => 132,
        "udplite" => 136,
        _ => return None,
    })
}

/// `NF_CT_STATE_BIT` and its like (include/uapi/linux/netfilter/nf_conntrack_common.h).
fn state(name: &str) -> Option<u128> {
    Some(match name {
        "invalid" => 1,
        "established" => 2,
        "related" => 4,
        "new" => 8,
        "untracked" => 64,
        _ => return None,
    })
}

/// `enum ip_conntrack_status`.
fn status(name: &str) -> Option<u128> {
    Some(match name {
        "expected" => 1,
        "seen-reply" => 2,
        "assured" => 4,
        "confirmed" => 8,
        "snat" => 16,
        "dnat" => 32,
        "dying" => 512,
        _ => return None,
    })
}

/// Types of ICMP by nft's names.
fn icmp(name: &str) -> Option<u8> {
    Some(match name {
        "echo-reply" => 0,
        "destination-unreachable" => 3,
        "source-quench" => 4,
        "redirect" => 5,
        "echo-request" => 8,
        "router-advertisement" => 9,
        "router-solicitation" => 10,
        "time-exceeded" => 11,
        "parameter-problem" => 12,
        "timestamp-request" => 13,
        "timestamp-reply" => 14,
        "info-request" => 15,
        "info-reply" => 16,
        "address-mask-request" => 17,
        "address-mask-reply" => 18,
        _ => return None,
    })
}

/// Types of ICMPv6 by nft's names.
fn icmpv6(name: &str) -> Option<u8> {
    Some(match name {
        "destination-unreachable" => 1,
        "packet-too-big" => 2,
        "time-exceeded" => 3,
        "parameter-problem" => 4,
        "echo-request" => 128,
        "echo-reply" => 129,
        "mld-listener-query" => 130,
        "mld-listener-report" => 131,
        "mld-listener-done" | "mld-listener-reduction" => 132,
        "nd-router-solicit" => 133,
        "nd-router-advert" => 134,
        "nd-neighbor-solicit" => 135,
        "nd-neighbor-advert" => 136,
        "nd-redirect" => 137,
        "router-renumbering" => 138,
        "ind-neighbor-solicit" => 141,
        "ind-neighbor-advert" => 142,
        "mld2-listener-report" => 143,
        _ => return None,
    })
}

/// The member of an object that has just one.
pub(super) fn single(value: &Value) -> Option<(&str, &Value)> {
    value.as_object()?.iter().next().map(|(name, value)| (name.as_str(), value))
}
