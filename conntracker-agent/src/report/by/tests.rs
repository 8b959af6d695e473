use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        Cause, ConntrackCause, DropPoint, Drops, Flow, Mark, NetnsId, Status, Zone,
        counters::Counters,
        hook::Hook,
        path::{Direction, MarksBehind, Provenance, SiteKind, Step, Traversal, Verdict},
        process::Process,
        table::Family,
    },
    report::{Format, Report, fixtures::*},
};

fn options(key: &str) -> GroupOptions {
    GroupOptions { key: key.parse().unwrap(), sort: None, top: None }
}

fn render(report: &Report, options: GroupOptions, format: GroupFormat) -> String {
    let mut out = Vec::new();
    report.render(Format::Groups(options, format), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The table, without the lines of the header and the footer.
fn table(report: &Report, options: GroupOptions) -> Vec<String> {
    let text = render(report, options, GroupFormat::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Keys with their conntrack flows.
fn keys(report: &Report, options: GroupOptions) -> Vec<(Option<String>, u64)> {
    let text = render(report, options, GroupFormat::Ndjson);
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects
        .filter(|object| object["type"] == "group")
        .map(|object| {
            let key = object.get("key").map(|key| key.as_str().unwrap().to_owned());
            (key, object["flows"].as_u64().unwrap())
        })
        .collect()
}

fn counted(mut flow: Flow, original: (u64, u64), reply: (u64, u64)) -> Flow {
    let of = |(packets, bytes)| Counters { packets, bytes };
    flow.counters = Some([of(original), of(reply)]);
    flow
}

/// Three clients: 10.0.0.9 with two services, 10.0.0.10 and 10.0.0.2 with one each, one of them dropped.
fn clients() -> Report {
    let mut dropped = only_dropped(ports(17, "10.0.0.2", 1024, "192.0.2.1", 53));
    dropped.drops =
        dropped_by(&[(Cause::Netfilter, 2, 1, 0), (Cause::Reason("NO_SOCKET"), 1, 1, 0)]);
    report(vec![
        counted(ports(6, "10.0.0.9", 1024, "192.0.2.1", 443), (10, 1000), (20, 20_000)),
        counted(ports(6, "10.0.0.9", 1024, "192.0.2.2", 80), (1, 60), (1, 60)),
        counted(ports(6, "10.0.0.10", 1024, "192.0.2.1", 443), (100, 9000), (5, 500)),
        dropped,
        icmp(1, "10.0.0.2", "192.0.2.1", 8, 0, 7),
    ])
}

#[test]
fn groups_have_sums_and_the_rest_is_summed_up() {
    let all = [
        "flows conntrack packets bytes replies reply bytes dropped lost src",
        "2 2 11 1060 21 20060 0 0 10.0.0.9",
        "1 1 100 9000 5 500 0 0 10.0.0.10",
        "2 1 - - - - 1 1 10.0.0.2",
        "5 4 111 10060 26 20560 1 1 total",
    ];
    assert_eq!(table(&clients(), options("src")), all);
    let text = render(&clients(), options("src"), GroupFormat::Text);
    assert!(text.contains("\n# by: src, sorted by bytes\n"), "{text}");
    assert!(text.contains("\n# totals: lines=5 flows=4 no_entry=1"), "{text}");

    let top = GroupOptions { top: NonZeroUsize::new(1), ..options("src") };
    let lines = table(&clients(), top);
    let others = "3 2 100 9000 5 500 1 1 others (2)";
    assert_eq!(lines[1..], [all[1], others, all[4]]);
    let more = GroupOptions { top: NonZeroUsize::new(3), ..options("src") };
    assert_eq!(table(&clients(), more), all);

    let by_name = GroupOptions { sort: Some(Sort::Name), ..options("src") };
    let sorted: Vec<_> = keys(&clients(), by_name).into_iter().filter_map(|(key, _)| key).collect();
    assert_eq!(sorted, ["10.0.0.2", "10.0.0.9", "10.0.0.10"], "as numbers");
    let by_drops = GroupOptions { sort: Some(Sort::Drops), ..options("src") };
    assert_eq!(keys(&clients(), by_drops)[0].0.as_deref(), Some("10.0.0.2"));
}

#[test]
fn without_accounting_flows_decide_the_order() {
    let mut report = clients();
    for flow in &mut report.flows {
        flow.counters = None;
    }
    let text = render(&report, options("dst"), GroupFormat::Text);
    assert!(text.contains("# by: dst, sorted by flows\n"), "{text}");
    let of = |n| format!("- - - - {n}");
    assert_eq!(table(&report, options("dst"))[1], format!("4 3 {} 1 192.0.2.1", of(1)));
}

#[test]
fn each_key_has_its_names() {
    let mut report = clients();
    report.header.namespaces = vec![namespace(0, "-", &[(1, "lan"), (2, "w\nan")])];
    report.flows[0].interfaces = Some((1, 2));
    report.flows[1].process = Some(Box::new(Process {
        direction: Direction::Original,
        uid: 33,
        user: Some("www-data".to_owned()),
        pid: None,
        comm: Some("ngi\"nx".to_owned()),
        cgroup_id: None,
        cgroup: None,
        inode: None,
    }));
    report.flows[2].key.zone = Zone(7);
    let names = |key: &str| {
        let by_name = GroupOptions { sort: Some(Sort::Name), ..options(key) };
        keys(&report, by_name)
    };
    let named = |all: &[(&str, u64)]| -> Vec<(Option<String>, u64)> {
        let key = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        all.iter().map(|(name, flows)| (key(name), *flows)).collect()
    };
    assert_eq!(names("dport"), named(&[("53/udp", 1), ("80/tcp", 1), ("443/tcp", 2), ("", 1)]));
    assert_eq!(names("proto"), named(&[("icmp", 1), ("tcp", 3), ("udp", 1)]));
    assert_eq!(names("netns"), named(&[("-", 5)]));
    assert_eq!(names("zone"), named(&[("0", 4), ("7", 1)]));
    // Of the dropped packet the drop point tells it.
    assert_eq!(names("iif"), named(&[("lan", 2), ("", 3)]));
    assert_eq!(names("oif"), named(&[("w\nan", 1), ("", 4)]));
    assert_eq!(names("process"), named(&[("ngi\"nx", 1), ("", 4)]));
    assert_eq!(names("user"), named(&[("www-data", 1), ("", 4)]));
    assert_eq!(names("mark"), named(&[("", 5)]));
    let text = table(&report, options("oif"));
    assert!(text.iter().any(|line| line.ends_with(" w\\nan")), "{text:?}");

    report.header.namespaces.push(namespace(1, "red", &[(1, "lan")]));
    report.flows[0].key.netns = NetnsId(1);
    let by_name = GroupOptions { sort: Some(Sort::Name), ..options("iif") };
    assert_eq!(keys(&report, by_name), named(&[("-/lan", 1), ("red/lan", 1), ("", 3)]));
}

fn rule(position: u32, verdict: Verdict) -> Step {
    step(nft(Family::Inet, "fw", "forward", SiteKind::Rule, position), verdict, Provenance::Exact)
}

/// Two flows that met rules 1 and 2, one of which rule 2 dropped, and one that met rule 1 alone.
fn firewalled() -> Report {
    let way = |steps| traversal(Hook::Forward, steps);
    let met = |port, steps: Vec<Step>| {
        let mut flow = ports(6, "10.0.0.1", port, "10.0.0.2", 80);
        flow.paths = ways(vec![(way(steps), 1)]);
        flow
    };
    let both = || vec![rule(1, Verdict::Continue), rule(2, Verdict::Drop)];
    let mut dropped = met(2000, both());
    let mut drops = Drops::default();
    let place = DropPoint::default();
    drops.add(place, Some(&rule(2, Verdict::Drop)), 5);
    drops.add(place, None, 3);
    let full = Cause::Conntrack(ConntrackCause::Full);
    drops.add(DropPoint { cause: full, ..place }, None, 2);
    drops.add(DropPoint { cause: Cause::Function("nf_queue"), ..place }, None, 1);
    dropped.drops = Some(Box::new(drops));
    report(vec![
        dropped,
        met(2001, both()),
        met(2002, vec![rule(1, Verdict::Accept)]),
        ports(6, "10.0.0.1", 2003, "10.0.0.2", 80),
    ])
}

#[test]
fn a_flow_counts_for_each_rule_that_it_met_and_a_dropped_packet_for_one() {
    let lines = table(&firewalled(), options("rule"));
    assert_eq!(
        lines,
        [
            "flows conntrack packets bytes replies reply bytes dropped lost rule",
            "2 2 - - - - 5 0 inet fw/forward/2: counter",
            "1 1 - - - - 3 0 a rule that is not known",
            "1 1 - - - - 2 0 conntrack: table full",
            "2 2 - - - - 0 1 -",
            "3 3 - - - - 0 0 inet fw/forward/1: counter",
            "4 4 - - - - 10 1 total",
        ]
    );
    // Others has each flow once, though it met several of the rules.
    let top = GroupOptions { top: NonZeroUsize::new(1), ..options("rule") };
    assert_eq!(table(&firewalled(), top)[2], "4 4 - - - - 5 1 others (4)");
    let object: Value = serde_json::from_str(
        render(&firewalled(), options("rule"), GroupFormat::Ndjson).lines().nth(2).unwrap(),
    )
    .unwrap();
    assert_eq!(object["key"], "inet fw/forward/2");
    let site = json!({"backend": "nft", "family": "inet", "table": "fw", "label": "inet fw", "chain": "forward",
        "type": "rule", "position": 2, "handle": 12, "text": "counter"});
    assert_eq!(object["rule"], site);
}

#[test]
fn reasons_have_the_packets_that_were_dropped_for_them() {
    assert_eq!(
        table(&firewalled(), options("reason"))[1..],
        [
            "1 1 - - - - 8 0 netfilter",
            "1 1 - - - - 2 0 conntrack: table full",
            "1 1 - - - - 0 1 nf_queue()",
            "3 3 - - - - 0 0 -",
            "4 4 - - - - 10 1 total",
        ]
    );
}

/// A flow of which a packet met a chain that gave the connection a mark.
fn marked(port: u16, mark: u32, before: u32) -> Flow {
    let mut flow = counted(ports(6, "10.0.0.1", port, "10.0.0.2", 21), (1, 100), (1, 50));
    flow.mark = Some(Mark(mark));
    let chain = nft(Family::Ip, "mangle", "set", SiteKind::Policy, 9);
    let mut way: Traversal =
        traversal(Hook::Forward, vec![step(chain, Verdict::Accept, Provenance::Exact)]);
    way.connmark = Some((before, mark));
    flow.paths = ways(vec![(way, 1)]);
    flow
}

#[test]
fn marks_are_told_apart_by_the_bits_of_the_mask() {
    let mut data = counted(ports(6, "10.0.0.2", 20, "10.0.0.1", 3000), (7, 7000), (7, 70));
    data.mark = Some(Mark(0x1101));
    data.status = data.status.union(Status::EXPECTED);
    data.parent = Some(Box::new(ports(6, "10.0.0.1", 1, "10.0.0.2", 21).key.orig));
    let mut orphan = data.clone();
    orphan.parent = None;
    let report = report(vec![
        marked(1, 0x1101, 0),
        marked(2, 0x1102, 0),
        // These bits were set before.
        marked(3, 0x1103, 0x1100),
        marked(4, 0x22_00, 0),
        data.clone(),
        data,
        orphan,
        ports(6, "10.0.0.1", 5, "10.0.0.2", 80),
    ]);
    assert_eq!(
        table(&report, options("mark/0xff00")),
        [
            "flows conntrack packets bytes replies reply bytes dropped lost related parents mark/0xff00",
            "6 6 24 21300 24 360 0 0 3 1 0x1100/0xff00, 2 flows set in ip mangle/set",
            "1 1 1 100 1 50 0 0 0 0 0x2200/0xff00, 1 flow set in ip mangle/set",
            "1 1 - - - - 0 0 0 0 -",
            "8 8 25 21400 25 410 0 0 - - total",
        ]
    );
    let whole = keys(&report, GroupOptions { sort: Some(Sort::Name), ..options("mark") });
    let names: Vec<_> =
        whole.into_iter().map(|(key, flows)| (key.unwrap_or_default(), flows)).collect();
    let named = |name: &str, flows| (name.to_owned(), flows);
    assert_eq!(
        names,
        [
            named("0x1101", 4),
            named("0x1102", 1),
            named("0x1103", 1),
            named("0x2200", 1),
            named("", 1)
        ]
    );
    let text = render(&report, options("mark/0xff00"), GroupFormat::Ndjson);
    let object: Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
    assert_eq!(
        (&object["mark"], &object["related"], &object["parents"]),
        (&json!(0x1100), &json!(3), &json!(1))
    );
    let set_by = json!([{"known": "chain", "flows": 2, "backend": "nft", "family": "ip", "table": "mangle",
        "label": "ip mangle", "chain": "set"}]);
    assert_eq!(object["set_by"], set_by);
}

#[test]
fn what_set_a_mark_is_told_as_far_as_links_saw_it() {
    let mut flow = marked(1, 0x5, 0);
    let paths: Vec<(Traversal, u64)> = flow
        .paths
        .iter()
        .map(|(way, packets)| {
            let mut way = way.clone();
            let chain = Arc::new(nft(Family::Ip, "first", "c", SiteKind::Chain, 0));
            let marks = MarksBehind { chain, alone: true, packet: 0, connection: 0x4 };
            way.marks = Arc::new([marks]);
            (way, packets)
        })
        .collect();
    flow.paths = ways(paths);
    let lines = table(&report(vec![flow]), options("mark/0x4"));
    assert!(lines[1].ends_with("0x4/0x4, 1 flow set in ip first/c"), "{lines:?}");
}

#[test]
fn the_document_has_the_same_objects_as_the_lines_and_csv_the_same_numbers() {
    let top = GroupOptions { top: NonZeroUsize::new(2), ..options("src") };
    let lines = render(&clients(), top, GroupFormat::Ndjson);
    let objects: Vec<&str> = lines.lines().collect();
    let [header, by, first, second, others, total, footer] = objects[..] else { panic!("{lines}") };
    let document = render(&clients(), top, GroupFormat::Json);
    assert_eq!(
        document,
        format!(
            "{{\"schema\":\"conntracker-groups/1\",\"header\":{header},\"by\":{by},\"groups\":[{first},{second}],\
             \"others\":{others},\"total\":{total},\"footer\":{footer}}}\n"
        )
    );
    assert!(header.starts_with(r#"{"type":"header","schema":"conntracker-groups/1","#), "{header}");
    assert_eq!(by, r#"{"type":"by","key":"src","sort":"bytes","top":2}"#);
    let csv = render(&clients(), top, GroupFormat::Csv);
    assert_eq!(
        csv,
        "kind,key,flows,conntrack_flows,packets,bytes,reply_packets,reply_bytes,dropped_packets,lost_packets,related,\
         parents,set_by\n\
         group,10.0.0.9,2,2,11,1060,21,20060,0,0,,,\n\
         group,10.0.0.10,1,1,100,9000,5,500,0,0,,,\n\
         others,,2,1,,,,,1,1,,,\n"
    );
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let counts = prop::option::of((0u64..1000, 0u64..100_000, 0u64..1000, 0u64..100_000));
    (0u8..4, 0u16..4, prop::option::of(0u32..8), counts, 0usize..3, 0usize..3).prop_map(
        |(src, dport, mark, counts, dropped, lost)| {
            let mut flow = ports(6, &format!("10.0.0.{src}"), 1024, "192.0.2.1", 80 + dport);
            flow.mark = mark.map(Mark);
            flow.counters = counts.map(|(p, b, rp, rb)| {
                [Counters { packets: p, bytes: b }, Counters { packets: rp, bytes: rb }]
            });
            let points = std::iter::repeat_n((Cause::Netfilter, 1, 1, 2), dropped)
                .chain(std::iter::repeat_n((Cause::Reason("NO_SOCKET"), 1, 1, 2), lost));
            flow.drops = dropped_by(&points.collect::<Vec<_>>());
            flow
        },
    )
}

proptest! {
    #[test]
    fn groups_and_others_add_up_to_the_total(
        flows in prop::collection::vec(any_flow(), 0..40),
        key in prop::sample::select(vec!["src", "dport", "mark", "mark/0x3", "reason", "rule", "proto"]),
        top in 1usize..6,
        sort in prop::sample::select(vec![Sort::Flows, Sort::Packets, Sort::Bytes, Sort::Drops, Sort::Lost, Sort::Name]),
    ) {
        let report = report(flows);
        let options = GroupOptions { sort: Some(sort), top: NonZeroUsize::new(top), ..options(key) };
        let keys = Keys::new(options.key, &report.header);
        let kept = KeptKeys::default();
        let all = Groups::of(&report, &keys, &kept, &GroupOptions { top: None, ..options }).unwrap();
        let some = Groups::of(&report, &keys, &kept, &options).unwrap();
        prop_assert!(all.others.is_none() && some.listed.len() <= top);
        prop_assert_eq!(some.listed.len() + some.others.map_or(0, |others| others.groups as usize), all.listed.len());
        // The first ones are the same.
        for (few, many) in some.listed.iter().zip(&all.listed) {
            prop_assert_eq!((few.key, few.sums), (many.key, many.sums));
        }
        let listed = some.listed.iter().map(|group| group.sums).chain(some.others.map(|others| others.sums));
        let (mut dropped, mut lost, mut flows, mut bytes) = (0, 0, 0, 0);
        for sums in listed {
            dropped += sums.dropped;
            lost += sums.lost;
            flows += sums.flows;
            bytes += sums.counters.unwrap_or_default().iter().map(|c| c.bytes).sum::<u64>();
        }
        // A dropped packet counts in one group, whatever the key.
        prop_assert_eq!((dropped, lost), (some.total.dropped, some.total.lost));
        let several = matches!(options.key, Key::Rule | Key::Reason);
        if !several {
            let total = some.total.counters.unwrap_or_default().iter().map(|c| c.bytes).sum::<u64>();
            prop_assert_eq!((flows, bytes), (some.total.flows, total));
        }
        prop_assert_eq!(some.total.flows, report.flows.len() as u64);
    }
}
