//! Conditions of rules, such that packets of [`crate::burst`] meet many of them.

use super::{Family, Random};

/// The transport protocol that a rule must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum L4 {
    Any,
    Tcp,
    TcpOrUdp,
}

/// Named sets of a table.
pub(super) fn sets(family: Family) -> String {
    let mut sets = "\tset ports { type inet_service; elements = { 7, 53, 80 }; }\n".to_owned();
    if family != Family::Ip6 {
        sets.push_str(
            "\tset nets { type ipv4_addr; flags interval; \
             elements = { 10.78.0.0/17, 10.77.2.0/24 }; }\n\
             \tset pairs { type ipv4_addr . inet_service; \
             elements = { 10.77.2.2 . 53, 10.77.1.1 . 7 }; }\n",
        );
    }
    if family != Family::Ip {
        sets.push_str(
            "\tset nets6 { type ipv6_addr; flags interval; \
             elements = { fd78::1:0/112, fd77:2::/64 }; }\n",
        );
    }
    sets
}

const V4: [&str; 9] = [
    "ip saddr 10.78.0.0/17",
    "ip saddr 10.78.128.0/17",
    "ip daddr 10.77.2.2",
    "ip daddr 10.77.1.1",
    "ip saddr @nets",
    "ip daddr @nets",
    "ip saddr != 10.77.2.2",
    "ip saddr { 10.77.2.1, 10.77.2.2 }",
    "ip ttl < 64",
];

const V6: [&str; 9] = [
    "ip6 saddr fd78::1:0/112",
    "ip6 saddr fd78::2:0/112",
    "ip6 daddr fd77:2::2",
    "ip6 daddr fd77:1::1",
    "ip6 saddr @nets6",
    "ip6 daddr @nets6",
    "ip6 saddr != fd77:2::2",
    "ip6 saddr { fd77:2::1, fd77:2::2 }",
    "ip6 hoplimit < 64",
];

const TRANSPORT: [&str; 12] = [
    "meta l4proto tcp",
    "meta l4proto udp",
    "meta l4proto { tcp, udp }",
    "meta l4proto != udp",
    "tcp dport 80",
    "tcp dport { 80, 443 }",
    "tcp dport 20-100",
    "udp dport 7",
    "udp dport @ports",
    "udp sport { 7, 53 }",
    "meta l4proto { tcp, udp } th dport { 53, 80 }",
    "tcp flags syn / syn,ack",
];

const TCP: [&str; 3] = ["meta l4proto tcp", "tcp dport { 80, 81 }", "tcp dport != 443"];

const PORTS: [&str; 4] =
    ["meta l4proto tcp", "meta l4proto udp", "udp dport { 7, 9 }", "tcp dport 20-100"];

const OTHER: [&str; 19] = [
    "iifname \"toclient\"",
    "iifname \"toserver\"",
    "oifname { \"toserver\", \"lo\" }",
    "oifname \"toclient\"",
    "ct state new",
    "ct state established,related",
    "ct state { new, untracked }",
    "ct state invalid,untracked",
    "ct direction original",
    "ct status dnat",
    "ct mark 0x2",
    "ct mark & 0x10 == 0x10",
    "meta mark 0x1",
    "meta mark & 0x3 != 0",
    "meta mark 0",
    "fib daddr type local",
    "meta length < 80",
    "meta pkttype host",
    "ct mark 0",
];

/// Conditions of a rule about packets of IPv4 or IPv6; `at_least_one` if nothing else will be in it.
pub(super) fn conditions(
    v4: bool,
    need: L4,
    at_least_one: bool,
    random: &mut Random,
) -> Vec<&'static str> {
    let mut conditions = Vec::new();
    if random.chance(30) {
        conditions.push(random.pick(if v4 { &V4 } else { &V6 }));
    }
    match need {
        L4::Tcp => conditions.push(random.pick(&TCP)),
        L4::TcpOrUdp => conditions.push(random.pick(&PORTS)),
        L4::Any if random.chance(40) => conditions.push(match (v4, random.below(8)) {
            (true, 0) => "icmp type { echo-request, echo-reply }",
            (false, 0) => "icmpv6 type { echo-request, echo-reply }",
            (true, 1) => "ip daddr . udp dport @pairs",
            _ => random.pick(&TRANSPORT),
        }),
        L4::Any => {}
    }
    if random.chance(35) || (at_least_one && conditions.is_empty()) {
        conditions.push(random.pick(&OTHER));
    }
    conditions
}
