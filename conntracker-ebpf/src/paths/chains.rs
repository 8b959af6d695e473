//! Base chains by where a packet meets them.

use aya_ebpf::{macros::map, maps::HashMap};
use conntracker_common::plan::{ChainKey, HookedChain, MAX_CHAINS};

#[map]
static CHAINS: HashMap<ChainKey, HookedChain> = HashMap::with_max_entries(MAX_CHAINS, 0);

/// What is known of a chain, if it is one of a namespace that is observed.
#[inline(always)]
pub fn get(chain: u64, family: u8, hook: u8) -> Option<&'static HookedChain> {
    let key = ChainKey { chain, family: u32::from(family), hook: u32::from(hook) };
    let hook_point = CHAINS.get_ptr(key)?;
    // SAFETY: a map value, which stays readable for the program's run.
    Some(unsafe { &*hook_point })
}
