//! `conntrack` and `state` (net/netfilter/xt_conntrack.c, net/netfilter/xt_state.c).

use super::{
    address::{number, number_of},
    compare::Range,
};
use crate::{
    firewall::{
        evaluate::{
            decision::Decision,
            packet::{Packet, Side},
            unknown::{Attribute, Unknown},
        },
        fields::Fields,
    },
    model::{
        L4, Status, Tuple,
        path::{CtState, Direction},
    },
};

/// Bits of `match_flags` and `invert_flags`.
const STATE: u16 = 1;
const PROTO: u16 = 1 << 1;
const ADDRESSES: [u16; 4] = [1 << 2, 1 << 3, 1 << 4, 1 << 5];
const STATUS: u16 = 1 << 6;
const EXPIRES: u16 = 1 << 7;
const PORTS: [u16; 4] = [1 << 8, 1 << 9, 1 << 10, 1 << 11];
const DIRECTION: u16 = 1 << 12;

/// Bits of states: XT_CONNTRACK_STATE_INVALID and so on. `struct xt_state_info` has another one for UNTRACKED.
pub const INVALID: u16 = 1;
/// XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED).
pub const ESTABLISHED: u16 = 1 << 1;
/// XT_CONNTRACK_STATE_BIT(IP_CT_RELATED).
pub const RELATED: u16 = 1 << 2;
/// XT_CONNTRACK_STATE_BIT(IP_CT_NEW).
pub const NEW: u16 = 1 << 3;
/// XT_CONNTRACK_STATE_SNAT.
pub const SNAT: u16 = 1 << 6;
/// XT_CONNTRACK_STATE_DNAT.
pub const DNAT: u16 = 1 << 7;
/// XT_CONNTRACK_STATE_UNTRACKED.
pub const UNTRACKED: u16 = 1 << 8;

/// XT_STATE_UNTRACKED.
const STATE_UNTRACKED: u32 = 1 << 6;

/// The bit of a state. Before conntrack's hook a packet has no entry, which is invalid here.
fn bit(state: CtState) -> u16 {
    match state {
        CtState::New => NEW,
        CtState::Established => ESTABLISHED,
        CtState::Related => RELATED,
        CtState::Untracked => UNTRACKED,
        CtState::Invalid | CtState::Early => INVALID,
    }
}

/// A masked address of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryAddress {
    /// Address, as `union nf_inet_addr`.
    pub address: [u8; 16],
    /// Mask.
    pub mask: [u8; 16],
    /// It must be another one.
    pub inverted: bool,
}

/// `struct xt_conntrack_mtinfo1` to `3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// States, and whether it must be none of them.
    pub states: Option<(u16, bool)>,
    /// Protocol of the entry.
    pub protocol: Option<(u16, bool)>,
    /// Source and destination of the original direction, then of the reply direction.
    pub addresses: [Option<EntryAddress>; 4],
    /// Ports in the same order.
    pub ports: [Option<Range<u16>>; 4],
    /// Bits of the status, and whether none of them may be set.
    pub status: Option<(u16, bool)>,
    /// Seconds until the entry expires.
    pub expires: Option<Range<u32>>,
    /// The direction that the packet must have.
    pub direction: Option<Direction>,
}

