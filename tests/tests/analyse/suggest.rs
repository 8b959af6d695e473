//! Suggested rules, loaded in a fresh lab: the recorded traffic passes, and all other probes are dropped.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use conntracker::firewall::evaluate::packet::PacketType;
use conntracker::firewall::evaluate::state::Fate;
use conntracker::firewall::evaluate::tracking::Tracking;
use conntracker::firewall::evaluate::unknown::Attribute;
use conntracker::firewall::evaluate::word::Word;
use conntracker::firewall::evaluate::{Origin, Packet, evaluate};
use conntracker::firewall::objects::KernelObjects;
use conntracker::model::{L4, Tuple};
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::Random;
use conntracker_tests::tracer::output;
use conntracker_tests::tracer::recording::recording;
use conntracker_tests::traffic::{
    tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange, udp_send,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Everything passes but port 666; one port is translated.
const OPEN: &str = "table inet fw {
    chain pre { type nat hook prerouting priority dstnat; udp dport 8053 dnat ip to 10.77.2.2:53; }
    chain forward { type filter hook forward priority 0; udp dport 666 counter drop; }
    chain input { type filter hook input priority 0; }
    chain output { type filter hook output priority 0; }
}
";

/// Source, destination port at the server, and whether it is of TCP.
const FLOWS: [(&str, u16, bool); 7] = [
    ("10.77.1.2", 53, false),
    ("10.78.0.1", 53, false),
    ("10.78.0.2", 53, false),
    ("10.78.0.1", 443, true),
    ("10.78.0.2", 443, true),
    ("10.78.9.9", 22, true),
    ("fd78::5", 53, false),
];

/// Probes that are sent, and that are evaluated.
const SENT: u32 = 2_000;
const SENT_QUICKLY: u32 = 200;
const EVALUATED: u32 = 10_000;

fn server_address(lab: &Lab, v6: bool, port: u16) -> SocketAddr {
    if v6 { lab.server.at6(port) } else { lab.server.at(port) }
}

/// Exchanges of all flows; each must have its answer.
fn traffic(lab: &Lab, round: u16) {
    let (c, s) = (&lab.client, &lab.server);
    let _servers: Vec<_> = [(53, false), (53, true)]
        .map(|(port, v6)| udp_echo_server(s, server_address(lab, v6, port)).unwrap())
        .into();
    let _tcp: Vec<_> = [443, 22].map(|port| tcp_echo_server(s, s.at(port)).unwrap()).into();
    let _router = udp_echo_server(&lab.router, lab.router.at(161)).unwrap();
    for (index, (source, port, tcp)) in (0..).zip(FLOWS) {
        let source: IpAddr = source.parse().unwrap();
        let from = SocketAddr::new(source, 20_000 + 100 * round + index);
        let to = server_address(lab, source.is_ipv6(), port);
        let exchange = if tcp { tcp_exchange } else { udp_exchange };
        exchange(c, from, to, b"hello").unwrap();
    }
    udp_exchange(c, c.at(30_000 + round), lab.router.at(161), b"hello").unwrap();
    // Port 8053 of the router is 53 of the server.
    udp_exchange(c, c.at(31_000 + round), lab.router.at(8053), b"hello").unwrap();
}

fn suggest(file: &Path, args: &[&str]) -> String {
    let said = output([&["rules", "suggest", file.to_str().unwrap()], args].concat()).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// A recording of the traffic.
fn recorded(file: &Path) {
    let lab = Lab::new().unwrap();
    lab.router.nft(OPEN).unwrap();
    let tracer = recording(&lab.router, file, &[]).unwrap();
    traffic(&lab, 0);
    udp_send(&lab.client, lab.client.at(4000), lab.server.at(666), b"x", 2).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    tracer.stop(Signal::SIGINT).unwrap();
}

/// A fresh lab whose router has these rules, and the translation that was there.
fn fresh(load: impl Fn(&Host)) -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft("table inet nat {
        chain pre { type nat hook prerouting priority dstnat; udp dport 8053 dnat ip to 10.77.2.2:53; }
    }
    table inet count {
        counter passed { }
        chain post { type filter hook postrouting priority 10; ct state new counter name passed; }
    }").unwrap();
    load(&lab.router);
    lab
}

