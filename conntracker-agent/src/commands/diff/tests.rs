//! Differences of reports that are known.

use super::{compare::Change, *};
use crate::{
    model::{
        Flow, Mark, Status,
        hook::Hook,
        path::{CtState, Outcome, Provenance, SiteKind, Step, Verdict},
        table::Family,
    },
    report::fixtures::{confirmed, drops, nft, only_dropped, ports, report, step, traversal, ways},
};

/// Of two whole recordings.
fn differences(before: &Report, after: &Report) -> Differences {
    let epochs = Epochs::default();
    let compared = |report| Compared { report, epochs: &epochs };
    compare::differences(compared(before), compared(after))
}

fn rule(position: u32, text: &str, verdict: Verdict) -> Step {
    let mut site = nft(Family::Inet, "fw", "forward", SiteKind::Rule, position);
    site.handle = Some(u64::from(position) + 100);
    site.text = Some(text.to_owned());
    step(site, verdict, Provenance::Exact)
}

/// A flow that a rule accepts.
fn accepted(dport: u16, by: Step) -> Flow {
    let mut flow = confirmed(ports(6, "10.0.0.1", 1024, "10.0.0.2", dport));
    flow.flows.add(1);
    flow.paths = ways(vec![(traversal(Hook::Forward, vec![by]), 1)]);
    flow
}

/// A flow that a rule drops.
fn dropped(dport: u16, by: &Step) -> Flow {
    let mut flow = only_dropped(ports(6, "10.0.0.1", 1024, "10.0.0.2", dport));
    let mut path = traversal(Hook::Forward, vec![by.clone()]);
    path.outcome = Outcome::Dropped;
    flow.paths = ways(vec![(path, 1)]);
    let mut all = crate::model::Drops::default();
    let place = drops(&[(2, 1, 2)]).unwrap().at()[0].place;
    all.add(place, Some(by), 3);
    flow.drops = Some(Box::new(all));
    flow
}

#[test]
fn a_change_of_fate_is_named_with_the_rules_that_decide() {
    let web = || rule(2, "tcp dport 80 accept", Verdict::Accept);
    let ssh = || rule(3, "tcp dport 22 accept", Verdict::Accept);
    let no = |n| rule(n, "tcp dport 81 drop", Verdict::Drop);
    let before = report(vec![accepted(80, web()), accepted(22, ssh()), dropped(81, &no(7))]);
    // Another position and another handle are no other rule.
    let after = report(vec![
        accepted(80, rule(5, "tcp dport 80 accept", Verdict::Accept)),
        dropped(22, &rule(1, "tcp dport 22 drop", Verdict::Drop)),
        accepted(81, rule(4, "accept", Verdict::Accept)),
    ]);
    let found = differences(&before, &after);
    assert_eq!((found.fates.len(), found.paths.len(), found.compared), (2, 0, 3));
    let Change { flow, before: was, after: is, before_by, after_by, .. } = &found.fates[0];
    assert_eq!((flow.dport, was.as_str(), is.as_str()), (Some(22), "accepted", "dropped"));
    assert_eq!(before_by.as_deref(), Some("inet fw/forward 3 (accept): tcp dport 22 accept"));
    assert_eq!(after_by.as_deref(), Some("inet fw/forward 1 (drop): tcp dport 22 drop"));
    assert_eq!(found.fates[1].flow.dport, Some(81));
    let rules: Vec<&str> = found.rules.iter().map(|rule| rule.rule.as_str()).collect();
    assert_eq!(
        rules,
        [
            "inet fw/forward 4 (accept): accept",
            "inet fw/forward 3 (accept): tcp dport 22 accept",
            "inet fw/forward 1 (drop): tcp dport 22 drop",
            "inet fw/forward 7 (drop): tcp dport 81 drop",
        ]
    );
    assert!(found.has(FailOn::Fate) && found.has(FailOn::Rules) && !found.has(FailOn::Path));
    assert!(!found.has(FailOn::Flows));
}

