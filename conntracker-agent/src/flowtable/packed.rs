//! Keys in little memory: very many flows are of IPv4, whose tuples need 13 bytes.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{FlowKey, L4, NetnsId, Tuple, Zone};

/// A tuple in 16 bytes; one of IPv6 has its own memory besides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PackedTuple {
    /// IPv4, and ports or their like as the protocol has them.
    V4 { src: [u8; 4], dst: [u8; 4], l4: [u8; 4], proto: u8 },
    /// Any other.
    Whole(Box<Tuple>),
}

impl PackedTuple {
    pub fn new(tuple: Tuple) -> Self {
        let pack = || {
            let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.src, tuple.dst) else { return None };
            let bytes = |src: u16, dst: u16| {
                let ([a, b], [c, d]) = (src.to_be_bytes(), dst.to_be_bytes());
                [a, b, c, d]
            };
            let l4 = match tuple.l4 {
                L4::Ports { src, dst } | L4::Gre { src, dst } => bytes(src, dst),
                L4::Icmp { kind, code, id } => bytes(id, u16::from_be_bytes([kind, code])),
                L4::None => [0; 4],
            };
            Some(Self::V4 { src: src.octets(), dst: dst.octets(), l4, proto: tuple.proto })
        };
        // Ports of a protocol that has none, say, are kept as they are.
        pack().filter(|packed| packed.tuple() == tuple).unwrap_or_else(|| Self::Whole(tuple.into()))
    }

    pub fn tuple(&self) -> Tuple {
        match *self {
            Self::V4 { src, dst, l4: [a, b, c, d], proto } => Tuple {
                src: Ipv4Addr::from(src).into(),
                dst: Ipv4Addr::from(dst).into(),
                proto,
                l4: L4::from_kernel(proto, [a, b], [c, d]),
            },
            Self::Whole(ref tuple) => **tuple,
        }
    }
}

/// A [`FlowKey`] in 24 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PackedKey {
    orig: PackedTuple,
    netns: NetnsId,
    zone: Zone,
    entry: bool,
}

impl PackedKey {
    pub fn new(key: FlowKey) -> Self {
        let FlowKey { netns, zone, orig, entry } = key;
        Self { orig: PackedTuple::new(orig), netns, zone, entry }
    }

    pub fn key(&self) -> FlowKey {
        let &Self { ref orig, netns, zone, entry } = self;
        FlowKey { netns, zone, orig: orig.tuple(), entry }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn l4() -> impl Strategy<Value = L4> {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(src, dst)| L4::Ports { src, dst }),
            any::<(u8, u8, u16)>().prop_map(|(kind, code, id)| L4::Icmp { kind, code, id }),
            any::<(u16, u16)>().prop_map(|(src, dst)| L4::Gre { src, dst }),
            Just(L4::None),
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_is_the_same_unpacked(
            addresses in any::<([u8; 4], [u8; 4])>(),
            v6 in any::<bool>(),
            proto in prop_oneof![Just(1u8), Just(6), Just(17), Just(47), Just(58), any::<u8>()],
            l4 in l4(),
            netns in any::<u32>(),
            zone in any::<u16>(),
            entry in any::<bool>(),
        ) {
            let address = |bytes| {
                let v4 = Ipv4Addr::from(bytes);
                if v6 { IpAddr::V6(Ipv6Addr::from_bits(v4.to_bits().into())) } else { v4.into() }
            };
            let orig = Tuple { src: address(addresses.0), dst: address(addresses.1), proto, l4 };
            let key = FlowKey { netns: NetnsId(netns), zone: Zone(zone), orig, entry };
            prop_assert_eq!(PackedKey::new(key).key(), key);
        }
    }

    #[test]
    fn keys_of_ipv4_are_small() {
        assert_eq!((size_of::<PackedKey>(), size_of::<Option<PackedTuple>>()), (24, 16));
        let l4 = L4::Ports { src: 1, dst: 2 };
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let packed = PackedTuple::new(Tuple { src, dst, proto: 6, l4 });
        assert!(matches!(packed, PackedTuple::V4 { .. }));
    }
}
