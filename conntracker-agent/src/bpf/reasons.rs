//! Names of the reasons for which the kernel drops packets (`enum skb_drop_reason`, Linux 5.17+) and, where a drop
//! has no reason of its own, of the function that does it.

use std::{collections::HashMap, sync::Arc};

use conntracker_common::record::{
    CONNTRACK_CHAIN_TOO_LONG, CONNTRACK_FULL, CONNTRACK_INSERT_FAILED, CONNTRACK_PASSED,
};

use super::{btf::KernelBtf, symbols::Functions};
use crate::model::{Cause, ConntrackCause, intern_name};

/// What the enumerators' names begin with.
const PREFIX: &str = "SKB_DROP_REASON_";

/// Second prefix, of the enumeration of subsystems, which are the upper bits of a reason.
const SUBSYSTEMS: &str = "SUBSYS_";

/// The reason of drops that have none.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Reasons that lose no packet: another receiver has it (copies for packet sockets, frames for other hosts), it is a
/// duplicate, or it is freed after it was received.
const LOSSLESS_REASONS: [&str; 14] = [
    "PACKET_SOCK_ERROR",
    "OTHERHOST",
    "UNHANDLED_PROTO",
    "DUP_FRAG",
    "QUEUE_PURGE",
    "TCP_RESET",
    "TCP_OLD_DATA",
    "TCP_OLD_ACK",
    "TCP_OLD_SEQUENCE",
    "TCP_TOO_OLD_ACK",
    "TCP_OFOMERGE",
    "TCP_CLOSE",
    "SOCKET_DESTROYED",
    "CONSUMED",
];

/// The same of functions that free packets without a reason.
const LOSSLESS_FUNCTIONS: [&str; 20] = [
    "__sk_destruct",
    "__udp4_lib_mcast_deliver",
    "__udp6_lib_mcast_deliver",
    "icmpv6_rcv",
    "igmp_rcv",
    "inet_sock_destruct",
    "ip6_mc_input",
    "packet_rcv",
    "packet_rcv_fanout",
    "packet_rcv_spkt",
    "raw_local_deliver",
    "raw6_local_deliver",
    "sk_stream_kill_queues",
    "skb_queue_purge",
    "skb_queue_purge_reason",
    "tpacket_rcv",
    "tun_queue_purge",
    "udp_destroy_sock",
    "udp_destruct_common",
    "udp_destruct_sock",
];

/// Why a packet was dropped, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCause {
    /// Not by netfilter.
    pub lost: bool,
    /// `enum skb_drop_reason`; of those that netfilter dropped, one of `CONNTRACK_`
    /// ([`conntracker_common::record`]).
    pub reason: u32,
    /// The return address in the function that dropped it, if there is no reason; else 0.
    pub location: u64,
}

impl RawCause {
    /// A drop by a function at a netfilter hook, other than conntrack's.
    pub const NETFILTER: Self = Self { lost: false, reason: CONNTRACK_PASSED, location: 0 };
}

/// The names.
#[derive(Debug)]
pub struct Reasons {
    /// By number; empty where the kernel has no reasons.
    by_number: HashMap<u32, &'static str>,
    not_specified: u32,
    untold: [u64; 4],
    functions: Arc<Functions>,
    /// Functions that have dropped packets, by an address in them; `None` if no symbol has it.
    droppers: HashMap<u64, Option<&'static str>>,
}

impl Reasons {
    /// Those of a kernel with these functions.
    #[must_use]
    pub fn of(btf: &KernelBtf, functions: Arc<Functions>) -> Self {
        let mut reasons = Self {
            by_number: HashMap::new(),
            not_specified: 0,
            untold: [0; 4],
            functions,
            droppers: HashMap::new(),
        };
        for (name, number) in btf.enumerators(PREFIX) {
            let Some(name) = name.strip_prefix(PREFIX) else { continue };
            if name.starts_with(SUBSYSTEMS) {
                continue;
            }
            if name == NOT_SPECIFIED {
                reasons.not_specified = number;
            }
            if let Some(word) = reasons.untold.get_mut(number as usize / 64)
                && LOSSLESS_REASONS.contains(&name)
            {
                *word |= 1 << (number % 64);
            }
            reasons.by_number.insert(number, intern_name(name));
        }
        reasons
    }