impl Conntrack {
    pub(super) fn decode(revision: u32, info: Fields<'_>) -> Option<Self> {
        let (flags, inverted) = (info.u16(146)?, info.u16(148)?);
        let is = |flag: u16| flags & flag != 0;
        let is_inverted = |flag: u16| inverted & flag != 0;
        let (states, status) = match revision {
            1 => (info.u8(150)?.into(), info.u8(151)?.into()),
            2 | 3 => (info.u16(150)?, info.u16(152)?),
            _ => return None,
        };
        let (mut addresses, mut ports) = ([None; 4], [None; 4]);
        for (index, (address, port)) in addresses.iter_mut().zip(&mut ports).enumerate() {
            if is(ADDRESSES[index]) {
                *address = Some(EntryAddress {
                    address: info.array(32 * index)?,
                    mask: info.array(32 * index + 16)?,
                    inverted: is_inverted(ADDRESSES[index]),
                });
            }
            if is(PORTS[index]) {
                // Ranges in host byte order since revision 3, single ports in network byte order before.
                let (first, last) = if revision == 3 {
                    (info.u16(138 + 2 * index)?, info.u16(154 + 2 * index)?)
                } else {
                    let port = info.be16(138 + 2 * index)?;
                    (port, port)
                };
                *port = Some(Range { first, last, inverted: is_inverted(PORTS[index]) });
            }
        }
        let (first, last) = (info.u32(128)?, info.u32(132)?);
        let direction = if is_inverted(DIRECTION) { Direction::Reply } else { Direction::Original };
        Some(Self {
            states: is(STATE).then(|| (states, is_inverted(STATE))),
            protocol: if is(PROTO) { Some((info.u16(136)?, is_inverted(PROTO))) } else { None },
            addresses,
            ports,
            status: is(STATUS).then(|| (status, is_inverted(STATUS))),
            expires: is(EXPIRES).then(|| Range { first, last, inverted: is_inverted(EXPIRES) }),
            direction: is(DIRECTION).then_some(direction),
        })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let state = self.state(packet);
        match packet.tracking.has_entry() {
            // Without an entry nothing but the state is compared, and without a state nothing matches.
            Ok(false) if self.states.is_some() => state,
            Ok(false) => Decision::No,
            Ok(true) => state.and(self.entry(packet)),
            Err(_) if state == Decision::No => Decision::No,
            Err(_) if self.states.is_some() && self.is_state_alone() => state,
            Err(unknown) => Decision::Undecided(unknown.into()),
        }
    }

    fn is_state_alone(&self) -> bool {
        let Self { states: _, protocol, addresses, ports, status, expires, direction } = self;
        protocol.is_none()
            && addresses.iter().all(Option::is_none)
            && ports.iter().all(Option::is_none)
            && status.is_none()
            && expires.is_none()
            && direction.is_none()
    }

    fn state(&self, packet: &Packet) -> Decision {
        let Some((states, inverted)) = self.states else { return Decision::Yes };
        let state = packet.tracking.state.map(|state| states & bit(state) != 0);
        let translated = [(SNAT, Status::SRC_NAT), (DNAT, Status::DST_NAT)];
        let mut found = Decision::from(state);
        for (bit, status) in translated {
            if states & bit != 0 {
                let entry = Decision::from(packet.tracking.has_entry());
                let set = packet.tracking.status.has(status.0, status.0);
                found = found.or(entry.and(set));
            }
        }
        found.inverted_if(inverted)
    }

    fn entry(&self, packet: &Packet) -> Decision {
        let tracking = &packet.tracking;
        let mut holds = Decision::Yes;
        if let Some(direction) = self.direction {
            holds = holds.and(tracking.direction.map(|is| is == direction).into());
        }
        for (index, (address, port)) in self.addresses.iter().zip(&self.ports).enumerate() {
            let side = [Side::Source, Side::Destination][index % 2];
            let tuple = if index < 2 { tracking.original } else { tracking.reply };
            if let Some(address) = address {
                let equal = tuple.map(|tuple| address.is(&tuple, side));
                holds = holds.and(Decision::from(equal).inverted_if(address.inverted));
            }
            if let Some(range) = port {
                holds = holds.and(range.has(tuple.map(|tuple| port_of(&tuple, side))));
            }
        }
        if let Some((protocol, inverted)) = self.protocol {
            let equal = tracking.original.map(|tuple| u16::from(tuple.proto) == protocol);
            holds = holds.and(Decision::from(equal).inverted_if(inverted));
        }
        if let Some((bits, inverted)) = self.status {
            // None of the bits, and the opposite of it.
            let none = tracking.status.has(0, bits.into());
            holds = holds.and(none.not().inverted_if(inverted));
        }
        if self.expires.is_some() {
            holds = holds.and(Decision::Undecided(Unknown::LaterPackets.into()));
        }
        holds
    }
}

