//! `--format path`: the steps of each packet stand in the order in which the kernel evaluated them, each below the jump
//! that led to it, compared with what `nft monitor trace` and the target TRACE say of the same packets.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use conntracker_tests::lab::Lab;
use conntracker_tests::oracle::{Backend, Collection, Listing, Oracle, Packet, Run};
use conntracker_tests::rulesets::{ORACLE_TABLE, tracing};
use conntracker_tests::tracer::{L4, Tracer, Tuple, backend, skipped_without_counters};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange, udp_send, udp_sink};

/// Nothing was traced for so long: all packets are through.
const QUIET: Duration = Duration::from_millis(100);

const UDP: u8 = 17;

/// Two base chains at one hook, jumps, a goto, a return by a rule and by the end of a chain, translations of both
/// ends, a drop by a rule of a sub chain and by a policy.
const NFT: &str = r#"
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        udp dport 8080 counter dnat to 10.77.2.2:7
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "toserver" counter masquerade
    }
}
table inet fw {
    chain marks {
        type filter hook forward priority mangle;
        counter meta mark set 0x9
    }
    chain inner {
        ip saddr 10.77.0.0/16 counter return
        counter drop
    }
    chain ending {
        counter
    }
    chain deny {
        counter
        udp dport 7100 counter drop
    }
    chain services {
        udp dport 7 counter jump inner
        udp dport 7 counter accept
        udp dport 9 counter goto ending
        udp dport 7100 counter jump deny
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        counter
        ct state established counter accept
        meta l4proto udp counter jump services
        udp dport 7101 counter jump ending
        udp dport 9 counter accept
    }
}
"#;

/// The same as iptables has it.
const IPTABLES: &str = "\
*mangle
-A FORWARD -p udp -j MARK --set-mark 9
COMMIT
*nat
-A PREROUTING -p udp --dport 8080 -j DNAT --to-destination 10.77.2.2:7
-A POSTROUTING -o toserver -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
:services -
:inner -
:ending -
:deny -
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p udp -j services
-A FORWARD -p udp --dport 7101 -j ending
-A FORWARD -p udp --dport 9 -j ACCEPT
-A services -p udp --dport 7 -j inner
-A services -p udp --dport 7 -j ACCEPT
-A services -p udp --dport 9 -g ending
-A services -p udp --dport 7100 -j deny
-A inner -s 10.77.0.0/16 -j RETURN
-A inner -j DROP
-A ending -p udp
-A deny -p udp
-A deny -p udp --dport 7100 -j DROP
COMMIT
";

/// A step: hook, chain and position below the chains that led there, verdict.
type Row = (String, String, String);

/// Destinations of the datagrams, whether they are answered, and whether they are dropped.
fn cases(lab: &Lab) -> [(SocketAddr, bool, bool); 4] {
    let (gate, s) = (SocketAddr::new(lab.router.v4().into(), 8080), &lab.server);
    [
        (gate, true, false),
        (s.at(9), false, false),
        (s.at(7100), false, true),
        (s.at(7101), false, true),
    ]
}

/// Traces one datagram for each case, and compares.
fn compare(lab: &Lab, listing: &Listing, label: fn(&Run) -> String) {
    let (c, s) = (&lab.client, &lab.server);
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    let _sink = udp_sink(s, s.at(9)).unwrap();
    let mut oracle = Oracle::start(&lab.router).unwrap();
    let args = ["--backend", backend(), "--format", "path", "--no-fold"];
    let tracer = Tracer::start(&lab.router, &args).unwrap();
    oracle.forget().unwrap();
    for ((to, answered, _), port) in cases(lab).into_iter().zip(40_000..) {
        if answered {
            udp_exchange(c, c.at(port), to, b"hello, here I am").unwrap();
        } else {
            udp_send(c, c.at(port), to, b"hello, here I am", 1).unwrap();
        }
    }
    let traced = oracle.collect(listing, QUIET).unwrap();
    let report = tracer.finish().unwrap();
    assert!(!report.contains('\x1b'), "colours in a pipe: {report}");
    assert!(!report.contains("order that is not known"), "{report}");
    for ((to, answered, dropped), port) in cases(lab).into_iter().zip(40_000..) {
        let flow = flow(&report, c.at(port), to);
        let sent = packet(&traced, |tuple| *tuple == Tuple::ports(UDP, c.at(port), to));
        let mut want: Vec<(&str, Vec<Row>)> = vec![("original", evaluated(sent, label))];
        if answered {
            let back =
                |tuple: &Tuple| tuple.src == IpAddr::from(s.v4()) && tuple.l4 == L4::Ports(7, port);
            want.push(("reply", evaluated(packet(&traced, back), label)));
        }
        assert_eq!(rows(&flow), want, "{}\n{traced:#?}", flow.join("\n"));
        assert_eq!(flow.iter().any(|line| line.ends_with(", DROPPED")), dropped, "{flow:#?}");
    }
    let answered = flow(&report, c.at(40_000), cases(lab)[0].0);
    assert!(answered.iter().any(|line| line.starts_with("            inner 1 ")), "{report}");
    for change in [
        "dnat: 10.77.1.1:8080 -> 10.77.2.2:7",
        "snat: 10.77.1.2:40000 -> 10.77.2.1:40000",
        "reply: 10.77.2.2:7 -> 10.77.2.1:40000",
        "packet mark: 0x0 -> 0x9",
    ] {
        assert!(answered.iter().any(|line| line.trim().starts_with(change)), "{change}: {report}");
    }
}

