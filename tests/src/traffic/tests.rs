//! The traffic of the lab, checked against what conntrack in the router makes of it.

use std::net::{IpAddr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use super::*;
use crate::lab::Lab;

/// A lab whose router tracks connections.
/// The line of `conntrack -L` that contains all of these words.
fn entry(lab: &Lab, words: &[&str]) -> String {
    let v4 = lab.router.run(["conntrack", "-L"]).unwrap();
    let v6 = lab.router.run(["conntrack", "-L", "-f", "ipv6"]).unwrap();
    let found =
        v4.lines().chain(v6.lines()).find(|line| words.iter().all(|word| line.contains(word)));
    found.unwrap_or_else(|| panic!("no entry {words:?} in\n{v4}{v6}")).to_owned()
}

#[test]
fn udp_both_families() {
    let lab = Lab::tracking().unwrap();
    for (from, to) in
        [(lab.client.at(40_000), lab.server.at(7)), (lab.client.at6(40_001), lab.server.at6(7))]
    {
        let server = udp_echo_server(&lab.server, to).unwrap();
        assert_eq!(server.address(), to);
        udp_exchange(&lab.client, from, to, b"hello").unwrap();
        let flow = entry(&lab, &["udp", &format!("sport={}", from.port()), "dport=7"]);
        assert!(!flow.contains("UNREPLIED"), "{flow}");
    }
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    udp_send(&lab.client, lab.client.at(40_002), lab.server.at(9), b"x", 3).unwrap();
    assert!(entry(&lab, &["udp", "sport=40002", "dport=9"]).contains("[UNREPLIED]"));
}

#[test]
fn tcp_both_families() {
    let lab = Lab::tracking().unwrap();
    for (from, to) in
        [(lab.client.at(41_000), lab.server.at(80)), (lab.client.at6(41_001), lab.server.at6(80))]
    {
        let _server = tcp_echo_server(&lab.server, to).unwrap();
        let payload = vec![b'x'; 300_000];
        tcp_exchange(&lab.client, from, to, &payload).unwrap();
        entry(&lab, &["tcp", "TIME_WAIT", &format!("sport={}", from.port()), "[ASSURED]"]);
        let open = SocketAddr::new(from.ip(), 42_000);
        let stream = tcp_connect(&lab.client, open, to, PATIENCE).unwrap();
        entry(&lab, &["tcp", "ESTABLISHED", &format!("src={} ", open.ip()), "sport=42000"]);
        drop(stream);
    }
    let closed = tcp_connect(&lab.client, lab.client.at(0), lab.server.at(81), PATIENCE);
    assert!(closed.is_err());
}

#[test]
fn icmp_both_families() {
    let lab = Lab::tracking().unwrap();
    assert_eq!(ping4(&lab.client, lab.server.v4().into(), 4711, 3).unwrap(), 3);
    assert_eq!(ping6(&lab.client, lab.server.v6().into(), 4712, 3).unwrap(), 3);
    assert!(!entry(&lab, &["icmp", "id=4711"]).contains("UNREPLIED"));
    assert!(!entry(&lab, &["icmpv6", "id=4712"]).contains("UNREPLIED"));
    let nobody: IpAddr = "10.77.2.99".parse().unwrap();
    assert_eq!(ping4(&lab.client, nobody, 1, 1).unwrap(), 0);
}

#[test]
fn sctp_both_families() {
    let lab = Lab::tracking().unwrap();
    for (from, to) in [
        (lab.client.at(43_000), lab.server.at(3868)),
        (lab.client.at6(43_001), lab.server.at6(3868)),
    ] {
        let _server = sctp_server(&lab.server, to).unwrap();
        sctp_exchange(&lab.client, from, to).unwrap();
        let words = ["sctp", "ESTABLISHED", &format!("sport={}", from.port()), "[ASSURED]"];
        entry(&lab, &words);
    }
    let _sink = ip_sink(&lab.server, 132, lab.server.v4().into()).unwrap();
    sctp_init(&lab.client, lab.client.at(43_002), lab.server.at(99)).unwrap();
    assert!(entry(&lab, &["sctp", "sport=43002"]).contains("[UNREPLIED]"));
}

#[test]
fn other_protocols() {
    let lab = Lab::tracking().unwrap();
    let server = lab.server.v4().into();
    let _sinks = [47, 253].map(|protocol| ip_sink(&lab.server, protocol, server).unwrap());
    gre_packet(&lab.client, server, Some(7)).unwrap();
    raw_ip(&lab.client, 253, server, b"experiment").unwrap();
    entry(&lab, &["src=10.77.1.2 dst=10.77.2.2", " 47 ", "[UNREPLIED]"]);
    entry(&lab, &["src=10.77.1.2 dst=10.77.2.2", " 253 ", "[UNREPLIED]"]);
}

#[test]
fn a_storm_loses_no_packet_between_the_hosts() {
    const FLOWS: usize = 100_000;
    let lab = Lab::tracking().unwrap();
    let to = SocketAddrV4::new(lab.server.v4(), 9);
    let _sink = udp_sink(&lab.server, to.into()).unwrap();
    let threads = thread::available_parallelism().unwrap().get();
    assert_eq!(udp_storm(&lab.client, to, FLOWS, threads).unwrap(), FLOWS);
    let count = || lab.router.run(["conntrack", "-C"]).unwrap().trim().parse::<usize>().unwrap();
    for _ in 0..100 {
        if count() == FLOWS {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count(), FLOWS);
}

#[test]
fn a_stream_is_one_flow_of_many_packets() {
    let lab = Lab::tracking().unwrap();
    let drain = udp_drain(&lab.server, lab.server.at(9), 0).unwrap();
    let before = lab.router.packets("toserver").unwrap().1;
    let duration = Duration::from_millis(200);
    let stream =
        udp_stream(&lab.client, lab.client.at(4000), drain.address(), duration, 0).unwrap();
    let forwarded = lab.router.packets("toserver").unwrap().1 - before;
    assert!(stream.elapsed >= duration);
    assert!(stream.sent > 1000, "{stream:?}");
    // The router's own few multicast listener reports count too.
    assert!((stream.sent..stream.sent + 50).contains(&forwarded), "{stream:?}, {forwarded}");
    assert_eq!(lab.router.run(["conntrack", "-C"]).unwrap().trim(), "1");
}
