use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::flow::{L4, NetnsId, Status};
use crate::report::fixtures::*;

fn print(report: &Report, options: TextOptions) -> String {
    let mut out = Vec::new();
    render(report, &options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The lines of the flows alone.
fn lines(report: &Report) -> Vec<String> {
    let text = print(report, TextOptions::default());
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn explained_report_is_the_golden_one() {
    let text = print(&sample(), TextOptions { explain: true });
    assert_eq!(text, include_str!("golden/explain.txt"));
}

#[test]
fn without_explain_only_the_lines_below_the_flows_are_missing() {
    let golden: String = include_str!("golden/explain.txt")
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(&" ".repeat(32)))
        .collect();
    assert_eq!(print(&sample(), TextOptions::default()), golden);
}

#[test]
fn a_report_without_flows_says_what_was_observed() {
    let mut report = report(Vec::new());
    report.header.folded = false;
    report.header.epochs = Some(3);
    let text = print(&report, TextOptions::default());
    let lines: Vec<_> = text.lines().skip(4).collect();
    assert_eq!(
        lines,
        [
            "# namespaces: -",
            "# start: 2026-01-01T00:00:00.000000000Z",
            "# end: 2026-01-01T00:01:30.000000001Z",
            "# filters: -",
            "# folding: none",
            "# epochs: 3",
            "# totals: lines=0 flows=0 merged=0 confirmed=0 dropped=0 dropped_packets=0",
            "# sources: -",
            "# lost: -",
        ]
    );
}

#[test]
fn each_block_counts_from_zero_in_twelve_columns() {
    let mut flows: Vec<_> =
        (1..=11).map(|dport| ports(6, "192.0.2.1", 1024, "192.0.2.2", dport)).collect();
    flows.push(ports(17, "192.0.2.1", 1024, "192.0.2.2", 53));
    flows.push(ports(6, "2001:db8::1", 1024, "2001:db8::2", 53));
    let lines = lines(&report(flows));
    let begin = |n: usize| lines[n].split(" src").next().unwrap();
    assert_eq!(begin(0), " TCPv4 [           0]");
    assert_eq!(begin(9), " TCPv4 [           9]");
    assert_eq!(begin(10), " TCPv4 [          10]");
    assert_eq!(begin(11), " UDPv4 [           0]");
    assert_eq!(begin(12), " TCPv6 [           0]");
}

#[test]
fn flows_that_print_the_same_line_merge() {
    let mut ping = icmp(1, "192.0.2.1", "192.0.2.2", 8, 0, 7);
    ping.drops = drops(&[(1, 2, 0)]);
    let other = confirmed(icmp(1, "192.0.2.1", "192.0.2.2", 8, 0, 8));
    let another = icmp(1, "192.0.2.1", "192.0.2.2", 8, 1, 8);
    let mut report = report(vec![ping, other, another]);
    report.header.folded = false;
    assert_eq!(
        lines(&report),
        [
            "ICMPv4 [           0] src = 192.0.2.1 to dst = 192.0.2.2 (type=8 | code=0) (confirmed, dropped)",
            "ICMPv4 [           1] src = 192.0.2.1 to dst = 192.0.2.2 (type=8 | code=1)",
        ]
    );
    let text = print(&report, TextOptions::default());
    assert!(text.contains("# totals: lines=2 flows=3 merged=3 confirmed=1 dropped=1 "), "{text}");
}

#[test]
fn namespaces_and_zones_tell_lines_apart_where_there_are_several() {
    // In report order the identifier comes before the namespace: equal lines do not stand together.
    let mut flows = Vec::new();
    for (id, netns, zone) in [(1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (2, 1, 9), (3, 2, 0)] {
        let mut ping = icmp(1, "192.0.2.1", "192.0.2.2", 8, 0, id);
        ping.key.netns = NetnsId(netns);
        ping.key.zone = zone;
        flows.push(ping);
    }
    let mut report = report(flows);
    report.header.namespaces.push(namespace(1, "red\n", &[]));
    let ping = "src = 192.0.2.1 to dst = 192.0.2.2 (type=8 | code=0)";
    assert_eq!(
        lines(&report),
        [
            format!("ICMPv4 [           0] {ping} [netns -]"),
            format!("ICMPv4 [           1] {ping} [netns red\\n]"),
            format!("ICMPv4 [           2] {ping} [netns red\\n] [zone 9]"),
            format!("ICMPv4 [           3] {ping} [netns 2]"),
        ]
    );
}

#[test]
fn a_reply_is_explained_only_if_translated() {
    let explained = |folded, reply: Flow, status| {
        let mut flow = ports(6, "192.0.2.1", if folded { 1024 } else { 5000 }, "192.0.2.2", 80);
        flow.reply = Some(reply.key.orig);
        flow.status = status;
        let mut report = report(vec![flow]);
        report.header.folded = folded;
        let text = print(&report, TextOptions { explain: true });
        text.lines().find_map(|line| Some(line.trim().strip_prefix("reply: ")?.to_owned()))
    };
    let plain = |port| ports(6, "192.0.2.2", 80, "192.0.2.1", port);
    assert_eq!(explained(true, plain(5000), Status::default()), None);
    assert_eq!(explained(false, plain(5000), Status::default()), None);
    let moved = Some("192.0.2.2:80 -> 192.0.2.1:5001".to_owned());
    assert_eq!(explained(false, plain(5001), Status::default()), moved);
    assert_eq!(explained(true, plain(5001), Status::SRC_NAT), moved);
    let behind = ports(6, "2001:db8::1", 80, "2001:db8::2", 1);
    assert_eq!(
        explained(true, behind, Status::default()),
        Some("[2001:db8::1]:80 -> [2001:db8::2]:1".to_owned())
    );
}

/// Flows of few addresses and ports, so that many are alike.
fn any_flow() -> impl Strategy<Value = Flow> {
    let numbers = (0..3_u8, 0..3_u8, 0..3_u16, 0..3_u16, 0..3_u16);
    let place = (0..2_u32, 0..2_u16, any::<bool>());
    (prop::sample::select(vec![6_u8, 17, 1, 47, 136, 253]), numbers, place).prop_map(
        |(proto, (src, dst, a, b, id), (netns, zone, replied))| {
            let l4 = match proto {
                1 => L4::Icmp { kind: a as u8, code: b as u8, id },
                47 => L4::Gre { src: a, dst: b },
                253 => L4::None,
                _ => L4::Ports { src: a, dst: b },
            };
            let mut flow = flow(proto, &format!("192.0.2.{src}"), &format!("192.0.2.{dst}"), l4);
            flow.key.netns = NetnsId(netns);
            flow.key.zone = zone;
            if replied { confirmed(flow) } else { flow }
        },
    )
}

/// `label [index] rest` as (label, index, rest).
fn parts(line: &str) -> (&str, &str, &str) {
    let (label, rest) = line.split_once(" [").unwrap();
    let (index, rest) = rest.split_once("] ").unwrap();
    (label, index, rest)
}

proptest! {
    #[test]
    fn lines_are_numbered_in_order_and_without_duplicates(
        flows in prop::collection::vec(any_flow(), 0..60),
        many_namespaces: bool,
    ) {
        // The table has one flow for each key.
        let flows: BTreeMap<String, Flow> =
            flows.into_iter().map(|flow| (format!("{:?}", flow.key), flow)).collect();
        let flows = flows.into_values().collect();
        let mut report = report(flows);
        if many_namespaces {
            report.header.namespaces.push(namespace(1, "red", &[]));
        }
        let lines = lines(&report);

        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        for line in &lines {
            let (label, index, _) = parts(line);
            prop_assert!(label.len() >= 6);
            let next = next.entry(label).or_default();
            prop_assert_eq!(index, format!("{:>12}", *next));
            *next += 1;
        }

        let shown: BTreeSet<_> = lines
            .iter()
            .map(|line| {
                let (label, _, rest) = parts(line);
                (label, rest.replace(" (confirmed)", ""))
            })
            .collect();
        prop_assert_eq!(shown.len(), lines.len(), "duplicates in {:#?}", lines);

        // Every flow has its line, in the order of the report, confirmed if any flow of it is.
        let ends = |flow: &Flow| Ends::from(flow.key.orig).to_string();
        let suffix = |flow: &Flow| {
            let red = if flow.key.netns.0 == 1 { "red" } else { "-" };
            let netns =
                if many_namespaces { format!(" [netns {red}]") } else { String::new() };
            let zone = if flow.key.zone == 1 { " [zone 1]" } else { "" };
            format!("{netns}{zone}")
        };
        let mut at = 0;
        for group in report.flows.chunk_by(same_ends) {
            let wanted: BTreeMap<String, bool> =
                group.iter().fold(BTreeMap::new(), |mut wanted, flow| {
                    *wanted.entry(suffix(flow)).or_default() |= flow.confirmed();
                    wanted
                });
            let got: BTreeSet<String> =
                lines[at..at + wanted.len()].iter().map(|l| parts(l).2.to_owned()).collect();
            let wanted: BTreeSet<String> = wanted
                .into_iter()
                .map(|(suffix, replied)| {
                    let flags = if replied { " (confirmed)" } else { "" };
                    format!("{}{flags}{suffix}", ends(&group[0]))
                })
                .collect();
            at += wanted.len();
            prop_assert_eq!(got, wanted);
        }
        prop_assert_eq!(at, lines.len());
    }
}
