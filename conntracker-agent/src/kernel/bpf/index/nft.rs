//! Chains and rules of nf_tables as the kernel evaluates them: each chain's active rules lie one behind
//! the other in a blob (net/netfilter/nf_tables_core.c, `nft_do_chain`), with their expressions.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;

use super::{
    layout::{BaseSeq, NfTables},
    memory::{Gone, Reader, u32_at, u64_at},
};

/// Lists longer than this are taken for memory that was used again.
const MOST_CHAINS: usize = 1 << 20;

/// Name of the expression that counts.
const COUNTER: &str = "counter";

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NftRule {
    /// Handle.
    pub handle: u64,
    /// Per-CPU pointer to its counter; the last one if it has several.
    pub counter: Option<u64>,
}

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

/// What must be the same before and after reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Where `base_seq` stands; 0 if there is no nf_tables.
    pub base_seq_at: u64,
    /// Its value.
    pub base_seq: u32,
}

/// All chains of the tables of which a base chain hangs at a hook.
pub(super) fn read(
    reader: &mut Reader<'_>,
    layout: &NfTables,
    net: u64,
    base_chains: &BTreeSet<u64>,
) -> Result<Vec<NftChain>> {
    let cursor = reader.word(net + layout.cursor)?.to_ne_bytes()[0];
    let blob_at = if cursor == 0 { layout.chain_blob_0 } else { layout.chain_blob_1 };
    let mut tables = BTreeSet::new();
    for chain in base_chains {
        tables.insert(reader.word(chain + layout.chain_table)?);
    }
    let mut names = Names::default();
    let mut chains = Vec::new();
    for table in tables {
        let table_handle = reader.word(table + layout.table_handle)?;
        let addresses = list(reader, table + layout.table_chains, layout.chain_list)?;
        let handles: Vec<u64> = addresses.iter().map(|at| at + layout.chain_handle).collect();
        let handles = reader.words(&handles)?;
        let blobs: Vec<u64> = addresses.iter().map(|at| at + blob_at).collect();
        let blobs = reader.words(&blobs)?;
        // Chains that are being made have no blob yet.
        let sizes: Vec<u64> =
            blobs.iter().filter(|at| **at != 0).map(|at| at + layout.blob_size).collect();
        let mut sizes = reader.words(&sizes)?.into_iter();
        for ((address, handle), blob) in addresses.into_iter().zip(handles).zip(blobs) {
            let rules = match blob {
                0 => Vec::new(),
                blob => {
                    let size = sizes.next().unwrap_or(0);
                    let bytes = reader.bytes(blob + layout.blob_data, size)?;
                    rules(reader, layout, &mut names, &bytes)?
                }
            };
            chains.push(NftChain { address, handle, table: table_handle, rules });
        }
    }
    Ok(chains)
}

/// Where the namespace counts commits, and how far it has come.
pub(super) fn generation(
    reader: &mut Reader<'_>,
    layout: &NfTables,
    base_seq: &BaseSeq,
    net: u64,
    base_chain: Option<u64>,
) -> Result<Generation> {
    let at = match *base_seq {
        BaseSeq::Net(offset) => net + offset,
        BaseSeq::PerNet { net_gen, gen_ptr, gen_len, tables, base_seq } => {
            let Some(chain) = base_chain else { return Ok(Generation::default()) };
            let table = reader.word(chain + layout.chain_table)?;
            let generic = reader.word(net + net_gen)?;
            let len = u32_at(&reader.word(generic + gen_len)?.to_ne_bytes(), 0);
            let parts = reader.bytes(generic + gen_ptr, u64::from(len.min(512)) * 8)?;
            let parts: BTreeSet<u64> = parts.chunks_exact(8).map(|word| u64_at(word, 0)).collect();
            // The head of the list of tables lies in the part that is wanted.
            let mut node = table + layout.table_list;
            let mut found = None;
            for _ in 0..MOST_CHAINS {
                if let Some(part) = node.checked_sub(tables).filter(|part| parts.contains(part)) {
                    found = Some(part + base_seq);
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

/// Names of expressions by the address of their operations: few, and asked for all the time.
#[derive(Default)]
struct Names(HashMap<u64, Expression>);

#[derive(Clone, Copy)]
struct Expression {
    size: u64,
    counts: bool,
}

impl Names {
    fn get(&mut self, reader: &mut Reader<'_>, layout: &NfTables, ops: u64) -> Result<Expression> {
        if let Some(known) = self.0.get(&ops) {
            return Ok(*known);
        }
        let size = u64::from(u32_at(&reader.word(ops + layout.ops_size)?.to_ne_bytes(), 0));
        let kind = reader.word(ops + layout.ops_type)?;
        let name = reader.word(kind + layout.type_name)?;
        let counts = reader.string::<16>(name)? == COUNTER;
        let expression = Expression { size, counts };
        self.0.insert(ops, expression);
        Ok(expression)
    }
}

/// Bits of `struct nft_rule_dp`: is_last:1, dlen:12, handle:42. Bit fields have no place in BTF that
/// could be asked for by name alone; the layout is that of little-endian machines.
const RULE_BYTES: u64 = 8;

/// The rules in a blob.
fn rules(
    reader: &mut Reader<'_>,
    layout: &NfTables,
    names: &mut Names,
    blob: &[u8],
) -> Result<Vec<NftRule>> {
    let mut rules = Vec::new();
    let mut at = 0;
    while at + RULE_BYTES <= blob.len() as u64 {
        let word = u64_at(blob, at);
        let (is_last, len, handle) =
            (word & 1 != 0, word >> 1 & 0xfff, word >> 13 & ((1 << 42) - 1));
        if is_last {
            return Ok(rules);
        }
        let (begin, end) = (at + RULE_BYTES, at + RULE_BYTES + len);
        if end > blob.len() as u64 {
            break;
        }
        let mut counter = None;
        let mut expression = begin;
        while expression < end {
            let ops = u64_at(blob, expression + layout.expr_ops);
            let Expression { size, counts } = names.get(reader, layout, ops)?;
            if size == 0 {
                return Err(Gone.into());
            }
            if counts {
                let data = expression + layout.expr_data + layout.counter_pointer;
                counter = Some(u64_at(blob, data));
            }
            expression += size;
        }
        rules.push(NftRule { handle, counter });
        at = end;
    }
    // The blob's size does not count the last one, which marks the end.
    if at == blob.len() as u64 { Ok(rules) } else { Err(Gone.into()) }
}
