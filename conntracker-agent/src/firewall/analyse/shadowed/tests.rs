//! Rules whose findings are clear, and random rulesets against every packet of a small space.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    firewall::evaluate::{
        Attr, BaseHook,
        interface::Interface,
        packet::Layer3,
        routes::{Route, RouteQuery, RouteType},
    },
    model::hook::Hook,
    netlink::nftables::{
        data::{Data, Verdict},
        expression::{Destination, Expression, Register, Slice},
        key::{self, base, cmp, meta},
        ruleset::{Chain, ChainHook, Rule, Table as NftTable},
        set::{Element, Set},
    },
};

/// Nothing is routed: chains are evaluated by themselves.
struct NoRoutes;

impl Routes for NoRoutes {
    fn depends_on_source(&self) -> bool {
        false
    }

    fn route(&self, _: &RouteQuery<'_>) -> Attr<Route> {
        Ok(Route { kind: RouteType::Unspec, interface: None, source: None })
    }

    fn address_type(&self, _: &RouteQuery<'_>) -> Attr<RouteType> {
        Ok(RouteType::Unicast)
    }

    fn address_of(&self, _: &Interface, _: Layer3, _: Option<IpAddr>) -> Attr<Option<IpAddr>> {
        Ok(None)
    }
}

fn register(number: u32) -> Register {
    Register::numbered(number).unwrap()
}

fn load(base: u32, offset: u32, len: u32, to: u32) -> Expression {
    Expression::Payload { slice: Slice { base, offset, len }, to: register(to) }
}

fn compare(op: u32, value: &[u8]) -> Expression {
    Expression::Cmp { op, from: register(1), value: value.to_vec() }
}

/// `tcp dport` or, by number, another protocol, compared so.
fn port(protocol: u8, op: u32, port: u16) -> Vec<Expression> {
    vec![
        Expression::Meta { key: meta::L4PROTO, to: register(1) },
        compare(cmp::EQ, &[protocol]),
        load(base::TRANSPORT_HEADER, 2, 2, 1),
        compare(op, &port.to_be_bytes()),
    ]
}

/// `ip saddr 192.0.2.LAST`, or with `prefix` 192.0.2.0/24 or 192.0.2.0/31.
fn source(last: u8, prefix: u8) -> Vec<Expression> {
    match prefix {
        24 => vec![load(base::NETWORK_HEADER, 12, 3, 1), compare(cmp::EQ, &[192, 0, 2])],
        31 => vec![
            load(base::NETWORK_HEADER, 12, 4, 1),
            Expression::Mask {
                from: register(1),
                to: register(1),
                mask: vec![0xff, 0xff, 0xff, 0xfe],
                xor: vec![0; 4],
            },
            compare(cmp::EQ, &[192, 0, 2, last & 0xfe]),
        ],
        _ => vec![load(base::NETWORK_HEADER, 12, 4, 1), compare(cmp::EQ, &[192, 0, 2, last])],
    }
}

/// `ct state` of these bits.
fn state(bits: u32) -> Vec<Expression> {
    let (mask, xor) = (bits.to_ne_bytes().to_vec(), vec![0; 4]);
    vec![
        Expression::Ct { key: ct::STATE, direction: None, to: register(1) },
        Expression::Mask { from: register(1), to: register(1), mask, xor },
        compare(cmp::NEQ, &[0; 4]),
    ]
}

fn mark(value: u32) -> Vec<Expression> {
    let load = Expression::Meta { key: meta::MARK, to: register(1) };
    vec![load, compare(cmp::EQ, &value.to_ne_bytes())]
}

fn set_mark(value: u32) -> Vec<Expression> {
    vec![
        Expression::Immediate { to: register(1), value: value.to_ne_bytes().to_vec() },
        Expression::MetaSet { key: meta::MARK, from: register(1) },
    ]
}

fn limit() -> Vec<Expression> {
    vec![Expression::Limit { rate: 1, unit: 1, burst: 5, of_bytes: false, flags: 0 }]
}

fn lookup(set: &str, to: Option<Destination>, invert: bool) -> Expression {
    Expression::Lookup { set: set.to_owned(), from: register(1), to, invert }
}

fn in_set(set: &str, invert: bool) -> Vec<Expression> {
    vec![load(base::TRANSPORT_HEADER, 2, 2, 1), lookup(set, None, invert)]
}

