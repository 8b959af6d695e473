//! Targets that translate: `SNAT`, `DNAT`, `MASQUERADE`, `REDIRECT`, `NETMAP` (net/netfilter/xt_nat.c,
//! xt_MASQUERADE.c, xt_REDIRECT.c, xt_NETMAP.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{number, number_of};
use crate::{
    firewall::{
        evaluate::{
            packet::{Layer3, Packet, Side},
            translation::{Translation, TranslationKind},
            unknown::Attr,
        },
        fields::Fields,
    },
    model::hook::Hook,
};

/// NF_NAT_RANGE_ flags.
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 1 << 1;
const PROTO_OFFSET: u32 = 1 << 5;

/// `struct nf_nat_range2`, `struct nf_nat_range`, or `struct nf_nat_ipv4_multi_range_compat` of IPv4's old revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRange {
    /// NF_NAT_RANGE_ flags.
    pub flags: u32,
    /// First and last address, as `union nf_inet_addr`.
    pub addresses: [[u8; 16]; 2],
    /// First and last port.
    pub ports: (u16, u16),
    /// The port that the first one is for, with NF_NAT_RANGE_PROTO_OFFSET.
    pub base: u16,
}

/// Bytes of `struct nf_nat_range`.
const RANGE: usize = 40;

impl NatRange {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let compat = info.slice(0, RANGE).is_none();
        if compat {
            let address = |at| {
                let mut union = [0; 16];
                union[..4].copy_from_slice(&info.array::<4>(at)?);
                Some(union)
            };
            return Some(Self {
                flags: info.u32(4)?,
                addresses: [address(8)?, address(12)?],
                ports: (info.be16(16)?, info.be16(18)?),
                base: 0,
            });
        }
        let flags = info.u32(0)?;
        let base = if flags & PROTO_OFFSET == 0 { 0 } else { info.be16(RANGE)? };
        Some(Self {
            flags,
            addresses: [info.array(4)?, info.array(20)?],
            ports: (info.be16(36)?, info.be16(38)?),
            base,
        })
    }

    /// The translation of a packet.
    pub(super) fn translation(&self, kind: TranslationKind, packet: &Packet) -> Translation {
        let v6 = packet.layer3() == Layer3::Ip6;
        let address = |union| Ok(address(number_of(union, v6), v6));
        let [first, last] = &self.addresses;
        Translation {
            kind,
            addresses: (self.flags & MAP_IPS != 0).then(|| [address(first), address(last)]),
            ports: (self.flags & PROTO_SPECIFIED != 0).then(|| self.ports(packet)),
            flags: self.flags,
        }
    }

    /// The range of ports, or the one that has the same distance from the first one as the packet's from the base.
    fn ports(&self, packet: &Packet) -> [Attr<u16>; 2] {
        let (first, last) = self.ports;
        if self.flags & PROTO_OFFSET == 0 {
            return [Ok(first), Ok(last)];
        }
        let count = u32::from(last.saturating_sub(first)) + 1;
        let port = packet.port(Side::Destination).map(|port| {
            let distance = port.unwrap_or(self.base).wrapping_sub(self.base);
            first.wrapping_add((u32::from(distance) % count) as u16)
        });
        [port, port]
    }

    /// NETMAP: the bits of the network change, those of the host stay.
    pub(super) fn network(&self, packet: &Packet, hook: Hook) -> Translation {
        let (kind, side) = match hook {
            Hook::Prerouting | Hook::Output => (TranslationKind::Destination, Side::Destination),
            _ => (TranslationKind::Source, Side::Source),
        };
        let v6 = packet.layer3() == Layer3::Ip6;
        let [first, last] = self.addresses.map(|union| number_of(&union, v6));
        let host = first ^ last;
        let address =
            packet.address(side).map(|is| address((number(is) & host) | (first & !host), v6));
        Translation {
            kind,
            addresses: Some([address, address]),
            ports: None,
            flags: self.flags | MAP_IPS,
        }
    }
}

/// The address of a number.
pub(super) fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}
