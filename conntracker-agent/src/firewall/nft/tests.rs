use crate::firewall::action::Via;
use crate::model::{hook::Hook, table::Family};
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::firewall::{action::Action::*, model::*};

macro_rules! fixture {
    ($name:literal) => {
        (
            include_str!(concat!("../fixtures/", $name, ".json")),
            include_str!(concat!("../fixtures/", $name, ".txt")),
        )
    };
}

const FIXTURES: [(&str, &str); 5] = [
    fixture!("firewall"),
    fixture!("iptables-nft"),
    fixture!("docker"),
    fixture!("firewalld"),
    fixture!("kube-proxy"),
];

fn loaded((json, text): (&str, &str)) -> Loaded {
    join(Listing::parse(json).unwrap(), Texts::parse(text))
}

fn tables(fixture: (&str, &str)) -> Vec<Table> {
    let Loaded { mut tables, skipped, without_text, .. } = loaded(fixture);
    assert_eq!((skipped, without_text), (BTreeMap::new(), 0));
    crate::firewall::order::sort(&mut tables);
    tables
}

fn labels(tables: &[Table]) -> Vec<String> {
    tables.iter().map(|table| table.label().into_owned()).collect()
}

fn find<'a>(tables: &'a [Table], label: &str, chain: &str) -> &'a Chain {
    tables.iter().find(|table| table.label() == label).unwrap().chain(chain).unwrap()
}

/// `via chain` of each target.
fn targets(rule: &Rule) -> Vec<(Via, &str)> {
    rule.targets.iter().map(|target| (target.via, target.chain.as_str())).collect()
}

#[test]
fn a_firewall_written_by_hand() {
    let tables = tables(FIXTURES[0]);
    assert_eq!(
        labels(&tables),
        ["ip asleep", "inet firewall", "arp answers", "bridge frames", "netdev ends"]
    );
    assert!(tables[0].dormant && !tables[1].dormant);
    let names: Vec<_> = tables[1].chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["divert", "pre", "input", "out", "post", "second", "ssh", "third", "web"]);
    assert_eq!(find(&tables, "netdev ends", "arriving").base.as_ref().unwrap().devices, ["lo"]);

    let input = find(&tables, "inet firewall", "input");
    let Base { kind, hook, priority, policy, .. } = input.base.as_ref().unwrap();
    assert_eq!(
        (*kind, *hook, *priority, *policy),
        (ChainType::Filter, Hook::Input, 0, Policy::Drop)
    );
    assert_eq!(find(&tables, "inet firewall", "post").base.as_ref().unwrap().priority, 105);

    let rule = |start: &str| input.rules.iter().find(|rule| rule.text.starts_with(start)).unwrap();
    let rule = |start: &str| (rule(start), rule(start).actions.as_slice());
    assert_eq!(rule("ct state vmap").1, [Accept, Drop]);
    let (ports, actions) = rule("tcp dport vmap @services");
    assert_eq!(actions, [Accept, Jump, Goto]);
    assert_eq!(targets(ports), [(Via::Jump, "ssh"), (Via::Goto, "web")]);
    let (jump, actions) = rule("meta l4proto");
    assert_eq!((actions, targets(jump)), (&[Jump][..], vec![(Via::Jump, "second")]));
    assert_eq!(jump.kinds, ["match meta", "lookup", "log", "counter", "jump"]);
    assert_eq!(
        jump.text,
        r#"meta l4proto { tcp, udp } log prefix "hello # handle 3 " group 2 counter jump second"#
    );
    // A block of rules has no JSON, nor have its rules handles: what it does is not known.
    let (block, actions) = rule("jump {");
    assert_eq!((actions, block.kinds.as_slice()), (&[Unknown][..], &["text".to_owned()][..]));
    assert_eq!(rule("tcp flags syn").1, [Synproxy]);
    assert_eq!(rule("ct mark & 0x").1, [Reject]);
    assert_eq!(rule("meta mark set").1, []);
}

