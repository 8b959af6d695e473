use std::sync::Arc;

use super::*;
use crate::model::{
    FlowKey, NetnsId,
    hook::Hook,
    path::{CtState, Direction, Outcome, Provenance, Site, SiteKind, Step, Traversal, Verdict},
    table::{Backend, Family},
};

fn flow(proto: u8, sport: u16, dport: u16) -> Flow {
    let orig = Tuple {
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.1.2".parse().unwrap(),
        proto,
        l4: L4::Ports { src: sport, dst: dport },
    };
    Flow::new(FlowKey { netns: NetnsId(0), zone: Zone(3), orig, entry: true }, 0)
}

fn any<T>(values: impl IntoIterator<Item = (bool, T)>) -> AnyOf<T> {
    AnyOf(values.into_iter().map(|(negated, value)| Term { negated, value }).collect())
}

fn passes(filter: &Filter, flow: &Flow) -> bool {
    filter.allows(flow, |index| (index == 2).then(|| "eth0".to_owned()))
}

#[test]
fn values_are_alternatives_options_must_all_hold_and_negation_excludes() {
    let mut f = Filter { proto: any([(false, 6), (false, 17)]), ..Filter::default() };
    assert!(passes(&f, &flow(6, 1, 80)) && passes(&f, &flow(17, 1, 80)));
    assert!(!passes(&f, &flow(132, 1, 80)));
    f.dport = any([(false, 80..=90), (true, 85..=85)]);
    assert!(passes(&f, &flow(6, 1, 80)));
    assert!(!passes(&f, &flow(6, 1, 85)) && !passes(&f, &flow(6, 1, 91)));
    f.dst = any([(true, "10.0.1.0/24".parse().unwrap())]);
    assert!(!passes(&f, &flow(6, 1, 80)));
}

#[test]
fn marks_are_compared_under_their_mask_and_absent_is_zero() {
    let mut marked = flow(6, 1, 80);
    let f = Filter {
        mark: any([(false, MaskedMark { value: 0x10, mask: 0xf0 })]),
        ..Filter::default()
    };
    assert!(!passes(&f, &marked));
    marked.mark = Some(Mark(0x1f));
    assert!(passes(&f, &marked));
    let zero =
        Filter { mark: any([(false, MaskedMark { value: 0, mask: !0 })]), ..Filter::default() };
    marked.mark = None;
    assert!(passes(&zero, &marked));
}

#[test]
fn interfaces_go_by_name_and_none_is_no_interface() {
    let mut f = flow(6, 1, 80);
    f.interfaces = Some((2, 0));
    let by = |iif: &str| Filter { iif: any([(false, iif.to_owned())]), ..Filter::default() };
    assert!(passes(&by("eth0"), &f) && !passes(&by("eth1"), &f));
    let oif = Filter { oif: any([(false, "eth0".to_owned())]), ..Filter::default() };
    assert!(!passes(&oif, &f));
}

fn site(family: Family, table: &str, chain: &str) -> Site {
    Site {
        backend: Backend::Nft,
        family,
        table: table.to_owned(),
        iptables: false,
        chain: chain.to_owned(),
        kind: SiteKind::Rule,
        position: Some(2),
        handle: Some(14),
        text: None,
    }
}

#[test]
fn rules_go_by_table_chain_and_handle() {
    let place = |text: &str| RuleFilter::parse(text).unwrap();
    let rule = site(Family::Inet, "fw/4", "in/out");
    for text in ["fw/4/in/out", "inet fw/4/in/out", "fw/4/in/out/14", "inet fw/4/in/out/14"] {
        assert!(place(text).matches(&rule), "{text}");
    }
    for text in ["fw/4", "fw/4/in", "ip fw/4/in/out", "fw/4/in/out/2", "fw/4/in/out/", "inet/x"] {
        assert!(!place(text).matches(&rule), "{text}");
    }
    let legacy = Site { backend: Backend::Legacy, handle: None, ..rule.clone() };
    assert!(place("fw/4/in/out/2").matches(&legacy));
    // Tables of one name.
    for (mark, means) in
        [("", [true, true]), (" (nft)", [true, false]), (" (legacy)", [false, true])]
    {
        let place = RuleFilter::parse(&format!("fw/4{mark}/in/out")).unwrap();
        assert_eq!([place.matches(&rule), place.matches(&legacy)], means, "{mark}");
    }
    assert!(place("inet fw/4 (legacy)/in/out/2").matches(&legacy));
    assert!(!place("inet fw/4 (legacy)/in/out/3").matches(&legacy));
    let policy = Site { kind: SiteKind::Policy, ..legacy };
    assert!(!place("fw/4/in/out/2").matches(&policy) && place("fw/4/in/out").matches(&policy));
    for text in ["", "fw", "/in", "fw/"] {
        assert_eq!(RuleFilter::parse(text), None, "{text}");
    }
}

