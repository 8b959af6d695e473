//! From statements of nft (libnftables-json(5), "STATEMENTS") to clauses.

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

use super::value::{self, single};
use crate::firewall::{
    action::{Action, Target, Via},
    clause::{
        Clause, Condition, Elements, Field, MapElement, MapElements, MapVerdict, Operand, Test,
        Translate, VerdictMap,
    },
};

/// A condition (`match`).
pub(super) fn condition(of: &Value) -> Clause {
    let member = |name: &str| of.get(name).unwrap_or(&Value::Null);
    let operands = operands(member("left"));
    let right = member("right");
    let one = |test: Test| {
        let one = operands.len() == 1;
        Elements::Listed(Arc::new([
            vec![if one { test } else { Test::Unknown }; operands.len()].into()
        ]))
    };
    let first = operands.first().copied().unwrap_or(OTHER);
    let number = || value::number(first.field, right);
    let range = |first, last| one(Test::Range(first, last));
    let (negated, set) = match member("op").as_str() {
        Some(op @ ("==" | "!=" | "in")) => {
            let set = if let Some(elements) = right.get("set").and_then(Value::as_array) {
                value::elements(&operands, elements)
            } else if let Some(name) = right.as_str().and_then(|name| name.strip_prefix('@')) {
                Elements::Named(name.to_owned())
            } else if op == "in" {
                one(value::bits(first.field, right))
            } else if right.is_array() || right.get("|").is_some() {
                // nft's notation does not say whether one of the bits must be set or all of them.
                Elements::Unknown
            } else {
                Elements::Listed(Arc::new([value::tests(&operands, right)]))
            };
            (op == "!=", set)
        }
        Some("!") => (true, one(value::bits(first.field, right))),
        Some(op) => {
            let set = match (op, number()) {
                ("<", Some(0)) => Elements::Listed(Arc::new([])),
                ("<", Some(end)) => range(0, end - 1),
                ("<=", Some(last)) => range(0, last),
                (">", Some(before)) => range(before.saturating_add(1), u128::MAX),
                (">=", Some(first)) => range(first, u128::MAX),
                _ => Elements::Unknown,
            };
            (false, set)
        }
        None => (false, Elements::Unknown),
    };
    Clause::Condition(Condition { operands, negated, set })
}

/// A verdict map (`vmap`).
pub(super) fn map(of: &Value) -> Clause {
    let operands = operands(of.get("key").unwrap_or(&Value::Null));
    let data = of.get("data").unwrap_or(&Value::Null);
    let elements = if let Some(name) = data.as_str().and_then(|data| data.strip_prefix('@')) {
        MapElements::Named(name.to_owned())
    } else {
        match data.get("set").and_then(Value::as_array) {
            Some(elements) => map_elements(&operands, elements),
            None => MapElements::Unknown,
        }
    };
    Clause::Map(VerdictMap { operands, elements })
}

/// The elements of a verdict map, `[[KEY, VERDICT], …]`.
pub(super) fn map_elements(operands: &[Operand], elements: &[Value]) -> MapElements {
    let element = |element: &Value| {
        let verdict = map_verdict(element.get(1)?)?;
        Some(MapElement { key: value::tests(operands, element.get(0)?), verdict })
    };
    let all: Option<Vec<MapElement>> = elements.iter().map(element).collect();
    all.map_or(MapElements::Unknown, |all| MapElements::Listed(all.into()))
}

fn map_verdict(of: &Value) -> Option<MapVerdict> {
    let (name, value) = single(of)?;
    let to = |via| {
        let chain = value.get("target").and_then(Value::as_str)?.to_owned();
        Some(MapVerdict::To(Target { via, chain }))
    };
    Some(match name {
        "continue" => MapVerdict::Continue,
        "accept" => MapVerdict::Plain(Action::Accept),
        "drop" => MapVerdict::Plain(Action::Drop),
        "return" => MapVerdict::Plain(Action::Return),
        "queue" => MapVerdict::Plain(Action::Queue),
        "jump" => return to(Via::Jump),
        "goto" => return to(Via::Goto),
        _ => return None,
    })
}

/// The condition that a reject implies, which nft does not print.
pub(super) fn reject(of: &Value) -> Option<Clause> {
    let requires = |field, number| {
        let set = Elements::Sorted(Arc::new([(number, number)]));
        Clause::Condition(Condition { operands: vec![Operand::all(field)], negated: false, set })
    };
    match of.get("type").and_then(Value::as_str)? {
        "tcp reset" => Some(requires(Field::L4Proto, 6)),
        "icmp" => Some(requires(Field::Nfproto, 2)),
        "icmpv6" => Some(requires(Field::Nfproto, 10)),
        "icmpx" => None,
        _ => Some(Clause::Unknown),
    }
}

/// A translation (`snat`, `dnat`, `masquerade`, `redirect`).
pub(super) fn translate(name: &str, of: &Value) -> Translate {
    let ends = |of: &Value| match of.get("range") {
        Some(range) => Some((range.get(0)?.clone(), range.get(1)?.clone())),
        None => Some((of.clone(), of.clone())),
    };
    let addresses = of.get("addr").and_then(|of| {
        let (first, last) = ends(of)?;
        let address = |end: &Value| end.as_str()?.parse::<IpAddr>().ok();
        Some((address(&first)?, address(&last)?))
    });
    let ports = of.get("port").and_then(|of| {
        let (first, last) = ends(of)?;
        let port = |end: &Value| u16::try_from(end.as_u64()?).ok();
        Some((port(&first)?, port(&last)?))
    });
    Translate { source: matches!(name, "snat" | "masquerade"), addresses, ports }
}

