//! The rules of a firewall by their names: table, chain, position, handle, text.

use std::{borrow::Cow, collections::HashMap};

use serde::Serialize;

use super::select::select;
use crate::{
    firewall::{
        analyse::reading::RuleAt,
        evaluate::Firewall,
        model::{Chain, Rule, Table},
        rules::Rules,
    },
    model::{
        harmless::one_line,
        path::{Site, SiteKind},
        table::{Backend, Family},
    },
    report::path::chain,
};

type ChainKey<'a> = (Backend, Family, &'a str, &'a str);

/// The listing of the rules that are looked at, by chain.
pub(super) struct Listed<'a> {
    firewall: &'a Firewall,
    chains: HashMap<ChainKey<'a>, (&'a Table, &'a Chain)>,
    in_order: Vec<(&'a Table, &'a Chain)>,
    all: bool,
}

impl<'a> Listed<'a> {
    /// All chains, or those of `TABLE` or `TABLE/CHAIN`; `None`: there is none of that name.
    pub fn new(rules: &'a Rules, firewall: &'a Firewall, only: Option<&str>) -> Option<Self> {
        let selected = select(&rules.listed, only);
        if only.is_some() && selected.is_empty() {
            return None;
        }
        let in_order: Vec<(&'a Table, &'a Chain)> = selected
            .iter()
            .flat_map(|of| of.chains.iter().map(|chain| (of.table, *chain)))
            .collect();
        let key = |&(table, chain): &(&'a Table, &'a Chain)| {
            let key = (table.backend, table.family, table.name.as_str(), chain.name.as_str());
            (key, (table, chain))
        };
        let chains = in_order.iter().map(key).collect();
        Some(Self { firewall, chains, in_order, all: only.is_none() })
    }

    /// The chains that are looked at, in the order of the listing.
    pub fn listed(&self) -> &[(&'a Table, &'a Chain)] {
        &self.in_order
    }

    /// A rule of the listing.
    pub fn of_rule(table: &Table, chain: &Chain, rule: &Rule) -> Site {
        Site {
            backend: table.backend,
            family: table.family,
            table: table.name.clone(),
            iptables: table.iptables,
            chain: chain.name.clone(),
            kind: SiteKind::Rule,
            position: Some(rule.position),
            handle: rule.handle,
            text: Some(rule.text.clone()),
        }
    }

    /// A rule of the listing; `None` if it is not among those that are looked at, or is another one there.
    pub fn rule(&self, (number, index): RuleAt) -> Option<&'a Rule> {
        let site = self.firewall.site(number, index)?;
        let key = (site.backend, site.family, site.table.as_str(), site.chain.as_str());
        let (_, chain) = self.chains.get(&key)?;
        chain.rules.get(index).filter(|rule| rule.handle.is_none() || rule.handle == site.handle)
    }

    /// A rule, or the end of a chain, with its text; `None` if it is not among those that are looked at.
    pub fn site(&self, (number, index): RuleAt) -> Option<Site> {
        let mut site = self.firewall.site(number, index)?;
        let key = (site.backend, site.family, site.table.as_str(), site.chain.as_str());
        let Some((table, _)) = self.chains.get(&key) else {
            return self.all.then_some(site);
        };
        site.iptables = table.iptables;
        site.text = self.rule((number, index)).map(|rule| rule.text.clone());
        Some(site)
    }
}

/// `TABLE/CHAIN POSITION: TEXT`.
pub(super) fn named(site: &Site) -> String {
    match &site.text {
        Some(text) => format!("{}: {}", chain(site, 0), one_line(text)),
        None => chain(site, 0),
    }
}

/// A rule in JSON.
#[derive(Serialize)]
pub(super) struct RuleObject<'a> {
    table: Cow<'a, str>,
    chain: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> RuleObject<'a> {
    /// Of a site.
    pub fn of(site: &'a Site) -> Self {
        Self {
            table: site.label(),
            chain: &site.chain,
            position: site.position,
            handle: site.handle,
            text: site.text.as_deref(),
        }
    }
}
