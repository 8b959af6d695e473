//! Single entries.

use conntracker::conntrack::{
    Change, ConntrackEntry, EntryKey, EntryZone, LabelChange, MarkChange, NatRange, NewEntry,
    ProtoChange, ProtoState, SeqAdj,
};
use conntracker::model::{Mark, Status, Tuple, Zone};
use conntracker_tests::lab::{Host, Lab};
use nix::errno::Errno;

use crate::{TCP, UDP, connect, echo, lasting, listed, only, ports};

/// `conntrack` with these arguments in the router's namespace.
fn run(host: &Host, args: &str) {
    host.run(["conntrack"].into_iter().chain(args.split_whitespace())).unwrap();
}

fn established() -> ProtoChange {
    ProtoChange::Tcp { state: Some(3), wscale: None, flags: [None; 2] }
}

const ASSURED: Status = Status::SEEN_REPLY.union(Status::ASSURED);

/// The same entry, made by us and by conntrack(8).
fn pairs() -> Vec<(NewEntry, &'static str)> {
    let udp = lasting(ports(UDP, "192.0.2.1", 1000, "198.51.100.2", 53));
    let tcp = lasting(ports(TCP, "192.0.2.1", 1000, "198.51.100.2", 443));
    let v6 = lasting(ports(UDP, "2001:db8::1", 1000, "2001:db8::2", 53));
    let with = |entry: &NewEntry, with: Change| entry.clone().with(with);
    let state = Some(established());
    let address = |address: &str| {
        let address = address.parse().unwrap();
        Some(NatRange { addresses: Some((address, address)), ports: None })
    };
    let ported = |a: &str, port| {
        let nat = address(a).unwrap();
        Some(NatRange { ports: Some((port, port)), ..nat })
    };
    let mark = Some(MarkChange::to(Mark(0x1234)));
    vec![
        (udp.clone(), "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53"),
        (v6.clone(), "-p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1000 --dport 53"),
        (
            with(&tcp, Change::default().state(state)),
            "-p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 443 --state ESTABLISHED",
        ),
        (
            with(&tcp, Change::default().state(state).status(ASSURED).mark(mark)),
            "-p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 443 --state ESTABLISHED \
             -u ASSURED,SEEN_REPLY -m 0x1234",
        ),
        (
            lasting(echo(1, "192.0.2.1", "198.51.100.2", 8, 77)),
            "-p icmp -s 192.0.2.1 -d 198.51.100.2 --icmp-type 8 --icmp-code 0 --icmp-id 77",
        ),
        (
            lasting(echo(58, "2001:db8::1", "2001:db8::2", 128, 77)),
            "-p icmpv6 -s 2001:db8::1 -d 2001:db8::2 --icmpv6-type 128 --icmpv6-code 0 \
             --icmpv6-id 77",
        ),
        (
            udp.clone().zone(EntryZone::Both(Zone(7))),
            "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53 -w 7",
        ),
        (
            udp.clone().zone(EntryZone::Orig(Zone(8))),
            "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53 --orig-zone 8",
        ),
        (
            udp.clone().zone(EntryZone::Reply(Zone(9))),
            "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53 --reply-zone 9",
        ),
        (
            udp.clone().nat_src(address("203.0.113.9")),
            "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53 -n 203.0.113.9",
        ),
        (
            udp.clone().nat_dst(ported("203.0.113.9", 5353)),
            "-p udp -s 192.0.2.1 -d 198.51.100.2 --sport 1000 --dport 53 -g 203.0.113.9:5353",
        ),
        (
            v6.nat_src(ported("2001:db8::9", 7)),
            "-p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1000 --dport 53 -n [2001:db8::9]:7",
        ),
    ]
}

#[test]
fn what_we_make_and_what_conntrack_makes_is_the_same_to_both() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    let mut conntrack = connect(router);
    for (entry, theirs) in pairs() {
        conntrack.create(&entry).unwrap();
        let line = only(router);
        let key = EntryKey::orig(entry.orig).in_zone(match entry.zone {
            EntryZone::Both(zone) | EntryZone::Orig(zone) => zone,
            EntryZone::Reply(_) => Zone::DEFAULT,
        });
        let ours = conntrack.get(&key).unwrap().unwrap();
        assert!(conntrack.delete(&key.with_id(ours.id)).unwrap(), "{theirs}");
        assert!(!conntrack.delete(&key).unwrap(), "{theirs}");
        assert_eq!(conntrack.get(&key).unwrap(), None);

        run(router, &format!("-I -t 600 {theirs}"));
        let line_of_theirs = only(router);
        assert_eq!(line, line_of_theirs);
        let found = conntrack.dump().unwrap().into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let [theirs] = &found[..] else { panic!("{found:?}") };
        assert_eq!((theirs.orig, theirs.reply), (ours.orig, ours.reply), "{line}");
        assert_eq!(theirs.status, ours.status, "{line}");
        assert_eq!(theirs.mark, ours.mark, "{line}");
        let zones = |e: &ConntrackEntry| (e.zone, e.zone_orig, e.zone_reply);
        assert_eq!(zones(theirs), zones(&ours));
        assert_eq!(EntryKey::from(theirs).with_id(None), key);
        conntrack.flush(None, None).unwrap();
        assert_eq!(conntrack.count().unwrap(), 0);
    }
}

