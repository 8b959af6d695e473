//! The ruleset in kernel memory: the functions at the hooks, the rules of their chains, and the addresses of the
//! rules' counters. Nothing here runs on the packet path: a BPF program copies memory ([`memory::Memory`]), this
//! module decodes it, and reads again what changed meanwhile.

#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod hooks;
#[cfg(any(test, feature = "fuzz"))]
mod image;
pub mod layout;
pub mod legacy;
pub mod memory;
pub mod nft;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use conntracker_common::plan::Guard;

use self::{
    hooks::AllHooks,
    layout::IndexLayout,
    legacy::LegacyTable,
    memory::{Gone, Memory, Reader},
    nft::{Generation, NftChain},
};
use super::symbols::{Function, Symbols};

/// Attempts to read memory that changes meanwhile.
const ATTEMPTS: usize = 5;

/// Values that show whether anything changed; they are cheap to read and to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Arrays of functions at the hooks.
    pub hooks: Vec<Guard>,
    /// nf_tables' commits.
    pub generation: Generation,
    /// Tables of ip_tables.
    pub legacy: Vec<Guard>,
}

/// The whole ruleset in kernel memory, read consistently.
#[derive(Clone, Debug)]
pub struct Index {
    /// Functions at the hooks.
    pub hooks: AllHooks,
    /// nf_tables' commits.
    pub generation: Generation,
    /// Chains of nf_tables, of tables with a base chain at a hook.
    pub nft: Vec<NftChain>,
    /// Tables of ip_tables.
    pub legacy: Vec<LegacyTable>,
}

/// The functions at the hooks of the namespace at address `net`.
///
/// # Errors
/// They change while they are read ([`Gone`]).
pub fn hooks_of(
    memory: &mut dyn Memory,
    layout: &IndexLayout,
    symbols: &mut Symbols,
    net: u64,
) -> Result<AllHooks> {
    hooks::read(&mut Reader::new(memory), layout, symbols, net)
}

impl Index {
    /// Reads the namespace at address `net`.
    ///
    /// # Errors It keeps changing ([`Gone`]), or this kernel's layout of rules is unknown.
    pub fn read(
        memory: &mut dyn Memory,
        layout: &IndexLayout,
        symbols: &mut Symbols,
        net: u64,
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut reader = Reader::new(memory);
            match Self::read_once(&mut reader, layout, symbols, net) {
                Ok(index) if index.fingerprint().now(memory)? == index.fingerprint() => {
                    return Ok(index);
                }
                Err(error) if !error.is::<Gone>() => return Err(error),
                _ if attempt == ATTEMPTS => return Err(Gone.into()),
                _ => attempt += 1,
            }
        }
    }

    fn read_once(
        reader: &mut Reader<'_>,
        layout: &IndexLayout,
        symbols: &mut Symbols,
        net: u64,
    ) -> Result<Self> {
        let hooks = hooks::read(reader, layout, symbols, net)?;
        let of = |wanted: Function, v6: bool| {
            let lists = hooks[usize::from(v6)].iter();
            let functions = lists.flat_map(|list| &list.functions);
            functions
                .filter(move |found| found.function == wanted)
                .map(|found| found.private)
                .collect::<BTreeSet<u64>>()
        };
        if let Err(why) = &layout.nat
            && [false, true].into_iter().any(|v6| !of(Function::Nat, v6).is_empty())
        {
            bail!("rules of NAT cannot be traced on this kernel: {why}");
        }
        let mut base_chains = of(Function::NfTables, false);
        base_chains.extend(of(Function::NfTables, true));
        let (generation, nft) = match &layout.nf_tables {
            Ok(layout) => {
                let first = base_chains.first().copied();
                let generation = nft::generation(reader, layout, net, first)?;
                (generation, nft::read(reader, layout, net, &base_chains)?)
            }
            Err(_) if base_chains.is_empty() => (Generation::default(), Vec::new()),
            Err(why) => bail!("rules of nf_tables cannot be traced on this kernel: {why}"),
        };
        let mut legacy = Vec::new();
        for v6 in [false, true] {
            for table in of(Function::Legacy, v6) {
                match &layout.legacy[usize::from(v6)] {
                    Ok(tables) => {
                        legacy.push(legacy::read(reader, tables, table, v6, layout.one_cpu)?);
                    }
                    Err(why) => {
                        bail!("rules of ip_tables cannot be traced on this kernel: {why}")
                    }
                }
            }
        }
        Ok(Self { hooks, generation, nft, legacy })
    }

    /// What tells whether this still holds.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            hooks: self.hooks.iter().flatten().map(|list| list.guard).collect(),
            generation: self.generation,
            legacy: self.legacy.iter().map(|table| table.guard).collect(),
        }
    }
}

impl Fingerprint {
    /// Whether the rules are the same, whatever other functions are at the hooks.
    #[must_use]
    pub fn same_rules(&self, other: &Self) -> bool {
        self.generation == other.generation && self.legacy == other.legacy
    }

    /// The fingerprint of the same addresses now.
    ///
    /// # Errors The memory has changed, so that it cannot be read.
    pub fn now(&self, memory: &mut dyn Memory) -> Result<Self> {
        let Self { hooks, generation, legacy } = self;
        let mut reader = Reader::new(memory);
        let mut again = |guards: &[Guard]| -> Result<Vec<Guard>> {
            let addresses: Vec<u64> = guards.iter().map(|guard| guard.address).collect();
            let values = reader.words(&addresses)?;
            Ok(addresses
                .into_iter()
                .zip(values)
                .map(|(address, value)| Guard { address, value })
                .collect())
        };
        let (hooks, legacy) = (again(hooks)?, again(legacy)?);
        let base_seq_at = generation.base_seq_at;
        let base_seq = match base_seq_at {
            0 => 0,
            at => memory::u32_at(&Reader::new(memory).word(at)?.to_ne_bytes(), 0),
        };
        Ok(Self { hooks, generation: Generation { base_seq_at, base_seq }, legacy })
    }
}

#[cfg(test)]
mod tests;
