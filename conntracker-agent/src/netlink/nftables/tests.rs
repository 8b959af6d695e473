//! Decoding of messages that the kernel did not send, and of one that it did.

use proptest::{collection::vec, prelude::*};

use super::{
    data::Verdict,
    dump::Dump,
    expression::{Expression, Register},
    ruleset::tables,
};

/// A message of nf_tables with these attributes.
fn message(kind: u8, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = (20 + attributes.len() as u32).to_ne_bytes().to_vec();
    bytes.extend([kind, 10, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    bytes.extend(attributes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + payload.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A rule with one expression.
fn rule(name: &str, data: &[u8]) -> Vec<u8> {
    let mut expression = attribute(1, name.as_bytes());
    expression.extend(attribute(2, data));
    let mut bytes = message(0, &attribute(1, b"t"));
    bytes.extend(message(3, &[attribute(1, b"t"), attribute(3, b"c")].concat()));
    let list = attribute(4, &attribute(1, &expression));
    let handle = attribute(3, &7_u64.to_be_bytes());
    let names = [attribute(1, b"t"), attribute(2, b"c")].concat();
    bytes.extend(message(6, &[names, handle, list].concat()));
    bytes
}

fn expression(name: &str, data: &[u8]) -> Expression {
    let mut tables = tables(&Dump::of(rule(name, data))).unwrap();
    tables.remove(0).chains.remove(0).rules.remove(0).expressions.remove(0)
}

#[test]
fn registers_have_the_numbers_of_the_kernel() {
    for (number, offset) in [(1, 0), (4, 48), (9, 4), (23, 60)] {
        let register = Register::numbered(number).unwrap();
        assert_eq!((register.offset(), register.number()), (offset, number));
    }
    assert_eq!(Register::numbered(8).map(Register::number), Some(1), "the same bytes");
    assert_eq!([0, 5, 24].map(Register::numbered), [None; 3]);
}

#[test]
fn an_expression_that_lacks_what_it_needs_is_unknown() {
    let code = attribute(2, &attribute(1, &(-5_i32).to_be_bytes()));
    let whole = attribute(2, &code);
    assert_eq!(expression("immediate", &whole), Expression::Verdict(Verdict::Return));
    assert_eq!(expression("immediate", &[]), Expression::Unknown("immediate".to_owned()));
    assert_eq!(expression("novelty", &whole), Expression::Unknown("novelty".to_owned()));
}

#[test]
fn expressions_inside_of_expressions_end() {
    let mut data = attribute(2, &[0; 4]);
    for _ in 0..1000 {
        let inner = [attribute(1, b"inner"), attribute(2, &data)].concat();
        data = [attribute(2, &[0; 4]), attribute(5, &inner)].concat();
        if data.len() > 60_000 {
            break;
        }
    }
    assert!(matches!(expression("inner", &data), Expression::Inner { .. }));
}

const NAMES: [&str; 40] = [
    "immediate",
    "cmp",
    "range",
    "bitwise",
    "dynset",
    "inner",
    "notrack",
    "last",
    "payload",
    "meta",
    "ct",
    "exthdr",
    "lookup",
    "objref",
    "byteorder",
    "numgen",
    "hash",
    "fib",
    "rt",
    "socket",
    "osf",
    "xfrm",
    "tunnel",
    "counter",
    "limit",
    "quota",
    "connlimit",
    "nat",
    "masq",
    "redir",
    "tproxy",
    "reject",
    "log",
    "queue",
    "dup",
    "fwd",
    "synproxy",
    "flow_offload",
    "match",
    "target",
];

/// Attributes, some of them well formed.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let number = (0_u16..24, 0_u32..32).prop_map(|(kind, of)| attribute(kind, &of.to_be_bytes()));
    let any = (0_u16..24, vec(any::<u8>(), 0..24)).prop_map(|(kind, of)| attribute(kind, &of));
    let leaf = vec(prop_oneof![number, any], 0..10).prop_map(|all| all.concat());
    leaf.prop_recursive(3, 40, 4, |inside| {
        vec((0_u16..24, inside), 0..6)
            .prop_map(|all| all.into_iter().flat_map(|(kind, of)| attribute(kind, &of)).collect())
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = tables(&Dump::of(bytes));
    }

    #[test]
    fn no_attributes_panic(kind in 0_u8..26, attributes in attributes()) {
        let mut bytes = message(0, &attribute(1, b"t"));
        bytes.extend(message(kind, &[attribute(1, b"t"), attributes].concat()));
        let _ = tables(&Dump::of(bytes));
    }

    #[test]
    fn no_expression_panics(name in prop::sample::select(&NAMES[..]), data in attributes()) {
        let _ = tables(&Dump::of(rule(name, &data)));
    }
}
