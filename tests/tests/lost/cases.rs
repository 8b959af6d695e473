//! What makes the router lose packets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::traffic::{raw_ip, udp_send};
use socket2::SockRef;

use crate::counters::Counter;

/// One kind of loss.
pub struct Case {
    pub name: &'static str,
    /// Where the packets go; tells the case.
    pub port: u16,
    to: IpAddr,
    /// How many are sent.
    pub packets: u64,
    sender: Sender,
    /// What the kernel counts of it.
    pub counter: Option<Counter>,
    /// Its reason: of new kernels, of older ones, or the function.
    pub reasons: &'static [&'static str],
    /// The last hook that they have passed.
    pub after: &'static str,
}

/// How packets are sent.
#[derive(Clone, Copy)]
enum Sender {
    /// By the client.
    Plain,
    /// From an address that is not by that way.
    From(IpAddr),
    /// With this TTL or hop limit.
    Ttl(u32),
    /// Too long for the way out, not to be fragmented.
    Long,
    /// With a checksum that is wrong.
    BadChecksum,
    /// By the router itself.
    Router,
}

#[expect(clippy::unnecessary_wraps, reason = "cases may have none")]
const fn snmp(name: &'static str, section: &'static str) -> Option<Counter> {
    Some(Counter { name, file: "snmp", section })
}

#[expect(clippy::unnecessary_wraps, reason = "cases may have none")]
const fn netstat(name: &'static str, section: &'static str) -> Option<Counter> {
    Some(Counter { name, file: "netstat", section })
}

#[expect(clippy::unnecessary_wraps, reason = "cases may have none")]
const fn snmp6(name: &'static str) -> Option<Counter> {
    Some(Counter { name, file: "snmp6", section: "" })
}

/// A client that the router has no route to.
const STRANGER: &str = "10.99.0.1";

/// Something that conntrack is for; a queue that nobody reads; routes that lead nowhere; a small MTU; neighbours
/// that are given up soon.
pub fn prepare(lab: &Lab) {
    let router = &lab.router;
    router
        .nft(
            "table inet lost {
                chain forward { type filter hook forward priority filter; ct state invalid counter; }
            }",
        )
        .unwrap();
    // Not by nft: some kernels have only this way to queue packets.
    let queue = "iptables-legacy -A FORWARD -p udp --dport 1006 -j NFQUEUE --queue-num 7";
    router.run(queue.split(' ')).unwrap();
    for args in [
        "-4 route add blackhole 203.0.113.0/25",
        "-4 route add prohibit 203.0.113.128/25",
        "-4 route add 198.51.100.0/24 dev toserver",
        "-6 route add 2001:db8:1::/64 dev toserver",
        "link set toserver mtu 1300",
    ] {
        let args: Vec<&str> = ["ip"].into_iter().chain(args.split(' ')).collect();
        router.run(args).unwrap();
    }
    for family in ["ipv4", "ipv6"] {
        router.sysctl(&format!("net.{family}.neigh.toserver.retrans_time_ms"), "100").unwrap();
    }
    router.sysctl("net.ipv4.conf.toclient.rp_filter", "1").unwrap();
    // An address that the router has no route to by this way.
    lab.client.run(["ip", "addr", "add", STRANGER, "dev", "lo"]).unwrap();
    // Who learns the MTU of the way sends nothing that is too long.
    lab.client
        .nft(
            "table inet deaf { chain in { type filter hook prerouting priority raw;
                icmp type destination-unreachable drop;
                icmpv6 type { packet-too-big, destination-unreachable } drop; }; }",
        )
        .unwrap();
}

