//! What stays of the tables that are loaded today, when files are loaded.
//!
//! nft adds to what is there. So that a file can do that here, tables of today are loaded before it, from nft's own
//! listing. A table that nft cannot load again (one of iptables-nft, with expressions that nft has no notation for)
//! is there with one empty chain instead: behind the files it is gone, or made anew, or just as it was.

use anyhow::{Result, bail};

use super::{
    file::Kind,
    request::{Block, Request},
};
use crate::{
    firewall::{Ruleset, model, rules::Rules},
    model::table::{Backend, Family},
    netlink::nftables::ruleset::Table,
};

/// The chain of a table that is there only to be deleted.
pub(super) const CHAIN: &str = "conntracker_unchanged";

/// Whether iptables-legacy has rules, and iptables-nft has none.
pub(super) fn uses_legacy(today: &Ruleset) -> bool {
    let mut iptables = today.tables.iter().filter(|table| table.iptables);
    iptables.clone().count() > 0 && iptables.all(|table| table.backend == Backend::Legacy)
}

/// The tables of nf_tables that are loaded today, as nft would load them.
pub(super) fn blocks(today: &Ruleset) -> Vec<Block> {
    let is_text = |command: &str| command.starts_with("nft ") && !command.contains("-j");
    let text = today.printed.iter().find(|(command, _)| is_text(command));
    let text = text.map(|(_, printed)| printed.as_str()).unwrap_or_default();
    let nft = today.tables.iter().filter(|table| table.backend == Backend::Nft);
    nft.map(|table| {
        let (family, name) = (table.family.name().to_owned(), table.name.clone());
        let text = block(text, &family, &name).filter(|_| !table.iptables);
        Block { text: text.map(str::to_owned), family, name }
    })
    .collect()
}

/// The lines of a table in nft's listing.
fn block<'a>(text: &'a str, family: &str, name: &str) -> Option<&'a str> {
    let opens = format!("table {family} {name} {{");
    let mut at = 0;
    let mut begin = None;
    for line in text.split_inclusive('\n') {
        at += line.len();
        match begin {
            None if line.starts_with(&opens) => begin = Some(at - line.len()),
            Some(begin) if line.trim_end() == "}" => return text.get(begin..at),
            _ => {}
        }
    }
    None
}

/// The rules of a host after the files were loaded.
pub(super) fn join(today: &Rules, compiled: &Rules, request: &Request) -> Result<Rules> {
    let mut joined = Rules::default();
    let nft = request.files.iter().any(|file| file.kind == Kind::Nft);
    // Tables that stay keep their place among functions of one priority; others are registered behind them.
    let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
    for table in &compiled.nft {
        let before = today.nft.iter().find(|before| is_same(before, table));
        match before {
            Some(before) if table.chains.iter().any(|chain| chain.name == CHAIN) => {
                if table.chains.len() > 1 || !table.sets.is_empty() {
                    bail!(
                        "a file adds to table `{}`, which nft cannot load again (it has expressions of iptables): begin \
                         the file with `flush ruleset`, or delete the table first",
                        table.name
                    );
                }
                unchanged.push(before);
            }
            Some(before) if equal(today, compiled, table) => unchanged.push(before),
            _ => changed.push(table),
        }
    }
    let is_there = |table: &Table| compiled.nft.iter().any(|other| is_same(other, table));
    let stays = |table: &&Table| {
        if nft { unchanged.iter().any(|other| is_same(other, table)) } else { !is_there(table) }
    };
    let kept: Vec<Table> = today.nft.iter().filter(stays).cloned().collect();
    for table in &kept {
        joined.listed.extend(listed(today, table).cloned());
    }
    for table in &changed {
        joined.listed.extend(listed(compiled, table).cloned());
    }
    joined.nft = kept.into_iter().chain(changed.into_iter().cloned()).collect();

    let replaced = |family: Family, name: &str| {
        compiled.legacy.iter().any(|table| table.family == family && table.name == name)
    };
    let legacy = today.legacy.iter().filter(|table| !replaced(table.family, &table.name));
    joined.legacy = legacy.chain(&compiled.legacy).cloned().collect();
    let of_legacy = |table: &&model::Table| table.backend == Backend::Legacy;
    let old = today.listed.iter().filter(of_legacy);
    joined.listed.extend(old.filter(|table| !replaced(table.family, &table.name)).cloned());
    joined.listed.extend(compiled.listed.iter().filter(of_legacy).cloned());
    Ok(joined)
}

fn is_same(one: &Table, other: &Table) -> bool {
    (one.family, &one.name) == (other.family, &other.name)
}

/// A table of nf_tables with its text.
fn listed<'a>(rules: &'a Rules, table: &Table) -> Option<&'a model::Table> {
    rules.listed.iter().find(|listed| {
        listed.backend == Backend::Nft
            && listed.family == Family::of_number(table.family)
            && listed.name == table.name
    })
}

/// Whether a table has the same rules and sets as before, apart from handles.
fn equal(today: &Rules, compiled: &Rules, table: &Table) -> bool {
    let (Some(before), Some(now)) = (listed(today, table), listed(compiled, table)) else {
        return false;
    };
    let chain = |chain: &model::Chain| {
        let rules: Vec<String> = chain.rules.iter().map(|rule| rule.text.clone()).collect();
        (chain.name.clone(), chain.base.clone(), rules)
    };
    let chains = |table: &model::Table| -> Vec<_> { table.chains.iter().map(chain).collect() };
    let sets = |rules: &Rules| {
        let table = rules.nft.iter().find(|other| is_same(other, table));
        let sets = table.into_iter().flat_map(|table| &table.sets);
        // Those without a name are in the text of rules.
        let named = sets.filter(|set| !set.name.starts_with("__"));
        named.map(|set| format!("{set:?}")).collect::<Vec<_>>()
    };
    before.dormant == now.dormant && chains(before) == chains(now) && sets(today) == sets(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_out_of_a_listing() {
        let text = "table ip a { # handle 1\n\tchain c {\n\t}\n}\ntable ip ab { # handle 2\n}\n";
        assert_eq!(block(text, "ip", "a"), Some("table ip a { # handle 1\n\tchain c {\n\t}\n}\n"));
        assert_eq!(block(text, "ip", "ab"), Some("table ip ab { # handle 2\n}\n"));
        assert_eq!(block(text, "ip", "b"), None);
        assert_eq!(block("table ip a {\n", "ip", "a"), None);
    }
}
