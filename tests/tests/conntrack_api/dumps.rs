//! Dumps and filters.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::pin;

use conntracker::Conntrack;
use conntracker::conntrack::{
    Change, ConntrackEntry, DumpRequest, EntryKey, EntryZone, List, MarkChange, TupleFilter,
};
use conntracker::model::{L4, Mark, Status, Zone};
use conntracker::netlink::Error;
use conntracker_tests::lab::{Host, Lab};
use futures_core::Stream;

use crate::{TCP, UDP, connect, echo, from, lasting, ports};

/// Many entries at once, as `conntrack -R` takes them.
fn fill(host: &Host, entries: u32) {
    let mut lines = String::new();
    for n in 0..entries {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(lines, "-I -p udp -s 10.{a}.{b}.{c} -d 198.51.100.2 --sport 1 --dport 2 -t 600")
            .unwrap();
    }
    host.run_with_input(["conntrack", "-R", "-"], &lines).unwrap();
}

/// Entries of all sorts.
fn mixed(conntrack: &mut Conntrack) {
    let mark = |value| Change::default().mark(MarkChange::to(Mark(value)));
    let status = Some(Status::SEEN_REPLY);
    let entries = [
        lasting(ports(UDP, "192.0.2.1", 1, "198.51.100.2", 53)),
        lasting(ports(TCP, "192.0.2.1", 2, "198.51.100.2", 443)),
        lasting(ports(TCP, "192.0.2.3", 2, "198.51.100.2", 443)),
        lasting(ports(132, "192.0.2.3", 5, "198.51.100.3", 53)),
        lasting(ports(UDP, "2001:db8::1", 1, "2001:db8::2", 53)),
        lasting(ports(TCP, "2001:db8::3", 2, "2001:db8::2", 443)),
        lasting(echo(1, "192.0.2.1", "198.51.100.2", 8, 7)),
        lasting(echo(1, "192.0.2.1", "198.51.100.2", 8, 9)),
        lasting(echo(58, "2001:db8::1", "2001:db8::2", 128, 7)),
        lasting(ports(UDP, "192.0.2.1", 1, "198.51.100.2", 53)).zone(EntryZone::Both(Zone(5))),
        lasting(ports(UDP, "192.0.2.1", 7, "198.51.100.2", 53)).zone(EntryZone::Orig(Zone(6))),
        lasting(ports(UDP, "192.0.2.4", 7, "198.51.100.2", 53)).with(mark(0x17)),
        lasting(ports(UDP, "192.0.2.4", 8, "198.51.100.2", 53)).with(mark(0x27)),
        lasting(ports(UDP, "192.0.2.5", 8, "198.51.100.2", 53))
            .with(Change::default().status(status)),
    ];
    for entry in &entries {
        conntrack.create(entry).unwrap();
    }
}

fn all(conntrack: &mut Conntrack) -> Vec<ConntrackEntry> {
    conntrack.dump().unwrap().into_iter().collect::<Result<_, _>>().unwrap()
}

fn keys(entries: impl IntoIterator<Item = ConntrackEntry>) -> BTreeSet<String> {
    entries.into_iter().map(|entry| format!("{:?}", EntryKey::from(&entry))).collect()
}

