use proptest::prelude::*;

use super::*;

/// What Linux 6.18 gave for the rulesets that stand at the tests below.
const FILTER: &[u8] = include_bytes!("../../fixtures/ip-filter.entries");
const FILTER6: &[u8] = include_bytes!("../../fixtures/ip6-filter.entries");

/// A fixture: the 84 bytes of `struct ipt_getinfo`, then the entries.
fn raw(family: Family, bytes: &[u8]) -> RawTable {
    let (info, entries) = bytes.split_at(84);
    RawTable { family, info: info.to_vec(), entries: entries.to_vec() }
}

fn names(table: &XtTable) -> Vec<&str> {
    table.chains.iter().map(|chain| chain.name.as_str()).collect()
}

/// ```text
/// :INPUT DROP
/// -A INPUT -s 10.1.0.0/16 ! -d 10.2.3.4/32 -i eth+ ! -p tcp -j user
/// -A INPUT ! -f -g zero
/// -A INPUT -p udp
/// -A FORWARD -p tcp -m tcp --dport 25 -m conntrack --ctstate NEW -m comment --comment "no mail" -j REJECT
/// -A user -s 10.1.1.1/32 -j RETURN
/// -A user -j ACCEPT
/// -A user -j DROP
/// ```
#[test]
fn a_table_as_the_kernel_gave_it() {
    let table = raw(Family::Ip, FILTER).decode().unwrap();
    assert_eq!((table.family, table.name.as_str()), (Family::Ip, "filter"));
    assert_eq!(names(&table), ["INPUT", "FORWARD", "OUTPUT", "user", "zero"]);
    let [input, forward, output, user, zero] = &table.chains[..] else { unreachable!() };
    let base = |chain: &XtChain| chain.base.map(|base| (base.hook, base.policy));
    assert_eq!(base(input), Some((Hook::Input, Policy::Drop)));
    assert_eq!(base(forward), Some((Hook::Forward, Policy::Accept)));
    assert_eq!((base(user), base(zero)), (None, None));
    assert!(output.rules.is_empty() && zero.rules.is_empty());

    let header = input.rules[0].header;
    let [source, destination] = header.addresses;
    assert_eq!((source.value, source.mask, source.inverted), (0x0a01_0000, 0xffff_0000, false));
    assert_eq!((destination.value, destination.inverted), (0x0a02_0304, true));
    assert_eq!(&header.devices[0].name[..5], b"eth+\0");
    assert_eq!(&header.devices[0].mask[..4], [0xff, 0xff, 0xff, 0]);
    assert_eq!(header.protocol, Some((6, true)));
    assert_eq!(input.rules[0].target, XtTarget::Jump(3));
    assert_eq!(input.rules[0].counter, Counter { packets: 3, bytes: 180 });
    assert_eq!(input.rules[1].header.fragment, (true, true));
    assert_eq!(input.rules[1].target, XtTarget::Goto(4));
    assert_eq!(input.rules[2].target, XtTarget::Continue);

    let reject = &forward.rules[0];
    let names: Vec<_> = reject.matches.iter().map(|of| (of.name.as_str(), of.revision)).collect();
    assert_eq!(names, [("tcp", 0), ("conntrack", 3), ("comment", 0)]);
    assert!(matches!(&reject.target, XtTarget::Extension(of) if of.name == "REJECT"));
    let targets: Vec<_> = user.rules.iter().map(|rule| rule.target.clone()).collect();
    assert_eq!(targets, [XtTarget::Return, XtTarget::Accept, XtTarget::Drop]);
}

/// ```text
/// -A INPUT -s fd77::/16 -p udp -g user
/// ```
#[test]
fn a_table_of_ipv6() {
    let table = raw(Family::Ip6, FILTER6).decode().unwrap();
    assert_eq!(names(&table), ["INPUT", "FORWARD", "OUTPUT", "user"]);
    let rule = &table.chains[0].rules[0];
    assert_eq!(rule.header.addresses[0].value, 0xfd77 << 112);
    assert_eq!(rule.header.addresses[0].mask, 0xffff << 112);
    assert_eq!(rule.header.protocol, Some((17, false)));
    assert_eq!(rule.target, XtTarget::Goto(3));
}

#[test]
fn what_is_cut_off_is_no_table() {
    let whole = raw(Family::Ip, FILTER);
    for length in 0..whole.entries.len() {
        let cut = RawTable { entries: whole.entries[..length].to_vec(), ..whole.clone() };
        assert!(cut.decode().is_err(), "{length} bytes");
    }
    for length in 0..whole.info.len() - 8 {
        let cut = RawTable { info: whole.info[..length].to_vec(), ..whole.clone() };
        assert!(cut.decode().is_err(), "{length} bytes of the info");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(
        info in proptest::collection::vec(any::<u8>(), 0..100),
        entries in proptest::collection::vec(any::<u8>(), 0..600),
        v6: bool,
    ) {
        let family = if v6 { Family::Ip6 } else { Family::Ip };
        let _ = RawTable { family, info, entries }.decode();
    }

    #[test]
    fn changed_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        v6: bool,
    ) {
        let mut table = if v6 { raw(Family::Ip6, FILTER6) } else { raw(Family::Ip, FILTER) };
        for (at, byte) in changes {
            let all = table.info.len() + table.entries.len();
            match at.index(all).checked_sub(table.info.len()) {
                Some(at) => table.entries[at] = byte,
                None => table.info[at.index(all)] = byte,
            }
        }
        let _ = table.decode();
    }
}
