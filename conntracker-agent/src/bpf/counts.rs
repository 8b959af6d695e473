//! The programs' counters and the entries of their counting maps, decoded from bytes. Pure, without a kernel.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Buf;
use conntracker_common::{
    counters::{COUNTERS, Counter},
    hook::HOOKS,
    record::{FLAG_FROM_HEADERS, FLAG_LOST, HOOK_UNKNOWN},
    seen::{DropKey, DropValue, SeenKey, SeenValue},
};

use super::{reasons::RawCause, record::take};
use crate::model::flow::Counted;
use crate::model::{L4, Tuple, Zone};

/// Values of all [`Counter`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; COUNTERS as usize]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS as usize])
    }
}

impl Counters {
    /// From values in the order of the counters.
    #[must_use]
    pub fn new(values: [u64; COUNTERS as usize]) -> Self {
        Self(values)
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

/// Addresses and ports as in keys of maps: IPv4 as `::ffff:a.b.c.d`.
struct Ends {
    addresses: [IpAddr; 2],
    ports: [[u8; 2]; 2],
}

impl Ends {
    /// Decodes 36 bytes; the caller has checked the length.
    pub fn decode(r: &mut &[u8]) -> Self {
        let addresses = [(); 2].map(|()| Ipv6Addr::from(take::<16>(r)).to_canonical());
        Self { addresses, ports: [take(r), take(r)] }
    }

    /// As a tuple of a protocol.
    pub fn tuple(&self, proto: u8) -> Tuple {
        let Self { addresses: [src, dst], ports: [src_l4, dst_l4] } = *self;
        Tuple { src, dst, proto, l4: L4::from_kernel(proto, src_l4, dst_l4) }
    }
}

/// An entry of the map of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// The (folded) tuple.
    pub orig: Tuple,
    /// Conntrack zone.
    pub zone: Zone,
    /// The count.
    pub counted: Counted,
    /// When it was last counted (nanoseconds since boot).
    pub last_ns: u64,
    /// Whether a reply was seen.
    pub replied: bool,
}

/// Bytes of a map key.
pub type SeenKeyBytes = [u8; size_of::<SeenKey>()];
/// Bytes of a map value.
pub type SeenValueBytes = [u8; size_of::<SeenValue>()];

impl Seen {
    /// Decodes a key and its value.
    #[must_use]
    pub fn decode(key: &SeenKeyBytes, value: &SeenValueBytes) -> Self {
        let mut r = &key[..];
        let netns_cookie = r.get_u64_ne();
        let ends = Ends::decode(&mut r);
        let zone = Zone(r.get_u16_ne());
        let orig = ends.tuple(r.get_u8());
        let mut r = &value[..];
        let since_ns = r.get_u64_ne();
        let last_ns = r.get_u64_ne();
        let count = r.get_u64_ne();
        let replied = r.get_u64_ne() != 0;
        Self { netns_cookie, orig, zone, counted: Counted { since_ns, count }, last_ns, replied }
    }
}

/// Dropped packets that the kernel counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// Hash of the path on which they were dropped; 0: they were not traced.
    pub path_hash: u64,
    /// Original direction of the conntrack entry, or the packets' headers.
    pub orig: Tuple,
    /// Input and output interface, 0 for none.
    pub interfaces: (u32, u32),
    /// Conntrack zone.
    pub zone: Zone,
    /// Netfilter hook number; `None` if not known.
    pub hook: Option<u8>,
    /// The packets had no conntrack entry.
    pub from_headers: bool,
    /// The cause of the drop.
    pub cause: RawCause,
    /// When the first and the last one was dropped (nanoseconds since boot).
    pub seen_ns: (u64, u64),
    /// How many.
    pub packets: u64,
}

/// Bytes of a map key.
pub type DropKeyBytes = [u8; size_of::<DropKey>()];
/// Bytes of a map value.
pub type DropValueBytes = [u8; size_of::<DropValue>()];

impl DropCount {
    /// Decodes a key and its value.
    #[must_use]
    pub fn decode(key: &DropKeyBytes, value: &DropValueBytes) -> Self {
        let mut r = &key[..];
        let netns_cookie = r.get_u64_ne();
        let path_hash = r.get_u64_ne();
        let ends = Ends::decode(&mut r);
        let interfaces = (r.get_u32_ne(), r.get_u32_ne());
        let zone = Zone(r.get_u16_ne());
        let orig = ends.tuple(r.get_u8());
        let hook = Some(r.get_u8()).filter(|&hook| hook != HOOK_UNKNOWN && hook < HOOKS);
        let flags = r.get_u8();
        let from_headers = flags & FLAG_FROM_HEADERS != 0;
        let _reserved: [u8; 3] = take(&mut r);
        let (reason, location) = (r.get_u32_ne(), r.get_u64_ne());
        let cause = RawCause { lost: flags & FLAG_LOST != 0, reason, location };
        let mut r = &value[..];
        let seen_ns = (r.get_u64_ne(), r.get_u64_ne());
        let packets = r.get_u64_ne();
        Self {
            netns_cookie,
            path_hash,
            orig,
            interfaces,
            zone,
            hook,
            from_headers,
            cause,
            seen_ns,
            packets,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Addresses and ports, as keys have them.
    fn ends() -> Vec<u8> {
        let mut bytes = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets().to_vec();
        bytes.extend(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets());
        bytes.extend([4, 0, 0, 80]);
        bytes
    }

    #[test]
    fn flows_turn_mapped_addresses_back_into_ipv4() {
        let mut key = [0u8; size_of::<SeenKey>()];
        key[..8].copy_from_slice(&5u64.to_ne_bytes());
        key[8..44].copy_from_slice(&ends());
        key[46] = 6;
        let mut value = [0u8; size_of::<SeenValue>()];
        value[16..24].copy_from_slice(&42u64.to_ne_bytes());
        let seen = Seen::decode(&key, &value);
        assert!(seen.orig.is_ipv4() && !seen.replied);
        assert_eq!(seen.orig.l4, L4::Ports { src: 1024, dst: 80 });
        assert_eq!(seen.counted.count, 42);
    }

    #[test]
    fn every_field_of_a_count_of_drops_is_read() {
        let mut key = Vec::new();
        key.extend(5u64.to_ne_bytes());
        key.extend(77u64.to_ne_bytes());
        key.extend(ends());
        key.extend(3u32.to_ne_bytes());
        key.extend(4u32.to_ne_bytes());
        key.extend(9u16.to_ne_bytes());
        key.extend([17, 2, FLAG_FROM_HEADERS | FLAG_LOST, 0, 0, 0]);
        key.extend(21u32.to_ne_bytes());
        key.extend(0x1234u64.to_ne_bytes());
        let mut value = Vec::new();
        for word in [100u64, 200, 6] {
            value.extend(word.to_ne_bytes());
        }
        let key: DropKeyBytes = key.try_into().unwrap();
        let count = DropCount::decode(&key, &value.try_into().unwrap());
        assert_eq!(
            count,
            DropCount {
                netns_cookie: 5,
                path_hash: 77,
                orig: Tuple {
                    src: "10.0.0.1".parse().unwrap(),
                    dst: "10.0.0.2".parse().unwrap(),
                    proto: 17,
                    l4: L4::Ports { src: 1024, dst: 80 },
                },
                interfaces: (3, 4),
                zone: Zone(9),
                hook: Some(2),
                from_headers: true,
                cause: RawCause { lost: true, reason: 21, location: 0x1234 },
                seen_ns: (100, 200),
                packets: 6,
            }
        );
    }
}
