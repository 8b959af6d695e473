//! Dropped packets are counted as the kernel counts them: whoever dropped them, with and without a conntrack
//! entry, in both directions, folded or not, behind address translation. The oracle is the counter of the rule
//! that drops, and the plan where one rule drops packets of two clients.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{Document, RULES_CHANGED};
use conntracker_tests::tracer::{PATIENCE, Tracer};
use conntracker_tests::traffic::{tcp_connect, udp_send, udp_sink};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Where packets of a case are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
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

const PLACES: [At; 9] = [
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
    fn chain(self) -> &'static str {
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
enum Nat {
    None,
    Source,
    Destination,
    /// Two clients that use the same ports.
    Masquerade,
}

/// Packets to one port.
#[derive(Clone, Copy, Debug)]
struct Case {
    v4: bool,
    tcp: bool,
    at: At,
    nat: Nat,
    packets: usize,
    port: u16,
}

impl Case {
    fn protocol(&self) -> &'static str {
        if self.tcp { "tcp" } else { "udp" }
    }

    /// The port that the server answers from.
    fn server_port(&self) -> u16 {
        if self.nat == Nat::Destination { self.port + 10_000 } else { self.port }
    }

    /// The rule that drops its packets; its comment is the port.
    fn rule(&self) -> String {
        let (side, port) = match self.at {
            At::RawReply => ("sport", self.server_port()),
            _ => ("dport", self.port),
        };
        format!(
            "meta nfproto {} {} {side} {port} counter drop comment \"{}\"",
            if self.v4 { "ipv4" } else { "ipv6" },
            self.protocol(),
            self.port
        )
    }

    /// The port at a host.
    fn at(&self, host: &Host, port: u16) -> SocketAddr {
        if self.v4 { host.at(port) } else { host.at6(port) }
    }
}

/// Every case; ports tell them apart.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |v4, tcp, at, nat, packets| {
        let port = 6_000 + cases.len() as u16;
        cases.push(Case { v4, tcp, at, nat, packets, port });
    };
    for v4 in [true, false] {
        for at in PLACES {
            for packets in [1, 10, 1_000] {
                add(v4, false, at, Nat::None, packets);
            }
            if !matches!(at, At::RawReply) {
                add(v4, true, at, Nat::None, 1);
            }
        }
        for nat in [Nat::Source, Nat::Destination, Nat::Masquerade] {
            for packets in [1, 10, 1_000] {
                add(v4, false, At::RawReply, nat, packets);
            }
        }
        add(v4, false, At::Forward, Nat::None, 100_000);
        add(v4, false, At::Raw, Nat::None, 100_000);
    }
    cases
}

