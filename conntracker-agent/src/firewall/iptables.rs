//! How to recognise the tables of iptables, in ip_tables and in nf_tables.
//!
//! nf_tables does not record which program made a table. nft's warning `table ip filter is managed by iptables-nft`
//! depends on xt expressions, so it misses tables of simple rules. Here a table of family ip or ip6 is iptables' if
//! it has a name and base chains that iptables makes (name, type, hook and priority: `xtables_ipv4` of
//! iptables/nft.c), and either an xt expression, which nft cannot write, or rules that all have iptables' shape: one
//! counter, with no condition after it. A table of this shape that was written with nft counts as one of iptables,
//! here as in iptables itself.

use super::model::{ChainType, Rule, Table};
use crate::model::{
    hook::Hook,
    table::{Backend, Family},
};

/// Names of iptables' tables, in the order in which a packet meets them.
pub(super) const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// Type, hook and priority of a built-in chain (`enum nf_ip_hook_priorities` of
/// linux/netfilter_ipv4.h); ip_tables and nf_tables agree.
pub(super) fn built_in(table: &str, chain: &str) -> Option<(ChainType, Hook, i32)> {
    use ChainType::{Filter, Nat, Route};
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (kind, priority) = match (table, hook) {
        ("raw", Hook::Prerouting | Hook::Output) => (Filter, -300),
        ("mangle", Hook::Output) => (Route, -150),
        ("mangle", _) => (Filter, -150),
        ("nat", Hook::Prerouting | Hook::Output) => (Nat, -100),
        ("nat", Hook::Input | Hook::Postrouting) => (Nat, 100),
        ("filter", Hook::Input | Hook::Forward | Hook::Output) => (Filter, 0),
        ("security", Hook::Input | Hook::Forward | Hook::Output) => (Filter, 50),
        _ => return None,
    };
    Some((kind, hook, priority))
}

/// Whether iptables-nft made a table of nf_tables.
pub(super) fn made(table: &Table) -> bool {
    let rules = || table.chains.iter().flat_map(|chain| &chain.rules);
    table.backend == Backend::Nft
        && matches!(table.family, Family::Ip | Family::Ip6)
        && TABLES.contains(&table.name.as_str())
        && !table.chains.is_empty()
        && table.chains.iter().all(|chain| match &chain.base {
            Some(base) => {
                built_in(&table.name, &chain.name) == Some((base.kind, base.hook, base.priority))
            }
            None => true,
        })
        && (rules().any(has_xt) || rules().all(has_shape))
}

fn has_xt(rule: &Rule) -> bool {
    rule.kinds.iter().any(|kind| kind.starts_with("xt"))
}

fn has_shape(rule: &Rule) -> bool {
    rule.counts_matches && rule.kinds.iter().filter(|kind| *kind == "counter").count() == 1
}
