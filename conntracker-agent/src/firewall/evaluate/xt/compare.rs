//! Comparisons of header fields that may be unknown, as x_tables' extensions make them.

use crate::firewall::evaluate::{
    decision::Decision,
    header::Header,
    packet::Packet,
    unknown::{Attr, Unknown},
};

/// A range of numbers, and whether the value must be outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<T> {
    /// First number.
    pub first: T,
    /// Last number.
    pub last: T,
    /// The value must be outside.
    pub inverted: bool,
}

impl<T: PartialOrd> Range<T> {
    /// Whether a value is in it.
    pub fn has(&self, value: Attr<T>) -> Decision {
        let holds = value.map(|value| self.first <= value && value <= self.last);
        Decision::from(holds).inverted_if(self.inverted)
    }
}

impl Range<u16> {
    /// As [`Self::has`]; a range of all ports decides whatever the port is.
    #[must_use]
    pub fn has_port(&self, port: Attr<u16>) -> Decision {
        if (self.first, self.last) == (0, u16::MAX) {
            return Decision::Yes.inverted_if(self.inverted);
        }
        self.has(port)
    }
}

/// A field of 16 bits in network byte order.
pub(super) fn be16(header: &Header, at: usize, why: impl Into<Unknown>) -> Attr<u16> {
    header.array(at).map(u16::from_be_bytes).ok_or(why.into())
}

/// A field of 32 bits in network byte order.
pub(super) fn be32(header: &Header, at: usize, why: impl Into<Unknown>) -> Attr<u32> {
    header.array(at).map(u32::from_be_bytes).ok_or(why.into())
}

/// Whether the bits of `mask` in a byte are equal to `value`: a known bit that differs decides.
pub(super) fn bits(
    header: &Header,
    at: usize,
    value: u8,
    mask: u8,
    why: impl Into<Unknown>,
) -> Decision {
    let (is, known) = header.byte(at);
    if (is ^ value) & mask & known != 0 || value & !mask != 0 {
        Decision::No
    } else if mask & !known == 0 {
        Decision::Yes
    } else {
        Decision::Undecided(why.into().into())
    }
}

/// Whether the packet has the header above IP: later fragments have not.
pub(super) fn has_transport(packet: &Packet) -> Decision {
    packet.fragment_offset().map(|offset| offset == 0).into()
}
