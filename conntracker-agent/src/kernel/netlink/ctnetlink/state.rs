//! State of a flow in the eyes of its protocol's tracker: `CTA_PROTOINFO`.

use conntracker_common::{IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_TCP};

#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::kernel::netlink::wire::{Attribute, DecodeError};

/// `enum tcp_conntrack` (nf_conntrack_tcp.h), as conntrack(8) writes it.
const TCP: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

/// `enum sctp_conntrack` (nf_conntrack_sctp.h).
const SCTP: [&str; 10] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];

/// `enum ct_dccp_states` (nf_conntrack_dccp.h).
const DCCP: [&str; 10] = [
    "NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE",
    "INVALID",
];

/// What a protocol's tracker keeps of a flow. DESTROY events carry the state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoState {
    /// TCP.
    Tcp {
        /// `enum tcp_conntrack`.
        state: u8,
        /// Window scale of the original and the reply direction.
        wscale: [Option<u8>; 2],
        /// IP_CT_TCP_FLAG_ bits of the original and the reply direction.
        flags: [Option<u8>; 2],
    },
    /// SCTP.
    Sctp {
        /// `enum sctp_conntrack`.
        state: u8,
        /// Verification tag of the original and the reply direction.
        vtag: [Option<u32>; 2],
    },
    /// DCCP, until Linux 6.16.
    Dccp {
        /// `enum ct_dccp_states`.
        state: u8,
        /// Role of the original direction: 0 client, 1 server.
        role: Option<u8>,
        /// Sequence number of the handshake.
        handshake_seq: Option<u64>,
    },
}

impl ProtoState {
    /// The number of the state, in the protocol's own enumeration.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match *self {
            Self::Tcp { state, .. } | Self::Sctp { state, .. } | Self::Dccp { state, .. } => state,
        }
    }

    /// The number of a state by its name, in the enumeration of an IP protocol; `None` for a protocol
    /// without states.
    #[must_use]
    pub fn number_of(proto: u8, name: &str) -> Option<u8> {
        let names = match proto {
            IPPROTO_TCP => &TCP,
            IPPROTO_SCTP => &SCTP,
            IPPROTO_DCCP => &DCCP,
            _ => return None,
        };
        names.iter().position(|known| *known == name).map(|number| number as u8)
    }

    /// Whether a state of a protocol is called so, in whatever case; of any protocol without one.
    #[must_use]
    pub fn is_called(proto: Option<u8>, name: &str) -> bool {
        let of = |wanted: u8, names: &[&str]| {
            proto.is_none_or(|proto| proto == wanted)
                && names.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        of(IPPROTO_TCP, &TCP) || of(IPPROTO_SCTP, &SCTP) || of(IPPROTO_DCCP, &DCCP)
    }

    /// The names of the states of TCP.
    #[must_use]
    pub fn names_of_tcp() -> &'static [&'static str] {
        &TCP
    }

    /// The state as conntrack(8) writes it; `None` for a number without a name.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        let (names, state) = match *self {
            Self::Tcp { state, .. } => (&TCP, state),
            Self::Sctp { state, .. } => (&SCTP, state),
            Self::Dccp { state, .. } => (&DCCP, state),
        };
        names.get(usize::from(state)).copied()
    }
}

/// Reads `CTA_PROTOINFO`; `None` when it is empty or of a protocol unknown here.
pub(super) fn decode(
    protoinfo: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<Option<ProtoState>, DecodeError> {
    let mut state = None;
    for attribute in protoinfo.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_PROTOINFO_TCP => state = Some(tcp(&attribute, unknown)?),
            CTA_PROTOINFO_SCTP => state = Some(sctp(&attribute, unknown)?),
            CTA_PROTOINFO_DCCP => state = Some(dccp(&attribute, unknown)?),
            _ => *unknown += 1,
        }
    }
    Ok(state)
}

fn tcp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut wscale, mut flags) = (None, [None; 2], [None; 2]);
    for a in info.nested() {
        let a = a?;
        // The mask beside the flags says what a request changes; in answers it is 0.
        let bits = |name| a.array(name).map(|[flags, _mask]: [u8; 2]| Some(flags));
        match a.kind {
            CTA_PROTOINFO_TCP_STATE => state = Some(a.u8("CTA_PROTOINFO_TCP_STATE")?),
            CTA_PROTOINFO_TCP_WSCALE_ORIGINAL => {
                wscale[0] = Some(a.u8("CTA_PROTOINFO_TCP_WSCALE_ORIGINAL")?);
            }
            CTA_PROTOINFO_TCP_WSCALE_REPLY => {
                wscale[1] = Some(a.u8("CTA_PROTOINFO_TCP_WSCALE_REPLY")?);
            }
            CTA_PROTOINFO_TCP_FLAGS_ORIGINAL => {
                flags[0] = bits("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL")?;
            }
            CTA_PROTOINFO_TCP_FLAGS_REPLY => flags[1] = bits("CTA_PROTOINFO_TCP_FLAGS_REPLY")?,
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_TCP_STATE"))?;
    Ok(ProtoState::Tcp { state, wscale, flags })
}

fn sctp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut vtag) = (None, [None; 2]);
    for a in info.nested() {
        let a = a?;
        match a.kind {
            CTA_PROTOINFO_SCTP_STATE => state = Some(a.u8("CTA_PROTOINFO_SCTP_STATE")?),
            CTA_PROTOINFO_SCTP_VTAG_ORIGINAL => {
                vtag[0] = Some(a.be32("CTA_PROTOINFO_SCTP_VTAG_ORIGINAL")?);
            }
            CTA_PROTOINFO_SCTP_VTAG_REPLY => {
                vtag[1] = Some(a.be32("CTA_PROTOINFO_SCTP_VTAG_REPLY")?);
            }
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_SCTP_STATE"))?;
    Ok(ProtoState::Sctp { state, vtag })
}

fn dccp(info: &Attribute<'_>, unknown: &mut u32) -> Result<ProtoState, DecodeError> {
    let (mut state, mut role, mut handshake_seq) = (None, None, None);
    for a in info.nested() {
        let a = a?;
        match a.kind {
            CTA_PROTOINFO_DCCP_STATE => state = Some(a.u8("CTA_PROTOINFO_DCCP_STATE")?),
            CTA_PROTOINFO_DCCP_ROLE => role = Some(a.u8("CTA_PROTOINFO_DCCP_ROLE")?),
            CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ => {
                handshake_seq = Some(a.be64("CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ")?);
            }
            CTA_PROTOINFO_DCCP_PAD => {}
            _ => *unknown += 1,
        }
    }
    let state = state.ok_or(DecodeError::Missing("CTA_PROTOINFO_DCCP_STATE"))?;
    Ok(ProtoState::Dccp { state, role, handshake_seq })
}
