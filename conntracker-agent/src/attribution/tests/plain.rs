//! Random rules with conditions on real fields, random packets, and a part of their fields: every step that is
//! claimed has happened, and every step that follows is claimed.

use proptest::prelude::*;

use super::{
    super::{
        ChainId, Finding, Observation, Packet, SolvedVerdict,
        packet::{Endpoints, Headers, Interface, Maybe, Translation},
        solve,
    },
    fields::{Kernel, Real},
    interpreter::Decide,
    language::{self, Named},
    property::{Tape, assert_true},
    random::{INTERFACES, STATES, address, name, ruleset},
};
use crate::firewall::clause::{
    Clause, Condition, Elements, Field, MapElement, MapElements, MapVerdict, Operand, Test, Tests,
};

fn real(v6: bool, bases: usize, tape: &mut impl Decide) -> Real {
    let proto = if v6 { [6, 17, 58][tape.below(3)] } else { [6, 17, 1][tape.below(3)] };
    let mut ends = || {
        let addresses = [address(v6, tape.below(4)), address(v6, tape.below(4))];
        let ports = [tape.below(4) as u16, tape.below(4) as u16];
        (addresses, if proto == 6 || proto == 17 { ports } else { [0; 2] })
    };
    let (one, other) = (ends(), ends());
    let headers = (0..bases).map(|_| if tape.below(2) == 0 { one } else { other }).collect();
    let state = STATES[tape.below(5)];
    let mut interface = || {
        let n = tape.below(4);
        (n as u32, name(INTERFACES[n]))
    };
    Real {
        v6,
        proto,
        headers,
        icmp: (0, 0),
        interfaces: [interface(), interface()],
        state,
        tuples: (![1, 64].contains(&state)).then_some([one, other]),
        reply: tape.below(2) == 0,
        status: [0, 16, 32, 48][tape.below(4)],
        marks: [[0, 1, 0x12, 3][tape.below(4)], [0, 1, 0x12, 3][tape.below(4)]],
    }
}

/// All fields of a packet.
fn known(real: &Real, kernel: &Kernel<'_, impl Decide>, nat: Option<usize>) -> Packet {
    let has_ports = [6, 17].contains(&real.proto);
    let entry = real.tuples.is_some();
    let first = real.headers.first().copied();
    let translation = nat.and_then(|at| real.headers.get(at)).or(first.as_ref()).map(|before| {
        let (address, port) = kernel.translated.unwrap_or((before.0[1], before.1[1]));
        let port = has_ports.then_some(port);
        Translation { source: false, address, port, changed: address != before.0[1] }
    });
    Packet {
        v6: Some(real.v6),
        proto: Some(real.proto),
        headers: real
            .headers
            .iter()
            .map(|(addresses, ports)| Headers {
                addresses: addresses.map(Maybe::Is),
                ports: if has_ports { ports.map(Maybe::Is) } else { [Maybe::Unknown; 2] },
                icmp: (!has_ports).then_some(real.icmp),
            })
            .collect(),
        interfaces: real.interfaces.map(|(index, name)| Some(Interface { index, name })),
        states: vec![real.state],
        entry: Some(entry),
        reply: entry.then_some(real.reply),
        status: (48, real.status),
        tuples: match real.tuples {
            Some(tuples) => tuples.map(|(addresses, ports)| {
                let ports = if has_ports { ports.map(Maybe::Is) } else { [Maybe::Unknown; 2] };
                Some(Endpoints { addresses, ports })
            }),
            None => [None; 2],
        },
        marks: kernel.borders.iter().map(|marks| (Some(marks[0]), Some(marks[1]))).collect(),
        translation: translation.filter(|_| nat.is_some()),
        answered: kernel.truth.steps.last().is_some_and(|step| step.2 == SolvedVerdict::Reject),
    }
}