/// Ports 1 and 2 as single elements; ports from 2 on as an interval; address and port; ports with verdicts.
fn sets() -> Vec<Set> {
    let element = |key: &[u8], flags| Element { key: key.to_vec(), flags, ..Element::default() };
    let set = |name: &str, key_len, flags, elements| Set {
        name: name.to_owned(),
        key_len,
        flags,
        elements,
        ..Set::default()
    };
    let with = |port: u8, verdict| Element {
        data: Some(Data::Verdict(verdict)),
        ..element(&[0, port], 0)
    };
    let both = |last: u8, port: u8| element(&[192, 0, 2, last, 0, port, 0, 0], 0);
    vec![
        set("ports", 2, 0, vec![element(&[0, 1], 0), element(&[0, 2], 0)]),
        set("high", 2, key::set::INTERVAL, vec![element(&[0, 0], 1), element(&[0, 2], 0)]),
        set("pairs", 8, key::set::CONCAT, vec![both(0, 1), both(1, 1), both(2, 3)]),
        set(
            "verdicts",
            2,
            key::set::MAP,
            vec![with(1, Verdict::Accept), with(2, Verdict::Jump("user".to_owned()))],
        ),
        set("changing", 2, key::set::EVAL, vec![element(&[0, 1], 0)]),
    ]
}

fn chain(name: &str, base: bool, rules: Vec<Vec<Expression>>) -> Chain {
    let rules = (1..).zip(rules).map(|(handle, expressions)| Rule { handle, expressions });
    Chain {
        name: name.to_owned(),
        hook: base.then(|| ChainHook {
            kind: "filter".to_owned(),
            number: 1,
            priority: 0,
            policy: Verdict::Accept,
            devices: Vec::new(),
        }),
        rules: rules.collect(),
        ..Chain::default()
    }
}

/// Chains 0 `input` at the hook INPUT and 1 `user`.
fn firewall(input: Vec<Vec<Expression>>, user: Vec<Vec<Expression>>) -> Firewall {
    let chains = vec![chain("input", true, input), chain("user", false, user)];
    let name = "t".to_owned();
    Firewall::new(&[NftTable { family: 2, name, chains, sets: sets(), ..NftTable::default() }], &[])
}

fn with(conditions: Vec<Expression>, verdict: Verdict) -> Vec<Expression> {
    [conditions, vec![Expression::Verdict(verdict)]].concat()
}

fn findings(firewall: &Firewall) -> Vec<Finding> {
    shadowed(firewall, &NoRoutes).into_iter().map(|(_, finding)| finding).collect()
}