#[test]
fn a_counter_proves_a_match_only_where_no_condition_follows() {
    let tables = tables(FIXTURES[0]);
    let table = tables.iter().find(|table| table.name == "firewall").unwrap();
    let proof: BTreeMap<&str, bool> = table
        .chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .filter(|rule| rule.counter.is_some())
        .map(|rule| (rule.text.as_str(), rule.counts_matches))
        .collect();
    for (start, proves) in [
        ("tcp dport { 1-1024, 3000 } counter", true),
        ("counter tcp dport 4000 drop", false),
        ("limit rate 3/second", true),
        ("counter meta mark set 0x", true),
        ("ct mark & 0x", true),
        ("tcp dport 81 counter redirect", true),
    ] {
        let found: Vec<_> = proof.iter().filter(|(text, _)| text.starts_with(start)).collect();
        assert!(!found.is_empty() && found.iter().all(|(_, is)| **is == proves), "{found:?}");
    }
    // Named counters belong to nobody in particular.
    let named = table.chain("web").unwrap().at(1);
    let Some(ChainItem::Rule(named)) = named else { panic!("{named:?}") };
    assert_eq!((named.counter, named.counts_matches), (None, false));
    assert_eq!(named.kinds, ["match payload", "lookup", "counter object", "drop"]);
    let third = table.chain("third").unwrap();
    assert_eq!(third.rules[1].counter, Some(Counter { packets: 5, bytes: 500 }));
}

#[test]
fn positions_count_from_one_and_the_end_has_one_too() {
    for fixture in FIXTURES {
        for table in tables(fixture) {
            for chain in &table.chains {
                let end = match &chain.base {
                    Some(base) => ChainItem::Policy(base.policy),
                    None => ChainItem::Return,
                };
                assert_eq!(chain.at(chain.rules.len() as u32 + 1), Some(end));
                assert_eq!(chain.at(0), None);
                assert_eq!(chain.at(chain.end_position() + 1), None);
                for (number, rule) in (1..).zip(&chain.rules) {
                    assert_eq!(rule.position, number);
                    assert_eq!(chain.at(number), Some(ChainItem::Rule(rule)));
                    assert_eq!(chain.rule(rule.handle.unwrap()), Some(rule));
                }
                assert_eq!(table.chain(&chain.name), Some(chain));
            }
        }
    }
}

#[test]
fn jumps_lead_to_chains_that_exist() {
    for fixture in FIXTURES {
        for table in tables(fixture) {
            for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
                for target in &rule.targets {
                    assert!(table.chain(&target.chain).is_some(), "{rule:?}");
                }
                let jumps = rule.actions.iter().any(|a| matches!(a, Jump | Goto));
                assert_eq!(jumps, !rule.targets.is_empty(), "{rule:?}");
            }
        }
    }
}

#[test]
fn tables_of_iptables_nft_are_known_by_their_shape() {
    let own = tables(FIXTURES[1]);
    assert_eq!(labels(&own), ["raw", "mangle", "nat", "filter", "filter"]);
    assert_eq!(own[4].family, Family::Ip6);
    assert_eq!(labels(&tables(FIXTURES[2])), ["raw", "nat", "filter"]);
    assert_eq!(labels(&tables(FIXTURES[3])), ["inet firewalld"]);
    assert_eq!(labels(&tables(FIXTURES[4])), ["ip kube-proxy"]);

    let (_, text) = FIXTURES[1];
    let filter = own.iter().find(|table| table.label() == "filter").unwrap();
    let rule = |chain: &str, at: usize| &filter.chain(chain).unwrap().rules[at];
    assert_eq!(rule("level1", 0).kinds, ["xt match addrtype", "counter", "xt target REJECT"]);
    assert_eq!(rule("level1", 0).actions, [Reject]);
    assert_eq!(rule("level2", 0).actions, []);
    assert_eq!(targets(rule("level2", 1)), [(Via::Goto, "level3")]);
    assert_eq!(rule("INPUT", 0).counter, Some(Counter { packets: 17, bytes: 1020 }));
    for changed in [
        // Any other name, priority or type is somebody else's.
        FIXTURES[1].0.replace("\"name\": \"INPUT\"", "\"name\": \"input\""),
        FIXTURES[1].0.replace("\"prio\": 0", "\"prio\": 1"),
        FIXTURES[1]
            .0
            .replace("\"table\": \"filter\"", "\"table\": \"x\"")
            .replace("\"name\": \"filter\"", "\"name\": \"x\""),
    ] {
        let tables = join(Listing::parse(&changed).unwrap(), Texts::parse(text)).tables;
        assert!(!labels(&tables).contains(&"filter".to_owned()), "{:?}", labels(&tables));
    }
}

