//! Names of protocols as libnetfilter_conntrack has them: fewer than /etc/protocols has, and `unknown`
//! for the rest.

use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP,
    IPPROTO_UDP, IPPROTO_UDPLITE,
};

const UNKNOWN: &str = "unknown";

/// Layer 4.
pub(super) const fn protocol(proto: u8) -> &'static str {
    match proto {
        IPPROTO_ICMP => "icmp",
        IPPROTO_TCP => "tcp",
        IPPROTO_UDP => "udp",
        IPPROTO_DCCP => "dccp",
        IPPROTO_GRE => "gre",
        IPPROTO_ICMPV6 => "icmpv6",
        IPPROTO_SCTP => "sctp",
        IPPROTO_UDPLITE => "udplite",
        _ => UNKNOWN,
    }
}

/// Whether a protocol is one of them.
pub(super) fn is_known(proto: u8) -> bool {
    protocol(proto) != UNKNOWN
}

/// Layer 3.
pub(super) const fn family(family: u8) -> &'static str {
    match family {
        FAMILY_V4 => "ipv4",
        FAMILY_V6 => "ipv6",
        _ => UNKNOWN,
    }
}
