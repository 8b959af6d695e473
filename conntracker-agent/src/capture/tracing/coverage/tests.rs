use super::*;
use crate::firewall::model::{Base, Chain, ChainType, Counter, Policy};
use crate::report::coverage::RuleId;

fn rule(handle: u64) -> Rule {
    Rule {
        position: 1,
        handle: Some(handle),
        text: String::new(),
        kinds: Vec::new(),
        counter: Some(Counter::default()),
        nat_family: None,
        counts_matches: true,
        actions: Vec::new(),
        targets: Vec::new(),
        clauses: Vec::new(),
    }
}

fn table(family: Family, chains: Vec<Chain>) -> Table {
    Table {
        family,
        name: "t".to_owned(),
        backend: Backend::Nft,
        handle: Some(1),
        iptables: false,
        dormant: false,
        chains,
    }
}

fn chain(name: &str, hook: Hook, rules: &[u64]) -> Chain {
    Chain {
        name: name.to_owned(),
        handle: None,
        base: Some(Base {
            kind: ChainType::Filter,
            hook,
            priority: 0,
            policy: Policy::Accept,
            counter: None,
            devices: Vec::new(),
        }),
        rules: rules.iter().map(|handle| rule(*handle)).collect(),
    }
}

/// Adds an epoch with rules of these handles.
fn add(coverage: &mut Coverage, epoch: u32, from_start: bool, rules: &[(u64, Option<Unseen>)]) {
    let table = table(Family::Inet, Vec::new());
    let rules: Vec<(Rule, Option<Unseen>)> =
        rules.iter().map(|(handle, unseen)| (rule(*handle), *unseen)).collect();
    coverage.add(
        epoch,
        from_start,
        rules.iter().map(|(rule, unseen)| (&table, "c", rule, *unseen)),
    );
}

fn of(coverage: &Coverage, handle: u64) -> Option<Unseen> {
    coverage.iter().find(|(key, _)| key.id == RuleId::Handle(handle)).unwrap().1
}

#[test]
fn what_was_not_seen_in_one_epoch_was_not_seen() {
    let mut coverage = Coverage::default();
    add(&mut coverage, 1, true, &[(1, None), (2, None), (3, Some(Unseen::NoCounter))]);
    add(&mut coverage, 2, false, &[(1, None), (2, Some(Unseen::NotRead)), (3, None), (4, None)]);
    // The same epoch again, with the facts of its last records.
    add(&mut coverage, 2, false, &[(1, None), (4, None)]);
    assert_eq!(of(&coverage, 1), None);
    assert_eq!(of(&coverage, 2), Some(Unseen::NotRead));
    assert_eq!(of(&coverage, 3), Some(Unseen::NoCounter));
    assert_eq!(of(&coverage, 4), Some(Unseen::Late), "it came with the second ruleset");
    assert!(!coverage.untold);
    add(&mut coverage, 2, false, &[(1, Some(Unseen::Untold))]);
    assert_eq!((of(&coverage, 1), coverage.untold), (Some(Unseen::Untold), true));
}

#[test]
fn a_rule_that_went_and_came_back_was_not_seen_all_the_time() {
    let mut coverage = Coverage::default();
    add(&mut coverage, 1, true, &[(1, None), (2, None)]);
    add(&mut coverage, 2, false, &[(2, None)]);
    add(&mut coverage, 3, false, &[(1, None), (2, None)]);
    assert_eq!((of(&coverage, 1), of(&coverage, 2)), (Some(Unseen::Late), None));
}

#[test]
fn a_ruleset_that_was_read_after_the_start_was_not_seen_from_there() {
    let mut coverage = Coverage::default();
    add(&mut coverage, 5, false, &[(1, None)]);
    assert_eq!(of(&coverage, 1), Some(Unseen::Late));
}

#[test]
fn chains_of_bridges_and_devices_are_named_and_idle_ones_are_not() {
    let ruleset = Ruleset {
        tables: vec![
            table(
                Family::Bridge,
                vec![chain("i", Hook::Input, &[1]), chain("idle", Hook::Forward, &[])],
            ),
            table(Family::Netdev, vec![chain("e", Hook::Egress, &[2])]),
            table(
                Family::Inet,
                vec![chain("early", Hook::Ingress, &[3]), chain("f", Hook::Forward, &[4])],
            ),
        ],
        ..Ruleset::default()
    };
    let index = Index {
        hooks: std::array::from_fn(|_| {
            std::array::from_fn(|_| crate::bpf::index::hooks::HookList {
                guard: conntracker_common::plan::Guard { address: 0, value: 0 },
                functions: Vec::new(),
            })
        }),
        generation: crate::bpf::index::nft::Generation::default(),
        nft: Vec::new(),
        legacy: Vec::new(),
    };
    let join = Join::new(&index, &ruleset);
    // None of them was found at a hook.
    let missed = unobserved(&index, &ruleset, &join, &[]);
    assert_eq!(missed, BTreeSet::from([(0, 0), (1, 0), (2, 0), (2, 1)]));
    let named = untraceable(&ruleset, &missed);
    assert_eq!(named, ["bridge t/i", "netdev t/e", "inet t/early"]);
    let said = note(&named).unwrap();
    assert!(
        said.contains("chains of bridges, devices and ARP: rules of bridge t/i, netdev t/e,"),
        "{said}"
    );
    let many: Vec<String> = (0..20).map(|n| format!("bridge t/{n}")).collect();
    assert!(note(&many).unwrap().contains("bridge t/7 and 12 more are"));
    assert_eq!(note(&[]), None);
}
