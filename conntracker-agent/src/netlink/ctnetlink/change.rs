//! What requests say about an entry: its key, the values of a new one, and changes.
//!
//! net/netfilter/nf_conntrack_netlink.c decides which requests the kernel accepts. ctnetlink cannot set accounting,
//! timestamps, the identifier and the security mark of an entry (rules set that one: SECMARK and `ct secmark`).

use std::net::IpAddr;

use conntracker_common::{IPPROTO_SCTP, IPPROTO_TCP};

use super::decode::{Entry, SeqAdj, SynProxy};
use super::owned::ConntrackEntry;
use crate::model::state::ProtoState;
use crate::model::{Mark, Status, Tuple, Zone};

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EntryKey {
    /// One of its directions.
    pub tuple: Tuple,
    /// Whether `tuple` is the reply direction.
    pub reply: bool,
    /// The zone of that direction: 0 if the entry's zone applies to the other direction alone.
    pub zone: Zone,
    /// Its identifier, so that a later entry with the same tuple is not mistaken for it.
    pub id: Option<u32>,
}

impl EntryKey {
    /// The entry with this original direction in zone 0.
    #[must_use]
    pub const fn orig(tuple: Tuple) -> Self {
        Self { tuple, reply: false, zone: Zone::DEFAULT, id: None }
    }

    /// The entry with this reply direction in zone 0.
    #[must_use]
    pub const fn reply(tuple: Tuple) -> Self {
        Self { tuple, reply: true, zone: Zone::DEFAULT, id: None }
    }

    /// In this zone.
    #[must_use]
    pub const fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// With this identifier only.
    #[must_use]
    pub const fn with_id(self, id: Option<u32>) -> Self {
        Self { id, ..self }
    }
}

impl From<&Entry<'_>> for EntryKey {
    fn from(entry: &Entry<'_>) -> Self {
        let zone = if entry.zone_reply.is_some() { Zone::DEFAULT } else { entry.zone };
        Self::orig(entry.orig).in_zone(zone).with_id(entry.id)
    }
}

impl From<&ConntrackEntry> for EntryKey {
    fn from(entry: &ConntrackEntry) -> Self {
        let zone = if entry.zone_reply.is_some() { Zone::DEFAULT } else { entry.zone };
        Self::orig(entry.orig).in_zone(zone).with_id(entry.id)
    }
}

/// The zone of a new entry, and the directions that it applies to. The other one is in zone 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryZone {
    /// To both.
    Both(Zone),
    /// To the original direction (Linux 4.3+).
    Orig(Zone),
    /// To the reply direction (Linux 4.3+).
    Reply(Zone),
}

impl Default for EntryZone {
    fn default() -> Self {
        Self::Both(Zone::DEFAULT)
    }
}

/// Addresses and ports to choose from when a new entry is translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRange {
    /// Lowest and highest address, of the family of the entry; `None` keeps the address.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Lowest and highest port (or ICMP identifier); `None` keeps the port if it can.
    pub ports: Option<(u16, u16)>,
}

/// A new entry. No packet makes it, but it ends unless one comes within `timeout` seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEntry {
    /// Original direction.
    pub orig: Tuple,
    /// Reply direction, before the translation below.
    pub reply: Tuple,
    /// EntryZone.
    pub zone: EntryZone,
    /// Seconds until it ends.
    pub timeout: u32,
    /// Translation of the source. EOPNOTSUPP if the kernel has no NAT.
    pub nat_src: Option<NatRange>,
    /// Translation of the destination.
    pub nat_dst: Option<NatRange>,
    /// Original direction of the entry that expected this one; it must be in the same zone.
    pub master: Option<Tuple>,
    /// Its other values. A `timeout` among them overrides the one above.
    pub with: Change,
}

impl NewEntry {
    /// A new entry without NAT. `None` for an ICMP type that has no reply type.
    #[must_use]
    pub fn new(orig: Tuple, timeout: u32) -> Option<Self> {
        Some(Self {
            orig,
            reply: orig.inverted()?,
            zone: EntryZone::default(),
            timeout,
            nat_src: None,
            nat_dst: None,
            master: None,
            with: Change::default(),
        })
    }

