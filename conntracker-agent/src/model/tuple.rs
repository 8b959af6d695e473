//! One direction of a flow: addresses, protocol and what the protocol has for ports.

use std::net::IpAddr;

use conntracker_common::{FOLDED_PORT, IPPROTO_GRE, has_ports, is_icmp};
use serde::{Deserialize, Serialize};

/// What distinguishes flows between the same two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum L4 {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP: ports in host byte order.
    Ports {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Message type.
        kind: u8,
        /// Message code.
        code: u8,
        /// Identifier of echo and similar messages, host byte order.
        id: u16,
    },
    /// GRE (PPTP's enhanced GRE): call keys in host byte order.
    Gre {
        /// Source key.
        src: u16,
        /// Destination key.
        dst: u16,
    },
    /// Any other protocol: one flow per pair of addresses.
    None,
}

impl L4 {
    /// From `tuple.src.u` and `tuple.dst.u` of the kernel, bytes as they stand in memory.
    #[must_use]
    pub fn from_kernel(proto: u8, src: [u8; 2], dst: [u8; 2]) -> Self {
        let (s, d) = (u16::from_be_bytes(src), u16::from_be_bytes(dst));
        if has_ports(proto) {
            Self::Ports { src: s, dst: d }
        } else if is_icmp(proto) {
            Self::Icmp { kind: dst[0], code: dst[1], id: s }
        } else if proto == IPPROTO_GRE {
            Self::Gre { src: s, dst: d }
        } else {
            Self::None
        }
    }
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family as `src`.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Ports or their like.
    pub l4: L4,
}

impl Tuple {
    /// The tuple that flows are folded by, unless `--no-fold`: a source port above 1023 becomes 1024, an ICMP
    /// identifier 0. Destination ports and GRE keys stay.
    #[must_use]
    pub fn folded(self) -> Self {
        let l4 = match self.l4 {
            L4::Ports { src, dst } => L4::Ports { src: src.min(FOLDED_PORT), dst },
            L4::Icmp { kind, code, .. } => L4::Icmp { kind, code, id: 0 },
            other => other,
        };
        Self { l4, ..self }
    }

    /// Whether several tuples fold to this one.
    #[must_use]
    pub fn may_be_folded(&self) -> bool {
        matches!(self.l4, L4::Ports { src: FOLDED_PORT, .. } | L4::Icmp { id: 0, .. })
    }

    /// The tuple of a packet in the other direction, without address translation. ICMP types are
    /// turned as the kernel turns them (nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c);
    /// `None` for an ICMP message that has no counterpart.
    #[must_use]
    pub fn inverted(self) -> Option<Self> {
        let l4 = match self.l4 {
            L4::Ports { src, dst } => L4::Ports { src: dst, dst: src },
            L4::Gre { src, dst } => L4::Gre { src: dst, dst: src },
            L4::Icmp { kind, code, id } => {
                L4::Icmp { kind: inverse_icmp(self.src.is_ipv4(), kind)?, code, id }
            }
            L4::None => L4::None,
        };
        Some(Self { src: self.dst, dst: self.src, proto: self.proto, l4 })
    }

    /// Whether messages of this ICMP (`v4`) or ICMPv6 type have a type that answers them; conntrack makes entries for
    /// those alone.
    #[must_use]
    pub fn has_inverse(v4: bool, icmp_type: u8) -> bool {
        inverse_icmp(v4, icmp_type).is_some()
    }

    /// Whether the addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.src.is_ipv4()
    }
}

/// The type that answers an ICMP type, both ways.
fn inverse_icmp(v4: bool, kind: u8) -> Option<u8> {
    const V4: &[(u8, u8)] = &[(8, 0), (13, 14), (15, 16), (17, 18)];
    const V6: &[(u8, u8)] = &[(128, 129), (139, 140)];
    let pairs = if v4 { V4 } else { V6 };
    pairs.iter().find_map(|&(a, b)| match kind {
        k if k == a => Some(b),
        k if k == b => Some(a),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(proto: u8, l4: L4) -> Tuple {
        Tuple { src: "192.0.2.1".parse().unwrap(), dst: "198.51.100.2".parse().unwrap(), proto, l4 }
    }

    #[test]
    fn folding_keeps_privileged_source_ports_and_every_destination_port() {
        let fold = |src, dst| tuple(6, L4::Ports { src, dst }).folded().l4;
        assert_eq!(fold(1023, 40000), L4::Ports { src: 1023, dst: 40000 });
        assert_eq!(fold(1024, 80), L4::Ports { src: 1024, dst: 80 });
        assert_eq!(fold(65535, 80), L4::Ports { src: 1024, dst: 80 });
        assert_eq!(
            tuple(1, L4::Icmp { kind: 8, code: 0, id: 77 }).folded().l4,
            L4::Icmp { kind: 8, code: 0, id: 0 }
        );
    }

    #[test]
    fn what_folding_made_may_be_folded() {
        for (l4, folded) in [
            (L4::Ports { src: 40_000, dst: 80 }, false),
            (L4::Ports { src: 53, dst: 80 }, false),
            (L4::Ports { src: 1024, dst: 80 }, true),
            (L4::Icmp { kind: 8, code: 0, id: 9 }, false),
            (L4::Gre { src: 1, dst: 2 }, false),
        ] {
            assert_eq!(tuple(6, l4).may_be_folded(), folded, "{l4:?}");
            assert_eq!(
                tuple(6, l4).folded().may_be_folded(),
                folded || tuple(6, l4) != tuple(6, l4).folded()
            );
        }
    }

    #[test]
    fn inversion_swaps_ports_and_turns_echo_request_into_reply() {
        let t = tuple(17, L4::Ports { src: 5, dst: 53 });
        assert_eq!(t.inverted().unwrap().l4, L4::Ports { src: 53, dst: 5 });
        assert_eq!(t.inverted().unwrap().inverted(), Some(t));
        let ping = tuple(1, L4::Icmp { kind: 8, code: 0, id: 9 });
        assert_eq!(ping.inverted().unwrap().l4, L4::Icmp { kind: 0, code: 0, id: 9 });
        assert_eq!(tuple(1, L4::Icmp { kind: 3, code: 1, id: 0 }).inverted(), None);
    }

    #[test]
    fn kernel_bytes_are_read_by_protocol() {
        assert_eq!(L4::from_kernel(6, [0, 80], [1, 0]), L4::Ports { src: 80, dst: 256 });
        assert_eq!(L4::from_kernel(58, [1, 2], [128, 3]), L4::Icmp { kind: 128, code: 3, id: 258 });
        assert_eq!(L4::from_kernel(47, [0, 1], [0, 2]), L4::Gre { src: 1, dst: 2 });
        assert_eq!(L4::from_kernel(50, [9, 9], [9, 9]), L4::None);
    }
}
