//! Fields of the IP header: `length`, `ttl`, `hl`, `dscp`, `tos`, `ecn` (net/netfilter/xt_length.c, xt_hl.c, xt_dscp.c,
//! xt_ecn.c).

use conntracker_common::IPPROTO_TCP;

use super::compare::{Range, bits};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        packet::{Layer3, Packet},
        unknown::Attribute,
    },
    fields::Fields,
};

/// Offset of the flags in TCP's header, and the bits of ECN among them.
const TCP_FLAGS: usize = 13;
const TCP_ECE: u8 = 0x40;
const TCP_CWR: u8 = 0x80;

/// `struct xt_length_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Bytes from the IP header on.
    pub lengths: Range<u32>,
}

impl Length {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (first, last) = (info.u16(0)?.into(), info.u16(2)?.into());
        Some(Self { lengths: Range { first, last, inverted: info.u8(4)? != 0 } })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        self.lengths.has(packet.length())
    }
}

/// `struct ipt_ttl_info` and `struct ip6t_hl_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// This value.
    Equal(u8),
    /// Another one.
    NotEqual(u8),
    /// A smaller one.
    Less(u8),
    /// A greater one.
    Greater(u8),
}

impl Ttl {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let value = info.u8(1)?;
        Some(match info.u8(0)? {
            0 => Self::Equal(value),
            1 => Self::NotEqual(value),
            2 => Self::Less(value),
            3 => Self::Greater(value),
            _ => return None,
        })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let holds = packet.ttl().map(|ttl| match self {
            Self::Equal(value) => ttl == value,
            Self::NotEqual(value) => ttl != value,
            Self::Less(value) => ttl < value,
            Self::Greater(value) => ttl > value,
        });
        holds.into()
    }
}

/// `struct xt_dscp_info` and `struct xt_tos_match_info`: bits of the byte that DSCP and ECN share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tos {
    /// What the bits must be.
    pub value: u8,
    /// Bits that are compared.
    pub mask: u8,
    /// They must be others.
    pub inverted: bool,
}

impl Tos {
    pub(super) fn decode_dscp(info: Fields<'_>) -> Option<Self> {
        Some(Self { value: info.u8(0)? << 2, mask: 0xfc, inverted: info.u8(1)? != 0 })
    }

    pub(super) fn decode_tos(info: Fields<'_>) -> Option<Self> {
        Some(Self { value: info.u8(1)?, mask: info.u8(0)?, inverted: info.u8(2)? != 0 })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        dscp_and_ecn(packet, self.value, self.mask).inverted_if(self.inverted)
    }
}

/// Whether bits of the byte that DSCP and ECN share are these.
fn dscp_and_ecn(packet: &Packet, value: u8, mask: u8) -> Decision {
    let part = |at, value, mask| bits(packet.network(), at, value, mask, Attribute::Dscp);
    match packet.layer3() {
        Layer3::Ip => part(1, value, mask),
        // It begins in the middle of the first byte.
        Layer3::Ip6 => part(0, value >> 4, mask >> 4).and(part(1, value << 4, mask << 4)),
    }
}

/// `struct xt_ecn_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecn {
    /// The bits in the IP header, and whether they must be others.
    pub ip: Option<(u8, bool)>,
    /// Whether TCP's ECE must be set.
    pub ece: Option<bool>,
    /// Whether TCP's CWR must be set.
    pub cwr: Option<bool>,
}

impl Ecn {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let [operation, inverted, ect] = info.array(0)?;
        let is = |bit: u8| (operation & bit != 0).then_some(inverted & bit != 0);
        Some(Self {
            ip: is(0x01).map(|inverted| (ect, inverted)),
            ece: is(0x10).map(|inverted| !inverted),
            cwr: is(0x20).map(|inverted| !inverted),
        })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let ip = self.ip.map_or(Decision::Yes, |(value, inverted)| {
            dscp_and_ecn(packet, value, 0x03).inverted_if(inverted)
        });
        let flag = |wanted: Option<bool>, flag: u8| match wanted {
            None => Decision::Yes,
            Some(set) => {
                let is = bits(packet.transport(), TCP_FLAGS, flag, flag, Attribute::TcpFlags);
                let tcp = packet.protocol().map(|protocol| protocol == IPPROTO_TCP);
                Decision::from(tcp).and(is.inverted_if(!set))
            }
        };
        ip.and(flag(self.ece, TCP_ECE)).and(flag(self.cwr, TCP_CWR))
    }
}