    /// In this zone.
    #[must_use]
    pub fn zone(self, zone: EntryZone) -> Self {
        Self { zone, ..self }
    }

    /// Ends after so many seconds.
    #[must_use]
    pub fn timeout(self, timeout: u32) -> Self {
        Self { timeout, ..self }
    }

    /// With this reply direction, before the translation.
    #[must_use]
    pub fn reply(self, reply: Tuple) -> Self {
        Self { reply, ..self }
    }

    /// With its source translated.
    #[must_use]
    pub fn nat_src(self, nat_src: impl Into<Option<NatRange>>) -> Self {
        Self { nat_src: nat_src.into(), ..self }
    }

    /// With its destination translated.
    #[must_use]
    pub fn nat_dst(self, nat_dst: impl Into<Option<NatRange>>) -> Self {
        Self { nat_dst: nat_dst.into(), ..self }
    }

    /// Expected by the entry with this original direction.
    #[must_use]
    pub fn master(self, master: impl Into<Option<Tuple>>) -> Self {
        Self { master: master.into(), ..self }
    }

    /// With what else it is to have.
    #[must_use]
    pub fn with(self, with: Change) -> Self {
        Self { with, ..self }
    }
}

/// New values of an entry; `None` leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Seconds until it ends. An entry with IPS_FIXED_TIMEOUT refuses it with EPERM.
    pub timeout: Option<u32>,
    /// All IPS_ bits, to which IPS_CONFIRMED is added. The kernel allows to set SEEN_REPLY and ASSURED but not to
    /// clear them, refuses changes of EXPECTED and DYING (EBUSY), and ignores the bits that it manages itself.
    pub status: Option<Status>,
    /// Connmark.
    pub mark: Option<MarkChange>,
    /// Labels. ENOSPC if the entry has no room for them: the kernel gives room to entries that begin while a rule of
    /// the namespace matches labels.
    pub labels: Option<LabelChange>,
    /// Name of the helper. A new entry gets it (EOPNOTSUPP if the protocol has no such helper); an existing one can
    /// only lose its helper, by the empty name.
    pub helper: Option<String>,
    /// Data for a helper in user space; sent together with `helper` only.
    pub helper_info: Option<Vec<u8>>,
    /// State of the protocol.
    pub state: Option<ProtoChange>,
    /// Sequence adjustment of the original and the reply direction; ignored by entries without room
    /// for it.
    pub seqadj: [Option<SeqAdj>; 2],
    /// SYN proxy; ignored by entries without room for it.
    pub synproxy: Option<SynProxy>,
}

impl Change {
    /// It ends after so many seconds.
    #[must_use]
    pub fn timeout(self, timeout: impl Into<Option<u32>>) -> Self {
        Self { timeout: timeout.into(), ..self }
    }

    /// It gets these IPS_ bits, and no others.
    #[must_use]
    pub fn status(self, status: impl Into<Option<Status>>) -> Self {
        Self { status: status.into(), ..self }
    }

    /// It gets another connmark.
    #[must_use]
    pub fn mark(self, mark: impl Into<Option<MarkChange>>) -> Self {
        Self { mark: mark.into(), ..self }
    }

    /// It gets other labels.
    #[must_use]
    pub fn labels(self, labels: impl Into<Option<LabelChange>>) -> Self {
        Self { labels: labels.into(), ..self }
    }

    /// It gets this helper; with the empty name it loses the one it has.
    #[must_use]
    pub fn helper(self, helper: impl Into<Option<String>>) -> Self {
        Self { helper: helper.into(), ..self }
    }

    /// Data for a helper in user space.
    #[must_use]
    pub fn helper_info(self, helper_info: impl Into<Option<Vec<u8>>>) -> Self {
        Self { helper_info: helper_info.into(), ..self }
    }

    /// Its protocol gets another state.
    #[must_use]
    pub fn state(self, state: impl Into<Option<ProtoChange>>) -> Self {
        Self { state: state.into(), ..self }
    }

