//! IP protocol names and numbers, as getprotobyname(3) and conntrack(8) have them.

use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP,
    IPPROTO_UDP, IPPROTO_UDPLITE,
};

/// Protocols that have a name here.
const NAMES: &[(u8, &str)] = &[
    (IPPROTO_ICMP, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (IPPROTO_TCP, "tcp"),
    (IPPROTO_UDP, "udp"),
    (IPPROTO_DCCP, "dccp"),
    (41, "ipv6"),
    (IPPROTO_GRE, "gre"),
    (50, "esp"),
    (51, "ah"),
    (IPPROTO_ICMPV6, "icmpv6"),
    (89, "ospf"),
    (103, "pim"),
    (112, "vrrp"),
    (115, "l2tp"),
    (IPPROTO_SCTP, "sctp"),
    (IPPROTO_UDPLITE, "udplite"),
];

/// Name of a protocol, if it has one here.
#[must_use]
pub fn name(proto: u8) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == proto).map(|(_, name)| *name)
}

/// Number of a protocol given by name (any case; also `icmp6`, `ipv6-icmp`) or number.
#[must_use]
pub fn number(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "icmp6" | "ipv6-icmp") {
        return Some(IPPROTO_ICMPV6);
    }
    NAMES.iter().find(|(_, name)| *name == lower).map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_and_numbers_need_no_name() {
        for &(proto, text) in NAMES {
            assert_eq!((name(proto), number(text)), (Some(text), Some(proto)));
        }
        assert_eq!((name(253), number("253")), (None, Some(253)));
        assert_eq!(number("ICMP6"), Some(58));
        assert_eq!((number("nonsense"), number("256")), (None, None));
    }
}