#[test]
fn without_xt_expressions_every_rule_must_look_like_one_of_iptables() {
    let ruleset = |expr: &str| {
        let json = format!(
            r#"{{"nftables": [{{"table": {{"family": "ip", "name": "filter", "handle": 1}}}},
                {{"chain": {{"family": "ip", "table": "filter", "name": "INPUT", "handle": 1,
                    "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}}},
                {{"rule": {{"family": "ip", "table": "filter", "chain": "INPUT", "handle": 2,
                    "expr": {expr}}}}}]}}"#
        );
        labels(&join(Listing::parse(&json).unwrap(), Texts::default()).tables)
    };
    let counter = r#"{"counter": {"packets": 0, "bytes": 0}}"#;
    let ports = r#"{"match": {"op": "==", "left": {"payload": {}}, "right": 22}}"#;
    assert_eq!(ruleset(&format!("[{ports}, {counter}, {{\"accept\": null}}]")), ["filter"]);
    for own in [
        format!("[{ports}, {{\"accept\": null}}]"),
        format!("[{counter}, {ports}, {{\"accept\": null}}]"),
        format!("[{ports}, {counter}, {counter}]"),
    ] {
        assert_eq!(ruleset(&own), ["ip filter"], "{own}");
    }
}

#[test]
fn verdict_maps_of_kube_proxy_lead_to_its_services() {
    let tables = tables(FIXTURES[4]);
    let services = find(&tables, "ip kube-proxy", "services");
    assert_eq!(
        targets(&services.rules[0]),
        [
            (Via::Goto, "external-HVFWP5L3-ns5/svc5/tcp/p80"),
            (Via::Goto, "service-42NFTM6N-ns2/svc2/tcp/p80"),
            (Via::Goto, "service-ULMVA6XW-ns1/svc1/tcp/p80"),
        ]
    );
    // A map that is empty now decides nothing.
    let nodeports = find(&tables, "ip kube-proxy", "nodeport-endpoints-check");
    assert_eq!(
        (&nodeports.rules[0].actions[..], &nodeports.rules[0].targets[..]),
        (&[][..], &[][..])
    );
    assert_eq!(find(&tables, "ip kube-proxy", "reject-chain").rules.len(), 1);
}

#[test]
fn a_text_is_that_of_the_very_rule_or_none() {
    let (json, text) = FIXTURES[0];
    let all: usize =
        tables(FIXTURES[0]).iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum();
    let missing = |text: &str| loaded((json, text)).without_text;
    assert_eq!(missing(""), all);
    // A table made anew starts counting handles anew.
    let firewall = text.lines().find(|line| line.starts_with("table inet firewall")).unwrap();
    let renewed = text.replace(firewall, "table inet firewall { # handle 99");
    assert_eq!(missing(&renewed), all - 4);
    let web = text.lines().find(|line| line.starts_with("\tchain web")).unwrap();
    assert_eq!(missing(&text.replace(web, "\tchain web { # handle 99")), 2);
    // A handle that comes twice, as a comment with line breaks could make it.
    let rule = text.lines().find(|line| line.contains("ip saddr @bad")).unwrap();
    assert_eq!(missing(&text.replace(rule, &format!("{rule}\n{rule}"))), 1);
    // Without its text a rule has its JSON.
    let plain = loaded((json, "")).tables;
    let rule = plain.iter().flat_map(|t| &t.chains).find(|c| c.name == "web").unwrap();
    assert_eq!(rule.rules[1].text, r#"[{"return":null}]"#);
}

#[test]
fn what_cannot_be_read_is_counted_and_costs_nothing_else() {
    let json = r#"{"nftables": [
        {"metainfo": {"version": "9"}}, {"wormhole": {"family": "ip"}}, {},
        {"table": {"family": "ip", "name": "t", "handle": 1}}, {"table": {"family": "ipx"}},
        {"chain": {"family": "ip", "table": "t", "name": "c", "handle": 1}},
        {"chain": {"family": "ip", "table": "t", "name": "d", "hook": "teleport", "prio": 0}},
        {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": 5}},
        {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 3,
            "expr": [{"warp": {"factor": 9}}, {"accept": null}]}},
        {"rule": {"family": "ip", "table": "t", "chain": "d", "handle": 4, "expr": []}},
        {"rule": {"handle": 5}}
    ]}"#;
    let Listing { tables, skipped } = Listing::parse(json).unwrap();
    let counts: Vec<_> = skipped.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(counts, [("chain", 1), ("nothing", 1), ("rule", 2), ("table", 1), ("wormhole", 1)]);
    let rules = &tables[0].chains[0].rules;
    // Not understood, but there: the positions after it are right.
    assert_eq!((rules[0].position, rules[0].actions.as_slice()), (1, &[Unknown][..]));
    assert_eq!((rules[1].position, rules[1].handle), (2, Some(3)));
    assert_eq!(rules[1].actions, [Accept, Unknown]);
    assert_eq!(rules[1].text, r#"[{"warp":{"factor":9}},{"accept":null}]"#);
    assert!(Listing::parse("").is_err());
    assert!(Listing::parse("{\"nftables\": 5}").is_err());
}

/// A change somewhere in a text.
fn mutate(text: &str, at: usize, remove: usize, insert: &str) -> String {
    let at = at % (text.len() + 1);
    let end = (at + remove).min(text.len());
    format!("{}{insert}{}", &text[..at], &text[end..])
}

proptest! {
    #[test]
    fn mutated_listings_never_panic(
        which in 0..FIXTURES.len(),
        changes in prop::collection::vec(
            (any::<usize>(), 0..40usize, "[ -~\n\t]{0,8}|null|\\[\\]|\\{\\}|\"x\"|-1|99999999999999999999"),
            1..4,
        ),
    ) {
        let (json, text) = FIXTURES[which];
        prop_assert!(json.is_ascii() && text.is_ascii());
        let (mut json, mut text) = (json.to_owned(), text.to_owned());
        for (at, remove, insert) in &changes {
            json = mutate(&json, *at, *remove, insert);
            text = mutate(&text, *at, *remove, insert);
        }
        let whole = FIXTURES[which];
        for (json, text) in [(json.as_str(), whole.1), (whole.0, &text), (&json, &text)] {
            let Ok(listing) = Listing::parse(json) else { continue };
            for table in join(listing, Texts::parse(text)).tables {
                for chain in &table.chains {
                    let positions: Vec<u32> = chain.rules.iter().map(|rule| rule.position).collect();
                    prop_assert_eq!(positions, (1..chain.end_position()).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_member_that_goes_missing_is_counted_or_does_not_matter(
        which in 0..FIXTURES.len(),
        object in any::<prop::sample::Index>(),
        member in any::<prop::sample::Index>(),
    ) {
        let (json, _) = FIXTURES[which];
        let mut document: serde_json::Value = serde_json::from_str(json).unwrap();
        let objects = document["nftables"].as_array_mut().unwrap();
        let object = object.index(objects.len());
        let (kind, members) = objects[object].as_object_mut().unwrap().iter_mut().next().unwrap();
        let kind = kind.clone();
        let Some(members) = members.as_object_mut() else { return Ok(()) };
        let name = members.keys().nth(member.index(members.len())).unwrap().clone();
        members.remove(&name);
        let place = ["family", "table", "chain"].contains(&name.as_str());
        let listing = Listing::parse(&document.to_string()).unwrap();
        let rule_lost = kind == "rule" && place;
        prop_assert!(!rule_lost || listing.skipped.get("rule") == Some(&1), "{:?}", listing.skipped);
    }
}

/// As nft 1.0.6 lists it; the program's name is what the kernel calls it, and that may be any text.
#[test]
fn a_table_with_an_owner_has_its_texts() {
    let json = r#"{"nftables": [
        {"table": {"family": "inet", "name": "own", "handle": 7, "flags": ["owner"]}},
        {"chain": {"family": "inet", "table": "own", "name": "f", "handle": 1, "type": "filter",
                   "hook": "forward", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "own", "chain": "f", "handle": 2,
                  "expr": [{"drop": null}]}}
    ]}"#;
    for program in ["nft", "", "a b", "x { # handle 9", "# handle 3"] {
        let text = format!(
            "table inet own {{ # handle 7 progname {program}\n\tflags owner\n\n\tchain f {{ # handle 1\n\
             \t\ttype filter hook forward priority filter; policy accept;\n\t\tdrop # handle 2\n\t}}\n}}\n"
        );
        let tables = tables((json, &text));
        assert_eq!(find(&tables, "inet own", "f").rules[0].text, "drop", "{program}");
    }
}
