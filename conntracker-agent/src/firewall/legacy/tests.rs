use crate::firewall::action::{Action, Target, Via};
use crate::model::hook::Hook;
use proptest::prelude::*;

use super::{save::*, *};
use crate::firewall::model::*;

const V4: &str = include_str!("../fixtures/iptables-legacy.save");
const V6: &str = include_str!("../fixtures/ip6tables-legacy.save");
const OF_NF_TABLES: &str = include_str!("../fixtures/iptables-nft.save");

fn tables(family: Family, saved: &str) -> Vec<Table> {
    let mut skipped = Skipped::new();
    let mut tables = parse(family, saved, &mut skipped);
    assert_eq!(skipped, Skipped::new());
    crate::firewall::order::sort(&mut tables);
    tables
}

#[test]
fn a_saved_ruleset() {
    let tables = tables(Family::Ip, V4);
    let labels: Vec<_> = tables.iter().map(|table| table.label()).collect();
    assert_eq!(labels, ["raw (legacy)", "mangle (legacy)", "nat (legacy)", "filter (legacy)"]);
    let filter = &tables[3];
    let names: Vec<_> = filter.chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["INPUT", "FORWARD", "OUTPUT", "level1", "level2", "level3"]);
    let input = filter.chain("INPUT").unwrap();
    let base = input.base.as_ref().unwrap();
    assert_eq!((base.policy, base.counter), (Policy::Drop, Some(Counter::default())));
    assert_eq!((base.hook, base.priority), (Hook::Input, 0));
    assert_eq!(input.at(5), Some(ChainItem::Policy(Policy::Drop)));
    assert_eq!(filter.chain("level1").unwrap().at(3), Some(ChainItem::Return));
    let rule = |chain: &str, at: usize| &filter.chain(chain).unwrap().rules[at - 1];
    assert_eq!(rule("INPUT", 1).counter, Some(Counter { packets: 17, bytes: 1020 }));
    assert_eq!(rule("INPUT", 1).actions, [Action::Accept]);
    assert_eq!(
        rule("INPUT", 1).kinds,
        ["match header", "xt match tcp", "xt match comment", "counter", "accept"]
    );
    // Neither the text of a comment nor that of a log prefix is a target.
    let goto = |chain: &str| vec![Target { via: Via::Goto, chain: chain.to_owned() }];
    assert_eq!(rule("INPUT", 2).targets, goto("level1"));
    assert_eq!((rule("level2", 1).actions.len(), rule("level2", 1).targets.len()), (0, 0));
    assert_eq!(rule("level2", 2).targets, goto("level3"));
    assert_eq!(rule("INPUT", 4).actions, []);
    assert_eq!(rule("OUTPUT", 1).actions, [Action::Queue]);
    assert_eq!(rule("OUTPUT", 2).text, "-A OUTPUT -m comment --comment \"two\nlines\" -j ACCEPT");
    assert_eq!(rule("level1", 1).actions, [Action::Reject]);
    assert_eq!(tables[2].chain("POSTROUTING").unwrap().rules[0].actions, [Action::Nat]);
}

#[test]
fn families_are_kept_apart() {
    let tables = tables(Family::Ip6, V6);
    assert_eq!(tables[0].family, Family::Ip6);
    assert_eq!(tables[0].chain("INPUT").unwrap().rules[0].actions, [Action::Reject]);
}

#[test]
fn what_iptables_nft_saves_is_left_to_nft() {
    assert!(is_of_nf_tables(OF_NF_TABLES));
    assert!(!is_of_nf_tables(V4) && !is_of_nf_tables(V6));
}

#[test]
fn lines_that_make_no_sense_are_counted() {
    let saved = "*filter\n:INPUT ACCEPT [1:2]\n:WORMHOLE ACCEPT [0:0]\nwhat\n\
                 [1:2] -A INPUT -j DROP\n[0:0] -A NOWHERE -j DROP\n[x] -A INPUT\n[0:0] -D INPUT 1\n\
                 [3:4] -A INPUT -m comment --comment \"open\n[5:6] -A INPUT -j ACCEPT\nCOMMIT\n";
    let mut skipped = Skipped::new();
    let tables = parse(Family::Ip, saved, &mut skipped);
    assert_eq!(skipped["line"], 4);
    let input = tables[0].chain("INPUT").unwrap();
    assert_eq!(input.rules.len(), 4);
    assert_eq!(input.rules[1].counter, None, "unknown, not zero");
    assert!(!input.rules[1].counts_matches);
    assert_eq!(input.rules[3].counter, Some(Counter { packets: 5, bytes: 6 }));
}

proptest! {
    #[test]
    fn mutated_saves_never_panic(
        changes in prop::collection::vec((any::<usize>(), 0..40usize, "[ -~\n]{0,8}|\"|\\*x\n|é"), 1..5),
    ) {
        let mut saved = V4.to_owned();
        for (at, remove, insert) in changes {
            let mut at = at % (saved.len() + 1);
            let mut end = (at + remove).min(saved.len());
            while !saved.is_char_boundary(at) { at -= 1; }
            while !saved.is_char_boundary(end) { end += 1; }
            saved.replace_range(at..end, &insert);
        }
        let mut skipped = Skipped::new();
        let tables = parse(Family::Ip, &saved, &mut skipped);
        // Nothing is made up.
        let rules: usize = tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum();
        let lines = saved.lines().filter(|line| line.contains("-A")).count() as u64;
        prop_assert!(rules as u64 <= lines);
    }
}
