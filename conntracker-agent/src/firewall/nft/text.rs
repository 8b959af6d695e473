//! Rules as nft prints them: `nft -a -s list ruleset`, taken apart by indentation and handles.
//!
//! ```text
//! table inet fw { # handle 16
//! ⇥chain input { # handle 5
//! ⇥⇥type filter hook input priority filter; policy drop;
//! ⇥⇥iifname "lo" accept # handle 28
//! ```
//!
//! A rule ends with its handle; one that holds a block, or a comment with a line break, takes several lines. A
//! comment could imitate all of this. So a handle that comes twice names no rule, and the JSON, not the text, decides
//! what a rule does.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    firewall::model::{Chain, Table},
    model::table::Family,
};

/// Texts of a ruleset.
#[derive(Debug, Default)]
pub(in crate::firewall) struct Texts {
    /// By family and name.
    pub tables: HashMap<(Family, String), TableText>,
}

/// Texts of a table.
#[derive(Debug, Default)]
pub(in crate::firewall) struct TableText {
    /// Handle of the table.
    pub handle: Option<u64>,
    /// Flag `dormant`, which the JSON of some versions of nft garbles.
    dormant: bool,
    chains: HashMap<String, ChainText>,
}

#[derive(Debug, Default)]
struct ChainText {
    handle: Option<u64>,
    /// Devices, which the JSON of some versions of nft lacks.
    devices: Vec<String>,
    /// By handle; `None` for one that came twice.
    rules: HashMap<u64, Option<String>>,
}

impl Texts {
    /// Reads a listing; lines that it does not understand are skipped.
    pub fn parse(listing: &str) -> Self {
        let mut texts = Self::default();
        let (mut table, mut chain) = (None, None);
        // The lines so far of a rule that has not ended.
        let mut rule = String::new();
        for line in listing.lines() {
            if let Some(body) = line.strip_prefix("\t\t") {
                if let Some((_, chain)) = &mut chain {
                    ChainText::add(chain, body, &mut rule);
                }
                continue;
            }
            rule.clear();
            texts.keep(table.as_ref(), chain.take());
            let (text, handle) = split_head(line);
            if let Some(header) = text.strip_prefix("table ").and_then(block) {
                table = header
                    .split_once(' ')
                    .and_then(|(family, name)| Some((Family::parse(family)?, name.to_owned())));
                if let Some(key) = &table {
                    texts.tables.entry(key.clone()).or_default().handle = handle;
                }
            } else if let Some(name) = text.strip_prefix("\tchain ").and_then(block) {
                chain = Some((name.to_owned(), ChainText { handle, ..ChainText::default() }));
            } else if let Some(flags) = text.strip_prefix("\tflags ")
                && flags.split(',').any(|flag| flag.trim() == "dormant")
                && let Some(table) = table.as_ref().and_then(|key| texts.tables.get_mut(key))
            {
                table.dormant = true;
            }
        }
        texts.keep(table.as_ref(), chain);
        texts
    }

    /// Keeps a chain that has ended.
    fn keep(&mut self, table: Option<&(Family, String)>, chain: Option<(String, ChainText)>) {
        if let Some(table) = table.and_then(|key| self.tables.get_mut(key))
            && let Some((name, chain)) = chain
        {
            table.chains.insert(name, chain);
        }
    }
}

impl TableText {
    /// Gives a table what only the text has. Returns the number of rules without a text.
    pub fn give_to(&mut self, table: &mut Table) -> usize {
        table.dormant = self.dormant;
        let mut missing = 0;
        for Chain { name, handle, base, rules } in &mut table.chains {
            let text = self.chains.get_mut(name).filter(|text| text.handle == *handle);
            let Some(text) = text else {
                missing += rules.len();
                continue;
            };
            if let Some(base) = base
                && base.devices.is_empty()
            {
                base.devices = std::mem::take(&mut text.devices);
            }
            for rule in rules {
                match rule.handle.and_then(|handle| text.rules.remove(&handle)).flatten() {
                    Some(text) => rule.text = text,
                    None => missing += 1,
                }
            }
        }
        missing
    }
}

impl ChainText {
    /// Takes a line of a chain; `rule` holds the lines of a rule that has not ended.
    fn add(&mut self, line: &str, rule: &mut String) {
        let (text, handle) = split_handle(line);
        if rule.is_empty() && handle.is_none() {
            if text.starts_with("type ") && text.contains(" hook ") {
                self.devices = devices(text);
                return;
            }
            if text.starts_with("comment \"") || text.starts_with("policy ") {
                return;
            }
        }
        if !rule.is_empty() {
            rule.push('\n');
        }
        rule.push_str(text);
        if let Some(handle) = handle {
            // nft prints a blank in place of a comment of iptables.
            let text = std::mem::take(rule).trim().to_owned();
            match self.rules.entry(handle) {
                Entry::Vacant(vacant) => _ = vacant.insert(Some(text)),
                Entry::Occupied(mut twice) => _ = twice.insert(None),
            }
        }
    }
}

/// `NAME {`.
fn block(text: &str) -> Option<&str> {
    text.strip_suffix(" {")
}

/// Splits `TEXT { # handle N`. The name of a program may follow the handle of a table that has an owner (` progname
/// NAME`, `table_print` of nftables' src/rule.c), and may be any text. Names of tables and chains have no blanks.
fn split_head(line: &str) -> (&str, Option<u64>) {
    let Some((text, rest)) = line.split_once(" { # handle ") else { return (line, None) };
    let digits = rest.split(' ').next().unwrap_or_default();
    match digits.parse() {
        Ok(handle) => (&line[..text.len() + " {".len()], Some(handle)),
        Err(_) => (line, None),
    }
}

/// Splits `TEXT # handle N`. Nothing follows the handle of a rule (`rule_print`).
fn split_handle(line: &str) -> (&str, Option<u64>) {
    match line.rsplit_once(" # handle ").map(|(text, handle)| (text, handle.parse())) {
        Some((text, Ok(handle))) => (text, Some(handle)),
        _ => (line, None),
    }
}

/// `… device "eth0" priority …` or `… devices = { eth0, eth1 } priority …`.
fn devices(base: &str) -> Vec<String> {
    let list = base
        .split_once(" devices = {")
        .and_then(|(_, rest)| rest.split_once('}'))
        .or_else(|| base.split_once(" device ").and_then(|(_, rest)| rest.split_once(' ')));
    let names = list.map_or("", |(names, _)| names).split(',');
    names.map(|n| n.trim().trim_matches('"').to_owned()).filter(|n| !n.is_empty()).collect()
}
