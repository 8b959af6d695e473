//! The packet plan: what is sent, and what must be seen of it. It is stated here once, row by row,
//! without a look at conntrack or at the program under test.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::{Direction, Flow, L4, Tuple};

/// The router's firewall.
pub const RULESET: &str = "
table inet fw {
    chain raw {
        type filter hook prerouting priority raw;
        udp dport 7050 ct zone set 5
        udp sport 7050 ct zone set 5
        iifname toclient udp dport 7060 ct original zone set 6
        udp dport 7070 udp length 9 ct zone set 7
        udp dport 7100 drop
        tcp dport 7100 drop
    }
    chain mangle {
        type filter hook prerouting priority mangle;
        udp dport 7010 ct mark set 0x11
        tcp dport 7010 ct mark set 0x12 meta mark set 0x33
        udp dport 7020 meta mark set 0x77
    }
    chain translate_destination {
        type nat hook prerouting priority dstnat;
        ip daddr 10.77.1.1 tcp dport 8022 dnat ip to 10.77.2.2:80
        ip6 daddr fd77:1::1 udp dport 8053 dnat ip6 to [fd77:2::2]:7
        ip daddr 10.77.1.1 udp dport 7105 dnat ip to 10.77.2.2:7106
    }
    chain input {
        type filter hook input priority filter;
        udp dport 7102 drop
    }
    chain forward {
        type filter hook forward priority filter;
        udp dport 7104 ct status seen-reply drop
        ct state established,related accept
        udp dport { 7101, 7106 } drop
        tcp dport 7101 drop
        sctp dport 7101 drop
        udp dport 7108 reject
        meta l4proto 254 drop
    }
    chain output {
        type filter hook output priority filter;
        udp dport 7103 drop
    }
    chain postrouting {
        type filter hook postrouting priority mangle;
        udp dport 7107 drop
    }
    chain translate_source {
        type nat hook postrouting priority srcnat;
        udp dport 7030 snat ip to 10.77.2.1:5555
        meta nfproto ipv4 tcp dport 7030 masquerade
        ip6 daddr fd77:2::2 tcp dport 7030 snat ip6 to [fd77:2::1]:6666
        ip saddr 10.78.0.9 icmp type echo-request masquerade
    }
}
";

/// The server swallows these, so that no answer of any kind comes.
pub const SERVER_RULESET: &str = "
table inet swallow {
    chain input { type filter hook input priority filter; tcp dport 7110 drop; }
}
";

/// Ports of the server that answer, TCP and UDP, both families.
pub const ECHO: &[u16] = &[7, 80, 7010, 7020, 7030, 7050, 7060, 7104];
/// Ports of the server that take UDP and say nothing.
pub const SINK: &[u16] = &[9, 7070];
/// Port of the server that starts to answer in the middle of the run.
pub const LATE: u16 = 7120;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const GRE: u8 = 47;

/// When the first packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the program under test starts.
    Before,
    /// While it observes.
    During,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A whole connection.
    Tcp,
    /// A connection that stays open.
    TcpOpen,
    /// A SYN that gets no answer.
    TcpSyn,
    /// A datagram and its echo.
    Udp,
    /// A datagram each time, never answered.
    UdpSend(u64),
    /// A datagram that is echoed, and one more.
    UdpTwice,
    /// A datagram without an answer before the start, one with an answer during the run.
    UdpLate,
    /// An echo request and its reply; the source port is the identifier.
    Ping,
    /// The handshake.
    Sctp,
    /// An INIT without an answer.
    SctpInit,
    /// A packet of some IP protocol.
    Ip(u8),
}

/// Dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropped {
    pub packets: u64,
    /// Netfilter hook.
    pub hook: Option<&'static str>,
    pub iif: Option<&'static str>,
    pub oif: Option<&'static str>,
    /// Neither a route nor an entry tells the hook: only links around its rules do.
    pub told_by_rules: bool,
}

