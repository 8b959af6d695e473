use serde_json::Value;

use super::*;
use crate::{
    firewall::model::{Base, ChainType, Counter, Policy},
    model::{
        Flow,
        hook::Hook,
        loss::Loss,
        path::{Provenance, SiteKind, Traversal, Verdict},
        table::{Backend, Family},
    },
    report::{
        coverage::{Coverage, Unseen},
        fixtures::{legacy, namespace, nft, ports, report, step, traversal, ways},
    },
};

fn rule(position: u32, handle: Option<u64>, text: &str, counted: bool) -> Rule {
    Rule {
        position,
        handle,
        text: text.to_owned(),
        kinds: Vec::new(),
        counter: counted.then(Counter::default),
        nat_family: None,
        clauses: Vec::new(),
        counts_matches: counted,
        actions: Vec::new(),
        targets: Vec::new(),
    }
}

/// `inet fw` with a base chain and a user chain, and iptables-legacy's filter.
fn ruleset() -> Ruleset {
    let chain =
        |name: &str, base, rules| Chain { name: name.to_owned(), handle: None, base, rules };
    let base = |hook| {
        Some(Base {
            kind: ChainType::Filter,
            hook,
            priority: 0,
            policy: Policy::Drop,
            counter: None,
            devices: Vec::new(),
        })
    };
    let table = |family, name: &str, backend, chains| Table {
        family,
        name: name.to_owned(),
        backend,
        handle: None,
        iptables: backend == Backend::Legacy,
        dormant: false,
        chains,
    };
    let input = vec![rule(1, None, "-A INPUT -i lo -j ACCEPT", true)];
    let forward = vec![
        rule(1, Some(11), "counter jump user", true),
        rule(2, Some(12), "tcp dport 23 counter drop", true),
        rule(3, Some(13), "accept", false),
    ];
    Ruleset {
        tables: vec![
            table(
                Family::Ip,
                "filter",
                Backend::Legacy,
                vec![chain("INPUT", base(Hook::Input), input)],
            ),
            table(
                Family::Inet,
                "fw",
                Backend::Nft,
                vec![
                    chain("forward", base(Hook::Forward), forward),
                    chain("user", None, vec![rule(1, Some(21), "counter\n return", true)]),
                ],
            ),
        ],
        ..Ruleset::default()
    }
}

/// Sites as `fixtures` makes them have handle position + 10 and some text.
fn site(chain: &str, kind: SiteKind, position: u32, handle: u64) -> Site {
    let site = nft(Family::Inet, "fw", chain, kind, position);
    Site { handle: (kind == SiteKind::Rule).then_some(handle), ..site }
}

fn way(hook: Hook, sites: Vec<Site>) -> Traversal {
    let met = |site| step(site, Verdict::Continue, Provenance::Exact);
    traversal(hook, sites.into_iter().map(met).collect())
}

fn flow(port: u16, all: Vec<(Traversal, u64)>) -> Flow {
    let mut flow = ports(6, "192.0.2.1", port, "192.0.2.2", 80);
    flow.paths = ways(all);
    flow
}

fn traced() -> Report {
    use SiteKind::{Chain, Policy, Return, Rule};
    let jump = || site("forward", Rule, 1, 11);
    let visit = || site("user", Rule, 1, 21);
    // One packet that passes `user` twice counts once.
    let twice = vec![jump(), visit(), jump(), visit(), site("user", Return, 2, 0)];
    let old =
        Site { text: Some("-A INPUT -j DROP".to_owned()), ..legacy("filter", "INPUT", Rule, 1) };
    let mut elsewhere = flow(9, vec![(way(Hook::Forward, vec![site("forward", Rule, 2, 12)]), 9)]);
    elsewhere.key.netns = NetnsId(1);
    let mut report = report(vec![
        flow(
            1,
            vec![
                (way(Hook::Forward, twice), 2),
                (way(Hook::Forward, vec![jump(), site("forward", Policy, 4, 0)]), 1),
            ],
        ),
        flow(
            2,
            vec![
                (way(Hook::Forward, vec![jump(), site("forward", Rule, 1, 99)]), 5),
                (way(Hook::Input, vec![old]), 1),
                (way(Hook::Input, vec![legacy("filter", "INPUT", Chain, 0)]), 1),
            ],
        ),
        flow(3, Vec::new()),
        elsewhere,
    ]);
    report.header.namespaces.push(namespace(1, "red", &[]));
    report.coverage = Ok(covered(&ruleset(), &[(13, Unseen::NoCounter)]));
    report
}

