//! Other protocols above IP: `dccp`, `sctp`, `esp`, `ah`, `ipcomp`, `mh`, `icmp` and `icmp6` (net/netfilter/xt_*.c,
//! net/ipv4/netfilter/ipt_ah.c, net/ipv6/netfilter/ip6t_mh.c).

use super::{
    MatchResult,
    compare::{Range, be16, be32, has_transport},
    tcp::Ports,
};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        packet::{Layer3, Packet},
        unknown::{Attr, Attribute},
    },
    fields::Fields,
};

/// One byte of the header.
fn byte(packet: &Packet, at: usize, why: Attribute) -> Attr<u8> {
    packet.transport().array(at).map(|[byte]| byte).ok_or(why.into())
}

/// The ports of `struct xt_dccp_info` and `struct xt_sctp_info`: destination first, and looked at only with a flag.
fn ports(info: Fields<'_>, flags: u32, inverted: u32) -> Option<Ports> {
    let range = |at, bit| {
        let (first, last) = (info.u16(at)?, info.u16(at + 2)?);
        let (first, last) = if flags & bit == 0 { (0, u16::MAX) } else { (first, last) };
        Some(Range { first, last, inverted: flags & inverted & bit != 0 })
    };
    Some(Ports { source: range(4, 1)?, destination: range(0, 2)? })
}

/// `struct xt_dccp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dccp {
    /// Ports.
    pub ports: Ports,
    /// Types of packets, a bit for each, and whether it must be another type.
    pub types: Option<(u16, bool)>,
    /// Option that must be there, and whether it must not.
    pub option: Option<(u8, bool)>,
}

impl Dccp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (flags, inverted, types) = (info.u16(8)?, info.u16(10)?, info.u16(12)?);
        let option = info.u8(14)?;
        Some(Self {
            ports: ports(info, flags.into(), inverted.into())?,
            types: (flags & 4 != 0).then_some((types, inverted & 4 != 0)),
            option: (flags & 8 != 0).then_some((option, inverted & 8 != 0)),
        })
    }

    /// Options are not parsed, and drop the packet where they are malformed.
    pub(super) fn result(&self, packet: &Packet) -> MatchResult {
        let types = self.types.map_or(Decision::Yes, |(types, inverted)| {
            let kind = byte(packet, 8, Attribute::TransportHeader).map(|byte| (byte >> 1) & 0xf);
            Decision::from(kind.map(|kind| types & 1 << kind != 0)).inverted_if(inverted)
        });
        let before = has_transport(packet).and(self.ports.has(packet)).and(types);
        if self.option.is_some() {
            then_unknown(before, Attribute::TransportHeader)
        } else {
            MatchResult::Matches(before)
        }
    }
}

/// The result of a match that looks at something unknown, which may drop the packet, where it gets that far.
fn then_unknown(before: Decision, why: Attribute) -> MatchResult {
    match before {
        Decision::No => MatchResult::Matches(Decision::No),
        Decision::Yes => MatchResult::Unknown(why.into()),
        Decision::Undecided(also) => MatchResult::Unknown(also.union(why.into())),
    }
}

/// `struct xt_sctp_info`. Chunks follow the header: they are unknown, and drop the packet where they are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sctp {
    /// Ports.
    pub ports: Ports,
    /// It looks at the types of the chunks.
    pub chunks: bool,
}

impl Sctp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        // The map of the types of chunks before them has 256 bytes.
        let (flags, inverted) = (info.u32(284)?, info.u32(288)?);
        Some(Self { ports: ports(info, flags, inverted)?, chunks: flags & 4 != 0 })
    }

    pub(super) fn result(&self, packet: &Packet) -> MatchResult {
        let before = has_transport(packet).and(self.ports.has(packet));
        if self.chunks {
            then_unknown(before, Attribute::Payload)
        } else {
            MatchResult::Matches(before)
        }
    }
}

/// `struct xt_esp`: security parameter indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Indexes.
    pub spis: Range<u32>,
}

impl Esp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (first, last, inverted) = (info.u32(0)?, info.u32(4)?, info.u8(8)? & 1 != 0);
        Some(Self { spis: Range { first, last, inverted } })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let spi = be32(packet.transport(), 0, Attribute::TransportHeader);
        has_transport(packet).and(self.spis.has(spi))
    }
}

/// Whether a packet has an extension header of IPv6 that a match compares: no, if it has none at all.
pub(super) fn extension_header(packet: &Packet) -> Decision {
    match packet.has_extension_headers() {
        Ok(false) => Decision::No,
        Ok(true) => Decision::Undecided(Attribute::IpOptions.into()),
        Err(why) => Decision::Undecided(why.into()),
    }
}

/// `struct ipt_ah`, or `struct ip6t_ah`, which is an extension header in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ah {
    /// Indexes; `inverted` as IPv4 has it.
    pub spis: Range<u32>,
}

impl Ah {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Esp::decode(info).map(|Esp { spis }| Self { spis })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        if packet.layer3() == Layer3::Ip6 {
            return extension_header(packet);
        }
        let spi = be32(packet.transport(), 4, Attribute::TransportHeader);
        has_transport(packet).and(self.spis.has(spi))
    }
}

/// `struct xt_ipcomp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpComp {
    /// Compression parameter indexes.
    pub cpis: Range<u32>,
}

impl IpComp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Esp::decode(info).map(|Esp { spis }| Self { cpis: spis })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let cpi = be16(packet.transport(), 2, Attribute::TransportHeader).map(u32::from);
        has_transport(packet).and(self.cpis.has(cpi))
    }
}

/// `struct ip6t_mh`: the mobility header, which is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mobility {
    /// Types.
    pub types: Range<u8>,
}

impl Mobility {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (first, last, inverted) = (info.u8(0)?, info.u8(1)?, info.u8(2)? & 1 != 0);
        Some(Self { types: Range { first, last, inverted } })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let kind = byte(packet, 2, Attribute::TransportHeader);
        has_transport(packet).and(self.types.has(kind))
    }
}

/// `struct ipt_icmp` and `struct ip6t_icmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type; `None`: any (255 of IPv4).
    pub kind: Option<u8>,
    /// Codes.
    pub codes: (u8, u8),
    /// It must be another type or code.
    pub inverted: bool,
}

impl Icmp {
    pub(super) fn decode(info: Fields<'_>, v6: bool) -> Option<Self> {
        let [kind, first, last, inverted] = info.array(0)?;
        let any = kind == 0xff && !v6;
        Some(Self {
            kind: (!any).then_some(kind),
            codes: (first, last),
            inverted: inverted & 1 != 0,
        })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let found = self.kind.map_or(Decision::Yes, |wanted| {
            let kind = byte(packet, 0, Attribute::IcmpType).map(|kind| kind == wanted);
            let (first, last) = self.codes;
            let codes = Range { first, last, inverted: false };
            let code = if (first, last) == (0, 0xff) {
                Decision::Yes
            } else {
                codes.has(byte(packet, 1, Attribute::IcmpType))
            };
            Decision::from(kind).and(code)
        });
        has_transport(packet).and(found.inverted_if(self.inverted))
    }
}