/// Removes some of the fields and makes others ambiguous.
fn blur(packet: &mut Packet, real: &Real, tape: &mut impl Decide) {
    let mut gone = || tape.below(4) == 0;
    if gone() {
        packet.proto = None;
    }
    if gone() {
        packet.tuples = [None; 2];
    }
    if gone() {
        packet.translation = None;
    }
    if gone() {
        packet.answered = false;
    }
    if gone() {
        packet.status = (32, real.status & 32);
    }
    if gone() {
        packet.entry = None;
    }
    if gone() {
        packet.reply = None;
    }
    if gone() {
        packet.interfaces[0] = None;
    }
    match tape.below(3) {
        0 => packet.states.clear(),
        1 => packet.states.push(STATES[tape.below(5)]),
        _ => {}
    }
    packet.states.dedup();
    for headers in &mut packet.headers {
        for one in &mut headers.addresses {
            match (tape.below(4), *one) {
                (0, _) => *one = Maybe::Unknown,
                (1, Maybe::Is(is)) => {
                    *one = Maybe::either(address(real.v6, tape.below(4)), is);
                }
                _ => {}
            }
        }
        for port in &mut headers.ports {
            match (tape.below(4), *port) {
                (0, _) => *port = Maybe::Unknown,
                (1, Maybe::Is(is)) => *port = Maybe::either(is, tape.below(4) as u16),
                (2, Maybe::Is(is)) => *port = Maybe::Between(is.saturating_sub(1), is + 1),
                _ => {}
            }
        }
    }
    for (at, marks) in packet.marks.iter_mut().enumerate() {
        // Behind the first chain marks are known where links tell.
        if tape.below(2) == 0 || at > 0 && tape.below(2) == 0 {
            *marks = (None, None);
        }
    }
}

fn bases(named: &Named) -> Vec<ChainId> {
    let chains = named.ruleset.tables[0].chains.iter();
    chains.filter(|chain| chain.base.is_some()).map(|chain| named.chain(&chain.name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    #[test]
    fn what_follows_from_conditions_is_what_happened(
        v6: bool,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        packet in prop::collection::vec(any::<u8>(), 0..40),
        decisions in prop::collection::vec(any::<u8>(), 0..60),
        blurs in prop::collection::vec(any::<u8>(), 0..60),
        complete: bool,
    ) {
        let named = ruleset(v6, &mut Tape(&bytes));
        let bases = bases(&named);
        let real = real(v6, bases.len(), &mut Tape(&packet));
        let mut decisions = Tape(&decisions);
        let kernel = Kernel::run(&named, &real, &bases, &mut decisions);
        let nat = (bases.len() == 3).then_some(1);
        let mut known = known(&real, &kernel, nat);
        let truth = &kernel.truth;
        let mut seen = Observation {
            chains: bases.clone(),
            among: (0, bases.len() - 1),
            elsewhere: Vec::new(),
            v6,
            moved: truth.moved.iter().map(|(&spot, &count)| (spot, count)).collect(),
            complete,
            targets_seen: None,
            outcome: truth.outcome(),
            packet: known.clone(),
        };
        for clear in [true, false] {
            if !clear {
                blur(&mut known, &real, &mut Tape(&blurs));
                seen.packet = known.clone();
            }
            let solution = solve(&named.program, None, &seen);
            assert_true(&named, truth, &solution);
            // The same without the fields that no rule compares.
            let mut less = seen.clone();
            named.program.forget_unneeded(&mut less);
            assert_true(&named, truth, &solve(&named.program, None, &less));
            if clear && is_certain(&named) && real.icmp == (0, 0) {
                for fate in &truth.fates {
                    let (chain, index) = fate.decider;
                    let evidence = solution.steps.iter().any(|step| {
                        (step.chain, step.index) == (chain, Some(index))
                    });
                    prop_assert!(evidence, "{} does not have {:?}",
                        language::solved(&named, &solution), fate.decider);
                }
            }
            prop_assert_ne!(solution.finding, Finding::Contradiction);
        }
    }
}

/// Whether the packet decides all, if all of it is known.
fn is_certain(named: &Named) -> bool {
    let rules = named.ruleset.tables[0].chains.iter().flat_map(|chain| &chain.rules);
    let field = |operand: &Operand| {
        !matches!(
            operand.field,
            Field::Other { .. }
                | Field::Port { proto: None, .. }
                | Field::CtPort { .. }
                | Field::CtMark
                | Field::CtStatus
        )
    };
    let tests = |tests: &Tests| !tests.contains(&Test::Unknown);
    let clause = |clause: &Clause| match clause {
        Clause::Condition(Condition { operands, set, .. }) => {
            let set = match set {
                Elements::Sorted(_) => true,
                Elements::Listed(all) => all.iter().all(tests),
                Elements::Named(_) | Elements::Unknown => false,
            };
            set && operands.iter().all(field)
        }
        Clause::Map(map) => {
            let MapElements::Listed(elements) = &map.elements else { return false };
            let goes_on = |element: &MapElement| element.verdict == MapVerdict::Continue;
            map.operands.iter().all(field) && !elements.iter().any(goes_on)
        }
        Clause::Unknown | Clause::Translate(_) | Clause::Mark { .. } => false,
        Clause::Counter | Clause::Verdict | Clause::Headers => true,
    };
    rules.into_iter().flat_map(|rule| &rule.clauses).all(clause)
}
