//! Statements as nft 1.0.6 to 1.1 write them.

use serde_json::json;

use super::*;
use crate::firewall::nft::json::Listing;
use crate::firewall::{model::Rule, nft::statement::effects};

fn clauses(statements: &Value) -> Vec<Clause> {
    effects(statements).clauses
}

fn one(statement: &Value) -> Condition {
    match &clauses(&json!([statement]))[..] {
        [Clause::Condition(condition)] => condition.clone(),
        other => panic!("{other:?}"),
    }
}

fn matches(op: &str, left: &Value, right: &Value) -> Condition {
    one(&json!({ "match": { "op": op, "left": left, "right": right } }))
}

fn tests(condition: &Condition) -> Vec<Vec<Test>> {
    match &condition.set {
        Elements::Listed(all) => all.iter().map(|tests| tests.to_vec()).collect(),
        Elements::Sorted(all) => all.iter().map(|&(a, b)| vec![Test::Range(a, b)]).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn conditions_on_what_conntrack_knows() {
    let state = json!({ "ct": { "key": "state" } });
    let condition = matches("in", &state, &json!(["established", "related"]));
    assert_eq!(condition.operands, [Operand::all(Field::CtState)]);
    assert_eq!(tests(&condition), [[Test::Bits(6)]]);
    let condition = matches("!=", &state, &json!("invalid"));
    assert_eq!((condition.negated, tests(&condition)), (true, vec![vec![Test::Range(1, 1)]]));
    let condition = matches("==", &state, &json!({ "set": ["new", "untracked"] }));
    assert_eq!(tests(&condition), [[Test::Range(8, 8)], [Test::Range(64, 64)]]);
    // One bit or all of them?
    assert_eq!(matches("==", &state, &json!(["new", "related"])).set, Elements::Unknown);
    let port = json!({ "ct": { "key": "proto-dst", "dir": "original" } });
    let condition = matches("==", &port, &json!(22));
    assert_eq!(condition.operands[0].field, Field::CtPort { reply: false, dst: true });
}

#[test]
fn conditions_on_headers_interfaces_and_marks() {
    let source = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
    let net = json!({ "prefix": { "addr": "10.78.0.0", "len": 17 } });
    let first = u128::from(u32::from_be_bytes([10, 78, 0, 0]));
    let condition = matches("==", &source, &json!({ "set": [net] }));
    assert_eq!(tests(&condition), [[Test::Range(first, first + 0x7fff)]]);
    let port = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
    assert_eq!(tests(&matches("<", &port, &json!(1024))), [[Test::Range(0, 1023)]]);
    let range = matches("==", &port, &json!({ "range": [20, 100] }));
    assert_eq!(range.operands[0].field, Field::Port { dst: true, proto: Some(6) });
    assert_eq!(tests(&range), [[Test::Range(20, 100)]]);
    let name = json!({ "meta": { "key": "iifname" } });
    let start = tests(&matches("==", &name, &json!("eth*")));
    assert_eq!(start, [[Test::NameStart(b"eth".as_slice().into())]]);
    let mut escaped = [0; 16];
    escaped[..4].copy_from_slice(b"eth*");
    assert_eq!(tests(&matches("==", &name, &json!("eth\\*"))), [[Test::Name(escaped)]]);
    let mark = json!({ "&": [{ "meta": { "key": "mark" } }, 16384] });
    let condition = matches("==", &mark, &json!(0));
    assert_eq!(condition.operands, [Operand { field: Field::Mark, mask: 16384 }]);
    // The interface had this name when the rules were listed; the rule has its index.
    let index = json!({ "meta": { "key": "iif" } });
    assert_eq!(tests(&matches("==", &index, &json!("eth0"))), [[Test::Unknown]]);
    assert_eq!(tests(&matches("==", &index, &json!("lo"))), [[Test::Range(1, 1)]]);
    let flags = json!({ "&": [{ "payload": { "protocol": "tcp", "field": "flags" } }, ["syn"]] });
    let condition = matches("==", &flags, &json!("syn"));
    assert_eq!(condition.operands[0].field, Field::Other { v6: None, proto: Some(6) });
}

#[test]
fn what_may_end_a_rule_is_never_left_out() {
    let counter = json!({ "counter": { "packets": 0, "bytes": 0 } });
    for (statement, want) in [
        (json!({ "limit": { "rate": 5, "per": "minute" } }), vec![Clause::Unknown]),
        (json!({ "xt": { "type": "match", "name": "owner" } }), vec![Clause::Unknown]),
        (json!({ "something": 1 }), vec![Clause::Unknown, Clause::Verdict]),
        (json!("jump { … }"), vec![Clause::Unknown, Clause::Verdict]),
        (counter.clone(), vec![Clause::Counter]),
        (json!({ "log": { "prefix": "x" } }), Vec::new()),
        (json!({ "drop": null }), vec![Clause::Verdict]),
    ] {
        assert_eq!(clauses(&json!([statement.clone()])), want, "{statement}");
    }
    let reset = clauses(&json!([{ "reject": { "type": "tcp reset" } }]));
    assert!(matches!(&reset[..], [Clause::Condition(_), Clause::Verdict]), "{reset:?}");
    let set = json!({ "key": { "meta": { "key": "mark" } }, "value": 7 });
    let want = [Clause::Mark { connection: false, value: Some(7) }];
    assert_eq!(clauses(&json!([{ "mangle": set }])), want);
}

#[test]
fn a_counter_behind_a_verdict_counts_no_matches() {
    let map = json!({ "vmap": {
        "key": { "payload": { "protocol": "udp", "field": "dport" } },
        "data": { "set": [[54, { "drop": null }], [55, { "accept": null }]] }
    } });
    let counter = json!({ "counter": { "packets": 0, "bytes": 0 } });
    assert!(!effects(&json!([map.clone(), counter.clone()])).counts_matches);
    assert!(!effects(&json!([counter, map])).counts_matches, "conditions follow");
}

#[test]
fn elements_of_named_sets_count_if_packets_do_not_change_them() {
    let rule = |extra: &Value, flags: &Value| -> Rule {
        let field = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
        let test = json!({ "match": { "op": "==", "left": field, "right": "@bad" } });
        let mut statements = vec![test];
        statements.extend(extra.as_array().cloned().unwrap_or_default());
        let at =
            json!({ "family": "ip", "table": "t", "chain": "c", "handle": 9, "expr": statements });
        let listing = json!({ "nftables": [
            { "table": { "family": "ip", "name": "t", "handle": 1 } },
            { "set": { "family": "ip", "table": "t", "name": "bad", "type": "ipv4_addr",
                "flags": flags,
                "elem": ["10.0.0.1", { "elem": { "val": "10.0.0.2", "comment": "x" } }] } },
            { "chain": { "family": "ip", "table": "t", "name": "c", "handle": 2 } },
            { "rule": at }
        ] });
        let listing = Listing::parse(&listing.to_string()).unwrap();
        listing.tables[0].chains[0].rules[0].clone()
    };
    let set = |rule: &Rule| match &rule.clauses[0] {
        Clause::Condition(condition) => condition.set.clone(),
        other => panic!("{other:?}"),
    };
    let first = u128::from(u32::from_be_bytes([10, 0, 0, 1]));
    let elements = Elements::Sorted(Arc::new([(first, first), (first + 1, first + 1)]));
    assert_eq!(set(&rule(&Value::Null, &Value::Null)), elements);
    assert_eq!(set(&rule(&Value::Null, &json!(["interval"]))), elements);
    assert_eq!(set(&rule(&Value::Null, &json!(["dynamic"]))), Elements::Unknown);
    assert_eq!(set(&rule(&Value::Null, &json!("timeout"))), Elements::Unknown);
    let update = json!([{ "set": { "op": "add", "elem": "10.0.0.3", "set": "@bad" } }]);
    assert_eq!(set(&rule(&update, &Value::Null)), Elements::Unknown);
}
