//! Ring record of the end of a flow: header and [`FlowBody`], [`EndBody`], and both tuples.

use crate::record::{FlowBody, Header, Tuple4, Tuple6};

/// A conntrack entry ended: it was removed from the table, or it never came there
/// ([`END_UNCONFIRMED`]).
pub const KIND_END: u8 = 5;

/// The entry was never confirmed: its packet was the last one that had it.
pub const END_UNCONFIRMED: u8 = 1;
/// [`EndBody::packets`] and [`EndBody::bytes`] are known (`nf_conntrack_acct`).
pub const END_COUNTERS: u8 = 2;
/// [`EndBody::start_ns`] is known (`nf_conntrack_timestamp`).
pub const END_START: u8 = 4;
/// [`EndBody::state`] is known (TCP, SCTP).
pub const END_STATE: u8 = 8;

/// What is known of the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndBody {
    /// Packets of the original and the reply direction.
    pub packets: [u64; 2],
    /// Bytes of the original and the reply direction.
    pub bytes: [u64; 2],
    /// When the entry was confirmed (nanoseconds since the epoch).
    pub start_ns: u64,
    /// Ticks of the kernel's clock that the entry had outlived its time.
    pub overdue: u32,
    /// State in the protocol's own enumeration.
    pub state: u8,
    /// `END_` bits.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl EndBody {
    /// Nothing is known.
    pub const NONE: Self = Self {
        packets: [0; 2],
        bytes: [0; 2],
        start_ns: 0,
        overdue: 0,
        state: 0,
        flags: 0,
        reserved: [0; 2],
    };
}

/// The end of an IPv4 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRecord4 {
    /// Header.
    pub header: Header,
    /// The flow.
    pub flow: FlowBody,
    /// Its end.
    pub end: EndBody,
    /// Original direction.
    pub orig: Tuple4,
    /// Reply direction.
    pub reply: Tuple4,
}

/// The end of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRecord6 {
    /// Header.
    pub header: Header,
    /// The flow.
    pub flow: FlowBody,
    /// Its end.
    pub end: EndBody,
    /// Original direction.
    pub orig: Tuple6,
    /// Reply direction.
    pub reply: Tuple6,
}

/// Numbers that the programs need for it besides [`crate::offsets::EndOffsets`]; [`ABSENT`] where the
/// kernel has no such thing.
///
/// [`ABSENT`]: crate::probes::ABSENT
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndNumbers {
    /// 1: the ends of flows are reported.
    pub wanted: u32,
    /// `NF_CT_EXT_ACCT`.
    pub ext_acct: u32,
    /// `NF_CT_EXT_TSTAMP` (CONFIG_NF_CONNTRACK_TIMESTAMP).
    pub ext_tstamp: u32,
    /// Offset of `nf_conn.proto.sctp.state` (CONFIG_NF_CT_PROTO_SCTP).
    pub sctp_state: u32,
}

impl EndNumbers {
    /// What the object carries until the agent fills it in.
    pub const ZERO: Self = Self { wanted: 0, ext_acct: 0, ext_tstamp: 0, sctp_state: 0 };

    /// The words in order, which is their layout in memory.
    #[must_use]
    pub fn to_array(self) -> [u32; size_of::<Self>() / 4] {
        let Self { wanted, ext_acct, ext_tstamp, sctp_state } = self;
        [wanted, ext_acct, ext_tstamp, sctp_state]
    }
}

const _: () = {
    assert!(size_of::<EndBody>() == 48);
    assert!(size_of::<EndRecord4>() == 24 + 40 + 48 + 2 * 12);
    assert!(size_of::<EndRecord6>() == 24 + 40 + 48 + 2 * 36);
    assert!(size_of::<EndRecord4>().is_multiple_of(8));
    assert!(size_of::<EndRecord6>().is_multiple_of(8));
    assert!(size_of::<EndNumbers>() == 16);
};
