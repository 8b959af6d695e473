//! From kernel memory and listed rules to links, counters and observations.

use conntracker_common::{
    conntrack::IPS_SRC_NAT_DONE,
    hook::{FORWARD, HOOKS, POST_ROUTING},
    plan::{Guard, SEGMENT_EARLY, hook_point},
};

use super::{
    epoch::observation,
    join::Join,
    plan::{HookPlan, Planner},
};
use crate::{
    attribution::Program,
    bpf::{
        index::{
            Index,
            hooks::{HookFunction, HookList},
            nft::{Generation, NftChain, NftRule},
        },
        object::Role,
        path::PathRecord,
        symbols::Function,
    },
    firewall::{
        Ruleset,
        action::Action,
        model::{Base, Chain, ChainType, Counter, Policy, Rule, Table},
    },
    model::{
        L4, Tuple, Zone,
        hook::Hook,
        table::{Backend, Family},
    },
};

/// A base chain: hook, priority, type, and for each rule what it does and whether it has a counter.
struct Wanted {
    hook: u8,
    priority: i32,
    kind: ChainType,
    rules: Vec<(Action, bool)>,
}

fn chain(hook: u8, priority: i32, rules: &[(Action, bool)]) -> Wanted {
    Wanted { hook, priority, kind: ChainType::Filter, rules: rules.to_vec() }
}

/// The same chains in kernel memory and as listed, at the hooks of IPv4, together with conntrack.
fn world(wanted: &[Wanted]) -> (Index, Ruleset) {
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let mut functions: Vec<Vec<HookFunction>> = vec![Vec::new(); HOOKS.into()];
    for hook in [0, 3] {
        functions[hook].push(HookFunction {
            function: Function::Conntrack,
            address: 0,
            private: 0,
            priority: -200,
            nat_priority: None,
        });
    }
    let (mut nft, mut chains) = (Vec::new(), Vec::new());
    let mut counters = 0x1000;
    for (number, Wanted { hook, priority, kind, rules }) in (1..).zip(wanted) {
        functions[usize::from(*hook)].push(HookFunction {
            function: Function::NfTables,
            address: 0,
            private: number,
            priority: *priority,
            nat_priority: (*kind == ChainType::Nat).then_some(*priority),
        });
        let handle = |at: usize| number * 10_000 + at as u64;
        let mut counter = |counted: bool| {
            counters += 16;
            counted.then_some(counters)
        };
        nft.push(NftChain {
            address: number,
            handle: number,
            table: 1,
            rules: (rules.iter().enumerate())
                .map(|(at, (_, counted))| NftRule {
                    handle: handle(at),
                    counter: counter(*counted),
                    ..NftRule::default()
                })
                .collect(),
        });
        chains.push(Chain {
            name: format!("chain{number}"),
            handle: Some(number),
            base: Some(Base {
                kind: *kind,
                hook: hooks[usize::from(*hook)],
                priority: *priority,
                policy: Policy::Accept,
                counter: None,
                devices: Vec::new(),
            }),
            rules: (rules.iter().enumerate())
                .map(|(at, (action, counted))| Rule {
                    position: at as u32 + 1,
                    handle: Some(handle(at)),
                    text: format!("{action:?}"),
                    kinds: Vec::new(),
                    counter: counted.then(Counter::default),
                    counts_matches: *counted,
                    actions: vec![*action],
                    targets: Vec::new(),
                    nat_family: None,
                    clauses: Vec::new(),
                })
                .collect(),
        });
    }
    let list = |functions: Vec<HookFunction>| HookList {
        guard: Guard { address: 0, value: 0 },
        functions,
    };
    let lists = |all: Vec<Vec<HookFunction>>| -> [HookList; HOOKS as usize] {
        let lists: Vec<HookList> = all
            .into_iter()
            .map(|mut functions| {
                functions.sort_by_key(|found| found.priority);
                list(functions)
            })
            .collect();
        lists.try_into().unwrap()
    };
    let index = Index {
        hooks: [lists(functions), lists(vec![Vec::new(); HOOKS.into()])],
        generation: Generation::default(),
        nft,
        legacy: Vec::new(),
    };
    let table = Table {
        family: Family::Ip,
        name: "t".to_owned(),
        backend: Backend::Nft,
        handle: Some(1),
        iptables: false,
        dormant: false,
        chains,
    };
    (index, Ruleset { tables: vec![table], ..Ruleset::default() })
}

fn plans(wanted: &[Wanted], per_chain: bool) -> Vec<HookPlan> {
    let (index, ruleset) = world(wanted);
    let join = Join::new(&index, &ruleset);
    let program = Program::new(&ruleset, &join);
    Planner {
        index: &index,
        ruleset: &ruleset,
        join: &join,
        program: &program,
        per_chain,
        probes: false,
        ipvs: false,
        words: (1, 0),
    }
    .plans()
}

/// (role, above, below) of each link.
fn links(plan: &HookPlan) -> Vec<(Role, i32, i32)> {
    plan.links.iter().map(|link| (link.role, link.above, link.below)).collect()
}

const COUNTED: (Action, bool) = (Action::Accept, true);

#[test]
fn one_pair_of_links_stands_around_the_chains_of_a_hook() {
    let two = [chain(FORWARD, -150, &[COUNTED, COUNTED]), chain(FORWARD, 0, &[COUNTED])];
    let plans = plans(&two, false);
    assert_eq!(plans.len(), 1);
    let plan = &plans[0];
    assert_eq!(plan.hook_point, hook_point(false, 0, FORWARD));
    assert_eq!(links(plan), [(Role::Open, i32::MIN, -150), (Role::Close, 0, i32::MAX)]);
    assert_eq!(plan.slots.len(), 3);
    // Adjacent counters are read as one range.
    assert_eq!(plan.ranges.len(), 1);
    assert_eq!((plan.ranges[0].counters, plan.ranges[0].word), (3, 1));
}

