//! Dropped packets, counted by their tuple, hook, interfaces and path. There are two maps: the programs count in one
//! of them while the agent reads and empties the other, so that no count is lost between the two. Neither
//! map evicts entries: a packet that finds no room has a record of its own.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use conntracker_common::{
    counters::Counter,
    record::{FLAG_FROM_HEADERS, FLAG_LOST},
    seen::{DropKey, DropValue},
};

use crate::{
    base::{
        counters::count as add_to,
        memory::fetch_add,
        mode::{self, fold_source, map_v4},
    },
    packet::facts::Facts,
};

/// Why a packet was dropped.
pub struct Cause {
    /// 1: not by netfilter; else 0.
    pub lost: u8,
    /// See [`conntracker_common::seen::DropKey::reason`].
    pub reason: u32,
    /// See [`conntracker_common::seen::DropKey::location`].
    pub location: u64,
    /// See [`conntracker_common::seen::DropKey::path_hash`].
    pub path_hash: u64,
}

/// Sizes are the agent's to choose (`EbpfLoader::map_max_entries`).
#[map]
static DROPS_0: HashMap<DropKey, DropValue> = HashMap::with_max_entries(1, 0);
#[map]
static DROPS_1: HashMap<DropKey, DropValue> = HashMap::with_max_entries(1, 0);

/// What became of a packet's count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is the first of its key.
    First,
    /// Others of its key were counted before.
    Again,
    /// There was no room for its key: it is not counted.
    NoRoom,
}

/// Counts a packet.
#[inline(always)]
pub fn count(facts: &Facts, cause: &Cause) -> Counted {
    let (_, fold) = mode::mode();
    let from_headers = facts.body.flags & FLAG_FROM_HEADERS;
    let mut key = DropKey {
        netns_cookie: facts.netns_cookie,
        path_hash: cause.path_hash,
        src: facts.orig.src,
        dst: facts.orig.dst,
        src_l4: facts.orig.src_l4,
        dst_l4: facts.orig.dst_l4,
        iif: facts.body.iif,
        oif: facts.body.oif,
        zone: facts.body.zone,
        proto: facts.body.proto,
        hook: facts.body.hook,
        flags: from_headers | (cause.lost * FLAG_LOST),
        reserved: [0; 3],
        reason: cause.reason,
        location: cause.location,
    };
    if facts.is_v4() {
        map_v4(&mut key.src);
        map_v4(&mut key.dst);
    }
    if fold && from_headers == 0 {
        fold_source(&mut key.src_l4, key.proto);
    }
    let now = facts.ktime_ns;
    let value = if mode::drops_map() == 0 {
        entry(&DROPS_0, &key, now)
    } else {
        entry(&DROPS_1, &key, now)
    };
    let Some(value) = value else { return Counted::NoRoom };
    value.last_ns = now;
    if fetch_add(&mut value.count, 1) == 0 { Counted::First } else { Counted::Again }
}

/// The entry of a key, made if need be. `None` if the map has no room.
#[inline(always)]
fn entry(
    map: &HashMap<DropKey, DropValue>,
    key: &DropKey,
    now: u64,
) -> Option<&'static mut DropValue> {
    let found = match map.get_ptr_mut(key) {
        Some(value) => value,
        None => {
            let fresh = DropValue { first_ns: now, last_ns: now, count: 0 };
            // Another CPU may have been faster: NOEXIST keeps its entry, the lookup finds it.
            if map.insert(key, fresh, u64::from(BPF_NOEXIST)).is_ok() {
                add_to(Counter::DropKeys);
            }
            map.get_ptr_mut(key)?
        }
    };
    // SAFETY: a map value stays readable for the program's run, and the agent empties a map only when no
    // program uses it; `count` is only changed atomically.
    Some(unsafe { &mut *found })
}
