use super::*;
use crate::{
    firewall::evaluate::tracking::Tracking,
    netlink::nftables::{
        data::Verdict,
        expression::{Expression, Register, Slice},
        key::{base, cmp},
        ruleset::{Chain, Rule, Table},
        set::{Element, Set},
    },
};

/// Families of tables (NFPROTO_).
const INET: u8 = 1;
const IP: u8 = 2;

fn register() -> Register {
    Register::numbered(8).unwrap()
}

fn load(base: u32, offset: u32, len: u32) -> Expression {
    Expression::Payload { slice: Slice { base, offset, len }, to: register() }
}

fn equals(value: &[u8]) -> Expression {
    Expression::Cmp { op: cmp::EQ, from: register(), value: value.to_vec() }
}

/// The classes of a rule.
fn classes(family: u8, expressions: Vec<Expression>, sets: Vec<Set>) -> Classes {
    let rule = Rule { handle: 1, expressions };
    let chain =
        Chain { name: "c".to_owned(), handle: None, flags: 0, hook: None, rules: vec![rule] };
    let table = Table {
        family,
        name: "t".to_owned(),
        handle: None,
        dormant: false,
        chains: vec![chain],
        sets,
        objects: Vec::new(),
        flowtables: Vec::new(),
    };
    let firewall = Firewall::new(&[table], &[]);
    Classes::of(&[&firewall], &RoutingTables::default())
}

fn addresses<const N: usize>(classes: &Classes, addresses: [&str; N]) -> [String; N] {
    addresses.map(|address| classes.address(address.parse().unwrap()).to_string())
}

#[test]
fn a_network_and_a_port_are_classes() {
    let rule = vec![
        load(base::NETWORK_HEADER, 12, 3),
        equals(&[10, 77, 1]),
        load(base::TRANSPORT_HEADER, 2, 2),
        equals(&443_u16.to_be_bytes()),
        Expression::Verdict(Verdict::Drop),
    ];
    let classes = classes(IP, rule, Vec::new());
    assert_eq!(
        addresses(&classes, ["10.77.1.9", "10.77.1.200", "10.77.2.1", "10.99.0.1", "10.77.0.255"]),
        ["10.77.1.0", "10.77.1.0", "10.77.2.0", "10.77.2.0", "1.0.0.0"]
    );
    assert_eq!([1, 442, 443, 444, 60_000].map(|port| classes.port(port)), [0, 0, 443, 444, 444]);
}

#[test]
fn what_is_read_otherwise_is_a_class_by_itself() {
    // In a table of both families nothing says of which one these bytes are.
    let open = classes(INET, vec![load(base::NETWORK_HEADER, 12, 4)], Vec::new());
    assert_eq!(addresses(&open, ["10.77.1.9", "fd77::9"]), ["10.77.1.9", "fd77::9"]);
    let mask = |mask: [u8; 4]| {
        let (from, xor) = (register(), vec![0; 4]);
        let masked = Expression::Mask { from, to: from, mask: mask.to_vec(), xor };
        let rule = vec![load(base::NETWORK_HEADER, 16, 4), masked, equals(&[10, 0, 0, 2])];
        classes(IP, rule, Vec::new())
    };
    assert_eq!(addresses(&mask([255, 0, 0, 255]), ["10.77.1.9"]), ["10.77.1.9"]);
    assert_eq!(
        addresses(&mask([255, 0, 0, 0]), ["10.77.1.9", "11.1.1.1"]),
        ["10.0.0.0", "11.0.0.0"]
    );
}

#[test]
fn elements_of_sets_are_classes_field_by_field() {
    let key = [&[10, 77, 2, 2][..], &[1, 187, 0, 0]].concat();
    let element = Element { key, ..Element::default() };
    let set = Set { name: "s".to_owned(), key_len: 8, elements: vec![element], ..Set::default() };
    let second = Register::numbered(9).unwrap();
    let slice = Slice { base: base::TRANSPORT_HEADER, offset: 2, len: 2 };
    let rule = vec![
        load(base::NETWORK_HEADER, 16, 4),
        Expression::Payload { slice, to: second },
        Expression::Lookup { set: "s".to_owned(), from: register(), to: None, invert: false },
    ];
    let classes = classes(IP, rule, vec![set]);
    assert_eq!(
        addresses(&classes, ["10.77.2.1", "10.77.2.2", "10.77.2.9"]),
        ["1.0.0.0", "10.77.2.2", "10.77.2.3"]
    );
    assert_eq!([80, 443, 8080].map(|port| classes.port(port)), [0, 443, 444]);
}

#[test]
fn an_entry_stands_for_its_class_too() {
    let tuple = Tuple {
        src: "10.1.2.3".parse().unwrap(),
        dst: "10.4.5.6".parse().unwrap(),
        proto: 6,
        l4: L4::Ports { src: 40_000, dst: 443 },
    };
    let rule = vec![load(base::TRANSPORT_HEADER, 2, 2), equals(&443_u16.to_be_bytes())];
    let classes = classes(IP, rule, Vec::new());
    let mut packet = Packet::of(&tuple).unwrap();
    packet.tracking = Tracking::first(&tuple);
    classes.stand_in(&mut packet);
    assert_eq!(packet.port(Side::Source), Ok(Some(444)));
    assert_eq!(packet.port(Side::Destination), Ok(Some(443)));
    let original = packet.tracking.original.unwrap();
    assert_eq!(
        (original.src.to_string().as_str(), original.l4),
        ("1.0.0.0", L4::Ports { src: 444, dst: 443 })
    );
    assert_eq!(packet.tracking.reply.ok(), original.inverted());
}
