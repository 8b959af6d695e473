//! Command lines, and what they ask for.

use proptest::prelude::*;

use super::edit::Edit;
use super::filter::Filter;
use super::values::{MarkArgument, Output};
use super::*;
use crate::conntrack::{DumpRequest, EntryZone, EventGroups, LabelChange, List, TupleFilter};
use crate::model::{L4, Mark, Zone};
use crate::report::conntrack::Format;

fn names() -> Names {
    Names::parse("1 foo\n5 bar baz\n127 last\n", "ip 0 IP\nesp 50 IPSEC-ESP\n")
}

fn parse(line: &str) -> Result<Command, Rejection> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Command::parse(&arguments, &names())
}

fn filter(line: &str) -> Filter {
    match parse(line) {
        Ok(Command::List { filter, .. } | Command::Delete { filter, .. }) => filter,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn commands_have_tables_and_output() {
    let output = Output { format: Format::Xml, id: true, ..Output::default() };
    let all = Filter::default();
    for (line, want) in [
        ("", Command::Help(None)),
        ("-h -p tcp", Command::Help(Some(6))),
        ("-V", Command::Version),
        (
            "-L -o xml,id",
            Command::List { list: List::Table, filter: all.clone(), zero: false, output },
        ),
        (
            "--dump unconf -z",
            Command::List {
                list: List::Unconfirmed,
                filter: all.clone(),
                zero: true,
                output: Output::default(),
            },
        ),
        ("-C", Command::Count),
        ("-Cexpect", Command::CountExpectations),
        ("-S expect", Command::ExpectationStats),
        ("-F -f ipv6", Command::Flush(Some(10))),
        ("-F expect", Command::FlushExpectations),
        ("-L expect", Command::ListExpectations { family: Some(2), output: Output::default() }),
        ("-E expect -o id,xml", Command::ExpectationEvents(output)),
        (
            "-E -e NEW,destroy -b 99",
            Command::Events {
                filter: all,
                groups: EventGroups::NEW.and(EventGroups::DESTROY),
                buffer: Some(99),
                output: Output::default(),
            },
        ),
    ] {
        assert_eq!(parse(line), Ok(want), "{line}");
    }
}

#[test]
fn filters_go_to_the_kernel_where_it_can_tell() {
    let by = filter("-L -s 192.0.2.1 -p tcp --dport 443 -m 1/0xff -u ASSURED --reply-port-src 5");
    assert!(Filter { request: DumpRequest::default(), ..by.clone() } == Filter::default());
    assert_eq!(
        (by.request.family, by.request.mark, by.request.status),
        (Some(2), Some((Mark(1), 0xff)), Some((4, 4)))
    );
    assert_eq!((by.request.orig.dport, by.request.reply.sport), (Some(443), Some(5)));
    // The kernel cannot compare parts of addresses.
    let nets = filter("-L -s 192.0.2.1/24 -d 10.0.0.0 --mask-dst 255.0.0.0");
    assert_eq!(nets.request.orig, TupleFilter::default());
    assert!(nets.nets[0].unwrap().contains("192.0.2.200".parse().unwrap()));
    assert!(!nets.nets[1].unwrap().contains("11.0.0.1".parse().unwrap()));
    assert!(!nets.nets[1].unwrap().contains("::".parse().unwrap()));
    // The kernel would leave out entries with a zone for one direction, which count as zone 0 here.
    assert_eq!(filter("-L -w 0").request.zone, None);
    assert_eq!(filter("-L -w 5").request.zone, Some(Zone(5)));
    assert_eq!(filter("-L --reply-zone 5").zones, [None, None, Some(Zone(5))]);
    assert_eq!(filter("-D -l foo,7 -i 9 -t 8").labels, 1 << 1 | 1 << 7);
    assert!(filter("-L -f ipv4").is_any() && !filter("-L -n").is_any());
}

#[test]
fn new_entries_have_what_is_missing_from_the_other_direction() {
    let create = |line: &str| match parse(line) {
        Ok(Command::Create { entry, .. }) => entry,
        other => panic!("{line}: {other:?}"),
    };
    let ends = |line| {
        let entry = create(line);
        let show = |t: crate::model::Tuple| format!("{} {} {:?}", t.src, t.dst, t.l4);
        (show(entry.orig), show(entry.reply))
    };
    let both = (
        "192.0.2.1 192.0.2.2 Ports { src: 1, dst: 2 }".to_owned(),
        "192.0.2.2 192.0.2.1 Ports { src: 2, dst: 1 }".to_owned(),
    );
    assert_eq!(ends("-I -p udp -t 9 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2"), both);
    let by_reply = "-I -p udp -t 9 -r 192.0.2.2 -q 192.0.2.1 --reply-port-src 2 --reply-port-dst 1";
    assert_eq!(ends(by_reply), both);
    let (_, reply) = ends(
        "-I -p udp -t 9 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -q 192.0.2.9 --reply-port-src 7",
    );
    assert_eq!(reply, "192.0.2.2 192.0.2.9 Ports { src: 7, dst: 1 }");
    let echo = create("-A -p icmp -t 9 -r 192.0.2.2 -q 192.0.2.1 --icmp-type 0 --icmp-code 0");
    assert_eq!(echo.orig.l4, L4::Icmp { kind: 8, code: 0, id: 0 });
    let with = create(
        "-I -p udp -t 9 -s ::1 -d ::2 --sport 1 --dport 2 -m 5 --orig-zone 7 -n [::3]:4 --label-add last",
    );
    assert_eq!(
        (with.zone, with.with.labels),
        (EntryZone::Orig(Zone(7)), Some(LabelChange::add(1 << 127)))
    );
    assert_eq!(with.nat_src.unwrap().ports, Some((4, 4)));
    let invalid = Rejection::failure("Operation failed: invalid parameters");
    for line in [
        "-I -p icmp -t 9 -s 192.0.2.1 -d 192.0.2.2 --icmp-type 3 --icmp-code 0",
        "-I -p udp -t 9 -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -w 1 --orig-zone 2",
        "-L -u UNSET",
    ] {
        assert_eq!(parse(line), Err(invalid.clone()), "{line}");
    }
}

#[test]
fn updates_tell_what_is_looked_for_from_what_changes() {
    let line = "-U -p tcp --sport 1 --state CLOSE -m 5/0xf -u ASSURED -t 7 --label-del -l foo";
    let Ok(Command::Update { filter, edit, output }) = parse(line) else { panic!("{line}") };
    assert_eq!((filter.request.mark, filter.request.status, filter.state), (None, None, None));
    assert_eq!((filter.labels, output.labels), (2, true));
    let want = Edit {
        timeout: Some(7),
        status: 4,
        mark: Some(MarkArgument { value: 5, mask: 15 }),
        labels: Some(LabelChange::remove(u128::MAX)),
        state: Some((6, 8)),
        ..Edit::default()
    };
    assert_eq!(edit, want);
    let both = parse("-U --label-add foo --label-del foo").unwrap_err();
    assert_eq!(
        (both.message.as_str(), both.status),
        ("cannot use --label-add and --label-del at the same time", 1)
    );
}

#[test]
fn bad_usage_is_told_as_conntrack_tells_it() {
    for (line, why) in [
        ("-x", "unknown option `-x'"),
        ("-L -L", "Invalid commands combination"),
        ("-L foo", "unknown type `foo'"),
        ("-D dying", "Can't do that command with tables `dying' and `unconfirmed'"),
        ("-U expect", "Can't do --update on expectations"),
        ("-L -t 5", "Illegal option `--timeout' with this command"),
        ("-G", "You need to supply the `--protonum' option for this command"),
        ("-G -p tcp", "you have to specify `--src' and `--dst'"),
        ("-G -p tcp -r ::1", "you have to specify `--reply-src' and `--reply-dst'"),
        ("-G -p tcp -s ::1 -d ::2 --sport 5", "you have to specify `--sport' and `--dport'"),
        (
            "-I -p tcp -t 5 -s ::1 -d ::2",
            "You need to supply the `--state' option for this command",
        ),
        ("-I -p gre -t 5 -s ::1 -d ::2", "you have to specify `--srckey' and `--dstkey'"),
        ("-L --sport 5", "unknown option `--sport'"),
        ("-L -p tcp --s 5", "unknown option `--s'"),
        ("-L -p sctp --orig-vtag 5", "Illegal option `--orig-vtag' with this command"),
        ("-L -s ::1 -d 192.0.2.1", "mismatched address family"),
        ("-L --mask-src ffff::", "Can't use --mask-src without --src"),
        ("-I -p udp -t 5 -s ::1/64 -d ::2", "Illegal option `--mask-src' with this command"),
        ("-L -j -n", "cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"),
        ("-L -l nope", "unknown label 'nope'"),
        (
            "-D expect -s ::1 -d ::2 -p udp",
            "You need to supply the `--sport' option for this command",
        ),
    ] {
        assert_eq!(parse(line), Err(Rejection::usage(why)), "{line}");
    }
    let save = Rejection::failure(
        "cannot combine save output with any other output type, use -o save only",
    );
    assert_eq!(parse("-L -o save -o id"), Err(save));
}

/// Words of command lines, and some other words.
fn word() -> impl Strategy<Value = String> {
    let options: Vec<&'static str> =
        options::DEFINITIONS
            .iter()
            .chain([6, 132, 33, 47, 1, 58].iter().flat_map(|proto| {
                protocols::definitions(*proto).iter().flat_map(|some| some.iter())
            }))
            .flat_map(|definition| definition.long)
            .copied()
            .collect();
    prop_oneof![
        4 => proptest::sample::select(options).prop_map(|name| format!("--{name}")),
        3 => "-[LGDIAUEFCShVsdrqptufwbngjmceolizax(){}<>\\[\\]]{1,3}",
        3 => proptest::sample::select(vec![
            "tcp", "udp", "sctp", "dccp", "gre", "icmp", "icmpv6", "50", "expect", "conntrack", "1",
            "0xff", "1/2", "192.0.2.1", "192.0.2.0/24", "::1", "[::1]:5", "192.0.2.1:5", "ipv4",
            "ESTABLISHED", "ASSURED", "UNSET", "xml", "save", "foo", "4294967296", "--", "",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_command_line_makes_it_panic(arguments in proptest::collection::vec(word(), 0..12)) {
        // The result is a command, or a line with the reason.
        if let Err(Rejection { message, status }) = Command::parse(&arguments, &names()) {
            prop_assert!(!message.is_empty() && !message.contains('\n') || arguments.iter().any(|a| a.contains('\n')));
            prop_assert!(status == USAGE || status == FAILURE);
        }
    }
}
