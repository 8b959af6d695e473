//! Header and footer of a JSON report. The fields are in the order of the output.

use serde::{Serialize, Serializer};

use super::{SCHEMA, object::Time};
use crate::model::{
    loss::LossCount,
    other::{FlowSums, OtherFlows},
    protocol,
};
use crate::report::{Footer, Header, Interface, Totals};

/// Counts by name, in their own order.
struct Counts(Vec<(&'static str, u64)>);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "header")]
pub(super) struct HeaderObject<'a> {
    schema: &'static str,
    version: &'static str,
    host: &'a str,
    kernel: &'a str,
    backend: &'a str,
    backend_reason: &'a str,
    namespaces: Vec<NamespaceObject<'a>>,
    start: Time<'a>,
    end: Time<'a>,
    filters: &'a [String],
    folded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct NamespaceObject<'a> {
    name: &'a str,
    interfaces: Vec<InterfaceObject<'a>>,
}

#[derive(Serialize)]
struct InterfaceObject<'a> {
    index: u32,
    name: &'a str,
}

impl<'a> HeaderObject<'a> {
    pub(super) fn new(header: &'a Header) -> Self {
        let Header {
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces,
            start_ns,
            end_ns,
            filters,
            folded,
            epochs,
            notes,
        } = header;
        let interface = |of: &'a Interface| InterfaceObject { index: of.index, name: &of.name };
        let namespaces = namespaces.iter().map(|namespace| NamespaceObject {
            name: &namespace.name,
            interfaces: namespace.interfaces.iter().map(interface).collect(),
        });
        Self {
            schema: SCHEMA,
            version,
            host,
            kernel,
            backend,
            backend_reason,
            namespaces: namespaces.collect(),
            start: Time::Number(*start_ns),
            end: Time::Number(*end_ns),
            filters,
            folded: *folded,
            epochs: *epochs,
            notes,
        }
    }

    /// The same, of something else than a list of flows.
    pub(super) fn of_schema(self, schema: &'static str) -> Self {
        Self { schema, ..self }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "footer")]
pub(super) struct FooterObject {
    totals: Totals,
    sources: Counts,
    losses: Counts,
    lost: bool,
    other: OtherFlowsObject,
}

/// Flows that are not listed.
#[derive(Serialize)]
struct OtherFlowsObject {
    #[serde(flatten)]
    total: FlowSums,
    protocols: Vec<ProtocolSums>,
}

#[derive(Serialize)]
struct ProtocolObject {
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Serialize)]
struct ProtocolSums {
    protocol: ProtocolObject,
    #[serde(flatten)]
    sums: FlowSums,
}

impl From<&OtherFlows> for OtherFlowsObject {
    fn from(others: &OtherFlows) -> Self {
        let object = |(number, sums)| {
            let protocol = ProtocolObject { number, name: protocol::name(number) };
            ProtocolSums { protocol, sums }
        };
        Self { total: others.total(), protocols: others.by_protocol().map(object).collect() }
    }
}

impl FooterObject {
    pub(super) fn new(footer: &Footer, totals: Totals) -> Self {
        let Footer { sources, losses, others } = footer;
        let loss = |&LossCount { loss, count }: &LossCount| (loss.name(), count);
        Self {
            totals,
            sources: Counts(sources.clone()),
            losses: Counts(losses.iter().map(loss).collect()),
            lost: footer.lost_anything(),
            other: others.into(),
        }
    }
}
