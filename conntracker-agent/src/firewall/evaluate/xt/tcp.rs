//! `tcp` and `udp` (net/netfilter/xt_tcpudp.c), and `tcpmss` (net/netfilter/xt_tcpmss.c).

use conntracker_common::IPPROTO_TCP;

use super::{
    MatchResult,
    compare::{Range, be16, bits, has_transport},
};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        packet::{Packet, Side},
        unknown::{Attr, Attribute},
    },
    fields::Fields,
};

/// Bytes of TCP's header without options, and the offsets of its length and its flags.
const HEADER: usize = 20;
const OFFSET: usize = 12;
const FLAGS: usize = 13;

/// Number of the option that has the maximum segment size.
const MSS: u8 = 2;

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

    /// A fragment that begins 8 bytes inside the header is dropped: it would overwrite the flags of the first one.
    pub(super) fn result(&self, packet: &Packet) -> MatchResult {
        if packet.fragment_offset() == Ok(1) {
            return MatchResult::Drops;
        }
        let (mask, set) = self.flags;
        let flags = if mask == 0 && set == 0 {
            Decision::Yes
        } else {
            bits(packet.transport(), FLAGS, set, mask, Attribute::TcpFlags)
        };
        let option = match self.option {
            0 => Decision::Yes,
            number => {
                let found = option(packet, number).map(|found| found.is_some());
                Decision::from(found).inverted_if(self.option_inverted)
            }
        };
        let fits = self.ports.has(packet).and(flags.inverted_if(self.flags_inverted)).and(option);
        MatchResult::Matches(has_transport(packet).and(fits))
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

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let size = match option(packet, MSS) {
            Ok(None) => return self.sizes.inverted.into(),
            Ok(Some(at)) => be16(packet.transport(), at + 2, Attribute::TcpOptions),
            Err(unknown) => Err(unknown),
        };
        self.sizes.has(size)
    }
}

/// Offset of an option of TCP; `None` if it is not there. Options after a cut-off one do not count.
fn option(packet: &Packet, number: u8) -> Attr<Option<usize>> {
    if packet.protocol()? != IPPROTO_TCP {
        return Ok(None);
    }
    let byte = |at| packet.transport().array(at).map(|[byte]: [u8; 1]| byte);
    let unknown = Attribute::TcpOptions;
    let end = usize::from(byte(OFFSET).ok_or(unknown)? >> 4) * 4;
    let mut at = HEADER;
    while at < end {
        match byte(at).ok_or(unknown)? {
            kind if kind == number => return Ok(Some(at)),
            // End of options and padding have one byte.
            0 | 1 => at += 1,
            _ => at += usize::from(byte(at + 1).ok_or(unknown)?).max(1),
        }
    }
    Ok(None)
}
