//! The functions at the hooks of a namespace, in the order in which packets meet them.

use anyhow::{Result, bail};
use conntracker_common::{hook::HOOKS, plan::Guard};

use super::{
    layout::{Hooks, IndexLayout},
    memory::{Gone, Reader, u16_at, u32_at, u64_at},
};
use crate::bpf::symbols::{Function, Symbols};

/// `struct nf_hook_entry`: function and private pointer.
const ENTRY_BYTES: u64 = 16;

/// The most functions at one hook (MAX_HOOK_COUNT of net/netfilter/core.c). More of them mean that the memory was
/// reused.
const MOST: u16 = 1024;

/// A function at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookFunction {
    /// The kind of the function.
    pub function: Function,
    /// Where it is.
    pub address: u64,
    /// Its private pointer: the chain of nf_tables, the table of ip_tables.
    pub private: u64,
    /// Its priority; for base chains of NAT, that of the NAT function that calls them.
    pub priority: i32,
    /// For base chains of NAT: their own priority among themselves.
    pub nat_priority: Option<i32>,
}

/// One hook of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookList {
    /// Address and value of the pointer to the array of functions.
    pub guard: Guard,
    /// The functions. Those that NAT calls follow it.
    pub functions: Vec<HookFunction>,
}

/// All hooks of a namespace: IPv4's, then IPv6's.
pub type AllHooks = [[HookList; HOOKS as usize]; 2];

/// Reads them. `net` is the address of the namespace. Symbols are read again for functions of modules that were
/// loaded since.
pub(super) fn read(
    reader: &mut Reader<'_>,
    layout: &IndexLayout,
    symbols: &mut Symbols,
    net: u64,
) -> Result<AllHooks> {
    let hooks = read_known(reader, layout, symbols, net)?;
    let functions = hooks.iter().flatten().flat_map(|list| &list.functions);
    if symbols.learn(functions.map(|found| found.address))? {
        return read_known(reader, layout, symbols, net);
    }
    Ok(hooks)
}

/// As [`read`], of functions that are known.
pub(super) fn read_known(
    reader: &mut Reader<'_>,
    layout: &IndexLayout,
    symbols: &Symbols,
    net: u64,
) -> Result<AllHooks> {
    let guards = guards(reader, &layout.hooks, net)?;
    let mut lists = Vec::with_capacity(guards.len());
    for guard in guards {
        let mut functions = Vec::new();
        for found in entries(reader, &layout.hooks, guard.value)? {
            let (address, private, priority) = found;
            let function = symbols.function(address);
            functions.push(HookFunction {
                function,
                address,
                private,
                priority,
                nat_priority: None,
            });
            if function == Function::Nat
                && let Ok(nat) = &layout.nat
            {
                let below = reader.word(private.wrapping_add(nat.entries))?;
                for (address, private, own) in entries(reader, &layout.hooks, below)? {
                    let function = symbols.function(address);
                    functions.push(HookFunction {
                        function,
                        address,
                        private,
                        priority,
                        nat_priority: Some(own),
                    });
                }
            }
        }
        lists.push(HookList { guard, functions });
    }
    let mut lists = lists.into_iter();
    let mut family = || -> Result<[HookList; HOOKS as usize]> {
        let some: Vec<HookList> = lists.by_ref().take(HOOKS.into()).collect();
        match some.try_into() {
            Ok(all) => Ok(all),
            Err(_) => bail!("a hook is missing"),
        }
    };
    Ok([family()?, family()?])
}

/// Address and value of each hook's pointer to its array of functions.
pub(super) fn guards(reader: &mut Reader<'_>, hooks: &Hooks, net: u64) -> Result<Vec<Guard>> {
    let addresses: Vec<u64> = [hooks.net_v4, hooks.net_v6]
        .into_iter()
        .flat_map(|family| (0..u64::from(HOOKS)).map(move |hook| net + family + hook * 8))
        .collect();
    let values = reader.words(&addresses)?;
    Ok(addresses.into_iter().zip(values).map(|(address, value)| Guard { address, value }).collect())
}

/// (function, private pointer, priority) of each entry of a `struct nf_hook_entries`.
fn entries(reader: &mut Reader<'_>, hooks: &Hooks, at: u64) -> Result<Vec<(u64, u64, i32)>> {
    if at == 0 {
        return Ok(Vec::new());
    }
    let number = u16_at(&reader.word(at.wrapping_add(hooks.number))?.to_ne_bytes(), 0);
    if number > MOST {
        return Err(Gone.into());
    }
    // As many pointers to the `nf_hook_ops` of the entries follow them (`nf_hook_entries_get_hook_ops` of
    // include/linux/netfilter.h).
    let bytes =
        reader.bytes(at.wrapping_add(hooks.entries), u64::from(number) * (ENTRY_BYTES + 8))?;
    let registered: Vec<u64> = (0..u64::from(number))
        .map(|i| u64_at(&bytes, u64::from(number) * ENTRY_BYTES + i * 8))
        .map(|registered| registered.wrapping_add(hooks.priority))
        .collect();
    let priorities = reader.words(&registered)?;
    let entry = |(i, priority): (u64, u64)| {
        let function = u64_at(&bytes, i * ENTRY_BYTES + hooks.function);
        let private = u64_at(&bytes, i * ENTRY_BYTES + hooks.private);
        (function, private, u32_at(&priority.to_ne_bytes(), 0).cast_signed())
    };
    Ok((0..).zip(priorities).map(entry).collect())
}
