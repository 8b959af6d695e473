use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        L4, NetnsId, Status,
        hook::Hook,
        path::{Direction, Outcome, Provenance::Exact, Site, SiteKind, Traversal, Verdict},
        table::Family,
    },
    report::fixtures::*,
};

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
fn plain_report_is_the_golden_one() {
    let text = print(&sample(), TextOptions::default());
    assert_eq!(text, include_str!("golden/plain.txt"));
}

#[test]
fn without_explain_only_lines_and_ends_of_lines_are_missing() {
    let explained = include_str!("golden/explain.txt").lines();
    let mut explained = explained.filter(|line| {
        let below = line.strip_prefix(&" ".repeat(32));
        below.is_none_or(|line| line.starts_with("table: "))
    });
    for line in include_str!("golden/plain.txt").lines() {
        let explained = explained.next().unwrap();
        let (place, _) = line.split_once(", verdict: ").unwrap_or((line, ""));
        assert!(explained.starts_with(place), "{line} in {explained}");
    }
}

/// The lines below the flow of a report of one.
fn below(mut flow: Flow, all: Vec<(Traversal, u64)>, options: TextOptions) -> Vec<String> {
    let epochs = all.iter().map(|(way, _)| u64::from(way.epoch)).max();
    flow.paths = ways(all);
    let mut report = report(vec![flow]);
    report.header.epochs = epochs;
    let text = print(&report, options);
    let lines = text.lines().filter_map(|line| line.strip_prefix(&" ".repeat(32)));
    lines.map(str::to_owned).collect()
}

fn tcp() -> Flow {
    ports(6, "192.0.2.1", 1024, "192.0.2.2", 80)
}

#[test]
fn trace_lines_stand_in_the_order_of_tables_hooks_chains_types_and_positions() {
    use SiteKind::{Policy, Return, Rule};
    let legacy = |table, chain, kind, position| {
        step(legacy(table, chain, kind, position), Verdict::Continue, Exact)
    };
    let nft = |family, table, chain, kind, position| {
        step(nft(family, table, chain, kind, position), Verdict::Continue, Exact)
    };
    let forward = vec![
        nft(Family::Inet, "filter", "zz", Rule, 1),
        legacy("security", "FORWARD", Rule, 10),
        legacy("security", "FORWARD", Rule, 9),
        legacy("filter", "user", Return, 3),
        legacy("filter", "user", Rule, 2),
        legacy("filter", "FORWARD", Policy, 4),
        nft(Family::Ip, "z", "c", Rule, 1),
        nft(Family::Ip6, "a", "c", Rule, 1),
    ];
    let pre = vec![
        legacy("nat", "PREROUTING", Policy, 1),
        legacy("mangle", "PREROUTING", Policy, 1),
        legacy("raw", "PREROUTING", Policy, 1),
        nft(Family::Inet, "filter", "aa", Rule, 1),
    ];
    // The same path again, and in the other direction, adds no line.
    let mut back = traversal(Hook::Forward, forward.clone());
    back.direction = Direction::Reply;
    let lines = below(
        tcp(),
        vec![
            (traversal(Hook::Forward, forward), 1),
            (traversal(Hook::Prerouting, pre), 1),
            (back, 7),
        ],
        TextOptions::default(),
    );
    assert_eq!(
        lines,
        [
            "table: raw (legacy), chain: PREROUTING, type: policy, position: 1",
            "table: mangle (legacy), chain: PREROUTING, type: policy, position: 1",
            "table: nat (legacy), chain: PREROUTING, type: policy, position: 1",
            "table: filter (legacy), chain: FORWARD, type: policy, position: 4",
            "table: filter (legacy), chain: user, type: rule, position: 2",
            "table: filter (legacy), chain: user, type: return, position: 3",
            "table: security (legacy), chain: FORWARD, type: rule, position: 9",
            "table: security (legacy), chain: FORWARD, type: rule, position: 10",
            "table: ip z, chain: c, type: rule, position: 1",
            "table: ip6 a, chain: c, type: rule, position: 1",
            "table: inet filter, chain: aa, type: rule, position: 1",
            "table: inet filter, chain: zz, type: rule, position: 1",
        ]
    );
}