#[test]
fn the_first_other_rule_of_a_path_is_named_where_packets_are_alike() {
    let jump = |n| rule(1, "jump sub", Verdict::Jump(format!("sub{n}")));
    let two = |first: Step, second: Step| {
        let mut flow = accepted(80, first.clone());
        flow.paths = ways(vec![(traversal(Hook::Forward, vec![first, second]), 1)]);
        flow
    };
    let last = || rule(9, "accept", Verdict::Accept);
    let before = report(vec![two(jump(1), last())]);
    let after = report(vec![two(jump(2), last())]);
    let found = differences(&before, &after);
    let [change] = &found.paths[..] else { panic!("{:?}", found.paths) };
    assert_eq!(change.at.as_deref(), Some("forward original new"));
    assert_eq!(change.before, "inet fw/forward 1 (jump sub1): jump sub");
    assert_eq!(change.after, "inet fw/forward 1 (jump sub2): jump sub");
    // Packets of another state meet other rules, and that is no change.
    let mut established = two(jump(2), last());
    let mut path = traversal(Hook::Forward, vec![last()]);
    path.state = CtState::Established;
    established.paths = ways(vec![(path, 1)]);
    assert!(differences(&before, &report(vec![established])).paths.is_empty());
    // Of several paths one may be the same.
    let mut several = two(jump(2), last());
    several.paths = ways(vec![
        (traversal(Hook::Forward, vec![jump(2), last()]), 1),
        (traversal(Hook::Forward, vec![jump(1), last()]), 1),
    ]);
    assert!(differences(&before, &report(vec![several])).paths.is_empty());
}

#[test]
fn some_dropped_packets_of_a_flow_that_passes_are_no_change_of_fate() {
    let by = || rule(1, "ct state established accept", Verdict::Accept);
    let mut some = accepted(80, by());
    some.drops = drops(&[(2, 1, 2)]);
    let (plain, some) = (report(vec![accepted(80, by())]), report(vec![some]));
    assert!(differences(&plain, &some).fates.is_empty());
    assert!(differences(&some, &plain).fates.is_empty());
}

#[test]
fn translations_and_marks_are_compared() {
    let by = || rule(1, "accept", Verdict::Accept);
    let to = |address: &str, mark| {
        let mut flow = accepted(80, by());
        let mut reply = flow.key.orig.inverted().unwrap();
        reply.dst = address.parse().unwrap();
        (flow.reply, flow.mark) = (Some(reply), Some(Mark(mark)));
        // Not traced: the entry alone tells.
        flow.paths = ways(Vec::new());
        flow.status = flow.status.union(Status::SRC_NAT);
        flow
    };
    let found = differences(&report(vec![to("192.0.2.1", 1)]), &report(vec![to("192.0.2.2", 2)]));
    assert_eq!(
        (found.nat[0].before.as_str(), found.nat[0].after.as_str()),
        ("source 192.0.2.1", "source 192.0.2.2")
    );
    assert_eq!((found.marks[0].before.as_str(), found.marks[0].after.as_str()), ("0x1", "0x2"));
    assert!(found.fates.is_empty());
}

#[test]
fn flows_that_come_and_go_stand_beside_how_many_are_to_be_expected() {
    let by = || rule(1, "accept", Verdict::Accept);
    let all =
        |ports: std::ops::Range<u16>| report(ports.map(|port| accepted(port, by())).collect());
    let found = differences(&all(1..101), &all(51..151));
    assert_eq!((found.appeared.flows.len(), found.vanished.flows.len()), (50, 50));
    // Each was seen once: nothing says that the next sample has any of them.
    assert!((found.appeared.expected - 100.0).abs() < 0.1, "{}", found.appeared.expected);
    let mut often = all(1..101);
    often.flows.iter_mut().for_each(|flow| flow.flows.add(9));
    assert!(differences(&often, &all(51..151)).appeared.expected < 0.1);
}

#[test]
fn text_markdown_and_json_say_the_same_and_nothing_hostile() {
    let no = rule(1, "tcp dport 22 drop comment \"\u{1b}[31m|<script>\"", Verdict::Drop);
    let before = report(vec![accepted(22, rule(3, "accept", Verdict::Accept))]);
    let after = report(vec![dropped(22, &no)]);
    let found = differences(&before, &after);
    let print = |format| {
        let mut out = Vec::new();
        let sides = [side(&before), side(&after)];
        render::render(format, &sides, &found, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = print(Format::Text);
    assert!(text.contains("changes of fate: 1\n  tcp 10.0.0.1:1024 -> 10.0.0.2:22 [-]: accepted by inet fw/forward 3 (accept): accept; now dropped by"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let markdown = print(Format::Markdown);
    assert!(
        markdown.contains("### 1 changes of fate") && !markdown.contains("<script>"),
        "{markdown}"
    );
    let json: serde_json::Value = serde_json::from_str(&print(Format::Json)).unwrap();
    assert_eq!(json["schema"], "conntracker-diff/1");
    assert_eq!(json["fates"][0]["flow"]["dport"], 22);
    assert_eq!(json["fates"][0]["after"], "dropped");
    assert_eq!(json["compared"], 1);
}
