//! What targets change of a packet: marks, conntrack's settings, fields of headers (net/netfilter/xt_mark.c,
//! xt_connmark.c, xt_CT.c, xt_HL.c, xt_DSCP.c).

use crate::{
    firewall::{
        evaluate::{
            entry,
            packet::{Layer3, Packet},
            tracking::Tracking,
            unknown::Attribute,
            word::Word,
        },
        fields::Fields,
    },
    model::{Zone, path::CtState},
};

/// `mark = (mark & !mask) ^ value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkChange {
    /// Bits that are changed to, or toggled outside of the mask.
    pub value: u32,
    /// Bits that are cleared before.
    pub mask: u32,
}

impl MarkChange {
    pub(super) fn decode(info: Fields<'_>, value: usize, mask: usize) -> Option<Self> {
        Some(Self { value: info.u32(value)?, mask: info.u32(mask)? })
    }

    /// The mark afterwards.
    #[must_use]
    pub fn of(self, mark: Word) -> Word {
        mark.changed(self.value, self.mask)
    }

    /// Sets the connmark of a packet with an entry.
    pub(super) fn apply_to_connection(self, packet: &mut Packet, shift: i16) {
        set_connmark(packet, shifted(self.of(packet.tracking.mark), shift));
    }
}

/// A mark that is copied between packet and connection (`struct xt_connmark_tginfo1`, `2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkMove {
    /// Mask of the connmark.
    pub ctmask: u32,
    /// Mask of the packet mark.
    pub nfmask: u32,
    /// Bits to the left by which the mark is shifted; to the right if negative.
    pub shift: i16,
}

impl MarkMove {
    pub(super) fn save(self, packet: &mut Packet) {
        let moved = shifted(masked(packet.mark, self.nfmask), self.shift);
        set_connmark(packet, toggled(packet.tracking.mark, self.ctmask, moved));
    }

    pub(super) fn restore(self, packet: &mut Packet) {
        let moved = shifted(masked(packet.tracking.mark, self.ctmask), self.shift);
        let mark = toggled(packet.mark, self.nfmask, moved);
        packet.mark = match packet.tracking.has_entry() {
            Ok(true) => mark,
            Ok(false) => packet.mark,
            Err(_) if mark == packet.mark => mark,
            Err(unknown) => Word::unknown(unknown),
        };
    }
}

/// `word & mask`.
pub(super) fn masked(word: Word, mask: u32) -> Word {
    Word::partly(word.value() & mask, word.known() | !mask, word.why())
}

/// `(word & !mask) ^ moved`.
fn toggled(word: Word, mask: u32, moved: Word) -> Word {
    let kept = masked(word, !mask);
    let why = if kept.known() == u32::MAX { moved.why() } else { kept.why() };
    Word::partly(kept.value() ^ moved.value(), kept.known() & moved.known(), why)
}

/// Shifted to the left, or to the right if `by` is negative.
pub(super) fn shifted(word: Word, by: i16) -> Word {
    let bits = u32::from(by.unsigned_abs());
    let shift = |word: u32| {
        if by < 0 { word.checked_shr(bits) } else { word.checked_shl(bits) }.unwrap_or(0)
    };
    // Zeros come in.
    Word::partly(shift(word.value()), !shift(!word.known()), word.why())
}

/// Only a packet with an entry has a connmark to set.
fn set_connmark(packet: &mut Packet, mark: Word) {
    packet.tracking.mark = match packet.tracking.has_entry() {
        Ok(true) => mark,
        Ok(false) => packet.tracking.mark,
        Err(_) if mark == packet.tracking.mark => mark,
        Err(unknown) => Word::unknown(unknown),
    };
}

/// `struct xt_ct_target_info` and `struct xt_ct_target_info_v1`: what decides about the packet and its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtSettings {
    /// The packet is not tracked.
    pub notrack: bool,
    /// Zone, if it is set for both directions.
    pub zone: Option<u16>,
    /// The zone is the packet's mark, or that of one direction.
    pub other_zone: bool,
}

/// XT_CT_ flags.
const CT_NOTRACK: u16 = 1;
const CT_ZONE_OF_DIRECTION: u16 = 1 << 2 | 1 << 3;
const CT_ZONE_OF_MARK: u16 = 1 << 4;

