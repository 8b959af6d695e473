//! The position of a rule, a policy or the end of a chain in a ruleset.

use crate::{
    firewall::{
        Ruleset,
        model::{Chain, Rule, Table},
    },
    model::{
        path::{Site, SiteKind},
        table::{Backend, Family},
    },
    report::coverage::{RuleId, RuleKey},
};

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spot<'a> {
    backend: Backend,
    family: Family,
    table: &'a str,
    chain: &'a str,
    what: What<'a>,
}

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What<'a> {
    /// A rule of nf_tables, by its handle.
    Handle(u64),
    /// A rule of ip_tables, by its position and text, because it has no handle.
    Numbered(u32, &'a str),
    /// Policy or return.
    End,
}

impl<'a> Spot<'a> {
    pub fn of_site(site: &'a Site) -> Option<Self> {
        let Site { backend, family, table, chain, kind, position, handle, text, .. } = site;
        let what = match (kind, handle) {
            (SiteKind::Rule, Some(handle)) => What::Handle(*handle),
            (SiteKind::Rule, None) => What::Numbered((*position)?, text.as_deref()?),
            (SiteKind::Policy | SiteKind::Return, _) => What::End,
            // The rule that was met is unknown.
            (SiteKind::Chain, _) => return None,
        };
        Some(Self { backend: *backend, family: *family, table, chain, what })
    }

    pub fn of_key(key: &'a RuleKey) -> Self {
        let RuleKey { backend, family, table, chain, id } = key;
        let what = match id {
            RuleId::Handle(handle) => What::Handle(*handle),
            RuleId::Numbered(position, text) => What::Numbered(*position, text),
        };
        Self { backend: *backend, family: *family, table, chain, what }
    }

    pub fn of_chain(table: &'a Table, chain: &'a Chain, what: What<'a>) -> Self {
        let Table { backend, family, name, .. } = table;
        Self { backend: *backend, family: *family, table: name, chain: &chain.name, what }
    }

    pub fn of_rule(table: &'a Table, chain: &'a Chain, rule: &'a Rule) -> Self {
        let what = match rule.handle {
            Some(handle) => What::Handle(handle),
            None => What::Numbered(rule.position, &rule.text),
        };
        Self::of_chain(table, chain, what)
    }
}

/// All rules, with where they stand.
pub(super) fn rules(ruleset: &Ruleset) -> impl Iterator<Item = (&Table, &Chain, &Rule)> {
    ruleset.tables.iter().flat_map(|table| {
        table
            .chains
            .iter()
            .flat_map(move |chain| chain.rules.iter().map(move |rule| (table, chain, rule)))
    })
}

/// All places.
pub(super) fn spots(ruleset: &Ruleset) -> impl Iterator<Item = Spot<'_>> {
    let chains = ruleset
        .tables
        .iter()
        .flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    let ends = chains.map(|(table, chain)| Spot::of_chain(table, chain, What::End));
    ends.chain(rules(ruleset).map(|(table, chain, rule)| Spot::of_rule(table, chain, rule)))
}
