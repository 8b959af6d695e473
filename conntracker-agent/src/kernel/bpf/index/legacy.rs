//! Tables of ip_tables and ip6_tables as the kernel evaluates them: entries one behind the other
//! (net/ipv4/netfilter/ip_tables.c), chains told apart by the targets that stand between them.

use anyhow::Result;
use conntracker_common::plan::{Guard, HOOKS};

use super::{
    layout::{IpEntry, Legacy},
    memory::{Gone, Reader, u16_at, u32_at, u64_at},
};

/// `struct xt_entry_target`: size, name, revision; then the target's data.
const TARGET_NAME: u64 = 2;
const TARGET_DATA: u64 = 32;

/// XT_FUNCTION_MAXNAMELEN and XT_EXTENSION_MAXNAMELEN.
const NAME_BYTES: u64 = 30;

/// Target that stands before each user chain, with its name, and at the very end.
const ERROR: &str = "ERROR";

/// Names of the built-in chains by hook.
pub const BUILT_IN: [&str; HOOKS as usize] =
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyChain {
    /// Name.
    pub name: String,
    /// Per-CPU pointers to the counters of its rules and, last, of its policy or return; where there can
    /// be but one CPU, the counters' addresses.
    pub counters: Vec<u64>,
    /// Where each entry is in the table.
    entries: Vec<u64>,
}

impl LegacyChain {
    /// The counters are in the entries: their first word is no pointer but a count.
    fn count_in_place(&mut self, first: u64) {
        self.counters = self.entries.iter().map(|at| first + at).collect();
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyTable {
    /// Address of its `struct xt_table`.
    pub address: u64,
    /// ip6_tables.
    pub v6: bool,
    /// Name.
    pub name: String,
    /// Where the pointer to its entries stands, and what stands there now.
    pub guard: Guard,
    /// Chains.
    pub chains: Vec<LegacyChain>,
}

/// Reads a table.
pub(super) fn read(
    reader: &mut Reader<'_>,
    layout: &Legacy,
    address: u64,
    v6: bool,
    one_cpu: bool,
) -> Result<LegacyTable> {
    let Legacy { table: at, entry } = layout;
    let name = reader.string::<32>(address + at.name)?;
    let private_at = address + at.private;
    let info = reader.word(private_at)?;
    let size = u32_at(&reader.word(info + at.info_size)?.to_ne_bytes(), 0);
    let hooks = reader.bytes(info + at.info_hooks, u64::from(HOOKS) * 4)?;
    let blob = reader.bytes(info + at.info_entries, size.into())?;
    let built_in: Vec<BuiltIn> = BUILT_IN
        .iter()
        .zip(0..)
        .map(|(name, hook)| BuiltIn { name, begin: u32_at(&hooks, hook * 4).into() })
        .collect();
    let mut chains = chains(&blob, entry, &built_in)?;
    if one_cpu {
        for chain in &mut chains {
            chain.count_in_place(info + at.info_entries + entry.counters);
        }
    }
    let guard = Guard { address: private_at, value: info };
    Ok(LegacyTable { address, v6, name, guard, chains })
}

/// Where a built-in chain begins; 0xffffffff at hooks that the table does not have. Its policy is the
/// last entry before the next chain.
struct BuiltIn {
    name: &'static str,
    begin: u64,
}

/// The chains in a blob.
fn chains(blob: &[u8], entry: &IpEntry, built_in: &[BuiltIn]) -> Result<Vec<LegacyChain>> {
    let mut chains: Vec<LegacyChain> = Vec::new();
    let mut at = 0;
    while at < blob.len() as u64 {
        let next = u64::from(u16_at(blob, at + entry.next));
        let target = at + u64::from(u16_at(blob, at + entry.target));
        if next == 0 || at + next > blob.len() as u64 || target >= at + next {
            return Err(Gone.into());
        }
        if text(blob, target + TARGET_NAME, NAME_BYTES - 1) == ERROR {
            if at + next == blob.len() as u64 {
                return Ok(chains);
            }
            let name = text(blob, target + TARGET_DATA, NAME_BYTES);
            chains.push(LegacyChain { name, counters: Vec::new(), entries: Vec::new() });
        } else {
            if let Some(chain) = built_in.iter().find(|chain| chain.begin == at) {
                let name = chain.name.to_owned();
                chains.push(LegacyChain { name, counters: Vec::new(), entries: Vec::new() });
            }
            let chain = chains.last_mut().ok_or(Gone)?;
            chain.counters.push(u64_at(blob, at + entry.counters));
            chain.entries.push(at);
        }
        at += next;
    }
    Err(Gone.into())
}

/// The string at an offset.
fn text(blob: &[u8], at: u64, most: u64) -> String {
    let bytes: Vec<u8> = blob
        .iter()
        .skip(usize::try_from(at).unwrap_or(usize::MAX))
        .take(usize::try_from(most).unwrap_or(0))
        .copied()
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