#[test]
fn the_rule_that_dropped_says_so() {
    for (verdict, outcome, told) in [
        (Verdict::Drop, Outcome::Dropped, ", verdict: drop"),
        (Verdict::Reject, Outcome::Dropped, ", verdict: reject"),
        (Verdict::Queue, Outcome::Dropped, ", verdict: queue"),
        (Verdict::Queue, Outcome::Passed, ""),
        (Verdict::Accept, Outcome::Passed, ""),
    ] {
        let site = || nft(Family::Inet, "fw", "in", SiteKind::Rule, 3);
        let before = step(legacy("raw", "PREROUTING", SiteKind::Rule, 1), Verdict::Queue, Exact);
        let mut way = traversal(Hook::Input, vec![before, step(site(), verdict, Exact)]);
        way.outcome = outcome;
        let lines = below(tcp(), vec![(way, 1)], TextOptions::default());
        assert_eq!(
            lines,
            [
                "table: raw (legacy), chain: PREROUTING, type: rule, position: 1".to_owned(),
                format!("table: inet fw, chain: in, type: rule, position: 3{told}"),
            ]
        );
    }
}

#[test]
fn rules_of_different_epochs_with_one_number_are_explained_apart() {
    let way = |text: &str, handle, epoch| {
        let mut site = nft(Family::Inet, "fw", "in", SiteKind::Rule, 1);
        (site.text, site.handle) = (Some(text.to_owned()), Some(handle));
        let mut way = traversal(Hook::Input, vec![step(site, Verdict::Accept, Exact)]);
        way.epoch = epoch;
        (way, 1)
    };
    let all = || vec![way("accept", 7, 1), way("counter accept", 9, 2)];
    assert_eq!(below(tcp(), all(), TextOptions::default()).len(), 1);
    let explained = below(tcp(), all(), TextOptions { explain: true });
    let traces: Vec<&String> = explained.iter().filter(|l| l.starts_with("table")).collect();
    assert_eq!(
        traces,
        [
            "table: inet fw, chain: in, type: rule, position: 1, handle: 7, verdict: accept, \
             provenance: exact, state: new, epoch: 1, rule: accept",
            "table: inet fw, chain: in, type: rule, position: 1, handle: 9, verdict: accept, \
             provenance: exact, state: new, epoch: 2, rule: counter accept",
        ]
    );
}

#[test]
fn the_direction_is_explained_where_it_is_not_the_original_alone() {
    use Direction::{Original, Reply};
    let way = |chain: &str, direction| {
        let site = nft(Family::Inet, "fw", chain, SiteKind::Rule, 1);
        let mut way = traversal(Hook::Input, vec![step(site, Verdict::Accept, Exact)]);
        way.direction = direction;
        (way, 1)
    };
    let all = vec![way("a", Original), way("b", Original), way("b", Reply), way("c", Reply)];
    let explained = below(tcp(), all, TextOptions { explain: true });
    let known: Vec<&str> = explained
        .iter()
        .filter(|line| line.starts_with("table"))
        .map(|line| line.split_once("provenance: exact, ").unwrap().1)
        .collect();
    // All are of the one epoch.
    assert_eq!(
        known,
        [
            "state: new, rule: counter",
            "direction: original/reply, state: new, rule: counter",
            "direction: reply, state: new, rule: counter",
        ]
    );
}

#[test]
fn without_traced_rules_there_are_no_trace_lines() {
    let mut flow = tcp();
    let site = nft(Family::Inet, "fw", "in", SiteKind::Rule, 1);
    flow.paths = ways(vec![(traversal(Hook::Input, vec![step(site, Verdict::Accept, Exact)]), 1)]);
    assert_eq!(lines(&report(vec![flow])).len(), 1);
}

