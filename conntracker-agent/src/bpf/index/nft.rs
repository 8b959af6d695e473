//! Chains of nf_tables as the kernel evaluates them (net/netfilter/nf_tables_core.c, `nft_do_chain`).

mod expressions;
mod rules;

use std::collections::BTreeSet;

use anyhow::Result;

pub use self::rules::{Evaluator, NftRule};
use self::{expressions::Expressions, rules::RuleReader};
use super::{
    layout::{BaseSeq, NfTablesLayout},
    memory::{Gone, Reader, u32_at, u64_at},
};

/// The most chains of a list. More of them mean that the memory was reused.
const MOST_CHAINS: usize = 1 << 20;

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftChain {
    /// Address of its `struct nft_chain`.
    pub address: u64,
    /// Handle.
    pub handle: u64,
    /// Handle of its table.
    pub table: u64,
    /// Active rules in order.
    pub rules: Vec<NftRule>,
}

/// Values that must be the same before and after the read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Address of `base_seq`; 0 if there is no nf_tables.
    pub base_seq_at: u64,
    /// Its value.
    pub base_seq: u32,
}

/// All chains of the tables with a base chain at a hook.
pub(super) fn read(
    reader: &mut Reader<'_>,
    layout: &NfTablesLayout,
    net: u64,
    base_chains: &BTreeSet<u64>,
) -> Result<Vec<NftChain>> {
    let NfTablesLayout { tables: at, .. } = layout;
    let cursor = reader.word(net + at.cursor)?.to_ne_bytes()[0];
    let mut tables = BTreeSet::new();
    for chain in base_chains {
        tables.insert(reader.word(chain.wrapping_add(at.chain_table))?);
    }
    let mut expressions = Expressions::default();
    let mut chains = Vec::new();
    for table in tables {
        let table_handle = reader.word(table.wrapping_add(at.table_handle))?;
        let addresses = list(reader, table.wrapping_add(at.table_chains), at.chain_list)?;
        let handles: Vec<u64> =
            addresses.iter().map(|chain| chain.wrapping_add(at.chain_handle)).collect();
        let handles = reader.words(&handles)?;
        let mut rules = RuleReader { reader, layout, expressions: &mut expressions };
        let rules = rules.of_chains(&addresses, cursor != 0)?;
        for ((address, handle), rules) in addresses.into_iter().zip(handles).zip(rules) {
            chains.push(NftChain { address, handle, table: table_handle, rules });
        }
    }
    Ok(chains)
}

/// Address and value of the namespace's number of commits.
pub(super) fn generation(
    reader: &mut Reader<'_>,
    layout: &NfTablesLayout,
    net: u64,
    base_chain: Option<u64>,
) -> Result<Generation> {
    let at = match layout.base_seq {
        BaseSeq::Net(offset) => net + offset,
        BaseSeq::PerNet { net_gen, gen_ptr, gen_len, tables, base_seq } => {
            let Some(chain) = base_chain else { return Ok(Generation::default()) };
            let table = reader.word(chain.wrapping_add(layout.tables.chain_table))?;
            let generic = reader.word(net + net_gen)?;
            let len = u32_at(&reader.word(generic.wrapping_add(gen_len))?.to_ne_bytes(), 0);
            let parts = reader.bytes(generic.wrapping_add(gen_ptr), u64::from(len.min(512)) * 8)?;
            let parts: BTreeSet<u64> = parts.chunks_exact(8).map(|word| u64_at(word, 0)).collect();
            // The head of the list of tables lies in the structure that is searched.
            let mut node = table.wrapping_add(layout.tables.table_list);
            let mut found = None;
            for _ in 0..MOST_CHAINS {
                if let Some(part) = node.checked_sub(tables).filter(|part| parts.contains(part)) {
                    found = Some(part.wrapping_add(base_seq));
                    break;
                }
                node = reader.word(node)?;
            }
            found.ok_or(Gone)?
        }
    };
    let base_seq = u32_at(&reader.word(at)?.to_ne_bytes(), 0);
    Ok(Generation { base_seq_at: at, base_seq })
}

/// Members of a `struct list_head` list, whose node is at `node` within each.
fn list(reader: &mut Reader<'_>, head: u64, node: u64) -> Result<Vec<u64>> {
    let mut members = Vec::new();
    let mut next = reader.word(head)?;
    while next != head {
        if members.len() == MOST_CHAINS {
            return Err(Gone.into());
        }
        members.push(next.wrapping_sub(node));
        next = reader.word(next)?;
    }
    Ok(members)
}
