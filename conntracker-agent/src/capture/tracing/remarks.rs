//! Remarks about rules for the reader of a report.

use crate::{
    firewall::{Ruleset, model::Rule},
    model::table::{Backend, Family},
};

/// A remark about rules without a counter; `None` if all have one. For links only, because probes see the rules
/// themselves.
pub(super) fn without_counters(ruleset: &Ruleset) -> Option<String> {
    let of_ip = |family| matches!(family, Family::Ip | Family::Ip6 | Family::Inet);
    let rules: Vec<&Rule> = ruleset
        .tables
        .iter()
        .filter(|table| table.backend == Backend::Nft && !table.dormant && of_ip(table.family))
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules)
        .collect();
    let silent = rules.iter().filter(|rule| rule.counter.is_none()).count();
    (silent > 0).then(|| {
        format!(
            "{silent} of {} rules of nft have no counter: they are told (as inferred) by the packet's addresses, ports, ct state, marks, interfaces and translation where these decide; `counter` in a rule, or `--backend probes`, tells exactly",
            rules.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::model::{Chain, Counter, Table};

    fn table(backend: Backend, family: Family, counted: &[bool]) -> Table {
        let rule = |counted: &bool| Rule {
            position: 1,
            handle: None,
            text: String::new(),
            kinds: Vec::new(),
            counter: counted.then(Counter::default),
            counts_matches: *counted,
            actions: Vec::new(),
            targets: Vec::new(),
            nat_family: None,
            clauses: Vec::new(),
        };
        let rules = counted.iter().map(rule).collect();
        let chain = Chain { name: "c".to_owned(), handle: None, base: None, rules };
        Table {
            family,
            name: "t".to_owned(),
            backend,
            handle: None,
            iptables: false,
            dormant: false,
            chains: vec![chain],
        }
    }

    #[test]
    fn rules_without_counters_are_told_once() {
        let note = |tables: Vec<Table>| {
            without_counters(&Ruleset { tables, ..Ruleset::default() }).unwrap_or_default()
        };
        let nft = |counted| table(Backend::Nft, Family::Inet, counted);
        assert!(note(vec![nft(&[false, true, false])]).starts_with("2 of 3 rules of nft"));
        assert_eq!(note(vec![nft(&[true]), table(Backend::Nft, Family::Bridge, &[false])]), "");
        assert_eq!(note(vec![table(Backend::Legacy, Family::Ip, &[false])]), "");
        assert_eq!(note(Vec::new()), "");
    }
}