/// Something is set (`mangle`).
pub(super) fn mangle(of: &Value) -> Option<Clause> {
    let key = of.get("key")?;
    let connection = match (single(key)?, key) {
        (("meta", meta), _) if meta.get("key")? == "mark" => false,
        (("ct", ct), _) if ct.get("key")? == "mark" => true,
        _ => return None,
    };
    let value = of.get("value").and_then(Value::as_u64).and_then(|value| value.try_into().ok());
    Some(Clause::Mark { connection, value })
}

/// Whether a statement sets a header field that conditions compare and that is known from conntrack.
pub(super) fn mangles_headers(of: &Value) -> bool {
    let Some(payload) = of.get("key").and_then(|key| key.get("payload")) else { return false };
    let field = payload.get("field").and_then(Value::as_str);
    let harmless = ["dscp", "ecn", "ttl", "hoplimit", "flowlabel", "id", "checksum", "flags"];
    !field.is_some_and(|field| harmless.contains(&field))
}

const OTHER: Operand = Operand { field: Field::Other { v6: None, proto: None }, mask: u128::MAX };

/// What is on the left side.
fn operands(of: &Value) -> Vec<Operand> {
    match of.get("concat").and_then(Value::as_array) {
        Some(parts) => parts.iter().map(operand).collect(),
        None => vec![operand(of)],
    }
}

fn operand(of: &Value) -> Operand {
    match single(of) {
        Some(("&", parts)) => {
            let Some(left) = parts.get(0) else { return OTHER };
            let Operand { field, mask } = operand(left);
            match parts.get(1).and_then(|right| value::number(field, right)) {
                Some(number) if mask == u128::MAX => Operand { field, mask: number },
                _ => without_value(field),
            }
        }
        Some(("|" | "^" | "<<" | ">>", parts)) => {
            parts.get(0).map_or(OTHER, |left| without_value(operand(left).field))
        }
        Some((kind, expression)) => Operand::all(field(kind, expression)),
        None => OTHER,
    }
}

/// An operand without a known value, for a field that only some packets have.
fn without_value(field: Field) -> Operand {
    let (v6, proto) = match field {
        Field::Address { v6, .. } => (Some(v6), None),
        Field::IpProtocol => (Some(false), None),
        Field::Port { proto, .. } => (None, proto),
        Field::Icmp { v6, .. } => (Some(v6), Some(if v6 { 58 } else { 1 })),
        Field::Other { v6, proto } => (v6, proto),
        _ => (None, None),
    };
    Operand::all(Field::Other { v6, proto })
}

fn field(kind: &str, of: &Value) -> Field {
    let key = of.get("key").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "meta" => match key {
            "nfproto" => Field::Nfproto,
            "l4proto" => Field::L4Proto,
            "iif" => Field::Interface { out: false },
            "oif" => Field::Interface { out: true },
            "iifname" => Field::InterfaceName { out: false },
            "oifname" => Field::InterfaceName { out: true },
            "mark" => Field::Mark,
            _ => OTHER.field,
        },
        "ct" => connection(key, of.get("dir").and_then(Value::as_str)),
        "payload" if of.get("tunnel").is_none() => payload(of),
        _ => OTHER.field,
    }
}

fn connection(key: &str, direction: Option<&str>) -> Field {
    let reply = match direction {
        Some("original") => Some(false),
        Some("reply") => Some(true),
        _ => None,
    };
    let (family, part) = match key.split_once(' ') {
        Some(("ip", part)) => (Some(false), part),
        Some(("ip6", part)) => (Some(true), part),
        _ => (None, key),
    };
    match (part, reply) {
        ("state", _) => Field::CtState,
        ("direction", _) => Field::CtDirection,
        ("status", _) => Field::CtStatus,
        ("mark", _) => Field::CtMark,
        ("l3proto", _) => Field::CtFamily,
        ("protocol", _) => Field::CtProto,
        ("saddr", Some(reply)) => Field::CtAddress { reply, dst: false, v6: family },
        ("daddr", Some(reply)) => Field::CtAddress { reply, dst: true, v6: family },
        ("proto-src", Some(reply)) => Field::CtPort { reply, dst: false },
        ("proto-dst", Some(reply)) => Field::CtPort { reply, dst: true },
        _ => OTHER.field,
    }
}

fn payload(of: &Value) -> Field {
    let member = |name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default();
    let (protocol, field) = (member("protocol"), member("field"));
    let number = value::protocol(protocol);
    match (protocol, field) {
        ("ip", "saddr") => Field::Address { dst: false, v6: false },
        ("ip", "daddr") => Field::Address { dst: true, v6: false },
        ("ip", "protocol") => Field::IpProtocol,
        ("ip6", "saddr") => Field::Address { dst: false, v6: true },
        ("ip6", "daddr") => Field::Address { dst: true, v6: true },
        ("ip", _) => Field::Other { v6: Some(false), proto: None },
        ("ip6", _) => Field::Other { v6: Some(true), proto: None },
        ("th", "sport") => Field::Port { dst: false, proto: None },
        ("th", "dport") => Field::Port { dst: true, proto: None },
        ("tcp" | "udp" | "udplite" | "sctp" | "dccp", _) => match field {
            "sport" => Field::Port { dst: false, proto: number },
            "dport" => Field::Port { dst: true, proto: number },
            _ => Field::Other { v6: None, proto: number },
        },
        ("icmp" | "icmpv6", _) => {
            let v6 = protocol == "icmpv6";
            match field {
                "type" => Field::Icmp { code: false, v6 },
                "code" => Field::Icmp { code: true, v6 },
                _ => Field::Other { v6: Some(v6), proto: number },
            }
        }
        _ => OTHER.field,
    }
}

#[cfg(test)]
mod tests;
