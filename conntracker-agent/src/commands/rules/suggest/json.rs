//! Suggested rules as JSON. docs/rules.md describes the objects.

use std::io::{self, Write};

use serde::Serialize;

use super::{Language, Passed, Services, iptables, nft};
use crate::{
    firewall::analyse::suggest::{AcceptRule, Suggestion},
    model::harmless,
};

/// Name and version of the format.
const SCHEMA: &str = "conntracker-rules-suggest/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    origin: &'a str,
    flows: u64,
    kinds: u64,
    once: u64,
    /// Share of future flows that is to be expected outside of the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<f64>,
    related: u64,
    loopback: u64,
    dropped: u64,
    unclear: u64,
    rules: Vec<AcceptObject<'a>>,
}

#[derive(Serialize)]
struct AcceptObject<'a> {
    chain: &'static str,
    interfaces: &'a [Option<String>; 2],
    protocol: u8,
    sources: Side,
    destinations: Side,
    services: Vec<ServiceObject<'a>>,
    flows: u64,
    /// As they are written for the language that was asked for.
    text: Vec<String>,
}

#[derive(Serialize)]
struct Side {
    addresses: Vec<String>,
    /// Addresses that are admitted, as text where they are more than JSON's numbers hold.
    admits: String,
    seen: usize,
}

#[derive(Serialize)]
struct ServiceObject<'a> {
    number: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

pub(super) fn render(
    language: Language,
    name: &str,
    suggestion: &Suggestion,
    passed: &Passed,
    services: &Services,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Suggestion { rules, flows, kinds, once } = suggestion;
    let side = |rule: &AcceptRule, side: usize| Side {
        addresses: rule.addresses[side].iter().map(|of| nft::subnet(*of)).collect(),
        admits: rule.addresses[side]
            .iter()
            .map(|of| of.hosts())
            .fold(0, u128::saturating_add)
            .to_string(),
        seen: rule.seen[side],
    };
    let document = Document {
        schema: SCHEMA,
        origin: name,
        flows: *flows,
        kinds: *kinds,
        once: *once,
        outside: suggestion.outside(),
        related: passed.related,
        loopback: passed.loopback,
        dropped: passed.dropped,
        unclear: passed.unclear,
        rules: rules
            .iter()
            .map(|rule| AcceptObject {
                chain: rule.hook.name(),
                interfaces: &rule.interfaces,
                protocol: rule.protocol,
                sources: side(rule, 0),
                destinations: side(rule, 1),
                services: rule
                    .services
                    .iter()
                    .map(|port| ServiceObject {
                        number: *port,
                        name: services.name(*port, rule.protocol),
                    })
                    .collect(),
                flows: rule.flows,
                text: match language {
                    Language::Nft => vec![nft::text(rule)],
                    Language::Iptables | Language::Ip6tables => iptables::lines(rule),
                },
            })
            .collect(),
    };
    harmless::json(&mut *out, &document)?;
    out.write_all(b"\n")
}
