//! `dump` lists what `conntrack -L` lists, in each format, and its filters choose what conntrack's
//! own filters choose, or what a look at conntrack's list chooses.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::report::{self, Document, Text};
use conntracker_tests::tracer::{Flow, L4, PATIENCE, conntrack, output, stdout};
use conntracker_tests::traffic::{
    ping4, ping6, sctp_exchange, sctp_server, tcp_connect, tcp_echo_server, udp_echo_server,
    udp_exchange, udp_send, udp_sink,
};

const RULESET: &str = "
    table inet fw {
        chain raw {
            type filter hook prerouting priority raw;
            udp dport 7050 ct zone set 5
            udp sport 7050 ct zone set 5
            udp dport 7060 ct original zone set 6
        }
        chain mangle {
            type filter hook prerouting priority mangle;
            udp dport 7010 ct mark set 0x11
            tcp dport 443 ct mark set 0x21
        }
        chain translate {
            type nat hook postrouting priority srcnat;
            udp dport 7030 masquerade
        }
        chain translate_destination {
            type nat hook prerouting priority dstnat;
            ip daddr 10.77.1.1 udp dport 53 dnat ip to 10.77.2.2:7
        }
    }
";

/// A lab whose router's table has something for each filter; what must live, lives in the guards.
fn populated() -> (Lab, impl Sized) {
    let lab = Lab::new().unwrap();
    let (c, s) = (&lab.client, &lab.server);
    lab.router.nft(RULESET).unwrap();
    // Nothing ends while the test looks.
    for timeout in ["udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout"] {
        lab.router.sysctl(&format!("net.netfilter.nf_conntrack_{timeout}"), "600").unwrap();
    }
    let echo = [7, 7010, 7030, 7050, 7060].map(|port| udp_echo_server(s, s.at(port)).unwrap());
    let echo6 = udp_echo_server(s, s.at6(7)).unwrap();
    let tcp = [s.at(80), s.at(443), s.at6(80)].map(|at| tcp_echo_server(s, at).unwrap());
    let (sink, sctp) = (udp_sink(s, s.at(9)).unwrap(), sctp_server(s, s.at(3868)).unwrap());
    for (sport, dport) in
        [(1001, 7), (40_001, 7), (40_002, 7010), (40_003, 7030), (40_004, 7050), (40_005, 7060)]
    {
        udp_exchange(c, c.at(sport), s.at(dport), b"hello").unwrap();
    }
    udp_exchange(c, "10.78.3.4:40006".parse().unwrap(), s.at(7), b"hello").unwrap();
    udp_exchange(c, c.at(40_007), lab.router.at(53), b"hello").unwrap();
    udp_exchange(c, c.at6(40_008), s.at6(7), b"hello").unwrap();
    udp_send(c, c.at(40_009), s.at(9), b"hello", 1).unwrap();
    let open = [(c.at(40_010), s.at(80)), (c.at(40_011), s.at(443)), (c.at6(40_012), s.at6(80))]
        .map(|(from, to)| tcp_connect(c, from, to, PATIENCE).unwrap());
    assert_eq!(ping4(c, s.v4().into(), 7, 1).unwrap(), 1);
    assert_eq!(ping6(c, s.v6().into(), 7, 1).unwrap(), 1);
    sctp_exchange(c, c.at(40_013), s.at(3868)).unwrap();
    assert_eq!(conntrack::list(&lab.router).unwrap().len(), 16);
    (lab, (echo, echo6, tcp, sink, sctp, open))
}

fn text(flows: impl IntoIterator<Item = Flow>) -> BTreeSet<String> {
    flows.into_iter().map(|flow| flow.to_string()).collect()
}

fn dump(router: &Host, format: &str, filter: &[&str]) -> String {
    let args = ["dump", "--netns", &router.name, "--format", format];
    stdout(args.iter().chain(filter)).unwrap()
}

fn dumped(router: &Host, filter: &[&str]) -> BTreeSet<String> {
    let document = Document::ndjson(&dump(router, "ndjson", filter)).unwrap();
    text(document.flows.iter().map(|flow| report::flow(flow).unwrap()))
}