/// One flow of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub when: When,
    pub traffic: Traffic,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flow: Flow,
    pub packet_mark: u32,
    /// Interfaces of the first packet.
    pub way: [Option<&'static str>; 2],
    pub dropped: Option<Dropped>,
    /// Whether it gets into the conntrack table.
    pub tracked: bool,
    /// Whether its entry is deleted during the run.
    pub deleted: bool,
}

impl Row {
    fn new(when: When, traffic: Traffic, from: SocketAddr, to: SocketAddr) -> Self {
        let (src, dst) = (from.ip(), to.ip());
        let ports = |proto| Tuple::ports(proto, from, to);
        let orig = match traffic {
            Traffic::Tcp | Traffic::TcpOpen | Traffic::TcpSyn => ports(TCP),
            Traffic::Udp | Traffic::UdpSend(_) | Traffic::UdpTwice | Traffic::UdpLate => ports(UDP),
            Traffic::Sctp | Traffic::SctpInit => ports(SCTP),
            Traffic::Ping if src.is_ipv4() => {
                Tuple { proto: 1, src, dst, l4: L4::Icmp(8, 0, from.port()) }
            }
            Traffic::Ping => Tuple { proto: 58, src, dst, l4: L4::Icmp(128, 0, from.port()) },
            // Only PPTP's GRE has keys in conntrack.
            Traffic::Ip(GRE) => Tuple { proto: GRE, src, dst, l4: L4::Keys(0, 0) },
            Traffic::Ip(proto) => Tuple { proto, src, dst, l4: L4::Nothing },
        };
        let replied = match traffic {
            Traffic::TcpSyn | Traffic::UdpSend(_) | Traffic::SctpInit | Traffic::Ip(_) => false,
            Traffic::Tcp
            | Traffic::TcpOpen
            | Traffic::Udp
            | Traffic::UdpTwice
            | Traffic::UdpLate
            | Traffic::Ping
            | Traffic::Sctp => true,
        };
        let reply = Some(orig.turned());
        let flow = Flow { orig, reply, zone: 0, zone_direction: None, mark: 0, replied };
        Self {
            when,
            traffic,
            from,
            to,
            flow,
            packet_mark: 0,
            way: [Some("toclient"), Some("toserver")],
            dropped: None,
            tracked: true,
            deleted: false,
        }
    }

    /// The destination is translated.
    fn dnat(mut self, to: SocketAddr) -> Self {
        self.flow.reply = Some(Tuple::ports(self.flow.orig.proto, to, self.from));
        self
    }

    /// The source is translated.
    fn snat(mut self, from: SocketAddr) -> Self {
        let turned = self.flow.orig.turned();
        let l4 = match turned.l4 {
            L4::Ports(sport, _) => L4::Ports(sport, from.port()),
            other => other,
        };
        self.flow.reply = Some(Tuple { dst: from.ip(), l4, ..turned });
        self
    }

    fn marks(mut self, mark: u32, packet_mark: u32) -> Self {
        (self.flow.mark, self.packet_mark) = (mark, packet_mark);
        self
    }

    fn zone(mut self, zone: u16, direction: Option<Direction>) -> Self {
        (self.flow.zone, self.flow.zone_direction) = (zone, direction);
        self
    }

    /// To or from the router itself.
    fn way(mut self, iif: Option<&'static str>, oif: Option<&'static str>) -> Self {
        self.way = [iif, oif];
        self
    }

    /// Whether conntrack never sees its packets.
    pub fn no_entry(&self) -> bool {
        self.dropped.is_some_and(|dropped| dropped.told_by_rules)
    }

    /// All its packets die on a hook.
    fn dies(mut self, packets: u64, hook: &'static str) -> Self {
        self = self.loses(packets, hook);
        self.tracked = false;
        self.flow.replied = false;
        self
    }