#[test]
fn a_mark_is_explained_by_what_must_have_set_it() {
    let rule = |site: Site, text: &str, provenance| {
        let text = Some(text.to_owned());
        step(Site { text, ..site }, Verdict::Continue, provenance)
    };
    let in_iptables = |n| legacy("mangle", "FORWARD", SiteKind::Rule, n);
    let in_nft = |n| nft(Family::Inet, "fw", "forward", SiteKind::Rule, n);
    let policy = |site: Site| {
        let (kind, text) = (SiteKind::Policy, None);
        step(Site { kind, text, position: Some(9), ..site }, Verdict::Accept, Exact)
    };
    let (save, set, pass) = ("-j CONNMARK --save-mark", "-j CONNMARK --set-xmark 1/1", "-j LOG");
    let restore = "-j CONNMARK --restore-mark";
    let nft_set = "counter ct mark set 0x00000001";
    for (steps, by) in [
        // One rule of iptables, whose rules all have counters.
        (
            vec![
                rule(in_iptables(1), pass, Exact),
                rule(in_iptables(2), restore, Exact),
                rule(in_iptables(3), set, Exact),
                policy(in_iptables(9)),
            ],
            " by rule 3 of mangle (legacy)/FORWARD",
        ),
        // Either of two.
        (
            vec![
                rule(in_iptables(1), save, Exact),
                rule(in_iptables(2), set, Exact),
                policy(in_iptables(9)),
            ],
            " in mangle (legacy)/FORWARD",
        ),
        // Rules of nft may set marks without a counter.
        (vec![rule(in_nft(1), nft_set, Exact), policy(in_nft(9))], " in inet fw/forward"),
        // A user chain, whose base chain is unknown.
        (vec![step(in_nft(1), Verdict::Accept, Exact)], " in inet fw"),
        // Two base chains.
        (vec![rule(in_iptables(1), set, Exact), policy(in_iptables(9)), policy(in_nft(9))], ""),
    ] {
        let mut way = traversal(Hook::Forward, steps);
        way.connmark = Some((0, 1));
        let lines = below(tcp(), vec![(way, 1)], TextOptions { explain: true });
        let told = lines.iter().find(|line| line.starts_with("connmark")).unwrap();
        assert_eq!(*told, format!("connmark: 0x0 -> 0x1 set at forward (original, new){by}"));
    }
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
            "# totals: lines=0 flows=0 no_entry=0 merged=0 confirmed=0 dropped=0 dropped_packets=0 lost=0 lost_packets=0",
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
    assert!(
        text.contains("# totals: lines=2 flows=3 no_entry=0 merged=3 confirmed=1 dropped=1 "),
        "{text}"
    );
}

#[test]
fn namespaces_and_zones_tell_lines_apart_where_there_are_several() {
    // In report order the identifier precedes the namespace, so equal lines are not adjacent.
    let mut flows = Vec::new();
    for (id, netns, zone) in [(1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (2, 1, 9), (3, 2, 0)] {
        let mut ping = icmp(1, "192.0.2.1", "192.0.2.2", 8, 0, id);
        ping.key.netns = NetnsId(netns);
        ping.key.zone = Zone(zone);
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
            flow.key.zone = Zone(zone);
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

        // Every flow has its line, in report order, confirmed if one of its flows is.
        let ends = |flow: &Flow| Ends::from(flow.key.orig).to_string();
        let suffix = |flow: &Flow| {
            let red = if flow.key.netns.0 == 1 { "red" } else { "-" };
            let netns =
                if many_namespaces { format!(" [netns {red}]") } else { String::new() };
            let zone = if flow.key.zone == Zone(1) { " [zone 1]" } else { "" };
            format!("{netns}{zone}")
        };
        let mut at = 0;
        for group in report.flows.chunk_by(|a, b| order::same_ends(&a.key, &b.key)) {
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
