//! Rules as the kernel has them, and packets of which not all is known.

use std::net::IpAddr;

use super::{
    Attr, Firewall, Origin, Packet, Unknown, evaluate,
    interface::Interface,
    journey::Evaluation,
    packet::{Layer3, Side},
    routes::{Route, RouteQuery, RouteType, Routes},
    state::Fate,
    tracking::Tracking,
    unknown::{Attribute, UnknownSet},
    word::Word,
};
use crate::{
    model::{L4, Tuple},
    netlink::nftables::{
        data::{Data, Verdict},
        expression::{Destination, Expression, NatRegisters, Register, Slice},
        key::{self, base, cmp, meta},
        ruleset::{Chain, ChainHook, Rule, Table},
        set::{Element, Set},
    },
};

/// Everything but 192.0.2.1 and its likes is behind `out`.
struct Host;

impl Routes for Host {
    fn depends_on_source(&self) -> bool {
        false
    }

    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        let kind = self.address_type(query)?;
        Ok(Route { kind, interface: Some(Interface::named("out").with_index(2)), source: None })
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        Ok(if query.to == own { RouteType::Local } else { RouteType::Unicast })
    }

    fn address_of(&self, _: &Interface, _: Layer3, _: Option<IpAddr>) -> Attr<Option<IpAddr>> {
        Ok(Some("192.0.2.1".parse().unwrap()))
    }
}

fn register(number: u32) -> Register {
    Register::numbered(number).unwrap()
}

fn chain(name: &str, hook: Option<(&str, u32, i32)>, rules: Vec<Vec<Expression>>) -> Chain {
    let rules = (1..).zip(rules).map(|(handle, expressions)| Rule { handle, expressions });
    Chain {
        name: name.to_owned(),
        hook: hook.map(|(kind, number, priority)| ChainHook {
            kind: kind.to_owned(),
            number,
            priority,
            policy: Verdict::Accept,
            devices: Vec::new(),
        }),
        rules: rules.collect(),
        ..Chain::default()
    }
}

fn firewall(chains: Vec<Chain>) -> Firewall {
    with_sets(chains, Vec::new())
}