impl CtSettings {
    /// The target NOTRACK.
    pub const NOTRACK: Self = Self { notrack: true, zone: None, other_zone: false };

    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (flags, zone) = (info.u16(0)?, info.u16(2)?);
        let other_zone = flags & (CT_ZONE_OF_DIRECTION | CT_ZONE_OF_MARK) != 0;
        Some(Self {
            notrack: flags & CT_NOTRACK != 0,
            zone: (zone != 0 && !other_zone).then_some(zone),
            other_zone,
        })
    }

    /// Only packets without an entry that are not untracked yet (`skb->_nfct` is 0): not those that come over the
    /// loopback with one.
    pub(super) fn apply(self, packet: &mut Packet) {
        match packet.tracking.state {
            Ok(CtState::Early | CtState::Invalid) => {}
            Ok(_) => return,
            Err(_) => {
                packet.tracking = Tracking::unknown();
                return;
            }
        }
        if self.notrack {
            packet.tracking = Tracking::without_entry(CtState::Untracked);
        } else {
            let zone = if self.other_zone {
                Err(Attribute::CtZone.into())
            } else {
                Ok(self.zone.map_or(Zone::DEFAULT, Zone))
            };
            packet.tracking.state = Ok(CtState::Early);
            entry::set_zone(&mut packet.tracking, zone);
        }
    }
}

/// `struct ipt_TTL_info`, `struct ip6t_HL_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlChange {
    /// To this value.
    Set(u8),
    /// Up, to 255 at most.
    Increase(u8),
    /// Down, to 0 at most.
    Decrease(u8),
}

impl TtlChange {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let value = info.u8(1)?;
        Some(match info.u8(0)? {
            0 => Self::Set(value),
            1 => Self::Increase(value),
            2 => Self::Decrease(value),
            _ => return None,
        })
    }

    pub(super) fn apply(self, packet: &mut Packet) {
        let ttl = match self {
            Self::Set(value) => Ok(value),
            Self::Increase(value) => packet.ttl().map(|ttl| ttl.saturating_add(value)),
            Self::Decrease(value) => packet.ttl().map(|ttl| ttl.saturating_sub(value)),
        };
        // What was unknown stays so.
        if let Ok(ttl) = ttl {
            packet.set_ttl(ttl);
        }
    }
}

/// `tos = (tos & !mask) ^ value`: `struct xt_DSCP_info`, `struct xt_tos_target_info`, and of `struct ipt_ECN_info` the
/// part of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TosChange {
    /// Bits that are changed to.
    pub value: u8,
    /// Bits that are cleared before.
    pub mask: u8,
}

impl TosChange {
    pub(super) fn decode_dscp(info: Fields<'_>) -> Option<Self> {
        Some(Self { value: info.u8(0)? << 2, mask: 0xfc })
    }

    pub(super) fn decode_tos(info: Fields<'_>) -> Option<Self> {
        Some(Self { value: info.u8(0)?, mask: info.u8(1)? })
    }

    pub(super) fn decode_ecn(info: Fields<'_>) -> Option<Self> {
        let [operation, ect] = info.array(0)?;
        let sets = operation & 1 != 0;
        Some(Self { value: if sets { ect & 3 } else { 0 }, mask: if sets { 3 } else { 0 } })
    }

    pub(super) fn apply(self, packet: &mut Packet) {
        let Self { value, mask } = self;
        let v6 = packet.layer3() == Layer3::Ip6;
        let mut change = |at: usize, value: u8, mask: u8| {
            let (is, known) = packet.network().byte(at);
            // Bits outside of the mask are toggled, so that they stay unknown if they were.
            packet.network_mut().set_bits(at, (is & !mask) ^ value, mask | (value & known));
        };
        if v6 {
            change(0, value >> 4, mask >> 4);
            change(1, value << 4, mask << 4);
        } else {
            change(1, value, mask);
        }
    }
}

/// Bytes of TCP's header without its options, and of the longest options.
const TCP_HEADER: usize = 20;
const TCP_OPTIONS: usize = 40;

/// TCP's options, and the length, are others than before.
pub(super) fn forget_tcp_options(packet: &mut Packet) {
    packet.transport_mut().forget(TCP_HEADER, TCP_OPTIONS);
}
