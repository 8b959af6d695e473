use super::*;
use crate::{
    model::{
        hook::Hook,
        path::{Provenance, Verdict},
        table::Family,
    },
    report::fixtures::*,
};

fn print(flows: Vec<Flow>) -> String {
    let mut out = Vec::new();
    render(&report(flows), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The flows of `golden/flows.txt`, which was written by hand from the specification.
fn flows() -> Vec<Flow> {
    let tcp = |src, sport, dst, dport| ports(6, src, sport, dst, dport);
    let (ll, peer) = ("fe80::472:eeff:fef8:dbb6", "fe80::216:3eff:fe7f:aedd");
    let mut flows = vec![
        tcp("10.0.0.2", 1024, "192.0.2.200", 80),
        tcp("10.0.0.2", 1024, "192.0.3.100", 80),
        tcp("1.0.0.10", 1024, "10.0.0.1", 80),
        tcp("10.9.0.7", 1024, "10.0.0.1", 80),
        tcp("9.10.0.7", 1024, "10.0.0.1", 80),
        // Never folded by us, always by version 0.1.
        tcp("9.0.0.3", 40000, "10.0.0.1", 80),
        confirmed(tcp("9.0.0.3", 50000, "10.0.0.1", 80)),
        ports(17, "0.0.0.0", 68, "255.255.255.255", 67),
        confirmed(ports(17, "127.0.0.1", 40000, "127.0.0.1", 53)),
        icmp(1, "10.0.0.2", "10.0.0.1", 8, 0, 1),
        confirmed(icmp(1, "10.0.0.2", "10.0.0.1", 13, 0, 2)),
        icmp(1, "9.0.0.3", "10.0.0.1", 3, 1, 0),
        tcp("fe80::10", 1024, "fe80::a", 22),
        tcp("fe80::10", 1024, "fe80::10", 22),
        tcp("fe80::10", 1024, "ff02::1", 22),
        ports(17, ll, 5353, peer, 8080),
        ports(17, ll, 5353, peer, 256),
        confirmed(icmp(58, ll, peer, 128, 0, 3)),
        // Unknown to version 0.1: other protocols, and flows without an entry.
        ports(132, "10.0.0.2", 1024, "10.0.0.1", 80),
        flow(47, "10.0.0.2", "10.0.0.1", L4::Gre { src: 1, dst: 2 }),
        icmp(1, "fe80::1", "fe80::2", 8, 0, 1),
        only_dropped(tcp("10.0.0.3", 1024, "10.0.0.1", 80)),
    ];
    let mut dropped_later = confirmed(tcp("2.0.0.9", 1024, "10.0.0.1", 80));
    dropped_later.drops = drops(&[(1, 2, 0)]);
    flows.push(dropped_later);
    for dport in [1, 22, 256, 1024, 8080, 65535] {
        flows.push(tcp("9.0.0.3", 1024, "10.0.0.1", dport));
    }
    for (sport, dport) in [(53, 80), (123, 80), (256, 80), (256, 443)] {
        flows.push(tcp("9.0.0.3", sport, "10.0.0.1", dport));
    }
    for src in [
        "::1",
        "::1.2.3.4",
        "::ffff:1.2.3.4",
        "64:ff9b::1.2.3.4",
        "2001:db8::1",
        "2001:db8:0:1::",
        "fe80::a",
        "ff02::1",
    ] {
        flows.push(tcp(src, 1024, "2001:db8::f", 22));
    }
    flows
}

#[test]
fn prints_the_bytes_of_version_0_1() {
    assert_eq!(print(flows()), include_str!("golden/flows.txt"));
}

#[test]
fn does_not_depend_on_the_order_of_the_report() {
    let mut report = report(flows());
    report.flows.reverse();
    let mut out = Vec::new();
    render(&report, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), include_str!("golden/flows.txt"));
}

#[test]
fn trace_lines_stand_below_their_flow() {
    use SiteKind::{Chain, Policy, Return, Rule};
    let all = [
        nft(Family::Inet, "fw4", "forward", Rule, 12),
        legacy("security", "FORWARD", Rule, 2),
        legacy("filter", "FORWARD", Policy, 9),
        legacy("filter", "FORWARD", Rule, 10),
        legacy("filter", "FORWARD", Rule, 2),
        legacy("nat", "user", Return, 1),
        legacy("nat", "PREROUTING", Chain, 0),
        legacy("mangle", "POSTROUTING", Rule, 1),
        legacy("mangle", "FORWARD", Rule, 1),
        legacy("raw", "PREROUTING", Rule, 1),
    ];
    let steps = |sites: &[Site]| -> Vec<_> {
        let met = |site: &Site| step(site.clone(), Verdict::Continue, Provenance::Exact);
        sites.iter().map(met).collect()
    };
    // Two flows that fold into one, with some steps in common.
    let flow = |port, sites: &[Site]| {
        let mut flow = ports(6, "10.0.0.2", port, "192.0.2.200", 80);
        flow.paths = ways(vec![(traversal(Hook::Forward, steps(sites)), 1)]);
        flow
    };
    assert_eq!(
        print(vec![flow(5000, &all[..7]), flow(5001, &all[3..])]),
        " TCPv4 [           0] src = 10.0.0.2 (port=1024) to dst = 192.0.2.200 (port=80)\n\
         \t\t\t\ttable: raw, chain: PREROUTING, type: rule, position: 1\n\
         \t\t\t\ttable: mangle, chain: FORWARD, type: rule, position: 1\n\
         \t\t\t\ttable: mangle, chain: POSTROUTING, type: rule, position: 1\n\
         \t\t\t\ttable: nat, chain: user, type: return, position: 1\n\
         \t\t\t\ttable: filter, chain: FORWARD, type: policy, position: 9\n\
         \t\t\t\ttable: filter, chain: FORWARD, type: rule, position: 2\n\
         \t\t\t\ttable: filter, chain: FORWARD, type: rule, position: 10\n\
         \t\t\t\ttable: security, chain: FORWARD, type: rule, position: 2\n\
         \t\t\t\ttable: fw4, chain: forward, type: rule, position: 12\n"
    );
}

#[test]
fn prints_nothing_without_flows() {
    assert_eq!(print(Vec::new()), "");
}

#[test]
fn ipv6_is_written_as_glibc_does() {
    // What inet_ntop(3) of glibc 2.36 answers.
    for (address, text) in [
        ("::", "::"),
        ("::1", "::1"),
        ("::0.0.1.2", "::102"),
        ("::0.1.0.0", "::0.1.0.0"),
        ("::1:2", "::0.1.0.2"),
        ("::1.2.3.4", "::1.2.3.4"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("::ffff:0.0.0.0", "::ffff:0.0.0.0"),
        ("::ffff:0:1.2.3.4", "::ffff:0:102:304"),
        ("0:0:0:0:0:1::", "::1:0:0"),
        ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
        ("1:0:0:2::3", "1:0:0:2::3"),
        ("2001:db8::1:0:0:1", "2001:db8::1:0:0:1"),
        ("1:2:3:4:5:6:0:8", "1:2:3:4:5:6:0:8"),
    ] {
        assert_eq!(inet_ntop(address.parse().unwrap()), text, "{address}");
    }
}