#[test]
fn a_flow_passes_by_any_of_its_steps() {
    let step = |chain: &str| Step {
        site: Arc::new(site(Family::Inet, "fw", chain)),
        verdict: Verdict::Continue,
        provenance: Provenance::Exact,
        placed: true,
    };
    let traversal = Traversal {
        hook: Hook::Forward,
        direction: Direction::Original,
        state: CtState::New,
        outcome: Outcome::Passed,
        epoch: 1,
        packet_mark: (0, 0),
        marks: Arc::new([]),
        connmark: None,
        nat: None,
        fragment: false,
        steps: [step("a"), step("b")].into(),
        doubt: None,
    };
    let mut traced = flow(6, 1, 80);
    let by = |terms: &[(bool, &str)]| {
        let place = |&(negated, text): &(bool, &str)| (negated, RuleFilter::parse(text).unwrap());
        Filter { rule: any(terms.iter().map(place)), ..Filter::default() }
    };
    let not_c = by(&[(true, "fw/c")]);
    assert!(!passes(&by(&[(false, "fw/b")]), &traced) && passes(&not_c, &traced));
    traced.paths.add(&Arc::new(traversal), 1);
    assert!(passes(&by(&[(false, "fw/b")]), &traced) && passes(&not_c, &traced));
    assert!(passes(&by(&[(false, "fw/c"), (false, "fw/a")]), &traced));
    assert!(!passes(&by(&[(false, "fw/c")]), &traced));
    assert!(!passes(&by(&[(true, "inet fw/b")]), &traced));
}

#[test]
fn a_filter_is_described_as_it_would_be_typed() {
    let f = Filter {
        proto: any([(false, 6), (true, 253)]),
        dport: any([(false, 80..=80), (false, 1..=9)]),
        dropped: true,
        rule: any([(true, RuleFilter::parse("inet fw/in/7").unwrap())]),
        ..Filter::default()
    };
    assert_eq!(
        f.describe(),
        [
            "--proto tcp",
            "--proto !253",
            "--dport 80",
            "--dport 1-9",
            "--rule !inet fw/in/7",
            "--dropped"
        ]
    );
}

#[test]
fn only_filters_on_the_folded_key_let_the_kernel_fold() {
    let decides = |f: Filter| f.folded_key_decides();
    assert!(decides(Filter { proto: any([(false, 6)]), dropped: true, ..Filter::default() }));
    assert!(!decides(Filter { sport: any([(false, 1..=2)]), ..Filter::default() }));
    assert!(!decides(Filter { nat: any([(false, None)]), ..Filter::default() }));
}

#[test]
fn translations_go_by_the_address_that_answers_have() {
    let net = |text: &str| Some(text.parse().unwrap());
    for (of_v4, orig, reply, to) in [
        (true, ("10.0.0.1", "198.51.100.1"), ("192.0.2.80", "203.0.113.5"), "203.0.113.0/24"),
        (false, ("2001:db8::1", "2001:db8:1::1"), ("fd00::80", "2001:db8:2::5"), "2001:db8:2::/48"),
    ] {
        let tuple = |(src, dst): (&str, &str), sport, dport| Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: 6,
            l4: L4::Ports { src: sport, dst: dport },
        };
        let mut f = Flow::new(
            FlowKey {
                netns: NetnsId(0),
                zone: Zone::DEFAULT,
                orig: tuple(orig, 4000, 443),
                entry: true,
            },
            0,
        );
        f.reply = Some(tuple(reply, 8443, 60_000));
        f.status = Status::SRC_NAT.union(Status::DST_NAT);
        let filter = |nat, src_nat, dst_nat| Filter { nat, src_nat, dst_nat, ..Filter::default() };
        let none = || any([]);
        let server = if of_v4 { "192.0.2.80/32" } else { "fd00::80/128" };
        for (passing, filter) in [
            (true, filter(any([(false, None)]), none(), none())),
            (false, filter(any([(true, None)]), none(), none())),
            (true, filter(any([(false, net(to))]), none(), none())),
            (true, filter(any([(false, net(server))]), none(), none())),
            (true, filter(none(), any([(false, net(to))]), any([(false, net(server))]))),
            (false, filter(none(), any([(false, net(server))]), none())),
            (false, filter(none(), none(), any([(false, net(to))]))),
            (false, filter(none(), any([(true, net(to))]), none())),
        ] {
            assert_eq!(passes(&filter, &f), passing, "{filter:?}");
        }
        let by_ports = Filter {
            reply_sport: any([(false, 8000..=9000)]),
            reply_dport: any([(true, 1..=1023)]),
            ..Filter::default()
        };
        assert!(passes(&by_ports, &f));
        f.status = Status::DST_NAT;
        assert!(!passes(&filter(none(), any([(false, None)]), none()), &f));
    }
}

#[test]
fn labels_and_helpers_are_looked_at() {
    let filter = Filter {
        label: any([(false, 3), (false, 7)]),
        helper: any([(true, "ftp".to_owned())]),
        ..Filter::default()
    };
    let mut f = flow(6, 1, 80);
    assert!(!passes(&filter, &f));
    let details = f.details.get_or_insert_default();
    details.labels = vec![1, 7];
    assert!(passes(&filter, &f));
    f.details.get_or_insert_default().helper = Some("ftp".to_owned());
    assert!(!passes(&filter, &f));
}

#[test]
fn a_filter_is_described_as_its_options() {
    let filter = Filter {
        nat: any([(true, None), (false, Some("192.0.2.0/24".parse().unwrap()))]),
        src_nat: any([(false, None), (true, None)]),
        label: any([(true, 3)]),
        reply_dport: any([(false, 1..=9)]),
        ..Filter::default()
    };
    assert_eq!(
        filter.describe(),
        [
            "--reply-dport 1-9",
            "--label !3",
            "--no-nat",
            "--nat=192.0.2.0/24",
            "--src-nat",
            "--src-nat=!any",
        ]
    );
}
