//! Entries of every sort, made by the library: conntrack(8) cannot make all of them.

use std::net::IpAddr;

use conntracker::Conntrack;
use conntracker::conntrack::{
    Change, EntryZone, LabelChange, MarkChange, NatRange, NewEntry, ProtoChange,
};
use conntracker::model::{L4, Mark, Status, Tuple, Zone};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::traffic;

/// Entries have room for labels where a rule sets them.
const LABELS: &str =
    "table ip labels {\n chain c {\n type filter hook input priority 0;\n ct label set 1\n }\n}";

/// Connects in a host's namespace.
pub fn connect(host: &Host) -> Conntrack {
    host.enter(|| Ok(Conntrack::connect()?)).unwrap()
}

/// A direction with ports.
pub fn ports(proto: u8, src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let [src, dst] = [src, dst].map(|address| address.parse::<IpAddr>().unwrap());
    Tuple { src, dst, proto, l4: L4::Ports { src: sport, dst: dport } }
}

fn other(proto: u8, src: &str, dst: &str, l4: L4) -> Tuple {
    let [src, dst] = [src, dst].map(|address| address.parse::<IpAddr>().unwrap());
    Tuple { src, dst, proto, l4 }
}

/// An entry that does not end while a test looks, nor loses a digit of its seconds.
pub fn lasting(orig: Tuple) -> NewEntry {
    NewEntry::new(orig, 90_000).unwrap()
}

fn with(orig: Tuple, with: Change) -> NewEntry {
    lasting(orig).with(with)
}

fn tcp(state: u8) -> Change {
    let state = ProtoChange::Tcp { state: Some(state), wscale: None, flags: [None; 2] };
    Change::default().state(state)
}

fn to(address: &str, port: Option<u16>) -> NatRange {
    let address = address.parse().unwrap();
    NatRange { addresses: Some((address, address)), ports: port.map(|port| (port, port)) }
}

const ASSURED: Status = Status::SEEN_REPLY.union(Status::ASSURED);

/// One of everything. Addresses, ports and marks are those that the command lines of the tests name.
pub fn everything() -> Vec<NewEntry> {
    let (a, b) = ("192.0.2.1", "198.51.100.2");
    let (v6a, v6b) = ("2001:db8::1", "2001:db8::2");
    let mark = |value| Change::default().mark(MarkChange::to(Mark(value)));
    let label = |labels| Change::default().labels(LabelChange::to(labels));
    let status = |status| Change::default().status(status);
    let mut entries: Vec<NewEntry> =
        (0..10).map(|state| with(ports(6, a, 2000 + state, b, 8000), tcp(state as u8))).collect();
    entries.extend([
        with(ports(6, a, 1, b, 443), tcp(3).status(ASSURED).mark(MarkChange::to(Mark(0x11)))),
        with(ports(6, a, 2, b, 443), tcp(1).mark(MarkChange::to(Mark(0x21)))),
        with(ports(6, "192.0.2.2", 3, b, 443), tcp(2)).nat_src(to("203.0.113.9", Some(7777))),
        with(ports(6, "192.0.2.3", 4, b, 443), tcp(7)).nat_dst(to("203.0.113.9", Some(7777))),
        with(ports(6, a, 5, "198.51.100.3", 80), tcp(8)).zone(EntryZone::Both(Zone(5))),
        lasting(ports(17, a, 6, b, 53)).zone(EntryZone::Orig(Zone(6))),
        lasting(ports(17, a, 7, b, 53)).zone(EntryZone::Reply(Zone(7))),
        with(ports(17, "10.0.0.1", 8, "10.0.0.2", 53), status(Status::SEEN_REPLY)),
        with(ports(17, v6a, 9, v6b, 53), mark(7)),
        with(ports(6, v6a, 10, "2001:db8::3", 443), tcp(3)).nat_src(to("2001:db8::9", None)),
        with(ports(6, v6a, 11, "2001:db8::4", 443), tcp(3)).nat_dst(to("2001:db8::9", None)),
        with(
            ports(17, "10.0.0.1", 12, "10.0.0.2", 53),
            label(1 << 127 | 2).status(Status::FIXED_TIMEOUT),
        ),
        with(ports(17, "10.0.0.1", 13, "10.0.0.3", 54), label(2)),
        with(ports(6, "10.0.0.1", 14, "10.0.0.3", 54), tcp(9)),
        lasting(other(1, a, b, L4::Icmp { kind: 8, code: 0, id: 77 })),
        lasting(other(58, v6a, v6b, L4::Icmp { kind: 128, code: 0, id: 78 })),
        lasting(other(47, a, b, L4::Gre { src: 16, dst: 17 })),
        with(
            ports(132, a, 15, b, 6),
            Change::default().state(ProtoChange::Sctp { state: 4, vtag: [1_234_567, u32::MAX] }),
        ),
        with(
            ports(33, a, 15, b, 6),
            Change::default().state(ProtoChange::Dccp { state: 4, role: 0, handshake_seq: None }),
        ),
        lasting(ports(17, "10.0.0.1", 16, "10.0.0.9", 53)).nat_src(to("10.0.0.1", Some(4444))),
        lasting(ports(17, "10.0.0.1", 17, "10.0.0.9", 53)).nat_dst(to("10.0.0.9", Some(4444))),
        lasting(ports(17, "10.0.0.1", 18, "10.0.0.9", 53))
            .nat_src(to("1.1.1.1", None))
            .nat_dst(to("2.2.2.2", None)),
        lasting(ports(136, a, 19, b, 53)),
        lasting(other(50, "10.0.0.1", "10.0.0.9", L4::None)),
        lasting(other(253, v6a, v6b, L4::None)),
        // Addresses that are written in a way of their own.
        lasting(ports(17, "::ffff:192.0.2.1", 20, "::192.0.2.1", 53)),
        lasting(ports(17, "2001:db8:0:0:1::", 21, "1:0:0:2:0:0:0:3", 53)),
    ]);
    entries
}

/// Empties the table and makes one of everything.
pub fn fill(host: &Host, conntrack: &mut Conntrack) {
    conntrack.flush(None, None).unwrap();
    for entry in everything() {
        let made = conntrack.create(&entry);
        assert!(made.is_ok(), "{}: {entry:?}: {made:?}", host.name);
    }
}

/// What entries need of a namespace: room for labels, accounting and timestamps.
pub fn prepare(host: &Host) {
    host.nft(LABELS).unwrap();
    for key in ["nf_conntrack_acct", "nf_conntrack_timestamp"] {
        host.sysctl(&format!("net.netfilter.{key}"), "1").unwrap();
    }
}

/// Real traffic through the router: UDP, TCP by IPv6, ICMP and SCTP. The servers end when what is returned
/// is dropped.
#[must_use]
pub fn exchange(lab: &Lab) -> impl Sized {
    let (client, server) = (&lab.client, &lab.server);
    let udp = traffic::udp_echo_server(server, server.at(7)).unwrap();
    traffic::udp_exchange(client, client.at(40_001), server.at(7), b"hello").unwrap();
    let tcp = traffic::tcp_echo_server(server, server.at6(7)).unwrap();
    traffic::tcp_exchange(client, client.at6(40_002), server.at6(7), b"hello").unwrap();
    assert_eq!(traffic::ping4(client, server.v4().into(), 99, 2).unwrap(), 2);
    let sctp = traffic::sctp_server(server, server.at(9)).unwrap();
    traffic::sctp_exchange(client, client.at(40_003), server.at(9)).unwrap();
    (udp, tcp, sctp)
}
