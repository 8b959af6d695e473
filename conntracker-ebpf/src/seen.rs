//! Deduplication of flows: which keys were reported already, and how often they came again.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, LruHashMap},
};
use conntracker_common::{
    FOLDED_PORT, has_ports, is_icmp,
    seen::{Mode, REPORT_FOLDED, SeenKey, SeenValue},
};

use crate::{emit::Facts, memory::fetch_add};

/// Its size is the agent's to choose (`EbpfLoader::map_max_entries`).
#[map]
static SEEN_FLOWS: LruHashMap<SeenKey, SeenValue> = LruHashMap::with_max_entries(1, 0);
#[map]
static MODE: Array<Mode> = Array::with_max_entries(1, 0);

/// What the agent wants now.
#[inline(always)]
fn wanted() -> Mode {
    match MODE.get(0) {
        Some(mode) => *mode,
        None => Mode { report: 0, fold: 0, drops: 0, reserved: 0 },
    }
}

/// (a folded key is reported once and then counted, keys are folded).
#[inline(always)]
pub fn mode() -> (bool, bool) {
    let mode = wanted();
    (mode.report == REPORT_FOLDED, mode.fold != 0)
}

/// [`Mode::drops`].
#[inline(always)]
pub fn drops_map() -> u32 {
    wanted().drops
}

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
pub fn map_v4(address: &mut [u8; 16]) {
    let [a, b, c, d, ..] = *address;
    *address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
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
