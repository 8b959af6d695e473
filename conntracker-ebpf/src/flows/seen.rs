//! Deduplication of flows: which keys were reported already, and how often they came again.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::LruHashMap};
use conntracker_common::seen::{SeenKey, SeenValue};

use crate::{
    base::{
        memory::fetch_add,
        mode::{fold_source, map_v4},
    },
    packet::facts::Facts,
};

/// Its size is the agent's to choose (`EbpfLoader::map_max_entries`).
#[map]
static SEEN_FLOWS: LruHashMap<SeenKey, SeenValue> = LruHashMap::with_max_entries(1, 0);
/// The key of a flow.
#[inline(always)]
pub fn key(facts: &Facts, fold: bool) -> SeenKey {
    let mut key = SeenKey {
        netns_cookie: facts.netns_cookie,
        src: facts.orig.src,
        dst: facts.orig.dst,
        src_l4: facts.orig.src_l4,
        dst_l4: facts.orig.dst_l4,
        zone: facts.body.zone,
        proto: facts.body.proto,
        reserved: 0,
    };
    if facts.is_v4() {
        map_v4(&mut key.src);
        map_v4(&mut key.dst);
    }
    if fold {
        fold_source(&mut key.src_l4, key.proto);
    }
    key
}

/// The entry of a key, made if need be. `None` if the map has no room.
#[inline(always)]
pub fn entry(key: &SeenKey, now: u64) -> Option<&'static mut SeenValue> {
    let found = match SEEN_FLOWS.get_ptr_mut(key) {
        Some(value) => value,
        None => {
            let fresh = SeenValue { since_ns: now, last_ns: now, count: 0, replied: 0 };
            // Another CPU may have been faster: NOEXIST keeps its entry, the lookup finds it.
            let _ = SEEN_FLOWS.insert(key, fresh, u64::from(BPF_NOEXIST));
            SEEN_FLOWS.get_ptr_mut(key)?
        }
    };
    // SAFETY: a map value stays readable for the program's run; `count` and `replied` are only
    // changed atomically or idempotently.
    Some(unsafe { &mut *found })
}

/// Counts one more, and says whether this count is worth a record: the first, and then each power
/// of two, so that an entry that is evicted takes less than half of its count with it.
#[inline(always)]
pub fn count(value: &mut SeenValue, now: u64) -> (u64, bool) {
    value.last_ns = now;
    let count = fetch_add(&mut value.count, 1).wrapping_add(1);
    (count, count & count.wrapping_sub(1) == 0)
}
