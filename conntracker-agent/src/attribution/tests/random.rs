//! Random rules with conditions on real fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    super::{Counters, Program},
    interpreter::Decide,
    language::Named,
};
use crate::{
    firewall::{
        Ruleset,
        action::{Action, Target, Via},
        clause::{
            Clause, Condition, Elements, Field, MapElement, MapElements, MapVerdict, Operand, Test,
            Tests, Translate, VerdictMap,
        },
        model::{Base, Chain, ChainType, Counter, Policy, Rule, Table},
    },
    model::{
        hook::Hook,
        table::{Backend, Family},
    },
};

pub fn address(v6: bool, n: usize) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16).into()
    } else {
        Ipv4Addr::new(10, 0, 0, n as u8).into()
    }
}

pub fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

pub const INTERFACES: [&str; 4] = ["", "eth0", "eth1", "lo"];

const FIELDS: [Field; 25] = [
    Field::Nfproto,
    Field::L4Proto,
    Field::IpProtocol,
    Field::Interface { out: false },
    Field::InterfaceName { out: false },
    Field::InterfaceName { out: true },
    Field::Mark,
    Field::Mark,
    Field::CtMark,
    Field::CtState,
    Field::CtState,
    Field::CtDirection,
    Field::CtStatus,
    Field::CtFamily,
    Field::CtAddress { reply: false, dst: true, v6: Some(false) },
    Field::CtPort { reply: true, dst: false },
    Field::Address { dst: false, v6: false },
    Field::Address { dst: true, v6: false },
    Field::Address { dst: true, v6: true },
    Field::Port { dst: true, proto: Some(6) },
    Field::Port { dst: true, proto: Some(17) },
    Field::Port { dst: false, proto: None },
    Field::Icmp { code: false, v6: false },
    Field::Other { v6: Some(false), proto: None },
    Field::Other { v6: None, proto: Some(6) },
];

const PROTOCOLS: [u8; 4] = [6, 17, 1, 58];
pub const STATES: [u32; 5] = [1, 2, 4, 8, 64];

/// A value that packets may have.
fn value(field: Field, tape: &mut impl Decide) -> u128 {
    let n = tape.below(4);
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    };
    match field {
        Field::Nfproto | Field::CtFamily => [2, 10][n % 2],
        Field::L4Proto | Field::IpProtocol | Field::CtProto => PROTOCOLS[n].into(),
        Field::CtState => STATES[tape.below(5)].into(),
        Field::CtStatus => [16, 32, 48, 4][n],
        Field::CtDirection => (n % 2) as u128,
        Field::Address { v6, .. } | Field::CtAddress { v6: Some(v6), .. } => number(address(v6, n)),
        _ => n as u128,
    }
}

fn test(field: Field, tape: &mut impl Decide) -> Test {
    if tape.below(20) == 0 {
        return Test::Unknown;
    }
    if let Field::InterfaceName { .. } = field {
        return match tape.below(4) {
            0 => Test::NameStart(b"eth".as_slice().into()),
            n => Test::Name(name(INTERFACES[n])),
        };
    }
    let one = value(field, tape);
    match tape.below(4) {
        0 if matches!(field, Field::CtState | Field::CtStatus) => {
            Test::Bits(one | value(field, tape))
        }
        1 => Test::Range(one, one.saturating_add(tape.below(3) as u128)),
        _ => Test::Range(one, one),
    }
}

fn operands(tape: &mut impl Decide) -> Vec<Operand> {
    let operand = |tape: &mut _| {
        let field = FIELDS[Decide::below(tape, FIELDS.len())];
        let masked = matches!(field, Field::Mark | Field::CtMark | Field::CtStatus);
        let mask = if masked && Decide::below(tape, 3) == 0 { 0x12 } else { u128::MAX };
        Operand { field, mask }
    };
    let count = if tape.below(4) == 0 { 2 } else { 1 };
    (0..count).map(|_| operand(tape)).collect()
}

fn condition(tape: &mut impl Decide) -> Condition {
    let operands = operands(tape);
    let negated = tape.below(3) == 0;
    let first = operands[0].field;
    let set = match tape.below(8) {
        0 => Elements::Unknown,
        1 | 2 if operands.len() == 1 && !matches!(first, Field::InterfaceName { .. }) => {
            let mut all: Vec<u128> = (0..=tape.below(3)).map(|_| value(first, tape)).collect();
            all.sort_unstable();
            all.dedup();
            Elements::Sorted(all.into_iter().map(|one| (one, one)).collect())
        }
        n => Elements::Listed((0..=n % 3).map(|_| tests(&operands, tape)).collect()),
    };
    Condition { operands, negated, set }
}

fn tests(operands: &[Operand], tape: &mut impl Decide) -> Tests {
    operands.iter().map(|operand| test(operand.field, tape)).collect()
}

/// A verdict map: keys that differ, sometimes one for the others.
fn map(onwards: &[&str], tape: &mut impl Decide) -> VerdictMap {
    let operands = operands(tape);
    let mut elements: Vec<MapElement> = Vec::new();
    for _ in 0..=tape.below(3) {
        let key: Tests = operands
            .iter()
            .map(|operand| match operand.field {
                Field::InterfaceName { .. } => Test::Name(name(INTERFACES[tape.below(4)])),
                field => {
                    let one = value(field, tape);
                    Test::Range(one, one)
                }
            })
            .collect();
        if elements.iter().any(|other| other.key == key) {
            continue;
        }
        elements.push(MapElement { key, verdict: map_verdict(onwards, tape) });
    }
    if tape.below(4) == 0 {
        let key = vec![Test::Any; operands.len()].into();
        elements.push(MapElement { key, verdict: map_verdict(onwards, tape) });
    }
    VerdictMap { operands, elements: MapElements::Listed(elements.into()) }
}

