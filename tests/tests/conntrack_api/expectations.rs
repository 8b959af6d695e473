//! Expectations. conntrack(8) 1.4.7 cannot make one with ports itself (it sends the expected packet as
//! ICMP), so that it is the witness of ours only.

use conntracker::Conntrack;
use conntracker::conntrack::{
    Change, EXPECT_PERMANENT, EventGroups, EventOptions, ExpectKey, ExpectNat, ExpectRequest, Item,
    Kind, NewExpectation,
};
use conntracker::model::{Tuple, Zone};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::PATIENCE;
use nix::errno::Errno;

use crate::{TCP, connect, lasting, ports};

/// Makes a flow with a helper that expects things.
fn master(conntrack: &mut Conntrack, src: &str, dst: &str) -> Tuple {
    let orig = ports(TCP, src, 1000, dst, 21);
    let with = Change::default().helper("ftp".to_owned());
    conntrack.create(&lasting(orig).with(with)).unwrap();
    orig
}

fn expectation(master: Tuple, port: u16) -> NewExpectation {
    let (src, dst) = (master.dst, master.src);
    let ones = if src.is_ipv4() { "255.255.255.255" } else { "ffff:ffff:ffff:ffff::" };
    NewExpectation::new(
        master,
        ports(TCP, &src.to_string(), 0, &dst.to_string(), port),
        ports(TCP, ones, 0, ones, u16::MAX),
    )
    .timeout(200)
    .flags(EXPECT_PERMANENT)
    .class(0)
    .helper("ftp".to_owned())
}

fn listed(host: &Host) -> Vec<String> {
    let list = |family| host.run(["conntrack", "-L", "expect", "-f", family]).unwrap();
    ["ipv4", "ipv6"].map(list).concat().lines().map(str::to_owned).collect()
}