    /// It gets other sequence adjustments, that of the original direction first.
    #[must_use]
    pub fn seqadj(self, seqadj: [Option<SeqAdj>; 2]) -> Self {
        Self { seqadj, ..self }
    }

    /// It gets other data of the SYN proxy.
    #[must_use]
    pub fn synproxy(self, synproxy: impl Into<Option<SynProxy>>) -> Self {
        Self { synproxy: synproxy.into(), ..self }
    }
}

/// A new connmark. The kernel clears the bits of `mask` and then flips those of `value`, so `value` should have no
/// bits outside `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkChange {
    /// Bits.
    pub value: u32,
    /// Bits that change.
    pub mask: u32,
}

impl MarkChange {
    /// Exactly this mark.
    #[must_use]
    pub const fn to(mark: Mark) -> Self {
        Self { value: mark.0, mask: u32::MAX }
    }
}

/// New labels, label n as bit n: bits of `mask` are replaced by those of `value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelChange {
    /// Labels.
    pub value: u128,
    /// Labels that change.
    pub mask: u128,
}

impl LabelChange {
    /// Exactly these labels, and no others.
    #[must_use]
    pub const fn to(value: u128) -> Self {
        Self { value, mask: u128::MAX }
    }

    /// Adds labels.
    #[must_use]
    pub const fn add(labels: u128) -> Self {
        Self { value: labels, mask: labels }
    }

    /// Takes labels away.
    #[must_use]
    pub const fn remove(labels: u128) -> Self {
        Self { value: 0, mask: labels }
    }
}

/// A new state of the protocol's tracker. It must be of the protocol of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtoChange {
    /// TCP.
    Tcp {
        /// `enum tcp_conntrack`, below 10; EINVAL otherwise.
        state: Option<u8>,
        /// Window scales of the original and the reply direction. Ignored unless both directions have
        /// (or get) IP_CT_TCP_FLAG_WINDOW_SCALE, bit 0 of the flags.
        wscale: Option<[u8; 2]>,
        /// IP_CT_TCP_FLAG_ bits of the original and the reply direction: value, and the bits that
        /// change.
        flags: [Option<(u8, u8)>; 2],
    },
    /// SCTP; the kernel insists on all three.
    Sctp {
        /// `enum sctp_conntrack`.
        state: u8,
        /// Verification tags.
        vtag: [u32; 2],
    },
    /// DCCP, until Linux 6.16; ignored later.
    Dccp {
        /// `enum ct_dccp_states`.
        state: u8,
        /// Role of the original direction: 0 client, 1 server.
        role: u8,
        /// Sequence number of the handshake.
        handshake_seq: Option<u64>,
    },
}

impl ProtoChange {
    /// To the state of this name, in any case; `None` if the protocol has no such state.
    #[must_use]
    pub fn named(proto: u8, name: &str) -> Option<Self> {
        let state = ProtoState::number_of(proto, &name.to_ascii_uppercase())?;
        Some(match proto {
            IPPROTO_TCP => Self::Tcp { state: Some(state), wscale: None, flags: [None; 2] },
            IPPROTO_SCTP => Self::Sctp { state, vtag: [0; 2] },
            _ => Self::Dccp { state, role: 0, handshake_seq: None },
        })
    }
}

impl From<ProtoState> for ProtoChange {
    /// The change that leads to this state. Unknown tags and an unknown role become 0.
    fn from(state: ProtoState) -> Self {
        match state {
            ProtoState::Tcp { state, wscale, flags } => Self::Tcp {
                state: Some(state),
                wscale: wscale[0].zip(wscale[1]).map(|(orig, reply)| [orig, reply]),
                flags: flags.map(|flags| flags.map(|flags| (flags, u8::MAX))),
            },
            ProtoState::Sctp { state, vtag } => {
                Self::Sctp { state, vtag: vtag.map(Option::unwrap_or_default) }
            }
            ProtoState::Dccp { state, role, handshake_seq } => {
                Self::Dccp { state, role: role.unwrap_or_default(), handshake_seq }
            }
        }
    }
}
