use super::{listings::Listings, model::*, *};

fn ruleset() -> Ruleset {
    let listings = Listings {
        json: include_str!("fixtures/docker.json"),
        text: include_str!("fixtures/docker.txt"),
        iptables_legacy: include_str!("fixtures/iptables-legacy.save"),
        ..Listings::default()
    };
    listings.ruleset().unwrap()
}

#[test]
fn tables_of_one_name_are_told_apart_by_backend() {
    let ruleset = ruleset();
    let order: Vec<_> = ruleset.tables.iter().map(|t| (t.name.as_str(), t.backend)).collect();
    assert_eq!(
        order,
        [
            ("raw", Backend::Nft),
            ("raw", Backend::Legacy),
            ("mangle", Backend::Legacy),
            ("nat", Backend::Nft),
            ("nat", Backend::Legacy),
            ("filter", Backend::Nft),
            ("filter", Backend::Legacy),
        ]
    );
    let labels: Vec<_> = ruleset.tables.iter().map(|table| table.label()).collect();
    assert_eq!(labels[5..], ["filter", "filter (legacy)"]);
    assert!(ruleset.notes.iter().any(|note| note.contains("both loaded")), "{:?}", ruleset.notes);
    let input = |backend| ruleset.chain(backend, Family::Ip, "filter", "INPUT").unwrap();
    assert_eq!((input(Backend::Nft).rules.len(), input(Backend::Legacy).rules.len()), (0, 4));
    assert_eq!(ruleset.chain(Backend::Nft, Family::Ip6, "filter", "INPUT"), None);
}

#[test]
fn rules_are_found_by_handle_and_by_position() {
    let ruleset = ruleset();
    let rule = ruleset.rule(Family::Ip, "filter", "DOCKER-ISOLATION-STAGE-2", 28).unwrap();
    assert_eq!((rule.position, rule.text.as_str()), (2, "oifname \"docker0\" counter drop"));
    let at = |position| {
        ruleset.at(Backend::Nft, Family::Ip, "filter", "DOCKER-ISOLATION-STAGE-2", position)
    };
    assert_eq!(at(2), Some(ChainItem::Rule(rule)));
    assert_eq!(at(3), Some(ChainItem::Return));
    assert_eq!(at(4), None);
    assert_eq!(ruleset.rule(Family::Ip, "filter", "DOCKER", 28), None);
    let forward = ruleset.at(Backend::Nft, Family::Ip, "filter", "FORWARD", 3);
    assert_eq!(forward, Some(ChainItem::Policy(Policy::Drop)));
}

#[test]
fn what_could_not_be_listed_is_noted() {
    let mut legacy = legacy::Loaded::default();
    legacy.unread.push("legacy".to_owned());
    let Ruleset { tables, skipped, notes, unread, printed: _, objects: _ } =
        Ruleset::of(None, legacy);
    assert!(tables.is_empty() && skipped.is_empty() && notes.is_empty());
    let nft = "nft is not found, in PATH or elsewhere: rules of nf_tables are not shown";
    assert_eq!(unread, [nft, "legacy"]);
}
