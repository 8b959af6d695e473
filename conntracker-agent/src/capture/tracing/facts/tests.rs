//! Headers of packets of a flow whose both addresses are translated, hook by hook, as
//! net/netfilter/nf_nat_core.c changes them.

use conntracker_common::{
    hook::POST_ROUTING,
    plan::{SEGMENT_EARLY, SEGMENT_MAIN, hook_point},
};

use super::*;
use crate::{
    attribution::Counters,
    capture::tracing::{plan::Others, tests::record as new_flow},
    firewall::Ruleset,
    model::path::Outcome,
};

struct NoCounters;

impl Counters for NoCounters {
    fn agrees(&self, _: usize, _: usize) -> bool {
        true
    }

    fn reads(&self, _: usize, _: usize, _: usize) -> bool {
        true
    }
}

fn tuple(src: u8, sport: u16, dst: u8, dport: u16) -> Tuple {
    let address = |last| IpAddr::from([10, 0, 0, last]);
    let l4 = L4::Ports { src: sport, dst: dport };
    Tuple { src: address(src), dst: address(dst), proto: 6, l4 }
}

/// 1:1000 to 2:80, as 8:2000 to 9:8080 behind NAT.
fn record(hook: u8) -> PathRecord {
    PathRecord {
        orig: tuple(1, 1000, 2, 80),
        reply: Some(tuple(9, 8080, 8, 2000)),
        iif: Some(Device { index: 7, name: [0; 16] }),
        ..new_flow(hook_point(false, SEGMENT_MAIN, hook))
    }
}

/// The known fields at one base chain; `nat`: it is of type nat.
fn facts(record: &PathRecord, priority: i32, nat: bool, folds: bool) -> Packet {
    let chain = Some(((0, 0), ChainId(0)));
    let after = Others::default();
    let plan = HookPlan {
        hook_point: record.hook_point,
        chains: vec![PlannedChain { chain, address: 0, legacy: false, nat, priority, after }],
        end: after,
        gaps: Vec::new(),
        links: Vec::new(),
        slots: Vec::new(),
        ranges: Vec::new(),
        legacy: Vec::new(),
        translates: true,
    };
    let seen = Observation {
        v6: false,
        chains: vec![ChainId(0)],
        among: (0, 0),
        elsewhere: Vec::new(),
        moved: Vec::new(),
        complete: true,
        targets_seen: None,
        outcome: Outcome::Passed,
        packet: Packet::default(),
    };
    let program = Program::new(&Ruleset::default(), &NoCounters);
    packet(record, &plan, &program, &seen, folds)
}

/// `src:sport > dst:dport`, by last bytes of addresses; two values with `|`.
fn headers_of(packet: &Packet) -> String {
    let Headers { addresses, ports, .. } = packet.headers[0];
    let last = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[3].to_string(),
        IpAddr::V6(address) => address.to_string(),
    };
    let show = |value: Maybe<String>| match value {
        Maybe::Unknown => "?".to_owned(),
        Maybe::Is(value) => value,
        Maybe::Either(a, b) => format!("{a}|{b}"),
        Maybe::Between(a, b) => format!("{a}-{b}"),
    };
    let [src, dst] = addresses.map(|address| show(map(address, &last)));
    let [sport, dport] = ports.map(|port| show(map(port, &|port: u16| port.to_string())));
    format!("{src}:{sport} > {dst}:{dport}")
}

fn map<T>(value: Maybe<T>, f: &dyn Fn(T) -> String) -> Maybe<String> {
    match value {
        Maybe::Unknown => Maybe::Unknown,
        Maybe::Is(value) => Maybe::Is(f(value)),
        Maybe::Either(a, b) => Maybe::Either(f(a), f(b)),
        Maybe::Between(a, b) => Maybe::Between(f(a), f(b)),
    }
}

#[track_caller]
fn check(record: &PathRecord, priority: i32, nat: bool, want: &str) {
    assert_eq!(headers_of(&facts(record, priority, nat, false)), want, "{priority} {nat}");
}

#[test]
fn first_packets_change_where_nat_hangs() {
    let pre = record(PRE_ROUTING);
    check(&pre, -150, false, "1:1000 > 2:80");
    check(&pre, -100, true, "1:1000 > 2:80");
    check(&pre, -100, false, "1:1000 > 2|9:80|8080");
    check(&pre, 0, false, "1:1000 > 9:8080");
    check(&record(FORWARD), 0, false, "1:1000 > 9:8080");
    let post = record(POST_ROUTING);
    check(&post, 0, false, "1:1000 > 9:8080");
    check(&post, 100, true, "1:1000 > 9:8080");
    check(&post, 150, false, "8:2000 > 9:8080");
    check(&record(LOCAL_IN), 0, false, "1:1000 > 9:8080");
    check(&record(LOCAL_IN), 150, false, "8:2000 > 9:8080");
    check(&record(LOCAL_OUT), -150, false, "1:1000 > 2:80");
    check(&record(LOCAL_OUT), 0, false, "1:1000 > 9:8080");
}