#[test]
fn chains_are_separated_where_that_tells_more() {
    let between = |wanted: &[Wanted], per_chain| plans(wanted, per_chain)[0].gaps.clone();
    let counted = [chain(FORWARD, -150, &[COUNTED]), chain(FORWARD, 0, &[COUNTED])];
    assert!(between(&counted, false).is_empty());
    assert_eq!(between(&counted, true), [1]);
    let blind = (Action::Drop, false);
    let dropping = [chain(FORWARD, -150, &[blind]), chain(FORWARD, 0, &[(Action::Drop, true)])];
    assert_eq!(between(&dropping, false), [1]);
    // There is no room for a link.
    let neighbours = [chain(FORWARD, 0, &[blind]), chain(FORWARD, 1, &[blind])];
    assert!(between(&neighbours, true).is_empty());
}

#[test]
fn hooks_at_whose_end_flows_are_seen_need_no_link_there() {
    let plans = plans(&[chain(POST_ROUTING, 100, &[COUNTED])], false);
    assert_eq!(links(&plans[0]), [(Role::Open, i32::MIN, 100)]);
}

#[test]
fn what_comes_before_conntrack_has_links_of_its_own() {
    let plans = plans(&[chain(0, -300, &[COUNTED]), chain(0, -100, &[COUNTED])], false);
    assert_eq!(plans.len(), 2);
    assert_eq!(plans[0].hook_point, hook_point(false, SEGMENT_EARLY, 0));
    assert_eq!(links(&plans[0]), [(Role::Open, i32::MIN, -300), (Role::Close, -300, -200)]);
    assert_eq!(links(&plans[1]), [(Role::Open, -200, -100), (Role::Close, -100, i32::MAX)]);
}

#[test]
fn chains_that_do_nothing_cost_nothing() {
    assert_eq!(plans(&[chain(FORWARD, 0, &[]), chain(POST_ROUTING, 0, &[])], false), []);
}

#[test]
fn rules_that_differ_from_the_listed_ones_are_not_told_apart() {
    let (mut index, ruleset) =
        world(&[chain(FORWARD, 0, &[COUNTED]), chain(FORWARD, 9, &[COUNTED])]);
    index.nft[0].rules[0].handle += 1;
    let join = Join::new(&index, &ruleset);
    assert_eq!(join.mismatched, ["ip t/chain1"]);
    assert_eq!(join.counters_of((0, 0)).count(), 0);
    assert_eq!(join.counters_of((0, 1)).count(), 1);
}

#[test]
fn more_counters_than_the_cap_are_left_out_and_counted() {
    let (index, ruleset) = world(&[chain(FORWARD, 0, &vec![COUNTED; 5000])]);
    let join = Join::new(&index, &ruleset);
    assert_eq!(join.capped(), 5000 - 4096);
    assert_eq!(join.counters_of((0, 0)).count(), 4096);
}

/// A record of a new flow that passed a hook point.
pub(super) fn record(hook_point: u32) -> PathRecord {
    let address = |last| std::net::IpAddr::from([10, 0, 0, last]);
    let l4 = L4::Ports { src: 1, dst: 2 };
    let orig = Tuple { src: address(1), dst: address(2), proto: 17, l4 };
    PathRecord {
        ktime_ns: 0,
        netns_cookie: 0,
        orig,
        reply: orig.inverted(),
        reply_before: None,
        zone: Zone::DEFAULT,
        fragment: false,
        packet_mark: (0, 0),
        ct_mark: (0, 0),
        status: 0,
        iif: None,
        oif: None,
        info: 2,
        hook_point,
        epoch: 1,
        path_hash: 0,
        dropped: false,
        gaps: 0,
        marks: Vec::new(),
        nested: false,
        answered: false,
        truncated: false,
        moved: Vec::new(),
        events: None,
    }
}

#[test]
fn chains_of_nat_are_met_by_the_first_packet_only() {
    let mut nat = chain(POST_ROUTING, 100, &[(Action::Nat, true)]);
    nat.kind = ChainType::Nat;
    let plan = &plans(&[chain(POST_ROUTING, -150, &[COUNTED]), nat], false)[0];
    let met = |change: &dyn Fn(&mut PathRecord)| {
        let mut record = record(plan.hook_point);
        change(&mut record);
        observation(&record, plan, None).unwrap().chains.len()
    };
    assert_eq!(met(&|_| {}), 2);
    assert_eq!(met(&|record| record.info = 0), 1, "established");
    assert_eq!(met(&|record| record.status = IPS_SRC_NAT_DONE), 1, "source NAT was set up before");
    assert_eq!(met(&|record| record.info = 1), 1, "an ICMP error about it");
    assert_eq!(met(&|record| record.reply = None), 1, "not tracked");
}

#[test]
fn links_passed_tell_among_which_chains_a_packet_was_dropped() {
    let blind = (Action::Drop, false);
    let three: Vec<Wanted> = [-150, 0, 50].map(|at| chain(FORWARD, at, &[blind])).into();
    let plan = &plans(&three, false)[0];
    assert_eq!(plan.gaps, [1, 2]);
    for passed in 0..3u8 {
        let mut record = record(plan.hook_point);
        (record.dropped, record.gaps) = (true, passed);
        let seen = observation(&record, plan, None).unwrap();
        assert_eq!(seen.among, (passed.into(), passed.into()));
    }
}
