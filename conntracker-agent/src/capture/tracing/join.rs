//! Joins the rules in kernel memory with the listed ones, chain by chain and rule by rule. Pure.

use std::collections::{BTreeSet, HashMap};

use conntracker_common::plan::MAX_SLOTS;

use crate::{
    attribution::Counters,
    bpf::{
        index::{
            Index,
            hooks::HookFunction,
            legacy::{BUILT_IN, LegacyTable},
            nft::NftChain,
        },
        symbols::Function,
    },
    firewall::{Ruleset, model::Table},
    model::table::{Backend, Family},
};

/// The most counters that are read for one base chain and all chains it leads to.
const MOST_COUNTERS: usize = 4096;

/// Index of a table in the ruleset, and of a chain in the table.
pub(super) type ChainAt = (usize, usize);

/// Which counter belongs to which rule.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// Per-CPU pointers to the counters of each chain that agrees with the kernel's: one for each rule, and in
    /// ip_tables one for the end of the chain.
    counters: HashMap<ChainAt, Vec<Option<u64>>>,
    nft: HashMap<u64, ChainAt>,
    legacy: HashMap<(u64, String), ChainAt>,
    /// Counters that the cap left out, as (chain, index).
    capped: BTreeSet<(ChainAt, usize)>,
    /// Counters that packets may move where no link sees them.
    hidden: BTreeSet<(ChainAt, usize)>,
    /// Chains whose rules differ from the listed ones.
    pub mismatched: Vec<String>,
}

impl Join {
    /// Joins both. Listed chains that no hook leads to have no counters here.
    pub fn new(index: &Index, ruleset: &Ruleset) -> Self {
        let mut join = Self::default();
        let listed = by_handles(ruleset);
        for chain in &index.nft {
            // nft does not list the chains of blocks within rules, and the rules that lead to them are unknown ones.
            if let Some(&at) = listed.get(&(chain.table, chain.handle)) {
                join.nft(chain, at, ruleset);
            }
        }
        for table in &index.legacy {
            join.legacy(table, ruleset);
        }
        join.cap(ruleset);
        join.cap_hooks(index, ruleset);
        join
    }

    /// The base chain that a function at a hook evaluates, if it was listed.
    pub fn base_chain(&self, hook: u8, found: &HookFunction) -> Option<ChainAt> {
        match found.function {
            Function::NfTables => self.nft.get(&found.private).copied(),
            Function::Legacy => {
                let chain = (*BUILT_IN.get(usize::from(hook))?).to_owned();
                self.legacy.get(&(found.private, chain)).copied()
            }
            _ => None,
        }
    }

    /// Whether the kernel's rules of a chain are the listed ones.
    pub fn agrees_at(&self, at: ChainAt) -> bool {
        self.counters.contains_key(&at)
    }

    /// A chain of nf_tables by its address, and whether its rules are the listed ones.
    pub fn nft_chain(&self, address: u64) -> Option<(ChainAt, bool)> {
        let at = *self.nft.get(&address)?;
        Some((at, self.agrees_at(at)))
    }

    /// A chain of ip_tables, if its rules are the listed ones.
    pub fn legacy_chain(&self, table: u64, chain: &str) -> Option<ChainAt> {
        let at = *self.legacy.get(&(table, chain.to_owned()))?;
        self.agrees_at(at).then_some(at)
    }

    /// Counters of a chain that are read, by index.
    pub fn counters_of(&self, chain: ChainAt) -> impl Iterator<Item = (usize, u64)> {
        let counters = self.counters.get(&chain).into_iter().flatten();
        counters
            .enumerate()
            .filter(move |(index, _)| !self.leaves_out(&(chain, *index)))
            .filter_map(|(index, counter)| Some((index, (*counter)?)))
    }

    /// Excludes counters, given as (chain, index), because packets that no link sees move them.
    pub fn hide(&mut self, counters: impl Iterator<Item = (ChainAt, u32)>) {
        self.hidden.extend(counters.map(|(chain, index)| (chain, index as usize)));
    }

    /// Number of counters that the cap left out.
    pub fn capped(&self) -> usize {
        self.capped.len()
    }

    fn leaves_out(&self, counter: &(ChainAt, usize)) -> bool {
        self.capped.contains(counter) || self.hidden.contains(counter)
    }

    fn nft(&mut self, chain: &NftChain, at: ChainAt, ruleset: &Ruleset) {
        self.nft.insert(chain.address, at);
        let listed = &ruleset.tables[at.0].chains[at.1];
        let same = listed
            .rules
            .iter()
            .map(|rule| rule.handle)
            .eq(chain.rules.iter().map(|rule| Some(rule.handle)))
            && listed
                .rules
                .iter()
                .zip(&chain.rules)
                .all(|(listed, rule)| listed.counter.is_none() || rule.counter.is_some());
        if same {
            self.counters.insert(at, chain.rules.iter().map(|rule| rule.counter).collect());
        } else {
            self.mismatch(&ruleset.tables[at.0], &listed.name);
        }
    }

