//! The namespaces that are observed.

use aya_ebpf::{macros::map, maps::HashMap};

/// Their numbers by cookie. A tracepoint sees packets of all namespaces; links only of their own.
#[map]
static TRACED_NETNS: HashMap<u64, u32> = HashMap::with_max_entries(1024, 0);

/// The number of a namespace, if it is observed.
#[inline(always)]
pub fn number(cookie: u64) -> Option<u32> {
    let number = TRACED_NETNS.get_ptr(cookie)?;
    // SAFETY: a map value.
    Some(unsafe { *number })
}
