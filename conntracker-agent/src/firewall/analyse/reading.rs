//! The rules of a firewall, read table by table.

use std::collections::{BTreeSet, HashMap};

use super::{
    condition::{self, Condition},
    field::Fields,
    writes,
};
use crate::{
    firewall::evaluate::{Firewall, code::ChainNumber},
    model::{
        hook::Hook,
        table::{Backend, Family},
    },
};

/// A rule: its chain, and its index there from 0.
pub type RuleAt = (ChainNumber, usize);

/// A table whose rules are read.
#[derive(Debug)]
pub struct TableRules {
    /// Family.
    pub family: Family,
    /// The fields that its rules are about.
    pub fields: Fields,
    /// Its chains.
    pub chains: Vec<ChainNumber>,
    /// The conditions of the rules of each chain.
    pub conditions: HashMap<ChainNumber, Vec<Condition>>,
}

impl TableRules {
    /// The conditions of a chain's rules.
    #[must_use]
    pub fn rules(&self, chain: ChainNumber) -> &[Condition] {
        self.conditions.get(&chain).map(Vec::as_slice).unwrap_or_default()
    }

    /// The hooks at which packets come to each chain.
    #[must_use]
    pub fn hooks(&self, firewall: &Firewall) -> HashMap<ChainNumber, BTreeSet<Hook>> {
        let mut hooks: HashMap<ChainNumber, BTreeSet<Hook>> = HashMap::new();
        for base in &self.chains {
            let Some(hook) = firewall.base_hook(*base).map(|base| base.hook) else { continue };
            let mut open = vec![*base];
            while let Some(chain) = open.pop() {
                if hooks.entry(chain).or_default().insert(hook) {
                    let rules = self.rules(chain).iter();
                    open.extend(rules.flat_map(|rule| rule.calls.iter().map(|(to, _)| *to)));
                }
            }
        }
        hooks
    }
}

/// Reads all tables.
#[must_use]
pub fn tables(firewall: &Firewall) -> Vec<TableRules> {
    let written = writes::of_chains(firewall);
    let mut tables: Vec<TableRules> = Vec::new();
    let mut by_name: HashMap<(Backend, Family, &str), usize> = HashMap::new();
    for number in firewall.chains() {
        let Some(chain) = firewall.chain(number) else { continue };
        let name = (chain.backend, chain.family, chain.table.as_str());
        let at = *by_name.entry(name).or_insert_with(|| {
            let (chains, conditions) = (Vec::new(), HashMap::new());
            let fields = Fields::new(chain.family);
            tables.push(TableRules { family: chain.family, fields, chains, conditions });
            tables.len() - 1
        });
        let table = &mut tables[at];
        table.chains.push(number);
        table.fields.begin_chain();
        let rules = chain.rules.iter();
        let conditions =
            rules.map(|rule| condition::read(rule, firewall, &written, &mut table.fields));
        let conditions = conditions.collect();
        table.conditions.insert(number, conditions);
    }
    for table in &mut tables {
        table.fields.begin_chain();
    }
    tables
}