    /// Some of its packets die on a hook.
    fn loses(mut self, packets: u64, hook: &'static str) -> Self {
        let [iif, oif] = self.way;
        let told_by_rules = false;
        self.dropped = Some(Dropped { packets, hook: Some(hook), iif, oif, told_by_rules });
        self
    }

    /// All its packets die before conntrack sees them.
    fn dies_early(mut self, packets: u64) -> Self {
        let [iif, _] = self.way;
        let hook = Some("prerouting");
        self.dropped = Some(Dropped { packets, hook, iif, oif: None, told_by_rules: true });
        self.tracked = false;
        self.flow.replied = false;
        self.flow.reply = None;
        self
    }

    fn deleted(mut self) -> Self {
        self.deleted = true;
        self
    }
}

/// Further addresses of the client.
fn other(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

/// All flows there will be.
pub fn plan(lab: &Lab) -> Vec<Row> {
    use Traffic::{
        Ip, Ping, Sctp, SctpInit, Tcp, TcpOpen, TcpSyn, Udp, UdpLate, UdpSend, UdpTwice,
    };
    use When::{Before, During};
    let Lab { client: c, router: r, server: s } = lab;
    let row = Row::new;
    let outside = |port| SocketAddr::new(r.links[1].v4.into(), port);
    let outside6 = |port| SocketAddr::new(r.links[1].v6.into(), port);
    let (local_in, local_out) = ((Some("toclient"), None), (None, Some("toserver")));
    let mut rows = Vec::new();
    // The same to both sides of the start; ports tell the flows apart.
    for (when, base) in [(Before, 40_000), (During, 41_000)] {
        rows.extend([
            row(when, Tcp, c.at(base), s.at(80)),
            row(when, Tcp, c.at6(base), s.at6(80)),
            row(when, TcpOpen, c.at(base + 1), s.at(80)),
            row(when, TcpOpen, c.at6(base + 1), s.at6(80)),
            row(when, TcpSyn, c.at(base + 2), s.at(7110)),
            row(when, TcpSyn, c.at6(base + 2), s.at6(7110)),
            row(when, Udp, c.at(base + 3), s.at(7)),
            row(when, Udp, c.at6(base + 3), s.at6(7)),
            row(when, Udp, other("10.78.1.1", base + 3), s.at(7)),
            row(when, Udp, other("10.78.0.2", 500 + base / 1000), s.at(7)),
            row(when, UdpSend(3), c.at(base + 4), s.at(9)),
            row(when, UdpSend(1), c.at6(base + 4), s.at6(9)),
            row(when, Ping, c.at(base), s.at(0)),
            row(when, Ping, c.at6(base), s.at6(0)),
            row(when, Sctp, c.at(base + 5), s.at(3868)),
            row(when, Sctp, c.at6(base + 5), s.at6(3868)),
            row(when, SctpInit, c.at(base + 6), s.at(99)),
            // To the router, and from it.
            row(when, Udp, c.at(base + 7), r.at(7)).way(local_in.0, local_in.1),
            row(when, Udp, c.at6(base + 7), r.at6(7)).way(local_in.0, local_in.1),
            row(when, Ping, c.at(base + 8), r.at(0)).way(local_in.0, local_in.1),
            row(when, Udp, outside(base + 9), s.at(7)).way(local_out.0, local_out.1),
            row(when, Tcp, outside(base + 9), s.at(80)).way(local_out.0, local_out.1),
            row(when, Udp, outside6(base + 9), s.at6(7)).way(local_out.0, local_out.1),
            // Marks.
            row(when, Udp, c.at(base + 10), s.at(7010)).marks(0x11, 0),
            row(when, Tcp, c.at(base + 10), s.at(7010)).marks(0x12, 0x33),
            row(when, Udp, c.at6(base + 10), s.at6(7020)).marks(0, 0x77),
            // Zones: of both directions, of one, and one flow in two zones at once.
            row(when, Udp, c.at(base + 11), s.at(7050)).zone(5, None),
            row(when, Udp, c.at6(base + 11), s.at6(7050)).zone(5, None),
            row(when, Udp, c.at(base + 12), s.at(7060)).zone(6, Some(Direction::Original)),
            row(when, UdpSend(2), c.at(base + 13), s.at(7070)),
            row(when, UdpSend(1), c.at(base + 13), s.at(7070)).zone(7, None),
            // Address translation.
            row(when, Tcp, c.at(base + 14), r.at(8022)).dnat(s.at(80)),
            row(when, Udp, c.at6(base + 14), r.at6(8053)).dnat(s.at6(7)),
            row(when, Tcp, c.at(base + 15), s.at(7030)).snat(outside(base + 15)),
            row(when, Ping, other("10.78.0.9", base), s.at(0)).snat(outside(0)),
            // Gone before the end.
            row(when, Udp, c.at(base + 16), s.at(7)).deleted(),
            row(when, Udp, c.at6(base + 16), s.at6(7)).deleted(),
        ]);
    }
    rows.extend([
        // One flow there is of these for a pair of addresses or a translated port.
        row(Before, Udp, c.at(40_017), s.at(7030)).snat(outside(5555)),
        row(During, Tcp, c.at6(41_017), s.at6(7030)).snat(outside6(6666)),
        row(Before, Ip(GRE), c.at(0), s.at(0)),
        row(During, Ip(GRE), c.at6(0), s.at6(0)),
        row(During, Ip(253), c.at(0), s.at(0)),
        row(Before, Ip(253), c.at6(0), s.at6(0)),
        row(Before, UdpLate, c.at(40_018), s.at(LATE)),
        // Answered, and dropped from then on.
        row(During, UdpTwice, c.at(41_018), s.at(7104)).loses(1, "forward"),
        // Dropped.
        row(During, UdpSend(3), c.at(41_019), s.at(7100)).dies_early(3),
        row(During, UdpSend(2), c.at6(41_019), s.at6(7100)).dies_early(2),
        row(During, TcpSyn, c.at(41_019), s.at(7100)).dies_early(1),
        row(During, UdpSend(5), c.at(41_020), s.at(7101)).dies(5, "forward"),
        row(During, UdpSend(1), c.at6(41_020), s.at6(7101)).dies(1, "forward"),
        row(During, TcpSyn, c.at(41_020), s.at(7101)).dies(1, "forward"),
        row(During, SctpInit, c.at(41_020), s.at(7101)).dies(1, "forward"),
        row(During, Ip(254), c.at6(0), s.at6(0)).dies(1, "forward"),
        row(During, UdpSend(1), c.at(41_021), s.at(7108)).dies(1, "forward"),
        row(During, UdpSend(1), c.at(41_022), r.at(7105)).dnat(s.at(7106)).dies(1, "forward"),
        row(During, UdpSend(2), c.at(41_023), s.at(7107)).dies(2, "postrouting"),
        row(During, UdpSend(2), c.at(41_024), r.at(7102)).way(local_in.0, None).dies(2, "input"),
        row(During, UdpSend(2), outside(41_025), s.at(7103))
            .way(None, local_out.1)
            .dies(2, "output"),
        row(During, UdpSend(1), outside6(41_025), s.at6(7103))
            .way(None, local_out.1)
            .dies(1, "output"),
    ]);
    let distinct: BTreeSet<_> = rows.iter().map(|row| (row.flow.orig, row.flow.zone)).collect();
    assert_eq!(distinct.len(), rows.len(), "two rows of the plan are one flow");
    rows
}

/// The host that sends from an address.
pub fn sender(lab: &Lab, from: IpAddr) -> &Host {
    let router = lab.router.links.iter().flat_map(|link| [link.v4.into(), link.v6.into()]);
    if router.into_iter().any(|address: IpAddr| address == from) {
        &lab.router
    } else {
        &lab.client
    }
}