/// The router's rules for all of them.
fn ruleset(lab: &Lab, cases: &[Case]) -> String {
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
                writeln!(text, "{} dport {} notrack", case.protocol(), case.port).unwrap();
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

/// Sends the packets of a case; returns what each client must have lost, where that is not the same as what
/// the rule counts.
fn send(lab: &Lab, case: &Case) -> Vec<(IpAddr, u64)> {
    let Lab { client, router, server } = lab;
    let (from, to) = match case.at {
        At::Output | At::RawOutput => (router, case.at(server, case.port)),
        At::Input => (client, case.at(router, case.port)),
        _ if case.nat == Nat::Destination => (client, case.at(router, case.port)),
        _ => (client, case.at(server, case.port)),
    };
    if case.tcp {
        // A connection that nothing answers: how often it is tried is the kernel's business.
        let from = case.at(from, 41_000);
        assert!(
            tcp_connect(
                if case.at.chain().ends_with("output") { router } else { client },
                from,
                to,
                Duration::from_millis(50)
            )
            .is_err()
        );
        return Vec::new();
    }
    let mut clients = vec![case.at(from, 0).ip()];
    if case.nat == Nat::Masquerade {
        // Another address of the client.
        clients.push(if case.v4 { "10.78.0.1" } else { "fd78::1" }.parse().unwrap());
    }
    let echo =
        (case.at == At::RawReply).then(|| Echo::new(server, case.at(server, case.server_port())));
    let flows = case.packets.min(5);
    let mut lost = Vec::new();
    let mut sent = 0;
    for (n, client) in clients.into_iter().enumerate() {
        // The second client sends twice as much.
        let each = case.packets / flows * (n + 1);
        for flow in 0..flows {
            let from_address = SocketAddr::new(client, 40_000 + flow as u16);
            // No faster than the server answers: its socket has room for some hundred.
            for burst in bursts(each, if echo.is_some() { 50 } else { usize::MAX }) {
                send_some(from, from_address, to, burst);
                sent += burst as u64;
                if let Some(echo) = &echo {
                    echo.wait_for(sent);
                }
            }
        }
        lost.push((client, (each * flows) as u64));
    }
    lost
}

/// Answers datagrams, and counts its answers.
struct Echo {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn new(host: &Host, at: SocketAddr) -> Self {
        let socket = udp_sink(host, at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..len], peer).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { answers, stop, thread: Some(thread) }
    }

    fn wait_for(&self, answers: u64) {
        let start = Instant::now();
        while self.answers.load(Ordering::Relaxed) < answers {
            assert!(start.elapsed() < PATIENCE, "the server does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A socket at an address that only a route makes local.
fn free_socket(at: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    if at.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// Sends datagrams. The kernel tells who sends them that a rule has dropped them: that is no failure here.
fn send_some(host: &Host, from: SocketAddr, to: SocketAddr, packets: usize) {
    host.enter(|| {
        let socket = free_socket(from)?;
        for _ in 0..packets {
            match socket.send_to(b"hello", to) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    })
    .unwrap();
}

fn bursts(packets: usize, most: usize) -> impl Iterator<Item = usize> {
    let mut left = packets;
    std::iter::from_fn(move || {
        let now = left.min(most);
        left -= now;
        (now > 0).then_some(now)
    })
}

/// Packets that each case's rule has counted.
fn counted(router: &Host) -> BTreeMap<u16, u64> {
    let listing = router.run(["nft", "-j", "list", "table", "inet", "drops"]).unwrap();
    let listing: Value = serde_json::from_str(&listing).unwrap();
    let rules = listing["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("rule"));
    rules
        .filter_map(|rule| {
            let port = rule.get("comment")?.as_str()?.parse().ok()?;
            let mut counters = rule["expr"].as_array()?.iter().filter_map(|e| e.get("counter"));
            Some((port, counters.next()?["packets"].as_u64()?))
        })
        .collect()
}

/// Dropped packets by port that was sent to and client.
fn told(report: &Document) -> BTreeMap<(u16, IpAddr), u64> {
    let mut told = BTreeMap::new();
    for flow in &report.flows {
        let Some(packets) = flow["dropped"]["packets"].as_u64() else { continue };
        let original = &flow["original"];
        let Some(port) = original["dport"].as_u64() else { continue };
        let client: IpAddr = original["src"].as_str().unwrap().parse().unwrap();
        *told.entry((port as u16, client)).or_default() += packets;
    }
    told
}

/// Runs all cases and compares.
fn compare(args: &[&str]) {
    let lab = Lab::new().unwrap();
    let cases = cases();
    lab.router.nft(&ruleset(&lab, &cases)).unwrap();
    for host in lab.hosts() {
        // Nothing but what the plan says: no errors about ports that nobody listens at.
        let rules = "table inet quiet { chain out { type filter hook output priority 0;
            icmp type destination-unreachable drop
            icmpv6 type destination-unreachable drop; }; }";
        if host.name != lab.router.name {
            host.nft(rules).unwrap();
        }
    }
    let tracer = Tracer::start(&lab.router, &[&["--format", "json"], args].concat()).unwrap();
    let mut planned = BTreeMap::new();
    for case in &cases {
        for (client, lost) in send(&lab, case) {
            planned.insert((case.port, client), lost);
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let (counted, told) = (counted(&lab.router), told(&report));
    let mut wrong = String::new();
    for case in &cases {
        let of_case =
            told.range((case.port, IpAddr::from([0; 4]))..).take_while(|(k, _)| k.0 == case.port);
        let sum: u64 = of_case.map(|(_, packets)| packets).sum();
        if sum != counted[&case.port] || sum == 0 {
            writeln!(wrong, "{case:?}: told {sum}, the rule has {}", counted[&case.port]).unwrap();
        }
    }
    for (&(port, client), &lost) in &planned {
        let got = told.get(&(port, client)).copied().unwrap_or(0);
        if got != lost {
            writeln!(wrong, "port {port}, {client}: told {got}, sent {lost}").unwrap();
        }
    }
    for ((port, client), packets) in &told {
        let tcp = cases.iter().any(|case| case.port == *port && case.tcp);
        if !tcp && !planned.contains_key(&(*port, *client)) {
            writeln!(wrong, "nobody sent {packets} packets from {client} to port {port}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{args:?}:\n{wrong}{}", report.footer);
    let all: u64 = counted.values().sum();
    assert!(report.counter("drop_packets").unwrap() >= all, "{}", report.footer);
    assert_eq!(report.counter("drop_packets").unwrap(), report.counter("dropped_packets").unwrap());
    assert!(report.lost_besides(&RULES_CHANGED).is_empty(), "{}", report.footer);
}

#[test]
fn every_count_is_the_kernels_folded() {
    compare(&[]);
}

#[test]
fn every_count_is_the_kernels_unfolded() {
    compare(&["--no-fold"]);
}

#[test]
fn every_count_is_the_kernels_without_rules() {
    compare(&["-c"]);
}

/// More keys within a second than the kernel's maps hold.
#[test]
fn a_flood_of_many_sources_is_counted_to_the_packet() {
    let lab = Lab::new().unwrap();
    let rules = "table ip f { chain p { type filter hook prerouting priority 0;
        ct state new udp dport 666 counter drop comment \"666\"; }; }";
    lab.router.nft(&rules.replace("ip f", "inet drops")).unwrap();
    let tracer =
        Tracer::start(&lab.router, &["--format", "ndjson", "--dropped", "--no-fold"]).unwrap();
    // Sources of 10.78.0.0/16, ports beside: what is folded is told apart.
    for third in 0..100u8 {
        for port in [20_000, 30_000, 40_000] {
            for fourth in 1..=250u8 {
                let from = SocketAddr::new(IpAddr::from([10, 78, third, fourth]), port);
                udp_send(&lab.client, from, lab.router.at(666), b"x", 2).unwrap();
            }
        }
    }
    let report = Document::ndjson(&tracer.finish().unwrap()).unwrap();
    let counted = counted(&lab.router)[&666];
    assert_eq!(counted, 100 * 3 * 250 * 2);
    assert_eq!(report.counter("dropped_packets").unwrap(), counted, "{}", report.footer);
    assert_eq!(report.counter("flows").unwrap(), 100 * 3 * 250);
    assert!(report.lost_besides(&RULES_CHANGED).is_empty(), "{}", report.footer);
}

/// Rules of which several drop packets of one folded flow: each has its own count.
#[test]
fn drops_are_counted_for_each_rule() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(
            "table ip f { chain p { type filter hook prerouting priority 0;
                ct state established counter accept
                udp dport 2001 udp sport 20000-29999 counter drop
                udp dport 2001 udp sport 40000 counter drop; }; }",
        )
        .unwrap();
    let _sink = udp_sink(&lab.router, lab.router.at(2001)).unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json"]).unwrap();
    for port in (20_000..20_100).chain([40_000]) {
        udp_send(&lab.client, lab.client.at(port), lab.router.at(2001), b"x", 1).unwrap();
    }
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let [flow] = &report.flows[..] else { panic!("{:?}", report.flows) };
    let by: BTreeMap<u64, u64> = flow["dropped"]["places"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| (at["by"]["position"].as_u64().unwrap(), at["packets"].as_u64().unwrap()))
        .collect();
    assert_eq!(by, BTreeMap::from([(2, 100), (3, 1)]));
}