/// The lines of a flow.
fn flow(report: &str, from: SocketAddr, to: SocketAddr) -> Vec<&str> {
    let end = |name: &str, at: SocketAddr| format!("{name} = {} (port={})", at.ip(), at.port());
    let ends = format!("{} to {}", end("src", from), end("dst", to));
    let mut lines = report.lines().skip_while(|line| !line.contains(&ends));
    let first = lines.next().unwrap_or_else(|| panic!("no {ends}:\n{report}"));
    [first].into_iter().chain(lines.take_while(|line| line.starts_with("    "))).collect()
}

fn packet(traced: &Collection, is_it: impl Fn(&Tuple) -> bool) -> &Packet {
    traced.packets.iter().find(|packet| is_it(&packet.tuple)).unwrap()
}

/// The steps that the report has of a flow, for each direction.
fn rows<'a>(lines: &[&'a str]) -> Vec<(&'a str, Vec<Row>)> {
    let mut directions: Vec<(&str, Vec<Row>)> = Vec::new();
    let mut hook = "";
    for line in lines {
        let indent = line.len() - line.trim_start().len();
        match (indent, line.split_once(" (packets that were traced)"), line.split_once(':')) {
            (4, Some((direction, _)), _) => directions.push((direction.trim(), Vec::new())),
            (6, _, Some((name, _))) => hook = name.trim(),
            (8.., ..) => {
                // What became of marks and addresses has no columns.
                let Some(columns) = line.trim_start().find("  ") else { continue };
                let (chain, verdict) = line[8..].split_at(indent - 8 + columns);
                let verdict = verdict.split_whitespace().next().unwrap().to_lowercase();
                if !chain.starts_with(&format!("inet {ORACLE_TABLE}/")) {
                    let row = (hook.to_owned(), chain.to_owned(), verdict);
                    directions.last_mut().unwrap().1.push(row);
                }
            }
            _ => {}
        }
    }
    directions
}

/// The steps that the kernel says the packet met.
fn evaluated(packet: &Packet, label: fn(&Run) -> String) -> Vec<Row> {
    let mut rows = Vec::new();
    for run in &packet.runs {
        // Every step is traced: a chain that is not around yet was just entered.
        let mut around: Vec<&str> = Vec::new();
        for step in &run.steps {
            let name = step.chain.name.as_str();
            match around.iter().position(|chain| *chain == name) {
                Some(at) => around.truncate(at + 1),
                None => around.push(name),
            }
            let table = if around.len() == 1 { label(run) } else { "  ".repeat(around.len() - 1) };
            let verdict = step.verdict.to_string();
            let verdict = verdict.split(' ').next().unwrap().to_owned();
            let chain = format!("{table}{name} {}", step.position);
            rows.push((run.base.hook.name().to_owned(), chain, verdict));
        }
    }
    rows
}

#[test]
fn steps_of_nft_stand_in_the_order_of_its_own_trace() {
    let lab = Lab::new().unwrap();
    lab.router.nft(&format!("{}{NFT}", tracing())).unwrap();
    let mut listing = Listing::default();
    listing.add_nft(&lab.router).unwrap();
    compare(&lab, &listing, |run| format!("{} {}/", run.chain.family, run.chain.table));
}

#[test]
fn steps_of_iptables_nft_stand_in_the_order_of_its_own_trace() {
    let lab = Lab::new().unwrap();
    lab.router.nft(&tracing()).unwrap();
    lab.router.run_with_input(["iptables-nft-restore"], IPTABLES).unwrap();
    let mut listing = Listing::default();
    listing.add_nft(&lab.router).unwrap();
    compare(&lab, &listing, |run| format!("{}/", run.chain.table));
}

#[test]
fn steps_of_iptables_legacy_stand_in_the_order_of_its_own_trace() {
    if skipped_without_counters() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.router.nft(&tracing()).unwrap();
    lab.router.run_with_input(["iptables-legacy-restore"], IPTABLES).unwrap();
    let mut listing = Listing::default();
    listing.add_nft(&lab.router).unwrap();
    // With the chains that no rule mentions.
    listing.add_legacy("ip", &lab.router.run(["iptables-legacy-save"]).unwrap()).unwrap();
    compare(&lab, &listing, |run| {
        assert_eq!(run.chain.backend, Backend::Legacy);
        format!("{} (legacy)/", run.chain.table)
    });
}