#[test]
fn each_format_lists_what_conntrack_lists() {
    let (lab, _guards) = populated();
    let listed = conntrack::list(&lab.router).unwrap();
    assert_eq!(dumped(&lab.router, &[]), text(listed.iter().copied()));

    let json = Document::json(&dump(&lab.router, "json", &[])).unwrap();
    let flows = json.flows.iter().map(|flow| report::flow(flow).unwrap());
    assert_eq!(text(flows), text(listed.iter().copied()));
    assert_eq!(json.counter("dump_entries").unwrap(), 16);
    assert_eq!(json.header["backend"], "dump");

    let report = Text::parse(&dump(&lab.router, "report", &["--no-fold"])).unwrap();
    assert_eq!(report.lines.len(), 16, "{report:?}");
    for flow in &listed {
        let L4::Ports(sport, dport) = flow.orig.l4 else { continue };
        let confirmed = if flow.replied { " (confirmed)" } else { "" };
        let zone = if flow.zone == 0 { String::new() } else { format!(" [zone {}]", flow.zone) };
        let body = format!(
            "src = {} (port={sport}) to dst = {} (port={dport}){confirmed}{zone}",
            flow.orig.src, flow.orig.dst
        );
        assert!(report.lines.iter().any(|line| line.body == body), "{body}\n{report:?}");
    }
    let folded = Text::parse(&dump(&lab.router, "report", &[])).unwrap();
    // Port 1001 is privileged; nothing in this table folds into one.
    assert!(folded.lines.iter().any(|line| line.body.contains("(port=1001)")));
    assert!(!folded.lines.iter().any(|line| line.body.contains("(port=40")), "{folded:?}");
    assert_eq!(folded.counter("merged").unwrap(), 16);
}

#[test]
fn filters_choose_what_the_filters_of_conntrack_choose() {
    let (lab, _guards) = populated();
    for (ours, theirs) in [
        (&["-p", "tcp"][..], &["-p", "tcp"][..]),
        (&["-p", "udp"], &["-p", "udp"]),
        (&["-p", "sctp"], &["-p", "sctp"]),
        (&["-s", "10.78.0.0/16"], &["-s", "10.78.0.0/16"]),
        (&["-d", "10.77.1.1"], &["-d", "10.77.1.1"]),
        (&["-p", "udp", "--dport", "7"], &["-p", "udp", "--dport", "7"]),
        (&["-p", "udp", "--sport", "40001"], &["-p", "udp", "--sport", "40001"]),
        (&["--reply-src", "10.77.2.2", "-p", "udp"], &["-p", "udp", "-r", "10.77.2.2"]),
        (&["--reply-dst", "10.77.2.1"], &["-q", "10.77.2.1"]),
        // It takes pings for translated, whose type differs from that of the answer.
        (&["--nat", "-p", "udp"], &["--any-nat", "-p", "udp"]),
        (&["--src-nat", "-p", "udp"], &["--src-nat", "-p", "udp"]),
        (&["--dst-nat", "-p", "udp"], &["--dst-nat", "-p", "udp"]),
        (&["--src-nat=10.77.2.1"], &["--src-nat", "10.77.2.1"]),
        (&["--dst-nat=10.77.2.2"], &["--dst-nat", "10.77.2.2"]),
        (&["-m", "0x11"], &["-m", "17"]),
        (&["-m", "0x1/0x0f"], &["-m", "0x1/0x0f"]),
        (&["-w", "5"], &["-w", "5"]),
        (&["--status", "assured"], &["-u", "ASSURED"]),
        (&["--status", "seen_reply"], &["-u", "SEEN_REPLY"]),
        (&["--state", "established", "-p", "tcp"], &["-p", "tcp", "--state", "ESTABLISHED"]),
    ] {
        // With addresses of one family conntrack refuses to list the other.
        let lines = conntrack::lines(&lab.router, theirs).unwrap_or_else(|_| {
            let args = ["conntrack", "-L", "-o", "extended", "-f", "ipv4"];
            let listed = lab.router.run(args.iter().chain(theirs)).unwrap();
            listed.lines().map(str::to_owned).collect()
        });
        let want = text(lines.iter().map(|line| conntrack::parse(line).unwrap()));
        assert!(!want.is_empty() && want.len() < 16, "{theirs:?} shows nothing: {want:?}");
        assert_eq!(dumped(&lab.router, ours), want, "{ours:?}");
    }
}

