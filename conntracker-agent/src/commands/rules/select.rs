//! Which tables and chains are shown.

use crate::{
    firewall::model::{Chain, Table},
    model::table::after_table,
};

/// A table with the chains of it that are shown.
#[derive(Debug)]
pub(super) struct Selected<'a> {
    pub table: &'a Table,
    pub chains: Vec<&'a Chain>,
}

/// Selects by `TABLE` or `TABLE/CHAIN`, where TABLE is the name or the label (`inet fw4`, `filter (legacy)`). Names
/// may hold slashes, so candidates are compared with `only` instead of splitting it.
pub(super) fn select<'a>(tables: &'a [Table], only: Option<&str>) -> Vec<Selected<'a>> {
    tables
        .iter()
        .filter_map(|table| {
            let all = || table.chains.iter().collect();
            let Some(only) = only else { return Some(Selected { table, chains: all() }) };
            let rests: Vec<&str> =
                after_table(only, table.backend, table.family, &table.name).collect();
            if rests.contains(&"") {
                return Some(Selected { table, chains: all() });
            }
            let chains: Vec<&Chain> = table
                .chains
                .iter()
                .filter(|chain| rests.iter().any(|r| r.strip_prefix('/') == Some(&chain.name)))
                .collect();
            (!chains.is_empty()).then_some(Selected { table, chains })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::{Backend, Family};

    #[test]
    fn tables_and_chains_are_chosen_by_name_or_label() {
        let chain = |name: &str| Chain {
            name: name.to_owned(),
            handle: None,
            base: None,
            rules: Vec::new(),
        };
        let table = |family, name: &str, iptables, chains: &[&str]| Table {
            family,
            name: name.to_owned(),
            backend: Backend::Nft,
            handle: None,
            iptables,
            dormant: false,
            chains: chains.iter().map(|name| chain(name)).collect(),
        };
        let tables = [
            table(Family::Ip, "filter", true, &["INPUT", "user"]),
            table(Family::Ip6, "filter", true, &["INPUT"]),
            table(Family::Inet, "fw", false, &["in/out", "out"]),
            Table { backend: Backend::Legacy, ..table(Family::Ip, "nat", true, &["OUTPUT"]) },
            table(Family::Ip, "nat", true, &["OUTPUT", "DOCKER"]),
        ];
        let chosen = |only: Option<&str>| -> Vec<(String, Vec<String>)> {
            select(&tables, only)
                .iter()
                .map(|Selected { table, chains }| {
                    let table = format!("{} {}", table.family.name(), table.name);
                    (table, chains.iter().map(|chain| chain.name.clone()).collect())
                })
                .collect()
        };
        let one = |table: &str, chain: &str| vec![(table.to_owned(), vec![chain.to_owned()])];
        assert_eq!(chosen(None).len(), 5);
        assert_eq!(chosen(Some("filter")).len(), 2);
        assert_eq!(chosen(Some("filter/INPUT")).len(), 2);
        assert_eq!(chosen(Some("filter/user")), one("ip filter", "user"));
        assert_eq!(chosen(Some("ip6 filter")), one("ip6 filter", "INPUT"));
        assert_eq!(chosen(Some("fw/in/out")), one("inet fw", "in/out"));
        assert_eq!(chosen(Some("inet fw/out")), one("inet fw", "out"));
        assert_eq!(chosen(Some("nat/OUTPUT")).len(), 2);
        assert_eq!(chosen(Some("nat (nft)/OUTPUT")), one("ip nat", "OUTPUT"));
        assert_eq!(chosen(Some("ip nat (legacy)")), one("ip nat", "OUTPUT"));
        assert_eq!(chosen(Some("nat (legacy)/DOCKER")), []);
        for nothing in [
            "filter (legacy)",
            "nat (none)",
            "nat(nft)",
            "inet",
            "inet filter",
            "fw/",
            "f",
            "fw/input",
            "inet fw4",
            "/out",
        ] {
            assert_eq!(chosen(Some(nothing)), [], "{nothing}");
        }
    }
}
