//! Why conntrack's own functions dropped a packet: just before, they increment a counter of this CPU
//! (net/netfilter/nf_conntrack_core.c).

use aya_ebpf::{macros::map, maps::PerCpuHashMap};
use conntracker_common::{
    probes::ABSENT,
    record::{
        CONNTRACK_CHAIN_TOO_LONG, CONNTRACK_FULL, CONNTRACK_INSERT_FAILED, CONNTRACK_OTHER,
        CONNTRACK_PASSED,
    },
};

use crate::{
    base::{
        globals::{STATS, frozen},
        memory::read,
    },
    paths::cpu,
};

/// `insert_failed`, `chaintoolong` and `drop` of `struct ip_conntrack_stat`.
type Stats = [u32; 3];

/// The counters of this CPU when a packet was dropped last, by the cookie of the namespace. The agent makes the
/// entries, with what the counters are when it begins to observe a namespace.
#[map]
static CONNTRACK_STATS: PerCpuHashMap<u64, Stats> = PerCpuHashMap::with_max_entries(1024, 0);

/// Why conntrack dropped a packet, one of `CONNTRACK_`. `has_entry`: the packet has a conntrack entry.
#[inline(always)]
pub fn dropped_by_conntrack(net: u64, cookie: u64, has_entry: bool) -> u32 {
    if frozen(&STATS[0]) == ABSENT {
        return CONNTRACK_PASSED;
    }
    let Some(known) = CONNTRACK_STATS.get_ptr_mut(cookie) else { return CONNTRACK_PASSED };
    // SAFETY: a per-CPU value.
    let known = unsafe { &mut *known };
    let Some(now) = stats(net) else { return CONNTRACK_PASSED };
    let [insert_failed, chain_too_long, drop] = *known;
    *known = now;
    if now[0] != insert_failed {
        CONNTRACK_INSERT_FAILED
    } else if now[1] != chain_too_long {
        CONNTRACK_CHAIN_TOO_LONG
    } else if now[2] == drop {
        CONNTRACK_PASSED
    } else if has_entry {
        CONNTRACK_OTHER
    } else {
        CONNTRACK_FULL
    }
}

/// Reads the counters.
#[inline(always)]
fn stats(net: u64) -> Option<Stats> {
    let [stat, insert_failed, chain_too_long, drop] = &STATS;
    let offset = cpu::this()?.offset()?;
    let at = read::<u64>(net + u64::from(frozen(stat)))?.wrapping_add(offset);
    let counter = |offset| read::<u32>(at + u64::from(frozen(offset)));
    let chain_too_long = match frozen(chain_too_long) {
        ABSENT => 0,
        _ => counter(chain_too_long)?,
    };
    Some([counter(insert_failed)?, chain_too_long, counter(drop)?])
}
