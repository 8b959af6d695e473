//! State of a flow, as the tracker of its protocol keeps it.

use conntracker_common::{IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_TCP};
use serde::{Deserialize, Serialize};

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

/// What a protocol's tracker stores of a flow. DESTROY events have the state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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

    /// Whether the protocol has a state of this name, in any case; without a protocol, whether any has.
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
