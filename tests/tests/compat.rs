//! `--compat v0.1` prints byte for byte what version 0.1 would have printed of live flows whose
//! addresses and ports tell its orders from any other.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::net::SocketAddr;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::{Tracer, backend, skipped_without_counters};
use conntracker_tests::traffic::{
    ping, sctp_exchange, sctp_server, tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange,
    udp_send, udp_sink,
};

/// Written by hand from the format's description: IPv4 addresses compare their last octet first,
/// IPv6 addresses as text, ports by their low byte first, the destination's before the source's.
/// ICMP prints type and code 0. SCTP and what was only dropped are not there.
const EXPECTED: &str =
    " TCPv4 [           0] src = 10.78.1.1 (port=1024) to dst = 10.79.3.1 (port=80) (confirmed)
 TCPv4 [           1] src = 10.78.1.1 (port=1024) to dst = 10.79.1.3 (port=80) (confirmed)
 TCPv4 [           2] src = 10.78.9.1 (port=1024) to dst = 10.77.2.2 (port=80) (confirmed)
 TCPv4 [           3] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=80) (confirmed)
 TCPv4 [           4] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=443) (confirmed)
 UDPv4 [           0] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=256) (confirmed)
 UDPv4 [           1] src = 10.78.0.2 (port=256) to dst = 10.77.2.2 (port=1024)
 UDPv4 [           2] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=1024)
 UDPv4 [           3] src = 10.78.0.2 (port=53) to dst = 10.77.2.2 (port=1024) (confirmed)
 UDPv4 [           4] src = 10.78.0.2 (port=1000) to dst = 10.77.2.2 (port=1024)
 UDPv4 [           5] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=80)
 UDPv4 [           6] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=443)
 UDPv4 [           7] src = 10.78.0.2 (port=1024) to dst = 10.77.2.2 (port=65535)
ICMPv4 [           0] src = 10.78.1.1 to dst = 10.77.2.2 (type=0 | code=0) (confirmed)
ICMPv4 [           1] src = 10.78.0.2 to dst = 10.77.2.2 (type=0 | code=0) (confirmed)
 TCPv6 [           0] src = fd77:1::2 (port=1024) to dst = fd77:2::2 (port=256) (confirmed)
 TCPv6 [           1] src = fd77:1::2 (port=1024) to dst = fd77:2::2 (port=80) (confirmed)
 UDPv6 [           0] src = fd77:1::2 (port=1024) to dst = fd77:2::2 (port=80) (confirmed)
 UDPv6 [           1] src = fd78::10 (port=1024) to dst = fd77:2::2 (port=80) (confirmed)
 UDPv6 [           2] src = fd78::9 (port=1024) to dst = fd77:2::2 (port=80) (confirmed)
 UDPv6 [           3] src = fd78::a (port=1024) to dst = fd77:2::2 (port=80) (confirmed)
ICMPv6 [           0] src = fd78::10 to dst = fd77:2::2 (type=0 | code=0) (confirmed)
ICMPv6 [           1] src = fd78::9 to dst = fd77:2::2 (type=0 | code=0) (confirmed)
";

const RULESET: &str = "
    table inet fw {
        chain forward {
            type filter hook forward priority filter;
            ct state established accept
            udp dport 7100 drop
        }
    }
";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

