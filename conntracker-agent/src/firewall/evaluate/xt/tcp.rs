//! `tcp` and `udp` (net/netfilter/xt_tcpudp.c), and `tcpmss` (net/netfilter/xt_tcpmss.c).

use super::{
    MatchResult,
    compare::{Range, be16, bits, has_transport},
};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        packet::{Layer3, Packet, Side},
        unknown::{Attr, Attribute},
    },
    fields::Fields,
};

/// Bytes of TCP's header without options, and the offsets of its length and its flags.
const HEADER: usize = 20;
const OFFSET: usize = 12;
const FLAGS: usize = 13;

/// Number and length of the option that has the maximum segment size.
const MSS: u8 = 2;
const MSS_LENGTH: u8 = 4;

/// Source and destination ports, as most protocols have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source.
    pub source: Range<u16>,
    /// Destination.
    pub destination: Range<u16>,
}

impl Ports {
    /// Two pairs of numbers in host byte order; bits 0 and 1 of `inverted` are those of source and destination.
    fn decode(info: Fields<'_>, inverted: u8) -> Option<Self> {
        let range = |at, bit| {
            let (first, last) = (info.u16(at)?, info.u16(at + 2)?);
            Some(Range { first, last, inverted: inverted & bit != 0 })
        };
        Some(Self { source: range(0, 1)?, destination: range(4, 2)? })
    }

    /// Whether a packet that has ports has these.
    pub(super) fn has(&self, packet: &Packet) -> Decision {
        let port = |side: Side| be16(packet.transport(), 2 * side as usize, side.port());
        let source = self.source.has_port(port(Side::Source));
        source.and(self.destination.has_port(port(Side::Destination)))
    }
}

/// `struct xt_tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Ports.
    pub ports: Ports,
    /// Flags that are looked at, and those of them that must be set.
    pub flags: (u8, u8),
    /// Other flags than these must be set.
    pub flags_inverted: bool,
    /// Option that must be there; 0: none.
    pub option: u8,
    /// It must not be there.
    pub option_inverted: bool,
}

impl Tcp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let inverted = info.u8(11)?;
        Some(Self {
            ports: Ports::decode(info, inverted)?,
            flags: (info.u8(9)?, info.u8(10)?),
            flags_inverted: inverted & 0x04 != 0,
            option: info.u8(8)?,
            option_inverted: inverted & 0x08 != 0,
        })
    }

    /// A fragment that begins 8 bytes inside the header is dropped: it would overwrite the flags of the first one. Of
    /// IPv6 the kernel counts offsets in bytes, so that none is 1.
    pub(super) fn result(&self, packet: &Packet) -> MatchResult {
        if packet.fragment_offset() == Ok(1) && packet.layer3() == Layer3::Ip {
            return MatchResult::Drops;
        }
        let (mask, set) = self.flags;
        let flags = if mask == 0 && set == 0 {
            Decision::Yes
        } else {
            bits(packet.transport(), FLAGS, set, mask, Attribute::TcpFlags)
        };
        let before = has_transport(packet)
            .and(self.ports.has(packet))
            .and(flags.inverted_if(self.flags_inverted));
        if self.option == 0 || before == Decision::No {
            return MatchResult::Matches(before);
        }
        match (length(packet), before) {
            // A header that is shorter than itself is dropped.
            (Ok(length), Decision::Yes) if length < HEADER => MatchResult::Drops,
            (Ok(length), Decision::Undecided(why)) if length < HEADER => MatchResult::Unknown(why),
            _ => {
                let found =
                    option(packet, self.option, |_, _| Ok(true)).map(|found| found.is_some());
                let found = Decision::from(found).inverted_if(self.option_inverted);
                MatchResult::Matches(before.and(found))
            }
        }
    }
}

/// `struct xt_udp`; UDP-Lite has it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Ports.
    pub ports: Ports,
}

impl Udp {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { ports: Ports::decode(info, info.u8(8)?)? })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        has_transport(packet).and(self.ports.has(packet))
    }
}

/// `struct xt_tcpmss_match_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpMss {
    /// Maximum segment sizes. Packets without the option match if this is inverted.
    pub sizes: Range<u16>,
}

impl TcpMss {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (first, last, inverted) = (info.u16(0)?, info.u16(2)?, info.u8(4)? != 0);
        Some(Self { sizes: Range { first, last, inverted } })
    }

    /// It reads the data of later fragments as if they were a header, and drops packets whose header is malformed.
    pub(super) fn result(self, packet: &Packet) -> MatchResult {
        match packet.fragment_offset() {
            Ok(0) => {}
            Ok(_) => return MatchResult::Unknown(Attribute::Fragment.into()),
            Err(unknown) => return MatchResult::Unknown(unknown.into()),
        }
        if length(packet).is_ok_and(|length| length < HEADER) {
            return MatchResult::Drops;
        }
        let whole = |at: usize, end: usize| {
            let length = byte(packet, at + 1)?;
            Ok(length == MSS_LENGTH && at + usize::from(MSS_LENGTH) <= end)
        };
        MatchResult::Matches(match option(packet, MSS, whole) {
            Ok(None) => self.sizes.inverted.into(),
            Ok(Some(at)) => self.sizes.has(be16(packet.transport(), at + 2, Attribute::TcpOptions)),
            Err(unknown) => Decision::Undecided(unknown.into()),
        })
    }
}

/// A byte of TCP's header.
fn byte(packet: &Packet, at: usize) -> Attr<u8> {
    packet.transport().array(at).map(|[byte]| byte).ok_or(Attribute::TcpOptions.into())
}

/// Bytes of TCP's header, with its options, as it says itself.
fn length(packet: &Packet) -> Attr<usize> {
    byte(packet, OFFSET).map(|byte| usize::from(byte >> 4) * 4)
}

/// Offset of the first option of TCP that has a number and is as `fits` says of its offset and the end of all of
/// them; `None` if there is none.
fn option(
    packet: &Packet,
    number: u8,
    fits: impl Fn(usize, usize) -> Attr<bool>,
) -> Attr<Option<usize>> {
    let end = length(packet)?;
    let mut at = HEADER;
    while at < end {
        let kind = byte(packet, at)?;
        if kind == number && fits(at, end)? {
            return Ok(Some(at));
        }
        at += match kind {
            // End of options and padding have one byte.
            0 | 1 => 1,
            _ => usize::from(byte(packet, at + 1)?).max(1),
        };
    }
    Ok(None)
}