#[test]
fn answers_change_the_other_way_round() {
    let reply = |hook| PathRecord { info: IP_CT_ESTABLISHED_REPLY, ..record(hook) };
    check(&reply(FORWARD), 0, false, "9:8080 > 1:1000");
    check(&reply(PRE_ROUTING), 0, false, "9:8080 > 1:1000");
    check(&reply(POST_ROUTING), 150, false, "2:80 > 1:1000");
    // Only a flow's first packet is known not to have passed this hook before.
    check(&reply(PRE_ROUTING), -150, false, "9:8080 > 8|1:2000|1000");
    check(&reply(POST_ROUTING), 0, false, "9|2:8080|80 > 1:1000");
}

#[test]
fn what_may_have_been_translated_on_the_way_out_has_two_values() {
    let looped = |hook| PathRecord {
        iif: Some(Device { index: LOOPBACK, name: [0; 16] }),
        status: IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE,
        ..record(hook)
    };
    check(&looped(PRE_ROUTING), -150, false, "1|8:1000|2000 > 2|9:80|8080");
    check(&looped(LOCAL_IN), 0, false, "1|8:1000|2000 > 9:8080");
    // The last NAT rule was removed, and its entries still exist.
    let mut nat = Nat::of(&record(FORWARD), record(FORWARD).reply.unwrap(), false);
    nat.hook = FORWARD;
    let hook_point = PlannedChain {
        chain: None,
        address: 0,
        legacy: false,
        nat: false,
        priority: 0,
        after: Others::default(),
    };
    let headers = nat.headers(Some(&hook_point));
    let packet = Packet { headers: vec![headers], ..Packet::default() };
    assert_eq!(headers_of(&packet), "1|8:1000|2000 > 2|9:80|8080");
}

#[test]
fn a_folded_record_speaks_for_all_ports_of_clients() {
    let plain = |sport, info| PathRecord {
        orig: tuple(1, sport, 2, 80),
        reply: tuple(1, sport, 2, 80).inverted(),
        info,
        ..record(FORWARD)
    };
    let folded = |record| headers_of(&facts(&record, 0, false, true));
    assert_eq!(folded(plain(40_000, IP_CT_NEW)), "1:1024-65535 > 2:80");
    assert_eq!(folded(plain(40_000, IP_CT_ESTABLISHED_REPLY)), "2:80 > 1:1024-65535");
    assert_eq!(folded(plain(1000, IP_CT_NEW)), "1:1000 > 2:80");
    assert_eq!(folded(record(FORWARD)), "1:? > 9:8080", "NAT may have made anything of it");
}

#[test]
fn packets_that_are_about_others_have_headers_of_their_own() {
    let error = facts(&PathRecord { info: IP_CT_RELATED, ..record(FORWARD) }, 0, false, false);
    assert_eq!((error.headers.len(), error.proto), (0, None));
    assert_eq!((error.states, error.entry), (vec![4], Some(true)));
    let invalid = PathRecord { reply: None, info: 0, ..record(FORWARD) };
    let invalid = facts(&invalid, 0, false, false);
    assert_eq!((&*invalid.states, invalid.entry), (&[STATE_INVALID][..], Some(false)));
    assert_eq!(headers_of(&invalid), "1:1000 > 2:80");
    let untracked = PathRecord { reply: None, info: IP_CT_UNTRACKED, ..record(FORWARD) };
    assert_eq!(facts(&untracked, 0, false, false).states, [STATE_UNTRACKED]);
    let fragment = PathRecord { reply: None, fragment: true, ..record(FORWARD) };
    assert_eq!(headers_of(&facts(&fragment, 0, false, false)), "1:? > 2:?");
    let early = PathRecord {
        reply: None,
        hook_point: hook_point(false, SEGMENT_EARLY, PRE_ROUTING),
        ..record(PRE_ROUTING)
    };
    let early = facts(&early, -300, false, false);
    assert_eq!((early.entry, &*early.states), (None, &[][..]));
}

#[test]
fn only_nat_at_this_hook_is_its_translation() {
    let of = |record: &PathRecord, nat| facts(record, -100, nat, false).translation;
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let (source, changed) = (false, true);
    let done = Translation { source, address: address(9), port: Some(8080), changed };
    assert_eq!(of(&record(PRE_ROUTING), true), Some(done));
    assert_eq!(of(&record(PRE_ROUTING), false), None, "no chain of nat");
    let plain = PathRecord { reply: tuple(1, 1000, 2, 80).inverted(), ..record(POST_ROUTING) };
    let kept = Translation { source: true, address: address(1), port: Some(1000), changed: false };
    assert_eq!(of(&plain, true), Some(kept));
    assert_eq!(facts(&record(FORWARD), 0, false, false).status, (IPS_NAT, IPS_NAT));
    assert_eq!(facts(&plain, 0, false, false).status, (48, 0));
}
