//! Chains and rules as filters name them.

use std::fmt;

use crate::model::{
    path::{Site, SiteKind},
    table::{Backend, after_table},
};

/// A chain or rule: `TABLE/CHAIN` or `TABLE/CHAIN/HANDLE`. Names of tables and chains may hold slashes, so the text
/// is split only when it is compared with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFilter(pub(super) String);

impl RuleFilter {
    /// `None` if it names no chain.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (table, chain) = text.split_once('/')?;
        (!table.is_empty() && !chain.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Whether the filter means this site or its chain. A table is named by its name or by family and name, followed
    /// by `(legacy)` or `(nft)` if only that backend is meant; a rule by its handle, or in ip_tables, which has no
    /// handles, by its position.
    #[must_use]
    pub fn matches(&self, site: &Site) -> bool {
        after_table(&self.0, site.backend, site.family, &site.table).any(|rest| {
            let chain = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(&site.chain));
            chain.is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix('/').is_some_and(|n| is_rule(n, site))
            })
        })
    }
}

impl fmt::Display for RuleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a site is the rule with this handle or position.
fn is_rule(number: &str, site: &Site) -> bool {
    let own = match site.backend {
        Backend::Nft => site.handle,
        Backend::Legacy => site.position.map(u64::from),
    };
    site.kind == SiteKind::Rule && own.is_some() && number.parse().ok() == own
}
