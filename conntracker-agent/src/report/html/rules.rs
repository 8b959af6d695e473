//! Rules, policies and ends of chains: those that packets met, and those that are listed.

use std::collections::HashMap;

use serde::Serialize;

use super::{Background, dictionary::Dictionary, facts::clean};
use crate::{
    firewall::model::{Base, Chain, Counter, Rule, Table},
    model::{
        NetnsId,
        harmless::one_line,
        path::{Site, SiteKind},
        table::{Backend, Family, label},
    },
};

/// A number for each rule. Packets of several epochs may have met one at different positions, and with different
/// texts: these sites have the same rule.
#[derive(Default)]
pub(super) struct Rules<'a> {
    numbers: Dictionary<Key<'a>>,
    sites: HashMap<(NetnsId, &'a Site), u32>,
    objects: Vec<SiteObject>,
}

/// What identifies a rule.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    netns: NetnsId,
    backend: Backend,
    family: Family,
    table: &'a str,
    chain: &'a str,
    id: Id<'a>,
}

#[derive(PartialEq, Eq, Hash)]
enum Id<'a> {
    /// A rule of nf_tables.
    Handle(u64),
    /// A rule that has no handle.
    Position(Option<u32>, &'a str),
    /// What is not a rule.
    End(SiteKind),
}

/// A site that packets met.
#[derive(Clone, Serialize)]
struct SiteObject {
    rule: u32,
    netns: u32,
    label: String,
    chain: String,
    kind: &'static str,
    position: Option<u32>,
    handle: Option<u64>,
    text: Option<String>,
}

/// A table of the last ruleset of a namespace.
#[derive(Serialize)]
pub(super) struct TableObject {
    netns: u32,
    label: String,
    chains: Vec<ChainObject>,
}

#[derive(Serialize)]
struct ChainObject {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    rows: Vec<RowObject>,
}

/// A rule, or what is behind the last one.
#[derive(Serialize)]
struct RowObject {
    rule: u32,
    kind: &'static str,
    position: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    text: String,
    /// Of the rule's own counter when it was listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
}

impl<'a> Rules<'a> {
    /// The number of a site.
    pub(super) fn site(&mut self, netns: NetnsId, site: &'a Site) -> u32 {
        if let Some(number) = self.sites.get(&(netns, site)) {
            return *number;
        }
        let Site { backend, family, table, iptables: _, chain, kind, position, handle, text } =
            site;
        let id = match (kind, handle) {
            (SiteKind::Rule, Some(handle)) => Id::Handle(*handle),
            (SiteKind::Rule, None) => Id::Position(*position, text.as_deref().unwrap_or_default()),
            (kind, _) => Id::End(*kind),
        };
        let key = Key { netns, backend: *backend, family: *family, table, chain, id };
        let object = SiteObject {
            rule: self.numbers.number(key).0,
            netns: netns.0,
            label: clean(&site.label()),
            chain: clean(chain),
            kind: kind.name(),
            position: *position,
            handle: *handle,
            text: text.as_deref().map(|text| one_line(text).into_owned()),
        };
        self.objects.push(object);
        let number = self.sites.len() as u32;
        self.sites.insert((netns, site), number);
        number
    }

    /// The sites by their numbers.
    pub(super) fn sites(&self) -> impl Serialize + use<> {
        self.objects.clone()
    }

    /// The last ruleset of each namespace.
    pub(super) fn listed(&mut self, background: &'a Background) -> Vec<TableObject> {
        let mut tables = Vec::new();
        for (netns, ruleset) in &background.rulesets {
            for table in &ruleset.tables {
                let Table { family, name, backend, handle: _, iptables, dormant, chains } = table;
                let mut label = clean(&label(*backend, *family, *iptables, name));
                if *dormant {
                    label.push_str(" (dormant: none of its chains is at a hook)");
                }
                tables.push(TableObject {
                    netns: netns.0,
                    label,
                    chains: chains.iter().map(|chain| self.chain(*netns, table, chain)).collect(),
                });
            }
        }
        tables
    }

    fn chain(&mut self, netns: NetnsId, table: &'a Table, chain: &'a Chain) -> ChainObject {
        let mut number = |id| {
            let Table { family, name, backend, .. } = table;
            let key = Key {
                netns,
                backend: *backend,
                family: *family,
                table: name,
                chain: &chain.name,
                id,
            };
            self.numbers.number(key).0
        };
        let mut rows: Vec<RowObject> = chain
            .rules
            .iter()
            .map(|rule| {
                let Rule { position, handle, text, counter, .. } = rule;
                let id = handle.map_or(Id::Position(Some(*position), text), Id::Handle);
                RowObject {
                    rule: number(id),
                    kind: SiteKind::Rule.name(),
                    position: *position,
                    handle: *handle,
                    text: one_line(text).into_owned(),
                    packets: counter.map(|Counter { packets, .. }| packets),
                }
            })
            .collect();
        let kind = if chain.base.is_some() { SiteKind::Policy } else { SiteKind::Return };
        rows.push(RowObject {
            rule: number(Id::End(kind)),
            kind: kind.name(),
            position: chain.end_position(),
            handle: None,
            text: match &chain.base {
                Some(base) => format!("policy {}", base.policy.name()),
                None => "end of the chain".to_owned(),
            },
            packets: chain
                .base
                .as_ref()
                .and_then(|base| base.counter)
                .map(|counter| counter.packets),
        });
        ChainObject { name: clean(&chain.name), base: chain.base.as_ref().map(hook), rows }
    }
}

/// `filter hook forward priority 0`.
fn hook(Base { kind, hook, priority, policy: _, counter: _, devices }: &Base) -> String {
    let mut text = format!("{} hook {} priority {priority}", kind.name(), hook.name());
    for device in devices {
        text.push_str(" device ");
        text.push_str(&clean(device));
    }
    text
}