#[test]
fn what_is_there_cannot_be_made_again_but_changed() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let mut entry = lasting(ports(UDP, "192.0.2.1", 1, "192.0.2.2", 2));
    conntrack.create(&entry).unwrap();
    let error = conntrack.create(&entry).unwrap_err();
    assert!(error.is_refused(Errno::EEXIST), "{error}");
    entry.with.mark = Some(MarkChange::to(Mark(5)));
    conntrack.create_or_update(&entry).unwrap();
    let key = EntryKey::orig(entry.orig);
    assert_eq!(conntrack.get(&key).unwrap().unwrap().mark, Some(Mark(5)));
    let by_reply = EntryKey::reply(entry.reply);
    assert_eq!(conntrack.get(&by_reply).unwrap().unwrap().orig, entry.orig);
    // Another zone, another identifier: not that one.
    assert_eq!(conntrack.get(&key.in_zone(Zone(1))).unwrap(), None);
    assert_eq!(conntrack.get(&key.with_id(Some(1))).unwrap(), None);
    assert!(!conntrack.delete(&key.with_id(Some(1))).unwrap());
    assert!(conntrack.delete(&by_reply).unwrap());
    let error = conntrack.update(&key, &Change::default()).unwrap_err();
    assert!(error.is_refused(Errno::ENOENT), "{error}");
}

#[test]
fn changes_are_seen_by_conntrack_and_its_changes_by_us() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    // Entries have room for labels where a rule sets them. In Linux 6.1 it is not enough that one looks at
    // them.
    let rule = "table ip t {
 chain c {
 type filter hook input priority 0;
 ct label set 1
 }
}";
    router.nft(rule).unwrap();
    let mut conntrack = connect(router);
    let orig = ports(TCP, "192.0.2.1", 1, "192.0.2.2", 2);
    let mut entry = lasting(orig);
    entry.with.state = Some(established());
    conntrack.create(&entry).unwrap();
    let key = EntryKey::orig(orig);
    let change = |change: Change| connect(router).update(&key, &change).unwrap();

    change(Change::default().mark(MarkChange { value: 0x50, mask: 0xf0 }));
    assert!(only(router).contains("mark=80"), "{}", only(router));
    run(router, "-U -s 192.0.2.1 -m 0x0a/0x0f");
    change(Change::default().mark(MarkChange { value: 0x20, mask: 0xf0 }));
    assert_eq!(conntrack.get(&key).unwrap().unwrap().mark, Some(Mark(0x2a)));

    change(Change::default().labels(LabelChange::to(1 << 127 | 1 << 64 | 2)));
    assert_eq!(conntrack.get(&key).unwrap().unwrap().labels, [1, 64, 127]);
    change(Change::default().labels(LabelChange::add(1 << 5)));
    change(Change::default().labels(LabelChange::remove(1 << 64)));
    assert_eq!(conntrack.get(&key).unwrap().unwrap().labels, [1, 5, 127]);

    change(Change::default().status(ASSURED).timeout(1234));
    assert!(only(router).contains("[ASSURED]"));
    let found = conntrack.get(&key).unwrap().unwrap();
    assert!(found.timeout.is_some_and(|t| (1200..=1234).contains(&t)), "{:?}", found.timeout);
    let refused = conntrack.update(&key, &Change::default().status(Status::default())).unwrap_err();
    assert!(refused.is_refused(Errno::EBUSY), "{refused}");

    let state = ProtoChange::Tcp {
        state: Some(7),
        wscale: Some([3, 4]),
        flags: [Some((0x09, 0x09)), Some((0x0b, 0x0b))],
    };
    change(Change::default().state(state));
    assert!(only(router).contains("TIME_WAIT"), "{}", only(router));
    let found = conntrack.get(&key).unwrap().unwrap();
    let Some(ProtoState::Tcp { state: 7, wscale, flags }) = found.state else {
        panic!("{found:?}")
    };
    assert_eq!((flags, wscale), ([Some(0x09), Some(0x0b)], [Some(3), Some(4)]));

    run(router, "-U -p tcp -s 192.0.2.1 -t 77");
    let found = conntrack.get(&key).unwrap().unwrap();
    assert!(found.timeout.is_some_and(|t| t <= 77), "{:?}", found.timeout);
}