#[test]
fn filters_choose_what_they_say() {
    type Choice = fn(&Flow) -> bool;
    fn dport(flow: &Flow) -> u16 {
        if let L4::Ports(_, dport) = flow.orig.l4 { dport } else { 0 }
    }
    fn translated(flow: &Flow) -> bool {
        flow.reply != Some(flow.orig.turned())
    }
    let (lab, _guards) = populated();
    let all = conntrack::list(&lab.router).unwrap();
    let table: &[(&[&str], Choice)] = &[
        (&["-p", "!udp"], |f| f.orig.proto != 17),
        (&["-p", "tcp", "-p", "sctp"], |f| [6, 132].contains(&f.orig.proto)),
        (&["-p", "icmpv6"], |f| f.orig.proto == 58),
        (&["-f", "ipv6"], |f| f.orig.src.is_ipv6()),
        (&["-f", "ipv4"], |f| f.orig.src.is_ipv4()),
        (&["-f", "!ipv4"], |f| f.orig.src.is_ipv6()),
        (&["-s", "fd77::/16"], |f| f.orig.src.is_ipv6()),
        (&["-s", "!10.77.1.2"], |f| f.orig.src.to_string() != "10.77.1.2"),
        (&["-d", "!fd77:2::2", "-p", "udp"], |f| f.orig.proto == 17 && f.orig.dst.is_ipv4()),
        (&["--dport", "80,443"], |f| [80, 443].contains(&dport(f))),
        (&["--dport", "7000-7999"], |f| (7000..8000).contains(&dport(f))),
        (&["--dport", "domain"], |f| dport(f) == 53),
        (&["--dport", "!7"], |f| dport(f) != 7),
        (&["-m", "!0"], |f| f.mark != 0),
        (&["-m", "0x20/0xf0"], |f| f.mark & 0xf0 == 0x20),
        (&["-w", "!0"], |f| f.zone != 0),
        (&["-w", "6"], |f| f.zone == 6),
        (&["-w", "5", "-w", "6"], |f| [5, 6].contains(&f.zone)),
        (&["--status", "!seen_reply"], |f| !f.replied),
        (&["--status", "unreplied"], |f| !f.replied),
        (&["--status", "!unreplied"], |f| f.replied),
        (&["-p", "tcp,sctp"], |f| [6, 132].contains(&f.orig.proto)),
        (&["-p", "!tcp,udp"], |f| ![6, 17].contains(&f.orig.proto)),
        (&["-s", "10.78.0.0/16,fd77::/16"], |f| {
            f.orig.src.is_ipv6() || f.orig.src.to_string().starts_with("10.78.")
        }),
        (&["-w", "5,6"], |f| [5, 6].contains(&f.zone)),
        (&["-m", "0x11,0x21"], |f| [0x11, 0x21].contains(&f.mark)),
        // The address that the masquerade gave stands in the reply direction alone.
        (&["--host", "10.77.2.1"], |f| {
            f.reply.is_some_and(|reply| reply.dst.to_string() == "10.77.2.1")
        }),
        (&["--host", "10.78.0.0/16,10.77.1.1"], |f| {
            let ends = [f.orig.src, f.orig.dst].map(|end| end.to_string());
            ends.iter().any(|end| end.starts_with("10.78.") || end == "10.77.1.1")
        }),
        (&["--port", "53"], |f| dport(f) == 53),
        (&["--port", "7,40010"], |f| {
            let of = |t: &conntracker_tests::tracer::Tuple| match t.l4 {
                L4::Ports(src, dst) => [src, dst],
                _ => [0; 2],
            };
            let ends = [Some(of(&f.orig)), f.reply.as_ref().map(of)].into_iter().flatten();
            ends.flatten().any(|port| [7, 40_010].contains(&port))
        }),
        (&["--nat"], translated),
        (&["--no-nat"], |f| !translated(f)),
        (&["--nat=10.77.2.0/24"], translated),
        (&["--src-nat=!10.77.2.0/24"], |f| dport(f) != 7030),
        (&["--reply-sport", "7", "-p", "udp"], |f| {
            f.reply.is_some_and(|reply| matches!(reply.l4, L4::Ports(7, _)))
        }),
        (&["--reply-dport", "!1024-65535", "-p", "udp"], |f| {
            dport(f) == 7 && matches!(f.orig.l4, L4::Ports(1001, _))
        }),
        (&["--nat", "-p", "udp", "--dport", "53"], |f| dport(f) == 53),
        (&["-p", "udp", "-f", "ipv6", "--dport", "7"], |f| {
            f.orig.proto == 17 && f.orig.src.is_ipv6()
        }),
    ];
    for (filter, choice) in table {
        let want = text(all.iter().copied().filter(choice));
        assert!(!want.is_empty() && want.len() < 16, "{filter:?} shows nothing: {want:?}");
        assert_eq!(dumped(&lab.router, filter), want, "{filter:?}");
    }
    // Nothing found is no failure, and the report is whole.
    let nothing = Document::json(&dump(&lab.router, "json", &["--dport", "1"])).unwrap();
    assert!(nothing.flows.is_empty());
    assert_eq!(nothing.header["filters"], serde_json::json!(["--dport 1"]));
}

#[test]
fn an_empty_table_is_explained() {
    let lab = Lab::new().unwrap();
    let output = output(["dump", "--netns", &lab.router.name]).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the conntrack table is empty"), "{said}");
    let report = Text::parse(&String::from_utf8(output.stdout).unwrap()).unwrap();
    assert!(report.header.iter().any(|line| line.contains("the conntrack table is empty")));
}
