//! What conntrack says about a packet.

use conntracker_common::IPPROTO_ICMPV6;

use super::{
    unknown::{Attr, Attribute},
    word::Word,
};
use crate::model::{
    L4, Tuple, Zone,
    path::{CtState, Direction},
};

/// `NF_CT_STATE_INVALID_BIT`, `NF_CT_STATE_BIT(ctinfo)` and `NF_CT_STATE_UNTRACKED_BIT`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h).
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
const UNTRACKED: u32 = 1 << 6;

/// A packet's state and its conntrack entry. The fields of the entry mean nothing where the state says that there is
/// none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracking {
    /// State.
    pub state: Attr<CtState>,
    /// Direction of the packet within the flow.
    pub direction: Attr<Direction>,
    /// Status bits (IPS_).
    pub status: Word,
    /// Mark of the entry.
    pub mark: Word,
    /// Zone.
    pub zone: Attr<Zone>,
    /// Tuple of the original direction.
    pub original: Attr<Tuple>,
    /// Tuple of the reply direction.
    pub reply: Attr<Tuple>,
    /// Name of the helper, empty if there is none.
    pub helper: Attr<String>,
    /// Labels, 128 bits in the order of their numbers.
    pub labels: Attr<[u8; 16]>,
}

impl Tracking {
    /// Nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            state: Err(Attribute::CtState.into()),
            direction: Err(Attribute::CtDirection.into()),
            status: Word::unknown(Attribute::CtStatus.into()),
            mark: Word::unknown(Attribute::CtMark.into()),
            zone: Err(Attribute::CtZone.into()),
            original: Err(Attribute::CtTuple.into()),
            reply: Err(Attribute::CtTuple.into()),
            helper: Err(Attribute::CtHelper.into()),
            labels: Err(Attribute::CtLabels.into()),
        }
    }

    /// The first packet of a flow: an entry that has just been made, without mark, labels or helper. What conntrack
    /// does not track (neighbour discovery, multicast listeners) is untracked, and messages of ICMP that answer
    /// something are invalid.
    #[must_use]
    pub fn first(tuple: &Tuple) -> Self {
        if let (IPPROTO_ICMPV6, L4::Icmp { kind: 130..=137 | 143, .. }) = (tuple.proto, tuple.l4) {
            return Self::without_entry(CtState::Untracked);
        }
        let Some(reply) = tuple.inverted() else {
            return Self::without_entry(CtState::Invalid);
        };
        if let L4::Icmp { kind: 0 | 14 | 16 | 18 | 129 | 140, .. } = tuple.l4 {
            return Self::without_entry(CtState::Invalid);
        }
        Self {
            state: Ok(CtState::New),
            direction: Ok(Direction::Original),
            status: Word::new(0, Attribute::CtStatus.into()),
            mark: Word::new(0, Attribute::CtMark.into()),
            zone: Ok(Zone::DEFAULT),
            original: Ok(*tuple),
            reply: Ok(reply),
            helper: Ok(String::new()),
            labels: Ok([0; 16]),
        }
    }

    /// No entry, for one of the states that have none.
    #[must_use]
    pub fn without_entry(state: CtState) -> Self {
        Self { state: Ok(state), ..Self::unknown() }
    }

    /// Whether there is an entry.
    pub fn has_entry(&self) -> Attr<bool> {
        self.state
            .map(|state| !matches!(state, CtState::Untracked | CtState::Invalid | CtState::Early))
    }

    /// The bit that `ct state` loads (`nft_ct_get_eval` of net/netfilter/nft_ct.c): without an entry a packet is
    /// untracked where a rule said so, and else invalid, also before conntrack's hook.
    pub fn state_bit(&self) -> Attr<u32> {
        self.state.map(|state| match state {
            CtState::New => NEW,
            CtState::Established => ESTABLISHED,
            CtState::Related => RELATED,
            CtState::Untracked => UNTRACKED,
            CtState::Invalid | CtState::Early => INVALID,
        })
    }
}