#[test]
fn a_helper_can_be_taken_but_not_given_later() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let helper = |name: &str| Change::default().helper(name.to_owned());
    let plain = lasting(ports(TCP, "192.0.2.1", 1, "192.0.2.2", 2));
    let helped = lasting(ports(TCP, "192.0.2.1", 3, "192.0.2.2", 21)).with(helper("ftp"));
    conntrack.create(&plain).unwrap();
    conntrack.create(&helped).unwrap();
    let refused = conntrack.update(&EntryKey::orig(plain.orig), &helper("ftp")).unwrap_err();
    assert!(refused.is_refused(Errno::EOPNOTSUPP), "{refused}");
    let unknown = lasting(ports(TCP, "192.0.2.1", 4, "192.0.2.2", 21)).with(helper("no-such"));
    let refused = conntrack.create(&unknown).unwrap_err();
    assert!(refused.is_refused(Errno::EOPNOTSUPP), "{refused}");
    let key = EntryKey::orig(helped.orig);
    assert_eq!(conntrack.get(&key).unwrap().unwrap().helper.as_deref(), Some("ftp"));
    let told = listed(&lab.router, &["-p", "tcp"]);
    assert_eq!(told.iter().filter(|line| line.contains("helper=ftp")).count(), 1, "{told:?}");
    conntrack.update(&key, &helper("")).unwrap();
    assert_eq!(conntrack.get(&key).unwrap().unwrap().helper, None);
}

#[test]
fn a_master_and_sequence_adjustment_are_kept() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let master = lasting(ports(TCP, "192.0.2.1", 1, "192.0.2.2", 21));
    conntrack.create(&master).unwrap();
    let adjusted = SeqAdj { correction_pos: 77, offset_before: -3, offset_after: 5 };
    let mut data = lasting(ports(TCP, "192.0.2.2", 20, "192.0.2.1", 2));
    data.master = Some(master.orig);
    data.with.seqadj = [Some(adjusted), None];
    data.nat_src = Some(NatRange { addresses: None, ports: Some((4000, 4000)) });
    conntrack.create(&data).unwrap();
    let found = conntrack.get(&EntryKey::orig(data.orig)).unwrap().unwrap();
    assert_eq!(found.master, Some(master.orig));
    assert!(found.status.contains(Status::EXPECTED.union(Status::SRC_NAT)));
    if let Some(found) = found.seqadj[0] {
        assert_eq!(found, adjusted);
    }
    data.master = Some(ports(TCP, "192.0.2.9", 1, "192.0.2.2", 21));
    data.orig = ports(TCP, "192.0.2.2", 20, "192.0.2.1", 3);
    data.reply = data.orig.inverted().unwrap();
    let refused = conntrack.create(&data).unwrap_err();
    assert!(refused.is_refused(Errno::ENOENT), "{refused}");
}

/// Tuples of mixed families and the like never get past the kernel, nor do they get us into trouble.
#[test]
fn what_cannot_be_is_refused_by_the_kernel() {
    let lab = Lab::new().unwrap();
    let mut conntrack = connect(&lab.router);
    let good = ports(UDP, "192.0.2.1", 1, "192.0.2.2", 2);
    let mixed = Tuple { dst: "2001:db8::2".parse().unwrap(), ..good };
    let refused = conntrack.create(&lasting(mixed)).unwrap_err();
    assert!(refused.is_refused(Errno::EINVAL), "{refused}");
    let protocols = lasting(good).reply(ports(TCP, "192.0.2.2", 2, "192.0.2.1", 1));
    let refused = conntrack.create(&protocols).unwrap_err();
    assert!(refused.is_refused(Errno::EINVAL), "{refused}");
    let mut long = lasting(good);
    long.with.helper = Some("a-name-of-more-than-fifteen-bytes".to_owned());
    let refused = conntrack.create(&long).unwrap_err();
    assert!(refused.to_string().starts_with("conntrack create: "), "{refused}");
    assert!(listed(&lab.router, &[]).is_empty());
}
