//! Statistics.

use std::collections::BTreeMap;

use conntracker_tests::lab::Lab;

use crate::{UDP, connect, lasting, ports};

/// `key=value` words of a line of `conntrack -S`.
fn values(line: &str) -> BTreeMap<&str, u32> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key, value.parse().unwrap()))
        .collect()
}

#[test]
fn statistics_are_those_of_conntrack() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    let mut conntrack = connect(router);
    let entry = lasting(ports(UDP, "192.0.2.1", 1, "192.0.2.2", 2));
    conntrack.create(&entry).unwrap();
    // Something to count: conntrack -I of what is there.
    assert!(conntrack.create(&entry).is_err());
    let stats = conntrack.stats().unwrap();
    assert_eq!(stats.entries, 1);
    assert!(stats.max_entries.is_some_and(|max| max > 1));

    let theirs = router.run(["conntrack", "-S"]).unwrap();
    let ours = conntrack.cpu_stats().unwrap();
    assert_eq!(ours.len(), theirs.lines().count());
    for (ours, theirs) in ours.iter().zip(theirs.lines()) {
        let theirs = values(theirs);
        for (key, ours) in [
            ("cpu", Some(u32::from(ours.cpu))),
            ("found", ours.found),
            ("invalid", ours.invalid),
            ("insert", ours.insert),
            ("insert_failed", ours.insert_failed),
            ("drop", ours.drop),
            ("early_drop", ours.early_drop),
            ("error", ours.error),
            ("search_restart", ours.search_restart),
            ("clash_resolve", ours.clash_resolve),
            ("chaintoolong", ours.chain_toolong),
        ] {
            assert_eq!(ours, theirs.get(key).copied(), "{key} {theirs:?}");
        }
    }

    let theirs = router.run(["conntrack", "-S", "expect"]).unwrap();
    let ours = conntrack.expect_cpu_stats().unwrap();
    assert_eq!(ours.len(), theirs.lines().count());
    for (ours, theirs) in ours.iter().zip(theirs.lines()) {
        let theirs = values(theirs);
        for (key, ours) in [
            ("cpu", Some(u32::from(ours.cpu))),
            ("expect_new", ours.new),
            ("expect_create", ours.create),
            ("expect_delete", ours.delete),
        ] {
            assert_eq!(ours, theirs.get(key).copied(), "{key} {theirs:?}");
        }
    }
}