/// `c:0,1` covered by these rules, `n` no packet, `u` not called, `r` reachable, `r?` with something else that
/// decides, `-` not proved.
fn short(finding: &Finding) -> String {
    match finding {
        Finding::Proved(Proof::Covered(by)) => {
            format!("c:{}", by.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
        }
        Finding::Proved(Proof::NoPacket) => "n".to_owned(),
        Finding::Proved(Proof::NotCalled) => "u".to_owned(),
        Finding::Reachable(witness) if witness.open.is_empty() => "r".to_owned(),
        Finding::Reachable(_) => "r?".to_owned(),
        Finding::NotProved(_) => "-".to_owned(),
    }
}

fn shorts(input: Vec<Vec<Expression>>) -> Vec<String> {
    findings(&firewall(input, Vec::new())).iter().map(short).collect()
}

#[test]
fn one_rule_or_several_cover_another() {
    let accept = |conditions| with(conditions, Verdict::Accept);
    let found = shorts(vec![
        accept(port(6, cmp::GTE, 100)),
        accept(port(6, cmp::EQ, 443)),
        accept(port(6, cmp::LT, 50)),
        accept(port(6, cmp::GTE, 40)),
        accept(port(6, cmp::EQ, 45)),
        // Any port of TCP: 0 to 49 and 40 to 65535.
        accept(port(6, cmp::LTE, u16::MAX)),
        accept(port(17, cmp::EQ, 443)),
        accept([port(17, cmp::EQ, 443), source(7, 32)].concat()),
    ]);
    assert_eq!(found, ["r", "c:0", "r", "r", "c:2", "c:2,3", "r", "c:6"]);
}

#[test]
fn prefixes_and_states_are_compared_by_what_they_mean() {
    let drop = |conditions| with(conditions, Verdict::Drop);
    let found = shorts(vec![
        drop(source(0, 24)),
        drop(source(7, 32)),
        drop(source(6, 31)),
        drop(state(8)),
        drop(state(2 | 4)),
        drop(state(1 | 64)),
        drop(port(6, cmp::EQ, 1)),
    ]);
    assert_eq!(found, ["r", "c:0", "c:0", "r", "r", "r", "c:3,4,5"]);
}

#[test]
fn limits_marks_jumps_and_dynamic_sets_cover_nothing() {
    let drop = |conditions: Vec<Vec<Expression>>| with(conditions.concat(), Verdict::Drop);
    let one = || port(6, cmp::EQ, 1);
    let found = shorts(vec![
        drop(vec![limit(), one()]),
        drop(vec![one(), in_set("changing", false)]),
        with(one(), Verdict::Jump("user".to_owned())),
        one(),
        drop(vec![mark(1)]),
        set_mark(1),
        drop(vec![mark(1)]),
        drop(vec![one()]),
        // Only this one is taken before.
        drop(vec![one(), limit()]),
    ]);
    // Behind the mark that is set, every packet is dropped, which only an evaluation says.
    assert_eq!(found[..7], ["r?", "r?", "r?", "r?", "r", "r", "r"]);
    assert_eq!(found[7..], ["-", "c:7"]);
}

#[test]
fn what_contradicts_itself_and_what_is_not_called_meets_no_packet() {
    let both = [port(6, cmp::EQ, 1), port(17, cmp::EQ, 1)].concat();
    let found =
        findings(&firewall(vec![with(both, Verdict::Drop)], vec![with(Vec::new(), Verdict::Drop)]));
    assert_eq!(found.iter().map(short).collect::<Vec<_>>(), ["n", "u"]);
}

#[test]
fn a_rule_of_a_user_chain_is_reached_through_its_callers() {
    let input = vec![
        with(port(6, cmp::EQ, 1), Verdict::Accept),
        with(source(0, 24), Verdict::Jump("user".to_owned())),
    ];
    let user = vec![
        with(port(6, cmp::EQ, 2), Verdict::Accept),
        with(port(6, cmp::EQ, 1), Verdict::Drop),
        with(Vec::new(), Verdict::Drop),
        with(port(6, cmp::EQ, 3), Verdict::Accept),
    ];
    let found = findings(&firewall(input, user));
    // Its second rule is never met, which is not proved: only the rules of its own chain are compared.
    assert_eq!(found[2..].iter().map(short).collect::<Vec<_>>(), ["r", "-", "r", "c:2"]);
    let Finding::Reachable(witness) = &found[2] else { panic!("no witness") };
    let source = witness.packet.address(crate::firewall::evaluate::packet::Side::Source);
    assert!(source.unwrap().to_string().starts_with("192.0.2."));
}

/// `cargo test --release -- --ignored --nocapture six_thousand`: the time for 6,000 rules.
#[test]
#[ignore = "a measurement"]
fn six_thousand_rules_are_quick() {
    let rules = (0..6000_u16).map(|number| match number % 3 {
        0 => with(
            [source((number % 251) as u8, 32), port(6, cmp::EQ, number)].concat(),
            Verdict::Accept,
        ),
        1 => with(port(17, cmp::EQ, number / 2), Verdict::Drop),
        _ => with(
            [source((number % 251) as u8, 32), port(17, cmp::EQ, number)].concat(),
            Verdict::Drop,
        ),
    });
    let all = vec![with(Vec::new(), Verdict::Drop), with(port(6, cmp::EQ, 1), Verdict::Drop)];
    let firewall = firewall(rules.chain(all).collect(), Vec::new());
    let start = std::time::Instant::now();
    let found = findings(&firewall);
    let spent = start.elapsed();
    let count = |of: fn(&Finding) -> bool| found.iter().filter(|finding| of(finding)).count();
    let proved = count(|finding| matches!(finding, Finding::Proved(_)));
    let reachable = count(|finding| matches!(finding, Finding::Reachable(_)));
    println!("{} rules: {proved} proved, {reachable} reachable, {spent:?}", found.len());
}

/// Conditions on few fields, so that rules often cover each other.
fn conditions() -> impl Strategy<Value = Vec<Expression>> {
    let protocol = prop_oneof![Just(6_u8), Just(17)];
    let pairs = || {
        let address = load(base::NETWORK_HEADER, 12, 4, 1);
        vec![address, load(base::TRANSPORT_HEADER, 2, 2, 9), lookup("pairs", None, false)]
    };
    prop_oneof![
        3 => (protocol, 0_u32..6, 0_u16..4).prop_map(|(protocol, op, number)| port(protocol, op, number)),
        2 => (0_u8..4, prop_oneof![Just(24_u8), Just(31), Just(32)]).prop_map(|(last, prefix)| source(last, prefix)),
        2 => (1_u32..128).prop_map(|bits| state(bits & 0x4f)),
        1 => (0_u32..2).prop_map(mark),
        1 => any::<bool>().prop_map(|invert| in_set("ports", invert)),
        1 => any::<bool>().prop_map(|invert| in_set("high", invert)),
        1 => Just(pairs()),
        1 => Just(limit()),
        1 => Just(in_set("changing", false)),
        1 => (0_u32..2).prop_map(set_mark),
        2 => Just(Vec::new()),
    ]
}

fn rule() -> impl Strategy<Value = Vec<Expression>> {
    let verdict = prop_oneof![
        4 => Just(vec![Expression::Verdict(Verdict::Drop)]),
        4 => Just(vec![Expression::Verdict(Verdict::Accept)]),
        2 => Just(vec![Expression::Verdict(Verdict::Return)]),
        2 => Just(vec![Expression::Verdict(Verdict::Jump("user".to_owned()))]),
        1 => Just(vec![Expression::Verdict(Verdict::Goto("user".to_owned()))]),
        1 => Just(vec![load(base::TRANSPORT_HEADER, 2, 2, 1), lookup("verdicts", Some(Destination::Verdict), false)]),
        2 => Just(Vec::new()),
    ];
    (proptest::collection::vec(conditions(), 0..3), verdict)
        .prop_map(|(conditions, verdict)| [conditions.concat(), verdict].concat())
}

/// Every packet of a small space: sources 192.0.1.3 to 192.0.2.3, ports 0 to 4, TCP, UDP and a protocol without ports,
/// states, marks.
fn packets() -> Vec<Packet> {
    let base = BaseHook { hook: Hook::Input, nat: false, before_conntrack: false };
    let mut packets = Vec::new();
    for source in 0xc000_01ff..0xc000_0204_u128 {
        for port in 0..5 {
            for protocol in [6, 17, 4] {
                for state in [1, 2, 4, 8, 64] {
                    for mark in [0, 1, 2] {
                        let point = [
                            (Source::address(false, false), source),
                            (Source::port(true), port),
                            (Source::Meta(meta::L4PROTO), protocol),
                            (Source::Ct(ct::STATE, None), state),
                            (Source::Meta(meta::MARK), mark),
                        ];
                        let skips = |(source, _): &(Source, u128)| {
                            protocol == 4 && *source == Source::port(true)
                        };
                        let point = point.into_iter().filter(|of| !skips(of)).collect();
                        packets.extend(witness::packet(&point, Family::Ip, base));
                    }
                }
            }
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_packet_meets_a_rule_that_is_proved(
        input in proptest::collection::vec(rule(), 1..9),
        user in proptest::collection::vec(rule(), 0..3),
    ) {
        let user = user.into_iter().filter(|rule| !calls(rule)).collect();
        let firewall = firewall(input, user);
        let found = shadowed(&firewall, &NoRoutes);
        for packet in packets() {
            for end in evaluate_chain(&firewall, 0, packet.clone(), &NoRoutes) {
                for step in &end.steps {
                    let finding = found.iter().find(|(at, _)| *at == (step.chain, step.index));
                    if let Some((at, finding @ Finding::Proved(_))) = finding {
                        prop_assert!(false, "{at:?} {finding:?} is met by {packet:?}");
                    }
                }
            }
        }
    }
}

fn calls(rule: &[Expression]) -> bool {
    let is_call = |expression: &Expression| {
        matches!(expression, Expression::Lookup { to: Some(_), .. })
            || matches!(expression, Expression::Verdict(Verdict::Jump(_) | Verdict::Goto(_)))
    };
    rule.iter().any(is_call)
}
