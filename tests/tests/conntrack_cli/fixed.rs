//! What conntrack(8) does wrong, and we do not; docs/limitations.md has the list.

use conntracker_tests::lab::Lab;

use crate::entries::{connect, fill, prepare};
use crate::programs::{Programs, VERSION, Which, words};

#[test]
fn numbers_are_read_in_full_or_refused() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    for (line, status, why) in [
        ("-L -p tcp --dport 1:100", 2, "Invalid number `1:100' for `--dport'"),
        ("-L -p tcp --sport http", 2, "Invalid number `http' for `--sport'"),
        ("-L -p tcp --sport 70000", 2, "Invalid number `70000' for `--sport'"),
        // The words and the status of 1.4.9.
        ("-D -m abc", 1, "unexpected value 'abc' with -m option"),
        ("-L --mark 1/", 1, "unexpected value '1/' with -m option"),
        ("-L -w zone", 1, "unexpected value 'zone' with -w option"),
        ("-L --zone 65536", 1, "unexpected value '65536' with -w option"),
        ("-L --orig-zone 1x", 1, "unexpected value '1x' with -( option"),
        ("-L --reply-zone -1", 1, "unexpected value '-1' with -) option"),
        ("-L -c 0x1/0xf", 1, "unexpected value '0x1/0xf' with -c option"),
        ("-D -i 4294967296", 1, "unexpected value '4294967296' with -i option"),
    ] {
        let theirs = programs.run(router, Which::Theirs, &words(line));
        assert!(
            theirs.stderr.contains(" 0 flow entries ") || theirs.status == Some(status),
            "{line}: {}",
            theirs.stderr
        );
        let ours = programs.run(router, Which::Ours, &words(line));
        assert_eq!(ours.status, Some(status), "{line}");
        let hint = "Try `conntrack -h' or 'conntrack --help' for more information.\n";
        let hint = if status == 2 { hint } else { "" };
        let said = format!("conntrack {VERSION} (conntrack-tools): {why}\n{hint}");
        assert_eq!(ours.stderr, said);
    }
}

#[test]
fn filters_of_translations_look_at_ipv6_addresses() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    fill(router, &mut connect(router));
    let shown =
        |which, line: &str| programs.run(router, which, &words(line)).stdout.lines().count();
    for (line, theirs, ours) in [
        ("-L -n 2001:db8::9", 1, 1),
        ("-L -n 2001:db8::8", 1, 0),
        ("-L -g 2001:db8::8", 1, 0),
        ("-L -j 2001:db8::9", 2, 2),
        ("-L -j 2001:db8::8", 2, 0),
        ("-L --any-nat=203.0.113.9", 7, 2),
    ] {
        assert_eq!(
            (shown(Which::Theirs, line), shown(Which::Ours, line)),
            (theirs, ours),
            "{line}"
        );
    }
}

#[test]
fn labels_have_numbers_where_they_have_no_names() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    fill(router, &mut connect(router));
    let run = |which, line: &str| programs.run(router, which, &words(line));
    assert_eq!(run(Which::Ours, "-U -s 10.0.0.1 -d 10.0.0.2 --sport").status, Some(2));
    let line = "-U -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 12 --dport 53 --label-add 2,mid";
    assert!(run(Which::Ours, line).stdout.ends_with(" labels=foo,2,mid,last\n"));
    let listed = |which| run(which, "-L -l mid -o labels").stdout;
    assert!(listed(Which::Theirs).ends_with(" labels=foo,mid,last\n"));
    assert!(listed(Which::Ours).ends_with(" labels=foo,2,mid,last\n"));
    assert_eq!(run(Which::Theirs, "-L -l 2").status, Some(2));
    assert_eq!(run(Which::Ours, "-L -l 2").stdout.lines().count(), 1);
}

#[test]
fn a_flush_keeps_to_its_family() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    let mut conntrack = connect(router);
    fill(router, &mut conntrack);
    programs.run(router, Which::Ours, &words("-F -f ipv4"));
    assert_eq!(conntrack.count().unwrap(), 7);
    programs.run(router, Which::Theirs, &words("-F -f ipv4"));
    assert_eq!(conntrack.count().unwrap(), 0);
}
