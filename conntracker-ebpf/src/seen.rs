//! Deduplication: which keys were reported already, and how often they came again.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, LruHashMap},
};
use conntracker_common::{
    FOLDED_PORT, has_ports, is_icmp,
    seen::{Mode, REPORT_FOLDED, SeenKey, SeenValue},
};

use crate::emit::Facts;

/// Sizes are the agent's to choose (`EbpfLoader::map_max_entries`). Drops have a map of their own:
/// a flood of dropped packets must not push the flows out.
#[map]
static SEEN_FLOWS: LruHashMap<SeenKey, SeenValue> = LruHashMap::with_max_entries(1, 0);
#[map]
static SEEN_DROPS: LruHashMap<SeenKey, SeenValue> = LruHashMap::with_max_entries(1, 0);
#[map]
static MODE: Array<Mode> = Array::with_max_entries(1, 0);

/// Entries of flows.
pub fn flows() -> &'static LruHashMap<SeenKey, SeenValue> {
    &SEEN_FLOWS
}

/// Entries of drops.
pub fn drops() -> &'static LruHashMap<SeenKey, SeenValue> {
    &SEEN_DROPS
}

/// (a folded key is reported once and then counted, keys are folded).
#[inline(always)]
pub fn mode() -> (bool, bool) {
    match MODE.get(0) {
        Some(mode) => (mode.report == REPORT_FOLDED, mode.fold != 0),
        None => (false, false),
    }
}

/// The key of a flow or dropped packet.
#[inline(always)]
pub fn key(facts: &Facts, class: u8, fold: bool) -> SeenKey {
    let mut key = SeenKey {
        netns_cookie: facts.netns_cookie,
        src: facts.orig.src,
        dst: facts.orig.dst,
        src_l4: facts.orig.src_l4,
        dst_l4: facts.orig.dst_l4,
        zone: facts.body.zone,
        proto: facts.body.proto,
        class,
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

/// Folds a source port or an ICMP identifier.
#[inline(always)]
pub fn fold_source(src_l4: &mut [u8; 2], proto: u8) {
    if has_ports(proto) {
        if u16::from_be_bytes(*src_l4) > FOLDED_PORT {
            *src_l4 = FOLDED_PORT.to_be_bytes();
        }
    } else if is_icmp(proto) {
        *src_l4 = [0; 2];
    }
}

/// IPv4 in the first four bytes becomes `::ffff:a.b.c.d`.
#[inline(always)]
fn map_v4(address: &mut [u8; 16]) {
    let [a, b, c, d, ..] = *address;
    *address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
}

/// The entry of a key, made if need be. `None` if the map has no room.
#[inline(always)]
pub fn entry(
    map: &LruHashMap<SeenKey, SeenValue>,
    key: &SeenKey,
    now: u64,
) -> Option<&'static mut SeenValue> {
    let found = match map.get_ptr_mut(key) {
        Some(value) => value,
        None => {
            let fresh = SeenValue { since_ns: now, last_ns: now, count: 0, replied: 0 };
            // Another CPU may have been faster: NOEXIST keeps its entry, the lookup finds it.
            let _ = map.insert(key, fresh, u64::from(BPF_NOEXIST));
            map.get_ptr_mut(key)?
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
    let count = fetch_add_one(&mut value.count).wrapping_add(1);
    (count, count & count.wrapping_sub(1) == 0)
}

/// Adds one atomically and returns what was there before (BPF_ATOMIC | BPF_FETCH, Linux 5.12+).
/// `core::sync::atomic` has no such operation for the BPF target.
#[inline(always)]
fn fetch_add_one(value: &mut u64) -> u64 {
    let mut one = 1u64;
    // SAFETY: `value` is an aligned, live u64.
    unsafe {
        asm!(
            "{one} = atomic_fetch_add((u64 *)({value} + 0), {one})",
            value = in(reg) core::ptr::from_mut(value),
            one = inout(reg) one,
            options(nostack),
        );
    }
    one
}