impl EntryAddress {
    fn is(&self, tuple: &Tuple, side: Side) -> bool {
        let address = if side == Side::Source { tuple.src } else { tuple.dst };
        let of = |union| number_of(union, address.is_ipv6());
        (number(address) ^ of(&self.address)) & of(&self.mask) == 0
    }
}

/// `tuple->src.u.all` and `tuple->dst.u.all`: of ICMP the identifier, and type and code.
fn port_of(tuple: &Tuple, side: Side) -> u16 {
    match (tuple.l4, side) {
        (L4::Ports { src, .. } | L4::Gre { src, .. }, Side::Source) => src,
        (L4::Ports { dst, .. } | L4::Gre { dst, .. }, Side::Destination) => dst,
        (L4::Icmp { id, .. }, Side::Source) => id,
        (L4::Icmp { kind, code, .. }, Side::Destination) => u16::from_be_bytes([kind, code]),
        (L4::None, _) => 0,
    }
}

/// `struct xt_state_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Bits of states, with the same numbers as those of [`Conntrack::states`].
    pub states: u16,
}

impl State {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let mask = info.u32(0)?;
        let untracked = if mask & STATE_UNTRACKED == 0 { 0 } else { UNTRACKED };
        let tracked = mask & u32::from(INVALID | ESTABLISHED | RELATED | NEW);
        Some(Self { states: tracked as u16 | untracked })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        packet.tracking.state.map(|state| self.states & bit(state) != 0).into()
    }
}

/// `struct xt_connmark_mtinfo1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connmark {
    /// Mark.
    pub mark: u32,
    /// Bits that are compared.
    pub mask: u32,
    /// It must be another one.
    pub inverted: bool,
}

impl Connmark {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { mark: info.u32(0)?, mask: info.u32(4)?, inverted: info.u8(8)? != 0 })
    }

    /// A packet without an entry does not match, neither inverted.
    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let mark = packet.tracking.mark.has(self.mark, self.mask).inverted_if(self.inverted);
        Decision::from(packet.tracking.has_entry()).and(mark)
    }
}

/// `struct xt_connlabel_mtinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connlabel {
    /// Number of the label.
    pub bit: u16,
    /// It must not be set.
    pub inverted: bool,
    /// The match sets it.
    pub sets: bool,
}

impl Connlabel {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let (bit, options) = (info.u16(0)?, info.u16(2)?);
        Some(Self { bit, inverted: options & 1 != 0, sets: options & 2 != 0 })
    }

    pub(super) fn decide(self, packet: &Packet) -> Decision {
        let (byte, bit) = (usize::from(self.bit / 8), self.bit % 8);
        let labels = packet.tracking.labels.map(|labels| labels.get(byte).copied());
        let set = labels.map(|byte| self.sets || byte.is_some_and(|byte| byte & 1 << bit != 0));
        let entry = Decision::from(packet.tracking.has_entry());
        entry.and(set.into()).inverted_if(self.inverted)
    }
}

/// `struct xt_helper_info`: the helper of the flow that expected this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Its name; empty: any.
    pub name: String,
    /// It must be another one, or there must be none.
    pub inverted: bool,
}

impl Helper {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        Some(Self { inverted: info.i32(0)? != 0, name: info.text(4, 30)? })
    }

    /// Only a flow that was expected has another one that it belongs to.
    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let bit = Status::EXPECTED.0;
        let expected = packet.tracking.status.has(bit, bit);
        let named = Decision::Undecided(Attribute::CtHelper.into());
        let found = Decision::from(packet.tracking.has_entry()).and(expected).and(named);
        found.inverted_if(self.inverted)
    }
}