#[test]
fn expectations_of_ours_are_those_that_conntrack_lists() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    let mut conntrack = connect(router);
    let v4 = master(&mut conntrack, "192.0.2.1", "192.0.2.2");
    let v6 = master(&mut conntrack, "2001:db8::1", "2001:db8::2");
    let new = expectation(v4, 5000);
    conntrack.create_expectation(&new).unwrap();
    let error = conntrack.create_expectation(&new).unwrap_err();
    assert!(error.is_refused(Errno::EEXIST), "{error}");
    let lines = listed(router);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for part in [
        "proto=6 src=192.0.2.2 dst=192.0.2.1 sport=0 dport=5000",
        "mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535",
        "master-src=192.0.2.1 master-dst=192.0.2.2 sport=1000 dport=21",
        "PERMANENT",
        "class=0",
        "helper=ftp",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let key = ExpectKey::new(new.tuple, Zone::DEFAULT);
    let found = conntrack.get_expectation(&key).unwrap().unwrap();
    assert_eq!((found.family, found.tuple, found.master), (2, new.tuple, Some(v4)));
    assert_eq!(found.mask, Some(new.mask));
    assert_eq!((found.flags, found.class), (Some(EXPECT_PERMANENT), Some(0)));
    assert_eq!((found.helper.as_deref(), found.nat), (Some("ftp"), None));
    assert_eq!(found.unknown, []);

    // The helper's policy decides how long; what user space says comes later.
    conntrack.create_or_update_expectation(&new.timeout(77)).unwrap();
    let found = conntrack.get_expectation(&key).unwrap().unwrap();
    assert!(found.timeout.is_some_and(|t| (60..=77).contains(&t)), "{:?}", found.timeout);
    assert!(listed(router)[0].starts_with(&found.timeout.unwrap().to_string()[..1]));

    // FTP expects one flow at a time: another one would replace the first.
    let second = master(&mut conntrack, "192.0.2.3", "192.0.2.2");
    let tuple = ports(TCP, "192.0.2.2", 0, "192.0.2.3", 5001);
    let nat = ExpectNat { dir: 1, tuple: ports(TCP, "203.0.113.5", 4000, "0.0.0.0", 0) };
    let translated = expectation(second, 5001).nat(nat).function("nat-follow-master".to_owned());
    conntrack.create_expectation(&translated).unwrap();
    let translated = ExpectKey::new(tuple, Zone::DEFAULT);
    let found = conntrack.get_expectation(&translated).unwrap().unwrap();
    assert_eq!(found.nat, Some(nat));
    assert_eq!(found.function.as_deref(), Some("nat-follow-master"));

    conntrack.create_expectation(&expectation(v6, 5000)).unwrap();
    let of = |conntrack: &mut Conntrack, request| conntrack.expectations(&request).unwrap().len();
    let all = ExpectRequest::default();
    assert_eq!((of(&mut conntrack, all), listed(router).len()), (3, 3));
    assert_eq!(of(&mut conntrack, all.family(10)), 1);
    assert_eq!(of(&mut conntrack, all.master((v4, Zone::DEFAULT))), 1);
    // A flow without a helper expects nothing; one that is not there is an error.
    let plain = ports(TCP, "192.0.2.7", 1, "192.0.2.2", 2);
    conntrack.create(&lasting(plain)).unwrap();
    assert_eq!(of(&mut conntrack, all.master((plain, Zone::DEFAULT))), 0);
    let nobody = all.master((ports(TCP, "192.0.2.8", 1, "192.0.2.2", 2), Zone::DEFAULT));
    assert!(conntrack.expectations(&nobody).unwrap_err().is_refused(Errno::ENOENT));
    let error = conntrack.create_expectation(&expectation(plain, 1)).unwrap_err();
    assert!(error.is_refused(Errno::EOPNOTSUPP), "{error}");

    let other = translated.with_id(Some(found.id.unwrap() ^ 1));
    assert!(!conntrack.delete_expectation(&other).unwrap());
    assert!(conntrack.delete_expectation(&translated.with_id(found.id)).unwrap());
    assert!(!conntrack.delete_expectation(&translated).unwrap());
    assert_eq!(conntrack.get_expectation(&translated).unwrap(), None);
    assert_eq!(listed(router).len(), 2);
    conntrack.flush_expectations(Some("no-such")).unwrap();
    assert_eq!(of(&mut conntrack, all), 2);
    conntrack.flush_expectations(Some("ftp")).unwrap();
    assert_eq!(of(&mut conntrack, all), 0);
    conntrack.create_expectation(&expectation(v6, 5000)).unwrap();
    router.run(["conntrack", "-F", "expect"]).unwrap();
    assert_eq!(of(&mut conntrack, all), 0);
}

#[test]
fn events_tell_of_expectations_too() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let options = EventOptions::default().groups(EventGroups::ALL);
    let mut events = connect(&lab.router).into_events(&options).unwrap();
    let master = master(&mut conntrack, "192.0.2.1", "192.0.2.2");
    let new = expectation(master, 5000);
    conntrack.create_expectation(&new).unwrap();
    events.resync();
    conntrack.flush_expectations(None).unwrap();
    let mut told = Vec::new();
    let mut known = Vec::new();
    while told.len() < 2 {
        match events.next_within(PATIENCE).unwrap().expect("an event") {
            Item::Expect { kind, expectation, portid } => {
                assert_ne!(portid, 0, "we did it");
                assert_eq!((expectation.tuple, expectation.master), (new.tuple, Some(master)));
                told.push(kind);
            }
            Item::Event { kind, entry, .. } => assert_eq!((kind, entry.orig), (Kind::New, master)),
            Item::Resync(entry) => known.push(entry.orig),
            Item::ResyncExpect(_) => panic!("it was flushed before"),
            _ => {}
        }
    }
    assert_eq!(told, [Kind::New, Kind::Destroy]);
    assert_eq!(known, [master]);
    conntrack.create_expectation(&new).unwrap();
    events.resync();
    let mut resynced = 0;
    loop {
        match events.next_within(PATIENCE).unwrap().expect("an event") {
            Item::ResyncExpect(expectation) => {
                resynced += 1;
                assert_eq!(expectation.tuple, new.tuple);
            }
            Item::ResyncEnd(stats) => break assert_eq!(stats.entries, 1),
            _ => {}
        }
    }
    assert_eq!(resynced, 1);
}
