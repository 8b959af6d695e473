//! The rules of a firewall by their names: table, chain, position, handle, text.

use std::{borrow::Cow, collections::HashMap};

use serde::Serialize;

use super::select::select;
use crate::{
    firewall::{
        analyse::shadowed::RuleAt,
        evaluate::Firewall,
        model::{Chain, Table},
        rules::Rules,
    },
    model::{
        harmless::one_line,
        path::Site,
        table::{Backend, Family},
    },
    report::path::chain,
};

type ChainKey<'a> = (Backend, Family, &'a str, &'a str);

/// The listing of the rules that are looked at, by chain.
pub(super) struct Listed<'a> {
    firewall: &'a Firewall,
    chains: HashMap<ChainKey<'a>, (&'a Table, &'a Chain)>,
    all: bool,
}

impl<'a> Listed<'a> {
    /// All chains, or those of `TABLE` or `TABLE/CHAIN`; `None`: there is none of that name.
    pub fn new(rules: &'a Rules, firewall: &'a Firewall, only: Option<&str>) -> Option<Self> {
        let selected = select(&rules.listed, only);
        if only.is_some() && selected.is_empty() {
            return None;
        }
        let chains = selected.iter().flat_map(|of| {
            let table = of.table;
            let key = move |chain: &&'a Chain| {
                let key = (table.backend, table.family, table.name.as_str(), chain.name.as_str());
                (key, (table, *chain))
            };
            of.chains.iter().map(key)
        });
        Some(Self { firewall, chains: chains.collect(), all: only.is_none() })
    }

    /// A rule, or the end of a chain, with its text; `None` if it is not among those that are looked at.
    pub fn site(&self, (number, index): RuleAt) -> Option<Site> {
        let mut site = self.firewall.site(number, index)?;
        let key = (site.backend, site.family, site.table.as_str(), site.chain.as_str());
        let Some((table, chain)) = self.chains.get(&key) else {
            return self.all.then_some(site);
        };
        let rule = chain.rules.get(index);
        let same = rule.filter(|rule| rule.handle.is_none() || rule.handle == site.handle);
        site.text = same.map(|rule| rule.text.clone());
        site.iptables = table.iptables;
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
