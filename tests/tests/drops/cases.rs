//! Which packets are dropped where, and the rules that drop them.

use std::fmt::Write;
use std::net::SocketAddr;

use conntracker_tests::lab::{Host, Lab};

/// Where packets of a case are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before conntrack, on the way there.
    Raw,
    /// Before conntrack, on the way back.
    RawReply,
    /// Not tracked, in FORWARD.
    Untracked,
    Prerouting,
    Input,
    Forward,
    Postrouting,
    Output,
    /// Before conntrack, from the router itself.
    RawOutput,
}

pub const PLACES: [At; 9] = [
    At::Raw,
    At::RawReply,
    At::Untracked,
    At::Prerouting,
    At::Input,
    At::Forward,
    At::Postrouting,
    At::Output,
    At::RawOutput,
];

impl At {
    /// The chain that drops.
    pub fn chain(self) -> &'static str {
        match self {
            Self::Raw | Self::RawReply => "raw",
            Self::Untracked | Self::Forward => "forward",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Postrouting => "postrouting",
            Self::Output => "output",
            Self::RawOutput => "rawoutput",
        }
    }
}

/// Translation of the packets that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    None,
    Source,
    Destination,
    /// Two clients that use the same ports.
    Masquerade,
}

/// Protocol of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    Tcp,
    /// Echo requests, and their replies.
    Echo,
}

/// Packets to one port, or with one identifier.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub v4: bool,
    pub protocol: Protocol,
    pub at: At,
    pub nat: Nat,
    pub packets: usize,
    pub port: u16,
}

impl Case {
    /// What a rule asks of its requests, or of its answers.
    pub fn condition(&self, answers: bool) -> String {
        let family = if self.v4 { "ipv4" } else { "ipv6" };
        let (side, port) =
            if answers { ("sport", self.server_port()) } else { ("dport", self.port) };
        match self.protocol {
            Protocol::Udp => format!("meta nfproto {family} udp {side} {port}"),
            Protocol::Tcp => format!("meta nfproto {family} tcp {side} {port}"),
            Protocol::Echo => {
                let icmp = if self.v4 { "icmp" } else { "icmpv6" };
                let kind = if answers { "reply" } else { "request" };
                format!("{icmp} type echo-{kind} {icmp} id {port}")
            }
        }
    }

    /// The port that the server answers from.
    pub fn server_port(&self) -> u16 {
        if self.nat == Nat::Destination { self.port + 10_000 } else { self.port }
    }

    /// The rule that drops its packets; its comment is the port.
    pub fn rule(&self) -> String {
        let condition = self.condition(self.at == At::RawReply);
        format!("{condition} counter drop comment \"{}\"", self.port)
    }

    /// The port at a host.
    pub fn at(&self, host: &Host, port: u16) -> SocketAddr {
        if self.v4 { host.at(port) } else { host.at6(port) }
    }
}

/// Every case; ports tell them apart.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |v4, protocol, at, nat, packets| {
        // Identifiers from 1024 on fold into one, as ports of clients do.
        let first = if protocol == Protocol::Echo { 100 } else { 6_000 };
        let port = first + cases.len() as u16;
        cases.push(Case { v4, protocol, at, nat, packets, port });
    };
    for v4 in [true, false] {
        for at in PLACES {
            for packets in [1, 10, 1_000] {
                add(v4, Protocol::Udp, at, Nat::None, packets);
                add(v4, Protocol::Echo, at, Nat::None, packets);
            }
            if !matches!(at, At::RawReply) {
                add(v4, Protocol::Tcp, at, Nat::None, 1);
            }
        }
        for packets in [1, 10, 1_000] {
            for nat in [Nat::Source, Nat::Destination, Nat::Masquerade] {
                add(v4, Protocol::Udp, At::RawReply, nat, packets);
            }
            add(v4, Protocol::Echo, At::RawReply, Nat::Source, packets);
        }
        for (at, nat) in [
            (At::Forward, Nat::None),
            (At::Raw, Nat::None),
            (At::RawReply, Nat::Source),
            (At::RawReply, Nat::Destination),
        ] {
            add(v4, Protocol::Udp, at, nat, 100_000);
        }
    }
    cases
}

/// The router's rules for all of them.
pub fn ruleset(lab: &Lab, cases: &[Case]) -> String {
    let mut text = String::from("table inet drops {\n");
    for (chain, hook, priority) in [
        ("raw", "prerouting", -300),
        ("rawoutput", "output", -300),
        ("prerouting", "prerouting", -150),
        ("input", "input", 0),
        ("forward", "forward", 0),
        ("output", "output", 0),
        ("postrouting", "postrouting", 0),
    ] {
        writeln!(text, "chain {chain} {{ type filter hook {hook} priority {priority};").unwrap();
        for case in cases {
            if case.at == At::Untracked && chain == "raw" {
                writeln!(text, "{} notrack", case.condition(false)).unwrap();
            }
            if case.at.chain() == chain {
                writeln!(text, "{}", case.rule()).unwrap();
            }
        }
        if chain == "forward" {
            text.push_str("ct state new,established counter accept\n");
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    for v4 in [true, false] {
        let family = if v4 { "ip" } else { "ip6" };
        let address = |host: &Host| if v4 { host.v4().to_string() } else { host.v6().to_string() };
        let (mut pre, mut post) = (String::new(), String::new());
        for case in cases.iter().filter(|case| case.v4 == v4) {
            let server = address(&lab.server);
            let to = if v4 { server } else { format!("[{server}]") };
            match case.nat {
                Nat::None => {}
                Nat::Source if case.protocol == Protocol::Echo => {
                    // The identifier stays what it is.
                    writeln!(post, "{} masquerade", case.condition(false)).unwrap();
                }
                Nat::Source => {
                    // The address of the router on the server's side.
                    writeln!(post, "udp dport {} masquerade to :20000-20999", case.port).unwrap();
                }
                Nat::Masquerade => writeln!(post, "udp dport {} masquerade", case.port).unwrap(),
                Nat::Destination => {
                    let server_port = case.server_port();
                    writeln!(pre, "udp dport {} dnat to {to}:{server_port}", case.port).unwrap();
                }
            }
        }
        write!(
            text,
            "table {family} translate {{
                chain pre {{ type nat hook prerouting priority dstnat; {pre} }}
                chain post {{ type nat hook postrouting priority srcnat; {post} }}
            }}\n"
        )
        .unwrap();
    }
    text
}
