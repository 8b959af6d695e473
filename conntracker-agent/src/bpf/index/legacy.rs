//! Tables of ip_tables and ip6_tables as the kernel evaluates them: consecutive entries
//! (net/ipv4/netfilter/ip_tables.c), in which special targets separate the chains.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use conntracker_common::{hook::HOOKS, plan::Guard};

use super::{
    layout::{IpEntry, Legacy, XtTables},
    memory::{Gone, Reader, u16_at, u32_at, u64_at},
};

/// `struct xt_entry_target`: size, name, revision; then the target's data.
const TARGET_NAME: u64 = 2;
const TARGET_DATA: u64 = 32;

/// XT_FUNCTION_MAXNAMELEN and XT_EXTENSION_MAXNAMELEN.
const NAME_BYTES: u64 = 30;

/// Target that precedes each user chain, with its name, and ends the table.
const ERROR: &str = "ERROR";

/// Names of the built-in chains by hook.
pub const BUILT_IN: [&str; HOOKS as usize] =
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A target that the kernel calls as a function (`xt_target.target`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyTarget {
    /// Address of its data, which the function gets (`xt_action_param.targinfo`) and which identifies the rule.
    pub data: u64,
    /// Address of the function.
    pub function: u64,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyChain {
    /// Name.
    pub name: String,
    /// Per-CPU pointers to the counters of its rules and, last, of its policy or return; on a kernel for one CPU, the
    /// addresses of the counters.
    pub counters: Vec<u64>,
    /// The targets of its rules and, last, of its policy or return; `None` for verdicts and jumps, which
    /// `ipt_do_table` evaluates itself.
    pub targets: Vec<Option<LegacyTarget>>,
    /// The offset of each entry in the table, and its target.
    entries: Vec<(u64, u64)>,
}

impl LegacyChain {
    /// The counters are in the entries: their first word is no pointer but a count.
    fn count_in_place(&mut self, first: u64) {
        self.counters = self.entries.iter().map(|(at, _)| first.wrapping_add(*at)).collect();
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
    /// Address and value of the pointer to its entries.
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
    let name = reader.string::<32>(address.wrapping_add(at.name))?;
    let private_at = address.wrapping_add(at.private);
    let info = reader.word(private_at)?;
    let size = u32_at(&reader.word(info.wrapping_add(at.info_size))?.to_ne_bytes(), 0);
    let hooks = reader.bytes(info.wrapping_add(at.info_hooks), u64::from(HOOKS) * 4)?;
    let first = info.wrapping_add(at.info_entries);
    let blob = reader.bytes(first, size.into())?;
    let built_in: Vec<BuiltIn> = BUILT_IN
        .iter()
        .zip(0..)
        .map(|(name, hook)| BuiltIn { name, begin: u32_at(&hooks, hook * 4).into() })
        .collect();
    let mut chains = chains(&blob, entry, &built_in)?;
    targets(reader, at, &blob, first, &mut chains)?;
    if one_cpu {
        for chain in &mut chains {
            chain.count_in_place(first.wrapping_add(entry.counters));
        }
    }
    let guard = Guard { address: private_at, value: info };
    Ok(LegacyTable { address, v6, name, guard, chains })
}

/// Finds the functions of targets; `first` is the address of the table's entries.
fn targets(
    reader: &mut Reader<'_>,
    layout: &XtTables,
    blob: &[u8],
    first: u64,
    chains: &mut [LegacyChain],
) -> Result<()> {
    let kind = |at: u64| u64_at(blob, at + layout.target);
    let all = chains.iter().flat_map(|chain| &chain.entries);
    let kinds: BTreeSet<u64> = all.map(|&(_, target)| kind(target)).collect();
    let places: Vec<u64> = kinds.iter().map(|at| at.wrapping_add(layout.target_function)).collect();
    let functions: HashMap<u64, u64> = kinds.into_iter().zip(reader.words(&places)?).collect();
    for chain in chains {
        let target = |&(_, target): &(u64, u64)| {
            let function = *functions.get(&kind(target)).filter(|function| **function != 0)?;
            Some(LegacyTarget { data: first.wrapping_add(target + TARGET_DATA), function })
        };
        chain.targets = chain.entries.iter().map(target).collect();
    }
    Ok(())
}

/// The start of a built-in chain; 0xffffffff at hooks that the table does not have. Its policy is the last entry
/// before the next chain.
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
            chains.push(LegacyChain { name, ..LegacyChain::default() });
        } else {
            if let Some(chain) = built_in.iter().find(|chain| chain.begin == at) {
                let name = chain.name.to_owned();
                chains.push(LegacyChain { name, ..LegacyChain::default() });
            }
            let chain = chains.last_mut().ok_or(Gone)?;
            chain.counters.push(u64_at(blob, at + entry.counters));
            chain.entries.push((at, target));
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