fn map_verdict(onwards: &[&str], tape: &mut impl Decide) -> MapVerdict {
    match tape.below(6) {
        0 => MapVerdict::Continue,
        1 => MapVerdict::Plain(Action::Accept),
        2 => MapVerdict::Plain(Action::Drop),
        3 => MapVerdict::Plain(Action::Return),
        n => match onwards.get(tape.below(onwards.len().max(1))) {
            Some(to) => MapVerdict::To(target(to, n == 4)),
            None => MapVerdict::Plain(Action::Accept),
        },
    }
}

fn target(to: &str, goto: bool) -> Target {
    Target { via: if goto { Via::Goto } else { Via::Jump }, chain: to.to_owned() }
}

fn rule(position: u32, nat: bool, v6: bool, onwards: &[&str], tape: &mut impl Decide) -> Rule {
    let mut clauses = Vec::new();
    let (mut actions, mut targets) = (Vec::new(), Vec::new());
    let mut counts_matches = false;
    let mut counter = None;
    let mut mapped = false;
    for _ in 0..tape.below(4) {
        match tape.below(8) {
            0 => clauses.push(Clause::Unknown),
            1 if !clauses.contains(&Clause::Counter) => {
                counts_matches = !mapped;
                counter = Some(Counter::default());
                clauses.push(Clause::Counter);
                continue;
            }
            2 => {
                let value = [None, Some(0), Some(1), Some(0x12)][tape.below(4)];
                clauses.push(Clause::Mark { connection: tape.below(2) == 0, value });
                continue;
            }
            3 if !mapped => {
                mapped = true;
                let map = map(onwards, tape);
                let MapElements::Listed(elements) = &map.elements else { panic!("{map:?}") };
                for element in elements.iter() {
                    match &element.verdict {
                        MapVerdict::Continue => {}
                        MapVerdict::Plain(action) => actions.push(*action),
                        MapVerdict::To(to) => targets.push(to.clone()),
                    }
                }
                clauses.push(Clause::Map(map));
            }
            _ => clauses.push(Clause::Condition(condition(tape))),
        }
        counts_matches = false;
    }
    // Behind a map there may be a counter, but this reference knows no other verdict there.
    if !mapped {
        let action = match tape.below(9) {
            0 => None,
            1 | 2 => Some(Action::Accept),
            3 => Some(Action::Drop),
            4 => Some(Action::Return),
            8 => Some(Action::Reject),
            5 if nat => {
                let to = address(v6, tape.below(4));
                let addresses = (tape.below(3) > 0).then_some((to, to));
                let port = tape.below(4) as u16;
                let ports = (tape.below(3) == 0).then_some((port, port));
                clauses.push(Clause::Translate(Translate { source: false, addresses, ports }));
                Some(Action::Nat)
            }
            n => onwards.get(tape.below(onwards.len().max(1))).map(|to| {
                targets.push(target(to, n == 6));
                if n == 6 { Action::Goto } else { Action::Jump }
            }),
        };
        if let Some(action) = action {
            actions.push(action);
            clauses.push(Clause::Verdict);
        }
    }
    if clauses.is_empty() {
        clauses.push(Clause::Condition(condition(tape)));
    }
    Rule {
        position,
        handle: None,
        text: String::new(),
        kinds: vec!["match".to_owned()],
        counter,
        counts_matches,
        actions,
        targets,
        nat_family: None,
        clauses,
    }
}

/// All counters are read.
struct All;

impl Counters for (&Table, All) {
    fn agrees(&self, _: usize, _: usize) -> bool {
        true
    }

    fn reads(&self, _: usize, chain: usize, rule: usize) -> bool {
        self.0.chains[chain].rules.get(rule).is_none_or(|rule| rule.counter.is_some())
    }
}

pub fn ruleset(v6: bool, tape: &mut impl Decide) -> Named {
    let mut chains = Vec::new();
    let with_nat = tape.below(2) == 0;
    let bases: &[&str] = if with_nat { &["a", "n", "b"] } else { &["a", "b"] };
    for (name, base) in
        bases.iter().map(|b| (b, true)).chain(["x", "y", "z"].iter().map(|c| (c, false)))
    {
        let nat = *name == "n";
        let onwards: Vec<&str> =
            ["x", "y", "z"].into_iter().filter(|to| base || to > name).collect();
        let base = base.then(|| Base {
            kind: if nat { ChainType::Nat } else { ChainType::Filter },
            hook: Hook::Prerouting,
            priority: 0,
            policy: if tape.below(3) == 0 { Policy::Drop } else { Policy::Accept },
            counter: None,
            devices: Vec::new(),
        });
        let length = tape.below(5) as u32;
        let rules = (1..=length).map(|n| rule(n, nat, v6, &onwards, tape)).collect();
        chains.push(Chain { name: (*name).to_owned(), handle: None, base, rules });
    }
    let table = Table {
        family: Family::Inet,
        name: "t".to_owned(),
        backend: Backend::Nft,
        handle: None,
        iptables: false,
        dormant: false,
        chains,
    };
    let ruleset = Ruleset { tables: vec![table], ..Ruleset::default() };
    let program = Program::new(&ruleset, &(&ruleset.tables[0], All));
    Named { program, ruleset }
}