#[test]
fn filters_give_what_a_look_at_each_entry_gives() {
    type Choice = fn(&ConntrackEntry) -> bool;
    fn orig(orig: TupleFilter) -> DumpRequest {
        DumpRequest::default().orig(orig)
    }
    fn dport(e: &ConntrackEntry) -> u16 {
        if let L4::Ports { dst, .. } = e.orig.l4 { dst } else { 0 }
    }
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    mixed(&mut conntrack);
    let entries = all(&mut conntrack);
    let support = lab.router.enter(|| Ok(Conntrack::filter_support()?)).unwrap();
    println!("{support:?}");
    let any = DumpRequest::default();
    let none = TupleFilter::default();
    // Whether this kernel must have told without sending anything else.
    let table: &[(DumpRequest, bool, Choice)] = &[
        (any.family(2), true, |e| e.family == 2),
        (any.family(10), true, |e| e.family == 10),
        (any.mark((Mark(0x17), u32::MAX)), support.mark, |e| e.mark == Some(Mark(0x17))),
        (any.mark((Mark(0x07), 0x0f)), support.mark, |e| e.mark.unwrap().0 & 15 == 7),
        (any.status((2, 2)), support.status, |e| e.status.0 & 2 == 2),
        (any.status((0, 2)), support.status, |e| e.status.0 & 2 == 0),
        (any.zone(Zone(5)), support.zone == Some(true), |e| e.zone == Zone(5)),
        (any.zone(Zone(6)), support.zone == Some(true), |e| e.zone == Zone(6)),
        (any.zone(Zone(0)), support.zone == Some(true), |e| e.zone == Zone(0)),
        (orig(from("192.0.2.3")), support.tuple, |e| e.orig.src.to_string() == "192.0.2.3"),
        (orig(from("192.0.2.3").proto(TCP)), support.tuple, |e| {
            e.orig.proto == TCP && e.orig.src.to_string() == "192.0.2.3"
        }),
        (any.reply(from("198.51.100.3")), support.tuple, |e| {
            e.orig.dst.to_string() == "198.51.100.3"
        }),
        (any.family(2).orig(none.proto(TCP).dport(443).sport(2)), support.tuple, |e| {
            e.family == 2 && dport(e) == 443
        }),
        (orig(none.proto(1).icmp_id(7).icmp_type(8)), support.tuple, |e| {
            e.orig.l4 == L4::Icmp { kind: 8, code: 0, id: 7 }
        }),
        (orig(none.proto(58).icmp_id(7).icmp_code(0)), support.tuple, |e| {
            e.orig.l4 == L4::Icmp { kind: 128, code: 0, id: 7 }
        }),
        // What the kernel cannot tell is told here.
        (orig(from("2001:db8::1")), false, |e| e.orig.src.to_string() == "2001:db8::1"),
        (orig(none.dport(53)), false, |e| dport(e) == 53),
        (orig(none.proto(132).dport(53)), false, |e| e.orig.proto == 132),
        (orig(none.proto(TCP)).family(10), support.tuple, |e| {
            e.family == 10 && e.orig.proto == TCP
        }),
    ];
    for (request, by_kernel, choice) in table {
        let want = keys(entries.iter().filter(|e| choice(e)).cloned());
        assert!(!want.is_empty() && want.len() < entries.len(), "{request:?} shows nothing");
        let mut found = Vec::new();
        let stats = conntrack.dump_with(request, |entry| found.push((&entry).into())).unwrap();
        assert_eq!(keys(found), want, "{request:?}");
        assert_eq!(stats.entries, want.len() as u64);
        assert_eq!(stats.left_out == 0, *by_kernel, "{request:?} {stats:?}");
        assert_eq!(request.left_to_user_space(support).is_any(), *by_kernel, "{request:?}");
    }
    // Contradictions match nothing, and the kernel is not asked what it would refuse.
    for request in [
        orig(from("192.0.2.1")).family(10),
        orig(from("2001:db8::1")).reply(from("192.0.2.1")),
        orig(none.proto(1).icmp_type(3)),
    ] {
        assert!(conntrack.dump_filtered(&request).unwrap().next().unwrap().is_none());
    }
}

#[test]
fn the_ways_to_read_a_dump_agree() {
    let lab = Lab::new().unwrap();
    fill(&lab.router, 5000);
    let mut conntrack = connect(&lab.router);
    mixed(&mut conntrack);
    let owned = all(&mut conntrack);
    assert_eq!(owned.len(), 5014);

    let mut lent = Vec::new();
    let mut dump = conntrack.dump().unwrap();
    while let Some(entry) = dump.next().unwrap() {
        lent.push(ConntrackEntry::from(&entry));
    }
    assert!(dump.next().unwrap().is_none());
    assert_eq!((dump.stats().entries, dump.stats().left_out), (5014, 0));
    drop(dump);
    let mut handed = Vec::new();
    let stats = conntrack.dump_with(&DumpRequest::default(), |e| handed.push((&e).into())).unwrap();
    assert_eq!((stats.entries, stats.left_out, stats.foreign), (5014, 0, 0));
    let order = |entries: &[ConntrackEntry]| entries.iter().map(|e| e.orig).collect::<Vec<_>>();
    assert_eq!(order(&handed), order(&lent));
    assert_eq!(keys(handed), keys(owned.iter().cloned()));
    assert_eq!(keys(lent), keys(owned.iter().cloned()));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let request = DumpRequest::default().family(2);
    let want = keys(owned.iter().filter(|e| e.family == 2).cloned());
    runtime.block_on(async {
        let start = |request| connect(&lab.router).into_async_dump(List::Table, request).unwrap();
        let mut awaited = Vec::new();
        let mut dump = start(&request);
        while let Some(entry) = dump.next().await.unwrap() {
            awaited.push(ConntrackEntry::from(&entry));
        }
        assert_eq!(dump.stats().entries, want.len() as u64);
        assert_eq!(keys(awaited), want);
        let nothing = DumpRequest::default().orig(from("2001:db8::77"));
        let mut dump = start(&nothing);
        assert!(dump.next().await.unwrap().is_none());
        assert!(dump.stats().left_out > 0);
        let mut streamed = Vec::new();
        let mut dump = pin!(start(&request));
        while let Some(entry) = poll_fn(|cx| dump.as_mut().poll_next(cx)).await {
            streamed.push(entry.unwrap());
        }
        assert_eq!(keys(streamed), want);
    });
}