    /// The number of drops without a reason; 0 where the kernel has no reasons.
    #[must_use]
    pub fn not_specified(&self) -> u32 {
        self.not_specified
    }

    /// A bit for each reason that is not reported.
    #[must_use]
    pub fn untold(&self) -> [u64; 4] {
        self.untold
    }

    /// Whether the kernel has reasons.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.by_number.is_empty()
    }

    /// The cause that the numbers mean; `None` if no packet was lost.
    pub fn cause(&mut self, raw: RawCause) -> Option<Cause> {
        let RawCause { lost, reason, location } = raw;
        if !lost {
            return Some(match reason {
                CONNTRACK_PASSED => Cause::Netfilter,
                CONNTRACK_FULL => Cause::Conntrack(ConntrackCause::Full),
                CONNTRACK_INSERT_FAILED => Cause::Conntrack(ConntrackCause::InsertFailed),
                CONNTRACK_CHAIN_TOO_LONG => Cause::Conntrack(ConntrackCause::ChainTooLong),
                _ => Cause::Conntrack(ConntrackCause::Other),
            });
        }
        if location == 0 {
            let name = self.by_number.get(&reason).copied();
            return Some(Cause::Reason(name.unwrap_or(NOT_SPECIFIED)));
        }
        let Self { functions, droppers, .. } = self;
        // Parts that the compiler has moved or cloned are named by their function.
        let name = |name: &str| intern_name(name.split('.').next().unwrap_or(name));
        let function =
            *droppers.entry(location).or_insert_with(|| functions.at(location).map(name));
        match function {
            Some(name) if LOSSLESS_FUNCTIONS.contains(&name) => None,
            Some(name) => Some(Cause::Function(name)),
            None => Some(Cause::Reason(NOT_SPECIFIED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::fixtures::kernel;

    fn lost(reason: u32) -> RawCause {
        RawCause { lost: true, reason, location: 0 }
    }

    #[test]
    fn reasons_have_the_kernels_names_whatever_their_numbers_are() {
        for (name, number) in [("debian-6.1", 11), ("debian-6.12", 15), ("builtin-6.18", 16)] {
            let mut reasons = Reasons::of(&kernel(name), Arc::default());
            assert_eq!(reasons.cause(lost(number)), Some(Cause::Reason("IP_RPFILTER")), "{name}");
            assert!(reasons.by_number.values().all(|name| !name.starts_with("SUBSYS")));
            assert_eq!(reasons.cause(lost(60_000)), Some(Cause::Reason(NOT_SPECIFIED)));
        }
    }

    #[test]
    fn reasons_by_which_nothing_is_lost_are_marked() {
        let reasons = Reasons::of(&kernel("builtin-6.18"), Arc::default());
        let marked: Vec<&str> = (0..256)
            .filter(|number| reasons.untold[number / 64] >> (number % 64) & 1 == 1)
            .filter_map(|number| reasons.by_number.get(&(number as u32)).copied())
            .collect();
        assert!(marked.contains(&"OTHERHOST") && marked.contains(&"TCP_RESET"), "{marked:?}");
        assert!(!marked.contains(&"NO_SOCKET"));
    }

    #[test]
    fn a_kernel_without_reasons_has_places_only() {
        let mut reasons = Reasons::of(&kernel("ubuntu-5.15.0-25"), Arc::default());
        assert!(!reasons.any());
        assert_eq!((reasons.not_specified(), reasons.untold()), (0, [0; 4]));
        let nowhere = RawCause { lost: true, reason: 0, location: 8 };
        assert_eq!(reasons.cause(nowhere), Some(Cause::Reason(NOT_SPECIFIED)));
    }
}
