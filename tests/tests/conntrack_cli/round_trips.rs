//! What -o save prints, -R makes again.

use conntracker::Conntrack;
use conntracker::conntrack::{ConntrackEntry, Mark, ProtoState};
use conntracker_tests::lab::{Host, Lab};

use crate::entries::{connect, everything, fill, prepare};
use crate::programs::{Programs, Which, words};

/// The table, without what only packets can bring about, and without time.
fn table(conntrack: &mut Conntrack) -> Vec<String> {
    let entries = conntrack.dump().unwrap().into_iter().map(Result::unwrap);
    let mut lines: Vec<String> = entries
        .map(|entry| {
            let mut same = entry;
            same.state = same.state.map(|state| match state {
                ProtoState::Tcp { state, .. } => {
                    ProtoState::Tcp { state, wscale: [None; 2], flags: [None; 2] }
                }
                other => other,
            });
            same.timeout = same.timeout.map(|timeout| timeout / 1000);
            (same.id, same.start, same.use_count, same.timestamp_event) = (None, None, None, None);
            format!("{same:?}")
        })
        .collect();
    lines.sort();
    lines
}

/// Connections to two namespaces, the first of which has one of everything.
fn full_and_empty(from: &Host, to: &Host) -> (Conntrack, Conntrack) {
    prepare(from);
    prepare(to);
    let mut there = connect(from);
    fill(from, &mut there);
    (there, connect(to))
}

#[test]
fn a_table_is_made_again_in_another_namespace() {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let (from, to) = (&lab.client, &lab.server);
    let (mut there, mut here) = full_and_empty(from, to);
    let saved = programs.run(from, Which::Ours, &["-L", "-o", "save"]).stdout;
    assert_eq!(saved.lines().count(), everything().len());
    let loaded = programs.run_with_input(to, Which::Ours, &["-R", "-"], &saved);
    assert_eq!((loaded.status, loaded.stdout + &loaded.stderr), (Some(0), String::new()));
    assert_eq!(table(&mut here), table(&mut there));
    // Once more: all of it is there.
    let loaded = programs.run_with_input(to, Which::Ours, &["-R", "-"], &saved);
    assert_eq!(loaded.status, Some(0));
    assert_eq!(here.count().unwrap() as usize, everything().len());

    // From a file, with a comment.
    let file = programs.directory().join("saved");
    std::fs::write(&file, format!("# {}\n\n{saved}", "saved")).unwrap();
    here.flush(None, None).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(programs.run(to, Which::Ours, &["--load-file", file]).status, Some(0));
    assert_eq!(table(&mut here), table(&mut there));
}

/// Each of them reads what the other one writes; theirs line by line only, for it crashes on files with
/// more than a few kinds of lines, its own included.
#[test]
fn each_reads_what_the_other_saves() {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let (from, to) = (&lab.client, &lab.server);
    let (mut there, mut here) = full_and_empty(from, to);
    let saved = |which| programs.run(from, which, &["-L", "-o", "save"]).stdout;
    // It has no name for one of its own states.
    let ours = saved(Which::Ours).replace("--state SYN_SENT2", "--state LISTEN");
    for line in ours.lines() {
        let loaded = programs.run_with_input(to, Which::Theirs, &["-R", "-"], &format!("{line}\n"));
        assert_eq!((loaded.status, loaded.stderr.as_str()), (Some(0), ""), "{line}");
    }
    assert_eq!(table(&mut here), table(&mut there));

    let all = saved(Which::Theirs);
    here.flush(None, None).unwrap();
    // What theirs loses on the way: -p dccp alone is a line that no program takes.
    let all: String = all.split_inclusive('\n').filter(|line| !line.contains("-p dccp")).collect();
    let loaded = programs.run_with_input(to, Which::Ours, &["-R", "-"], &all);
    assert_eq!((loaded.status, loaded.stderr.as_str()), (Some(0), ""));
    assert_eq!(here.count().unwrap() as usize, all.lines().count());
}

#[test]
fn changes_of_a_filtered_set_change_those_only() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    let mut conntrack = connect(router);
    for (line, marked) in [
        ("-U -p tcp --dport 443 -m 0x55", 6),
        ("-U -s 192.0.2.0/30 -p tcp --dport 443 -m 0x55", 4),
        ("-U -f ipv6 -m 0x55", 7),
        ("-U -s 2001:db8::/32 -p udp -m 0x55", 2),
        ("-U -n -m 0x55", 4),
        ("-U -g 203.0.113.9 -m 0x55", 1),
        ("-U -l foo,last -m 0x55", 1),
        ("-U -p icmp -m 0x55", 1),
    ] {
        fill(router, &mut conntrack);
        let before: Vec<ConntrackEntry> =
            conntrack.dump().unwrap().into_iter().map(Result::unwrap).collect();
        let said = programs.run(router, Which::Ours, &words(line));
        assert_eq!(said.status, Some(0), "{line}: {}", said.stderr);
        assert_eq!(said.stdout.lines().count(), marked, "{line}");
        let mut changed = 0;
        for entry in conntrack.dump().unwrap() {
            let entry = entry.unwrap();
            let old = before.iter().find(|old| old.id == entry.id).unwrap();
            if entry.mark == Some(Mark(0x55)) {
                changed += 1;
                assert!(said.stdout.contains(&format!(" src={} ", entry.orig.src)), "{line}");
            } else {
                assert_eq!(entry.mark, old.mark, "{line}");
            }
            assert_eq!((entry.status, entry.state), (old.status, old.state), "{line}");
            assert_eq!(entry.labels, old.labels, "{line}");
        }
        assert_eq!(changed, marked, "{line}");
    }
}