#[test]
fn live_flows_print_as_version_0_1_printed_them() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    r.nft(RULESET).unwrap();
    // Destinations whose order differs too, and sources that can be bound to.
    for address in ["10.79.3.1/32", "10.79.1.3/32"] {
        s.run(["ip", "addr", "add", address, "dev", "lo"]).unwrap();
    }
    r.run(["ip", "route", "add", "10.79.0.0/16", "via", "10.77.2.2"]).unwrap();
    for address in ["fd78::9/128", "fd78::10/128", "fd78::a/128"] {
        c.run(["ip", "addr", "add", address, "dev", "lo", "nodad"]).unwrap();
    }
    let tcp = ["0.0.0.0:80", "0.0.0.0:443", "[fd77:2::2]:80", "[fd77:2::2]:256"];
    let _tcp = tcp.map(|address| tcp_echo_server(s, at(address)).unwrap());
    let udp = ["10.77.2.2:256", "[fd77:2::2]:80"];
    let _udp = udp.map(|address| udp_echo_server(s, at(address)).unwrap());
    let sinks = ["10.77.2.2:80", "10.77.2.2:443", "10.77.2.2:65535", "10.77.2.2:7100"];
    let _sinks = sinks.map(|address| udp_sink(s, at(address)).unwrap());
    let _sctp = sctp_server(s, s.at(3868)).unwrap();

    let backends = [backend(), "netlink"];
    let tracers = backends.map(|backend| {
        // How much of a ruleset without counters is told depends on the backend.
        let args = ["--backend", backend, "--compat", "v0.1", "-c"];
        (backend, Tracer::start(r, &args).unwrap())
    });
    for (from, to) in [
        ("10.78.0.2:40000", "10.77.2.2:80"),
        ("10.77.1.2:40000", "10.77.2.2:443"),
        ("10.77.1.2:40001", "10.77.2.2:443"),
        ("10.78.9.1:1024", "10.77.2.2:80"),
        ("10.78.1.1:40000", "10.79.1.3:80"),
        ("10.78.1.1:40001", "10.79.3.1:80"),
        ("[fd77:1::2]:40000", "[fd77:2::2]:80"),
        ("[fd77:1::2]:40001", "[fd77:2::2]:256"),
    ] {
        tcp_exchange(c, at(from), at(to), b"hello").unwrap();
    }
    {
        let _server = udp_echo_server(s, s.at(1024)).unwrap();
        udp_exchange(c, at("10.78.0.2:53"), s.at(1024), b"hello").unwrap();
    }
    let _sink = udp_sink(s, s.at(1024)).unwrap();
    for (from, port) in [
        ("10.78.0.2:256", 1024),
        ("10.78.0.2:1000", 1024),
        ("10.78.0.2:50000", 1024),
        ("10.78.0.2:50001", 80),
        ("10.78.0.2:50002", 443),
        ("10.78.0.2:50003", 65535),
        ("10.78.0.3:50003", 7100),
    ] {
        udp_send(c, at(from), s.at(port), b"hello", 1).unwrap();
    }
    udp_exchange(c, at("10.78.0.2:50004"), s.at(256), b"hello").unwrap();
    for from in ["[fd78::9]:40000", "[fd78::10]:40000", "[fd78::a]:40000", "[fd77:1::2]:40000"] {
        udp_exchange(c, at(from), s.at6(80), b"hello").unwrap();
    }
    for (from, id) in [("10.78.0.2", 1), ("10.78.1.1", 2), ("10.78.1.1", 3)] {
        assert_eq!(ping(c, from.parse().unwrap(), s.v4().into(), id, 1).unwrap(), 1);
    }
    for from in ["fd78::9", "fd78::10"] {
        assert_eq!(ping(c, from.parse().unwrap(), s.v6().into(), 4, 1).unwrap(), 1);
    }
    sctp_exchange(c, c.at(40_000), s.at(3868)).unwrap();

    for (backend, tracer) in tracers {
        let report = tracer.finish().unwrap();
        for (got, want) in report.lines().zip(EXPECTED.lines()) {
            assert_eq!(got, want, "{backend}");
        }
        assert_eq!(report, EXPECTED, "{backend}");
    }
}

/// Tables in the order raw, mangle, nat, filter; then chain, kind and position; four TABs before each.
const TRACED: &str =
    " UDPv4 [           0] src = 10.77.1.2 (port=1024) to dst = 10.77.2.2 (port=7) (confirmed)
\t\t\t\ttable: raw, chain: PREROUTING, type: policy, position: 2
\t\t\t\ttable: raw, chain: PREROUTING, type: rule, position: 1
\t\t\t\ttable: mangle, chain: FORWARD, type: policy, position: 2
\t\t\t\ttable: mangle, chain: FORWARD, type: rule, position: 1
\t\t\t\ttable: mangle, chain: POSTROUTING, type: policy, position: 1
\t\t\t\ttable: nat, chain: POSTROUTING, type: rule, position: 1
\t\t\t\ttable: filter, chain: FORWARD, type: rule, position: 1
\t\t\t\ttable: filter, chain: FORWARD, type: rule, position: 2
\t\t\t\ttable: filter, chain: more, type: rule, position: 1
";

const TRACED_RULES: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 7
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 7
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -p udp -m udp --dport 7 -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:more - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p udp -j more
-A more -p udp -m udp --dport 7 -j ACCEPT
COMMIT
";

/// Rules that packets met print as version 0.1 printed them.
fn prints_rules(restore: &str) {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    r.run_with_input([restore], TRACED_RULES).unwrap();
    let _server = udp_echo_server(s, s.at(7)).unwrap();
    let tracer = Tracer::start(r, &["--backend", backend(), "--compat", "v0.1"]).unwrap();
    udp_exchange(c, c.at(40_000), s.at(7), b"hello").unwrap();
    // Its only packet was dropped: version 0.1 never heard of the flow.
    udp_send(c, c.at(40_000), s.at(9), b"hello", 1).unwrap();
    assert_eq!(tracer.finish().unwrap(), TRACED, "{restore}");
}

#[test]
fn rules_that_packets_met_print_as_version_0_1_printed_them() {
    prints_rules("iptables-nft-restore");
}

#[test]
fn rules_of_iptables_legacy_print_as_version_0_1_printed_them() {
    if !skipped_without_counters() {
        prints_rules("iptables-legacy-restore");
    }
}