    fn legacy(&mut self, table: &LegacyTable, ruleset: &Ruleset) {
        let family = if table.v6 { Family::Ip6 } else { Family::Ip };
        let found = ruleset.tables.iter().position(|listed| {
            listed.backend == Backend::Legacy
                && listed.family == family
                && listed.name == table.name
        });
        let Some(t) = found else { return };
        let listed = &ruleset.tables[t];
        let numbers = by_names(listed);
        for chain in &table.chains {
            let Some(&c) = numbers.get(chain.name.as_str()) else { continue };
            self.legacy.insert((table.address, chain.name.clone()), (t, c));
            if listed.chains[c].rules.len() + 1 == chain.counters.len() {
                let counters = chain.counters.iter().map(|&counter| Some(counter)).collect();
                self.counters.insert((t, c), counters);
            } else {
                self.mismatch(listed, &chain.name);
            }
        }
    }

    fn mismatch(&mut self, table: &Table, chain: &str) {
        self.mismatched.push(format!("{}/{chain}", table.label()));
    }

    /// Excludes the counters beyond [`MOST_COUNTERS`] of one base chain.
    fn cap(&mut self, ruleset: &Ruleset) {
        let bases: Vec<ChainAt> = self.nft.values().chain(self.legacy.values()).copied().collect();
        for base in bases {
            if ruleset.tables[base.0].chains[base.1].base.is_none() {
                continue;
            }
            let spots: Vec<(ChainAt, usize)> = reachable(ruleset, base)
                .into_iter()
                .flat_map(|chain| self.counters_of(chain).map(move |(index, _)| (chain, index)))
                .collect();
            self.capped.extend(spots.into_iter().skip(MOST_COUNTERS));
        }
    }

    /// Excludes the counters beyond [`MAX_SLOTS`] of one hook.
    fn cap_hooks(&mut self, index: &Index, ruleset: &Ruleset) {
        for (hook, list) in index.hooks.iter().flat_map(|family| (0..).zip(family)) {
            let mut read = BTreeSet::new();
            let mut left_out = Vec::new();
            for base in list.functions.iter().filter_map(|found| self.base_chain(hook, found)) {
                for chain in reachable(ruleset, base) {
                    for (index, _) in self.counters_of(chain) {
                        if read.len() < MAX_SLOTS as usize {
                            read.insert((chain, index));
                        } else if !read.contains(&(chain, index)) {
                            left_out.push((chain, index));
                        }
                    }
                }
            }
            self.capped.extend(left_out);
        }
    }
}

impl Counters for Join {
    fn agrees(&self, table: usize, chain: usize) -> bool {
        self.agrees_at((table, chain))
    }

    fn reads(&self, table: usize, chain: usize, rule: usize) -> bool {
        let counter = self.counters.get(&(table, chain)).and_then(|all| *all.get(rule)?);
        counter.is_some() && !self.leaves_out(&((table, chain), rule))
    }
}

/// Chains of nf_tables by the handles of their table and their own: Kubernetes has tens of thousands.
fn by_handles(ruleset: &Ruleset) -> HashMap<(u64, u64), ChainAt> {
    let tables = ruleset.tables.iter().enumerate().filter(|(_, t)| t.backend == Backend::Nft);
    tables
        .flat_map(|(t, table)| {
            let chains = table.chains.iter().enumerate();
            chains.filter_map(move |(c, chain)| Some(((table.handle?, chain.handle?), (t, c))))
        })
        .collect()
}

/// The chains of a table by name.
fn by_names(table: &Table) -> HashMap<&str, usize> {
    table.chains.iter().enumerate().map(|(c, chain)| (chain.name.as_str(), c)).collect()
}

/// The chains that packets can reach from a base chain: the base chain first, then the others by distance.
pub(super) fn reachable(ruleset: &Ruleset, base: ChainAt) -> Vec<ChainAt> {
    let Some(table) = ruleset.tables.get(base.0) else { return Vec::new() };
    let numbers = by_names(table);
    let mut seen = BTreeSet::from([base.1]);
    let mut found = vec![base];
    let mut next = 0;
    while let Some(&(_, chain)) = found.get(next) {
        next += 1;
        for target in table.chains[chain].rules.iter().flat_map(|rule| &rule.targets) {
            if let Some(&to) = numbers.get(target.chain.as_str())
                && seen.insert(to)
            {
                found.push((base.0, to));
            }
        }
    }
    found
}