fn passed(lab: &Lab) -> u64 {
    let listed =
        lab.router.run(["nft", "-j", "list", "counter", "inet", "count", "passed"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut objects = listed["nftables"].as_array().unwrap().iter();
    objects.find_map(|of| of["counter"]["packets"].as_u64()).unwrap()
}

/// A source and a port of UDP that no recorded flow had together.
fn probe(random: &mut Random) -> (IpAddr, u16) {
    loop {
        let source =
            ["10.77.1.2", "10.78.0.1", "10.78.0.2", "10.78.0.3", "10.78.9.9", "10.78.55.5"];
        let source = source[random.below(source.len())];
        let port = [53, 54, 52, 443, 22, 161, 666, 7, 1024][random.below(9)];
        let port = if random.chance(50) { port } else { 1 + random.below(60_000) as u16 };
        let seen = FLOWS.iter().any(|(of, own, tcp)| (*of, *own, *tcp) == (source, port, false));
        if !seen {
            return (source.parse().unwrap(), port);
        }
    }
}

fn other_probes_are_dropped(lab: &Lab) {
    let mut random = Random::new(18);
    let before = passed(lab);
    for number in 0..if is_quick() { SENT_QUICKLY } else { SENT } {
        let (source, port) = probe(&mut random);
        let from = SocketAddr::new(source, 40_000 + (number % 20_000) as u16);
        udp_send(&lab.client, from, lab.server.at(port), b"x", 1).unwrap();
    }
    assert_eq!(passed(lab), before);
    let objects = lab.router.enter(|| Ok(KernelObjects::read())).unwrap();
    let (firewall, routes) = (objects.firewall().unwrap(), objects.routes().unwrap());
    for _ in 0..EVALUATED {
        let (src, dst) = probe(&mut random);
        let l4 = L4::Ports { src: 40_000, dst };
        let tuple = Tuple { src, dst: lab.server.v4().into(), proto: 17, l4 };
        let mut packet = Packet::of(&tuple).unwrap();
        packet.tracking = Tracking::first(&tuple);
        packet.input = Ok(Some(routes.interface("toclient").unwrap().clone()));
        packet.output = Ok(None);
        packet.owner = Ok(None);
        packet.mark = Word::new(0, Attribute::Mark.into());
        packet.packet_type = Ok(PacketType::Host);
        packet.vlan = Ok(None);
        packet.set_ttl(64);
        let fate = evaluate(&firewall, packet, Origin::Received, &routes).fate();
        assert_eq!(fate, Ok(Fate::Drop), "{tuple:?}");
    }
}

#[test]
fn the_recorded_traffic_passes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    recorded(&file);
    let rules = suggest(&file, &[]);
    println!("{rules}");
    for text in [
        "iif \"lo\" accept",
        "ct state established,related accept",
        "# domain: ",
        "to be expected outside of these rules: ",
        "iifname \"toclient\" ip saddr 10.77.1.2 udp dport 161 accept",
        "ip saddr { 10.77.1.2, 10.78.0.1, 10.78.0.2 } ip daddr 10.77.2.2 udp dport 53 accept",
        "ip saddr { 10.78.0.1, 10.78.0.2 } ip daddr 10.77.2.2 tcp dport 443 accept",
    ] {
        assert!(rules.contains(text), "{text}\n{rules}");
    }
    assert!(!rules.contains("666") && !rules.contains("8053"), "{rules}");
    let nft = directory.path().join("rules.nft");
    fs::write(&nft, &rules).unwrap();
    let lab = fresh(|router| {
        let file = nft.to_str().unwrap();
        router.run(["nft", "-c", "-f", file]).unwrap();
        router.run(["nft", "-f", file]).unwrap();
    });
    traffic(&lab, 1);
    other_probes_are_dropped(&lab);
}

#[test]
fn rules_for_iptables_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    recorded(&file);
    let written = [("iptables", "iptables-nft-restore"), ("ip6tables", "ip6tables-nft-restore")]
        .map(|(language, program)| {
            let path = directory.path().join(language);
            fs::write(&path, suggest(&file, &["--as", language])).unwrap();
            (program, path)
        });
    let lab = fresh(|router| {
        for (program, path) in &written {
            let path = path.to_str().unwrap();
            router.run([program, "--test", path]).unwrap();
            router.run([program, path]).unwrap();
        }
    });
    traffic(&lab, 1);
    other_probes_are_dropped(&lab);
}

#[test]
fn subnets_say_how_much_they_admit() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    recorded(&file);
    let rules = suggest(&file, &["--aggregate"]);
    assert!(rules.contains("sources: admits 255 addresses, 3 seen"), "{rules}");
    assert!(rules.contains("10.78.0.0/24"), "{rules}");
    let said: Value =
        serde_json::from_str(&suggest(&file, &["--aggregate", "--format", "json"])).unwrap();
    assert_eq!(said["dropped"], 1, "{said}");
    let share = said["outside"].as_f64().unwrap();
    assert!(share > 0.0 && share <= 1.0, "{said}");
}