fn with_sets(chains: Vec<Chain>, sets: Vec<Set>) -> Firewall {
    let table = Table { family: 1, name: "t".to_owned(), chains, sets, ..Table::default() };
    Firewall::new(&[table], &[])
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

/// `tcp dport PORT`, without the check of the protocol.
fn port(port: u16) -> [Expression; 2] {
    let slice = Slice { base: base::TRANSPORT_HEADER, offset: 2, len: 2 };
    let value = port.to_be_bytes().to_vec();
    [
        Expression::Payload { slice, to: register(1) },
        Expression::Cmp { op: cmp::EQ, from: register(1), value },
    ]
}

fn limit() -> Expression {
    Expression::Limit { rate: 1, unit: 1, burst: 5, of_bytes: false, flags: 0 }
}

fn log() -> Expression {
    let (group, prefix, snaplen, qthreshold, level, flags) = (None, None, None, None, None, None);
    Expression::Log { group, prefix, snaplen, qthreshold, level, flags }
}

fn set_mark(mark: u32) -> [Expression; 2] {
    let value = mark.to_ne_bytes().to_vec();
    [
        Expression::Immediate { to: register(1), value },
        Expression::MetaSet { key: meta::MARK, from: register(1) },
    ]
}

/// A packet of TCP to a port, the first of its flow, from `in` to a host behind this one.
fn packet(port: u16) -> Packet {
    let tuple = Tuple {
        src: "198.51.100.7".parse().unwrap(),
        dst: "203.0.113.9".parse().unwrap(),
        proto: 6,
        l4: L4::Ports { src: 40_000, dst: port },
    };
    let mut packet = Packet::of(&tuple).unwrap();
    packet.tracking = Tracking::first(&tuple);
    packet.input = Ok(Some(Interface::named("in").with_index(3)));
    packet.output = Ok(None);
    packet.mark = Word::new(0, Attribute::Mark.into());
    packet
}

fn received(firewall: &Firewall, packet: Packet) -> Evaluation {
    evaluate(firewall, packet, Origin::Received, &Host)
}

const PREROUTING: Option<(&str, u32, i32)> = Some(("filter", 0, 0));
const FORWARD: Option<(&str, u32, i32)> = Some(("filter", 2, 0));

#[test]
fn a_limit_on_logging_leaves_the_verdict_decided() {
    let drop = [&port(80)[..], &[verdict(Verdict::Drop)]].concat();
    let firewall = firewall(vec![chain("c", FORWARD, vec![vec![limit(), log()], drop])]);
    let evaluation = received(&firewall, packet(80));
    assert_eq!(evaluation.fate(), Ok(Fate::Drop));
    let [ending] = evaluation.endings.as_slice() else { panic!("{evaluation:?}") };
    let steps: Vec<_> = ending.steps.iter().map(|step| (step.index, step.why)).collect();
    assert_eq!(steps, [(0, Unknown::Limit.into()), (1, UnknownSet::NONE)]);
}

#[test]
fn a_limit_on_a_verdict_is_the_reason_that_it_is_undecided() {
    let rules = vec![vec![limit(), verdict(Verdict::Drop)], vec![limit(), log()]];
    let firewall = firewall(vec![chain("c", FORWARD, rules)]);
    let evaluation = received(&firewall, packet(80));
    assert_eq!(evaluation.fate(), Err(Unknown::Limit.into()));
    assert_eq!(evaluation.endings.len(), 2);
}

#[test]
fn an_unknown_that_is_compared_before_a_known_mismatch_does_not_count() {
    let mut rule = vec![Expression::Meta { key: meta::SKUID, to: register(1) }];
    let value = 0_u32.to_ne_bytes().to_vec();
    rule.push(Expression::Cmp { op: cmp::EQ, from: register(1), value });
    rule.extend(port(443));
    rule.push(verdict(Verdict::Drop));
    let firewall = firewall(vec![chain("c", FORWARD, vec![rule])]);
    assert_eq!(received(&firewall, packet(80)).fate(), Ok(Fate::Accept));
    assert_eq!(received(&firewall, packet(443)).fate(), Err(Attribute::Owner.into()));
}

#[test]
fn marks_that_differ_are_followed_apart() {
    let marked = [vec![limit()], set_mark(1).to_vec()].concat();
    let mark_is = |mark: u32| {
        let value = mark.to_ne_bytes().to_vec();
        vec![
            Expression::Meta { key: meta::MARK, to: register(1) },
            Expression::Cmp { op: cmp::EQ, from: register(1), value },
            verdict(Verdict::Drop),
        ]
    };
    let rules = |drops: &[u32]| {
        let drops = drops.iter().map(|mark| mark_is(*mark));
        let rules = [marked.clone()].into_iter().chain(drops).collect();
        firewall(vec![chain("c", FORWARD, rules)])
    };
    assert_eq!(received(&rules(&[0, 1]), packet(80)).fate(), Ok(Fate::Drop));
    assert_eq!(received(&rules(&[1]), packet(80)).fate(), Err(Unknown::Limit.into()));
    assert_eq!(received(&rules(&[2]), packet(80)).fate(), Ok(Fate::Accept));
}

#[test]
fn a_goto_ends_with_the_policy_of_the_base_chain_and_a_jump_comes_back() {
    let chains = |call: fn(String) -> Verdict| {
        firewall(vec![
            chain("user", None, vec![]),
            chain(
                "c",
                FORWARD,
                vec![vec![verdict(call("user".to_owned()))], vec![verdict(Verdict::Drop)]],
            ),
        ])
    };
    assert_eq!(received(&chains(Verdict::Goto), packet(80)).fate(), Ok(Fate::Accept));
    assert_eq!(received(&chains(Verdict::Jump), packet(80)).fate(), Ok(Fate::Drop));
}

#[test]
fn chains_that_call_each_other_end() {
    let call = |to: &str| vec![vec![limit(), verdict(Verdict::Jump(to.to_owned()))]; 3];
    let firewall = firewall(vec![
        chain("a", None, call("b")),
        chain("b", None, call("a")),
        chain("c", FORWARD, call("a")),
    ]);
    let fate = received(&firewall, packet(80)).fate();
    assert!(fate.is_err_and(|why| why.contains(Unknown::Branches)), "{fate:?}");
}

/// Linux 6.18 loads one, two or four bytes that are aligned without asking for the fragment's offset.
#[test]
fn from_later_fragments_some_loads_end_the_rule_and_others_may_load_something() {
    let mut negated = port(80).to_vec();
    negated[1] = Expression::Cmp { op: cmp::NEQ, from: register(1), value: vec![0, 80] };
    negated.push(verdict(Verdict::Drop));
    let mut fragment = packet(443);
    fragment.set_fragment_offset(185);
    let fate = |rule: &[Expression], packet: &Packet| {
        let firewall = firewall(vec![chain("c", PREROUTING, vec![rule.to_vec()])]);
        received(&firewall, packet.clone()).fate()
    };
    assert_eq!(fate(&negated, &packet(443)), Ok(Fate::Drop));
    assert_eq!(fate(&negated, &fragment), Err(Attribute::Fragment.into()));
    let Expression::Payload { slice, .. } = &mut negated[0] else { panic!("no load") };
    (slice.offset, slice.len) = (1, 2);
    assert_eq!(fate(&negated, &fragment), Ok(Fate::Accept), "not aligned");
}

#[test]
fn packets_without_an_entry_are_invalid_or_untracked_and_have_no_mark() {
    let state_is = |bit: u32| {
        let value = 0_u32.to_ne_bytes().to_vec();
        let mask = bit.to_ne_bytes().to_vec();
        vec![
            Expression::Ct { key: key::ct::STATE, direction: None, to: register(1) },
            Expression::Mask { from: register(1), to: register(1), mask, xor: value.clone() },
            Expression::Cmp { op: cmp::NEQ, from: register(1), value },
            verdict(Verdict::Drop),
        ]
    };
    let no_mark = vec![
        Expression::Ct { key: key::ct::MARK, direction: None, to: register(1) },
        Expression::Cmp { op: cmp::EQ, from: register(1), value: vec![0; 4] },
        verdict(Verdict::Drop),
    ];
    let raw = Some(("filter", 0, -300));
    let at = |hook, rules| firewall(vec![chain("c", hook, rules)]);
    // Before conntrack everything is invalid, and behind it `new`.
    assert_eq!(received(&at(raw, vec![state_is(1)]), packet(80)).fate(), Ok(Fate::Drop));
    assert_eq!(received(&at(raw, vec![no_mark.clone()]), packet(80)).fate(), Ok(Fate::Accept));
    assert_eq!(received(&at(PREROUTING, vec![state_is(8)]), packet(80)).fate(), Ok(Fate::Drop));
    assert_eq!(received(&at(PREROUTING, vec![no_mark]), packet(80)).fate(), Ok(Fate::Drop));
    let untracked = firewall(vec![
        chain("raw", raw, vec![vec![Expression::Notrack]]),
        chain("c", PREROUTING, vec![state_is(64)]),
    ]);
    assert_eq!(received(&untracked, packet(80)).fate(), Ok(Fate::Drop));
}

#[test]
fn a_translation_counts_for_the_first_packet_and_moves_it_to_another_hook() {
    let redirect = [
        &port(80)[..],
        &[
            Expression::Immediate { to: register(1), value: 8080_u16.to_be_bytes().to_vec() },
            Expression::Redir {
                registers: NatRegisters { ports: [Some(register(1)), None], ..Default::default() },
                flags: 0,
            },
        ],
    ]
    .concat();
    let drop = [&port(8080)[..], &[verdict(Verdict::Drop)]].concat();
    let firewall = firewall(vec![
        chain("dnat", Some(("nat", 0, 300)), vec![redirect]),
        // Behind NAT, though the priorities say otherwise.
        chain("input", Some(("filter", 1, 0)), vec![drop]),
    ]);
    let evaluation = received(&firewall, packet(80));
    assert_eq!(evaluation.fate(), Ok(Fate::Drop));
    let packet_behind = &evaluation.endings[0].packet;
    assert_eq!(packet_behind.address(Side::Destination), Ok("192.0.2.1".parse().unwrap()));
    assert_eq!(packet_behind.port(Side::Destination), Ok(Some(8080)));
    assert_eq!(received(&firewall, packet(443)).fate(), Ok(Fate::Accept));
}

#[test]
fn a_map_of_verdicts_that_an_unknown_key_is_looked_up_in() {
    let element = |port: u16, verdict| Element {
        key: port.to_be_bytes().to_vec(),
        data: Some(Data::Verdict(verdict)),
        ..Element::default()
    };
    let map = |second| Set {
        name: "m".to_owned(),
        key_len: 2,
        flags: key::set::MAP,
        elements: vec![element(80, Verdict::Drop), element(443, second)],
        ..Set::default()
    };
    let lookup = Expression::Lookup {
        set: "m".to_owned(),
        from: register(1),
        to: Some(Destination::Verdict),
        invert: false,
    };
    let rules = vec![vec![port(0)[0].clone(), lookup], vec![verdict(Verdict::Drop)]];
    let with = |second| with_sets(vec![chain("c", FORWARD, rules.clone())], vec![map(second)]);
    let mut unknown = packet(80);
    unknown.forget_port(Side::Destination);
    let fate = |second| received(&with(second), unknown.clone()).fate();
    assert_eq!(fate(Verdict::Drop), Ok(Fate::Drop));
    assert_eq!(fate(Verdict::Accept), Err(Attribute::DestinationPort.into()));
    assert_eq!(received(&with(Verdict::Accept), packet(443)).fate(), Ok(Fate::Accept));
}

/// `cargo test --release -- --ignored --nocapture evaluates_fast`: nanoseconds for a rule.
#[test]
#[ignore = "a measurement"]
fn evaluates_fast() {
    let rules = (0..1000)
        .map(|number| {
            let protocol = Expression::Meta { key: meta::L4PROTO, to: register(1) };
            let tcp = Expression::Cmp { op: cmp::EQ, from: register(1), value: vec![6] };
            [&[protocol, tcp][..], &port(1000 + number), &[verdict(Verdict::Accept)]].concat()
        })
        .collect();
    let firewall = firewall(vec![chain("c", FORWARD, rules)]);
    let (packets, start) = (2000, std::time::Instant::now());
    for number in 0..packets {
        let evaluation = received(&firewall, packet(number % 900));
        assert_eq!(evaluation.fate(), Ok(Fate::Accept));
    }
    let spent = start.elapsed();
    println!("{} ns for a rule", spent.as_nanos() / u128::from(packets) / 1000);
}