/// All rules were traced from the beginning, except those with these handles.
fn covered(ruleset: &Ruleset, unseen: &[(u64, Unseen)]) -> Coverage {
    let mut coverage = Coverage::default();
    let rules = rules(ruleset).map(|(table, chain, rule)| {
        let found = unseen.iter().find(|(handle, _)| rule.handle == Some(*handle));
        (table, &*chain.name, rule, found.map(|(_, why)| *why))
    });
    coverage.add(1, true, rules);
    coverage
}

fn print(format: Format) -> String {
    let mut out = Vec::new();
    render(&traced(), NetnsId(0), (&ruleset(), &ruleset()), format, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn rules_stand_with_the_flows_that_met_them() {
    assert_eq!(
        print(Format::Text),
        "\
table filter (legacy) (ip, iptables-legacy)
  chain INPUT: filter hook input priority 0, policy drop
      pos  handle      flows       packets  rule
        1       -          0             0  -A INPUT -i lo -j ACCEPT
        2       -          -             -  policy drop

table inet fw (nft)
  chain forward: filter hook forward priority 0, policy drop
      pos  handle      flows       packets  rule
        1      11          2             8  counter jump user
        2      12          0             0  tcp dport 23 counter drop
        3      13          ?             ?  accept
        4       -          1             1  policy drop
  chain user
      pos  handle      flows       packets  rule
        1      21          1             2  counter return
        2       -          1             2  return
# backend: links
# traced: 2 flows, 10 packets (counted at each hook)
# rules that none of them matched: 2
#   filter (legacy)/INPUT 1: -A INPUT -i lo -j ACCEPT
#   inet fw/forward 2: tcp dport 23 counter drop
# rules of which it cannot be told (no counter that tells): 1
# met, and not in the ruleset any more: 2
#   filter (legacy)/INPUT 1: -A INPUT -j DROP (flows 1, packets 1)
#   inet fw/forward 1: counter (flows 1, packets 5)
"
    );
}

#[test]
fn json_says_the_same() {
    let value: Value = serde_json::from_str(&print(Format::Json)).unwrap();
    assert_eq!(value["schema"], "conntracker-hits/1");
    assert_eq!(
        (&value["netns"], &value["flows"], &value["packets"]),
        (&"-".into(), &2.into(), &10.into())
    );
    let forward = &value["tables"][1]["chains"][0];
    assert_eq!(forward["base"]["hook"], "forward");
    assert_eq!(
        forward["rules"][0].to_string(),
        r#"{"all_seen":true,"counted":0,"flows":2,"handle":11,"packets":8,"position":1,"text":"counter jump user"}"#
    );
    assert_eq!(forward["rules"][2]["all_seen"], false);
    assert_eq!(
        forward["end"].to_string(),
        r#"{"flows":1,"packets":1,"position":4,"type":"policy"}"#
    );
    let places = |list: &str| -> Vec<String> {
        let places = value[list].as_array().unwrap().iter();
        places.map(|p| format!("{} {} {}", p["table"], p["chain"], p["position"])).collect()
    };
    assert_eq!(places("unused"), [r#""filter (legacy)" "INPUT" 1"#, r#""inet fw" "forward" 2"#]);
    assert_eq!(places("gone"), [r#""filter (legacy)" "INPUT" 1"#, r#""inet fw" "forward" 1"#]);
    assert_eq!(value["gone"][1]["handle"], 99);
}

#[test]
fn without_flows_and_rules_there_is_nothing_to_join() {
    let mut out = Vec::new();
    let (report, ruleset) = (report(Vec::new()), Ruleset::default());
    render(&report, NetnsId(0), (&ruleset, &ruleset), Format::Text, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "# backend: links\n# traced: 0 flows, 0 packets (counted at each hook)\n# rules that none of them matched: 0\n"
    );
}

/// The output about rule 12, which no known packet met, as (text, JSON).
fn said_of_12(report: &Report, counted: u64) -> (String, String) {
    let before = ruleset();
    let mut now = ruleset();
    for rule in now.tables.iter_mut().flat_map(|t| &mut t.chains).flat_map(|c| &mut c.rules) {
        if let (Some(12), Some(counter)) = (rule.handle, &mut rule.counter) {
            counter.packets += counted;
        }
    }
    let print = |format| {
        let mut out = Vec::new();
        render(report, NetnsId(0), (&before, &now), format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (text, json) = (print(Format::Text), print(Format::Json));
    let row = text.lines().find(|line| line.split_whitespace().nth(1) == Some("12")).unwrap();
    let number = row.split_whitespace().nth(2).unwrap();
    let unused = text.contains("\n#   inet fw/forward 2: tcp dport 23 counter drop\n");
    let value: Value = serde_json::from_str(&json).unwrap();
    let of = |list: &str| {
        let places = value[list].as_array().unwrap();
        places.iter().find(|place| place["handle"] == 12).cloned()
    };
    assert_eq!(of("unused").is_some(), unused);
    let rule = &value["tables"][1]["chains"][0]["rules"][1];
    let unknown = of("unknown");
    assert_eq!((rule["all_seen"] == true, unused), (unknown.is_none(), unknown.is_none()));
    assert_eq!(rule["counted"], counted);
    let why =
        unknown.map_or_else(String::new, |unknown| unknown["why"].as_str().unwrap().to_owned());
    (number.to_owned(), why)
}

#[test]
fn a_rule_is_not_called_unmatched_unless_it_can_be_told() {
    let said = |number: &str, why: &str| (number.to_owned(), why.to_owned());
    assert_eq!(said_of_12(&traced(), 0), said("0", ""));
    assert_eq!(said_of_12(&traced(), 3), said("?", "counter_moved"));
    for (unseen, why) in [
        (Unseen::NotObserved, "not_observed"),
        (Unseen::NoCounter, "no_counter"),
        (Unseen::NotRead, "counter_not_read"),
        (Unseen::Untold, "packets_untold"),
        (Unseen::Late, "came_later"),
    ] {
        let mut report = traced();
        report.coverage = Ok(covered(&ruleset(), &[(12, unseen)]));
        assert_eq!(said_of_12(&report, 0), said("?", why));
        let Ok(coverage) = &report.coverage else { panic!() };
        assert_eq!(incomplete(&report).is_some(), coverage.untold, "{why}");
    }
    let mut report = traced();
    report.coverage = Err("no right".to_owned());
    assert_eq!(said_of_12(&report, 3), said("?", "rules_not_traced"));
    assert!(incomplete(&report).unwrap().contains("no right"));
    // The rule was added after the last traced ruleset.
    report.coverage = Ok(Coverage::default());
    assert_eq!(said_of_12(&report, 0), said("?", "came_later"));
}

#[test]
fn lost_packets_may_have_met_any_rule_and_others_none() {
    let with = |loss: Loss, count| {
        let mut report = traced();
        report.footer.losses.push(loss.times(count));
        (said_of_12(&report, 0).1, incomplete(&report))
    };
    for loss in
        [Loss::PathRaces, Loss::PathRecordsLost, Loss::PathFramesFull, Loss::RecordsRejected]
    {
        let (why, line) = with(loss, 2);
        assert_eq!(why, "packets_lost", "{loss:?}");
        assert!(line.unwrap().contains(&format!("{}=2", loss.name())));
        assert_eq!(with(loss, 0), (String::new(), None));
    }
    for loss in [Loss::DumpsFailed, Loss::DropRecordsLost, Loss::RulesetRaces, Loss::PathsNested] {
        assert_eq!(with(loss, 2), (String::new(), None), "{loss:?}");
    }
}

#[test]
fn text_says_why_and_names_what_a_counter_disproves() {
    let mut report = traced();
    let unseen = [(12, Unseen::NotObserved), (13, Unseen::NoCounter)];
    let mut coverage = covered(&ruleset(), &unseen);
    coverage.notes.push("a note".to_owned());
    report.coverage = Ok(coverage);
    let with = |packets| {
        let mut ruleset = ruleset();
        ruleset.tables[1].chains[0].rules[1].counter = Some(Counter { packets, bytes: 0 });
        ruleset
    };
    let (before, now) = (with(5), with(7));
    let mut out = Vec::new();
    render(&report, NetnsId(0), (&before, &now), Format::Text, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let expected = "\
# rules that none of them matched: 1
#   filter (legacy)/INPUT 1: -A INPUT -i lo -j ACCEPT
# rules of which it cannot be told (not observed: packets are not traced where they are met): 1
#   inet fw/forward 2: tcp dport 23 counter drop (its counter moved by 2)
# rules of which it cannot be told (no counter that tells): 1
# met, and not in the ruleset any more: 2
";
    assert!(text.contains(expected), "{text}");
    assert!(text.ends_with("# note: a note\n"), "{text}");
}