#[test]
fn a_dump_given_up_does_not_disturb_what_follows() {
    let lab = Lab::new().unwrap();
    fill(&lab.router, 3000);
    let mut conntrack = connect(&lab.router);
    for read in [0, 1, 500] {
        let mut dump = conntrack.dump().unwrap();
        for _ in 0..read {
            assert!(dump.next().unwrap().is_some());
        }
        drop(dump);
        assert_eq!(conntrack.count().unwrap(), 3000);
        assert_eq!(all(&mut conntrack).len(), 3000);
    }
    // Also while a thread receives what follows.
    for wanted in [1, 1500, 2999] {
        let mut read = 0;
        let result = conntrack.dump().unwrap().for_each(|_| {
            read += 1;
            if read < wanted { Ok(()) } else { Err(Error::RequestTooLong("enough")) }
        });
        assert!(result.is_err() && read == wanted, "{read} of {wanted}");
        assert_eq!(all(&mut conntrack).len(), 3000);
    }
    let request = DumpRequest::default().orig(from("10.0.0.1"));
    drop(conntrack.dump().unwrap());
    assert_eq!(conntrack.dump_filtered(&request).unwrap().into_iter().count(), 1);
}

#[test]
fn entries_are_changed_and_removed_by_filter() {
    let lab = Lab::new().unwrap();
    fill(&lab.router, 3000);
    let mut conntrack = connect(&lab.router);
    mixed(&mut conntrack);
    let v6 = DumpRequest::default().orig(from("2001:db8::1"));
    let change = Change::default().mark(MarkChange::to(Mark(9)));
    let changed =
        conntrack.update_matching(&v6, &change, |e| assert_ne!(e.mark, Some(Mark(9)))).unwrap();
    assert_eq!((changed.done, changed.gone), (2, 0));
    let marked = DumpRequest::default().mark((Mark(9), u32::MAX));
    assert_eq!(conntrack.dump_filtered(&marked).unwrap().into_iter().count(), 2);
    let mut removed = 0;
    let matched = conntrack.delete_matching(&v6, |_| removed += 1).unwrap();
    assert_eq!((matched.done, removed), (2, 2));
    assert_eq!(conntrack.dump_filtered(&marked).unwrap().into_iter().count(), 0);
    // Zones of one direction, too: the key says which zone the original direction is in.
    let zones = DumpRequest::default().zone(Zone(6));
    assert_eq!(conntrack.delete_matching(&zones, |_| {}).unwrap().done, 1);
    assert_eq!(conntrack.count().unwrap(), 3011);

    conntrack.flush(None, Some((Mark(0x07), 0x0f))).unwrap();
    assert_eq!(conntrack.count().unwrap(), 3009);
    conntrack.flush(Some(10), None).unwrap();
    let left = all(&mut conntrack);
    assert!(left.len() > 3000 && left.iter().all(|e| e.family == 2), "{}", left.len());
    let everything = DumpRequest::default();
    let matched = conntrack.delete_matching(&everything, |_| {}).unwrap();
    assert_eq!((matched.done, matched.dump.entries), (left.len() as u64, left.len() as u64));
    assert_eq!(conntrack.count().unwrap(), 0);
}

#[test]
fn counters_are_set_back_by_the_dumps_that_say_so() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    router.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
    router.nft(conntracker_tests::lab::TRACKING).unwrap();
    let sink = conntracker_tests::traffic::udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let send = || {
        let from = lab.client.at(40_000);
        conntracker_tests::traffic::udp_send(&lab.client, from, lab.server.at(9), b"hello", 3)
            .unwrap();
    };
    let mut conntrack = connect(router);
    let any = DumpRequest::default();
    let packets = |entry: &ConntrackEntry| entry.counters[0].unwrap().packets;
    send();
    let zeroing = conntrack.dump_list(List::TableZeroing, &any).unwrap();
    let entries: Vec<_> = zeroing.into_iter().map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(packets).collect::<Vec<_>>(), [3]);
    let key = EntryKey::from(&entries[0]);
    assert_eq!(packets(&conntrack.get(&key).unwrap().unwrap()), 0);
    send();
    assert_eq!(packets(&conntrack.get_and_zero(&key).unwrap().unwrap()), 3);
    assert_eq!(packets(&conntrack.get(&key).unwrap().unwrap()), 0);
    drop(sink);
    // Nothing to see, but nothing refused either.
    for list in [List::Dying, List::Unconfirmed] {
        let entries = conntrack.dump_list(list, &any).unwrap().into_iter();
        assert!(entries.map(Result::unwrap).count() <= 1);
    }
}