pub fn cases(lab: &Lab) -> Vec<Case> {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let router = |v4: bool| if v4 { lab.router.at(0).ip() } else { lab.router.at6(0).ip() };
    let server = |v4: bool| if v4 { lab.server.at(0).ip() } else { lab.server.at6(0).ip() };
    let forwarded = "prerouting";
    let case = |name, port, to, sender, counter, reasons, after| Case {
        name,
        port,
        to,
        packets: 3,
        sender,
        counter,
        reasons,
        after,
    };
    vec![
        case(
            "no route",
            1001,
            ip("192.0.2.1"),
            Sender::Plain,
            netstat("InNoRoutes", "IpExt:"),
            &["IP_INNOROUTES", "ip_error"],
            forwarded,
        ),
        case(
            "reverse path",
            1002,
            server(true),
            Sender::From(ip(STRANGER)),
            netstat("IPReversePathFilter", "TcpExt:"),
            &["IP_RPFILTER", "ip_rcv_finish_core"],
            forwarded,
        ),
        case(
            "TTL",
            1003,
            server(true),
            Sender::Ttl(1),
            snmp("InHdrErrors", "Ip:"),
            &["IP_INHDR", "ip_forward"],
            forwarded,
        ),
        case(
            "MTU",
            1004,
            server(true),
            Sender::Long,
            snmp("FragFails", "Ip:"),
            &["PKT_TOO_BIG", "ip_forward"],
            forwarded,
        ),
        case(
            "blackhole",
            1005,
            ip("203.0.113.1"),
            Sender::Plain,
            None,
            &["ip_error", "dst_discard", "IP_INNOROUTES"],
            forwarded,
        ),
        case(
            "queue without a reader",
            1006,
            server(true),
            Sender::Plain,
            None,
            &["nf_queue", "__nf_queue"],
            "forward",
        ),
        case(
            "no socket",
            1007,
            router(true),
            Sender::Plain,
            snmp("NoPorts", "Udp:"),
            &["NO_SOCKET", "__udp4_lib_rcv"],
            "input",
        ),
        case(
            "checksum",
            1008,
            router(true),
            Sender::BadChecksum,
            snmp("InCsumErrors", "Udp:"),
            &["UDP_CSUM", "__udp4_lib_rcv", "udp_queue_rcv_one_skb"],
            "input",
        ),
        case(
            "no neighbour",
            1010,
            ip("198.51.100.9"),
            Sender::Plain,
            None,
            &["NEIGH_FAILED", "arp_error_report"],
            "postrouting",
        ),
        case(
            "prohibited",
            1011,
            ip("203.0.113.200"),
            Sender::Plain,
            None,
            &["IP_INNOROUTES", "ip_error"],
            forwarded,
        ),
        case(
            "no neighbour, own",
            1012,
            ip("198.51.100.9"),
            Sender::Router,
            None,
            &["NEIGH_FAILED", "arp_error_report"],
            "postrouting",
        ),
        case(
            "no route, IPv6",
            1021,
            ip("2001:db8:9::1"),
            Sender::Plain,
            snmp6("Ip6InNoRoutes"),
            &["IP6_INNOROUTES", "IP_INNOROUTES", "ip6_pkt_drop"],
            forwarded,
        ),
        case(
            "hop limit",
            1023,
            server(false),
            Sender::Ttl(1),
            snmp6("Ip6InHdrErrors"),
            &["IP_INHDR", "ip6_forward"],
            forwarded,
        ),
        case(
            "MTU, IPv6",
            1024,
            server(false),
            Sender::Long,
            snmp6("Ip6InTooBigErrors"),
            &["PKT_TOO_BIG", "ip6_forward"],
            forwarded,
        ),
        case(
            "no socket, IPv6",
            1027,
            router(false),
            Sender::Plain,
            snmp6("Udp6NoPorts"),
            &["NO_SOCKET", "__udp6_lib_rcv"],
            "input",
        ),
        case(
            "no neighbour, IPv6",
            1030,
            ip("2001:db8:1::9"),
            Sender::Plain,
            None,
            &["NEIGH_FAILED", "ndisc_error_report", "neigh_invalidate"],
            "postrouting",
        ),
    ]
}

impl Case {
    /// Sends the packets; returns by how much the kernel's counter has grown.
    pub fn run(&self, lab: &Lab) -> Option<u64> {
        let before = self.counter.map(|counter| counter.of(&lab.router));
        let to = SocketAddr::new(self.to, self.port);
        let any = |host: &Host| if to.is_ipv4() { host.at(0) } else { host.at6(0) };
        let count = self.packets as usize;
        match self.sender {
            Sender::Plain => udp_send(&lab.client, any(&lab.client), to, b"x", count).unwrap(),
            Sender::Router => {
                let from: SocketAddr = "0.0.0.0:0".parse().unwrap();
                udp_send(&lab.router, from, to, b"x", count).unwrap();
            }
            Sender::From(source) => {
                udp_send(&lab.client, SocketAddr::new(source, 0), to, b"x", count).unwrap();
            }
            Sender::Ttl(ttl) => {
                let socket = lab.client.enter(|| Ok(UdpSocket::bind(any(&lab.client))?)).unwrap();
                if to.is_ipv4() {
                    socket.set_ttl(ttl).unwrap();
                } else {
                    SockRef::from(&socket).set_unicast_hops_v6(ttl).unwrap();
                }
                for _ in 0..count {
                    socket.send_to(b"x", to).unwrap();
                }
            }
            Sender::Long => {
                udp_send(&lab.client, any(&lab.client), to, &[0; 1400], count).unwrap();
            }
            Sender::BadChecksum => {
                for _ in 0..count {
                    raw_ip(&lab.client, 17, self.to, &bad_datagram(self.port)).unwrap();
                }
            }
        }
        let counter = self.counter?;
        Some(counter.of(&lab.router) - before?)
    }
}

/// A UDP datagram to a port, with a checksum that is none.
fn bad_datagram(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x9c, 0x40, high, low, 0, 9, 0xba, 0xd1, b'x']
}
