//! The order of a report: protocol block, addresses as numbers, then ports (formats §1).

use std::{cmp::Ordering, net::IpAddr};

use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

use super::{Flow, FlowKey, L4, Tuple};

/// Number of the block of lines that a flow belongs to: first the six blocks of the original tool in its order, then
/// one for each other protocol number, IPv4 before IPv6.
#[must_use]
pub fn block(tuple: &Tuple) -> u16 {
    match (tuple.proto, tuple.src) {
        (IPPROTO_TCP, IpAddr::V4(_)) => 0,
        (IPPROTO_UDP, IpAddr::V4(_)) => 1,
        (IPPROTO_ICMP, IpAddr::V4(_)) => 2,
        (IPPROTO_TCP, IpAddr::V6(_)) => 3,
        (IPPROTO_UDP, IpAddr::V6(_)) => 4,
        (IPPROTO_ICMPV6, IpAddr::V6(_)) => 5,
        (proto, src) => 6 + u16::from(proto) * 2 + u16::from(src.is_ipv6()),
    }
}

/// The two numbers that come after the addresses: ports, ICMP type and code, GRE keys.
#[must_use]
pub fn numbers(l4: L4) -> (u16, u16) {
    match l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => (src, dst),
        L4::Icmp { kind, code, .. } => (kind.into(), code.into()),
        L4::None => (0, 0),
    }
}

/// Whether two flows have the same block, addresses and numbers, and so stand side by side in a report.
#[must_use]
pub fn same_ends(a: &FlowKey, b: &FlowKey) -> bool {
    let ends = |key: &FlowKey| (block(&key.orig), key.orig.src, key.orig.dst, numbers(key.orig.l4));
    ends(a) == ends(b)
}

/// The order of a report. Flows that print alike are ordered by ICMP identifier, namespace and zone, and those of
/// conntrack before packets without an entry, so that the order of the same flows never changes.
#[must_use]
pub fn compare(a: &FlowKey, b: &FlowKey) -> Ordering {
    let rank = |key: &FlowKey| {
        let Tuple { src, dst, l4, .. } = key.orig;
        (block(&key.orig), src, dst, numbers(l4), l4, key.netns, key.zone, !key.entry)
    };
    rank(a).cmp(&rank(b))
}

/// Sorts flows into report order.
pub fn sort(flows: &mut [Flow]) {
    flows.sort_unstable_by(|a, b| compare(&a.key, &b.key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NetnsId, Zone};

    fn key(proto: u8, src: &str, dst: &str, l4: L4) -> FlowKey {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        FlowKey {
            netns: NetnsId(0),
            zone: Zone::DEFAULT,
            orig: Tuple { src, dst, proto, l4 },
            entry: true,
        }
    }

    #[test]
    fn blocks_then_numeric_addresses_then_ports() {
        let ports = |src, dst| L4::Ports { src, dst };
        let icmp = |kind, code| L4::Icmp { kind, code, id: 1 };
        let wanted = [
            key(6, "9.0.0.1", "10.0.0.1", ports(1024, 80)),
            key(6, "10.0.0.9", "10.0.0.1", ports(5, 9)),
            key(6, "10.0.0.9", "10.0.0.1", ports(1024, 80)),
            key(6, "10.0.0.9", "10.0.0.1", ports(1024, 443)),
            key(6, "10.0.0.9", "10.0.0.10", ports(1, 1)),
            key(6, "10.0.0.10", "10.0.0.1", ports(1, 1)),
            key(17, "1.1.1.1", "1.1.1.1", ports(1, 1)),
            key(1, "1.1.1.1", "1.1.1.1", icmp(0, 9)),
            key(1, "1.1.1.1", "1.1.1.1", icmp(8, 0)),
            key(6, "::9", "::1", ports(1, 1)),
            key(6, "::10", "::1", ports(1, 1)),
            key(17, "::1", "::1", ports(1, 1)),
            key(58, "::1", "::1", icmp(128, 0)),
            key(47, "1.1.1.1", "1.1.1.1", L4::Gre { src: 1, dst: 2 }),
            key(132, "1.1.1.1", "1.1.1.1", ports(1, 1)),
            key(132, "::1", "::1", ports(1, 1)),
        ];
        let mut sorted = wanted;
        sorted.reverse();
        sorted.sort_by(compare);
        assert_eq!(sorted, wanted);
    }
}
