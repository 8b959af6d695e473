//! What -o save prints, -R makes again.

use conntracker::Conntrack;
use conntracker::conntrack::{ConntrackEntry, ProtoState};
use conntracker::flow::Status;
use conntracker_tests::lab::Lab;

use crate::entries::{connect, everything, fill, prepare};
use crate::programs::{Programs, Which, words};

/// The table, without what only packets can bring about, and without time.
fn table(conntrack: &mut Conntrack) -> Vec<String> {
    let entries = conntrack.dump().unwrap().into_iter().map(Result::unwrap);
    let mut lines: Vec<String> = entries
        .map(|entry| {
            let state = entry.state.map(|state| match state {
                ProtoState::Tcp { state, .. } => {
                    ProtoState::Tcp { state, wscale: [None; 2], flags: [None; 2] }
                }
                other => other,
            });
            let same = ConntrackEntry {
                timeout: entry.timeout.map(|timeout| timeout / 1000),
                id: None,
                start: None,
                use_count: None,
                timestamp_event: None,
                state,
                ..entry
            };
            format!("{same:?}")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_table_is_made_again_in_another_namespace() {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let (from, to) = (&lab.client, &lab.server);
    let [mut there, mut here] = [from, to].map(|host| {
        prepare(host);
        connect(host)
    });
    fill(from, &mut there);
    let saved = programs.run(from, Which::Ours, &["-L", "-o", "save"]).stdout;
    assert_eq!(saved.lines().count(), everything().len());
    let loaded = programs.run_with_input(to, Which::Ours, &["-R", "-"], &saved);
    assert_eq!((loaded.status, loaded.stdout + &loaded.stderr), (Some(0), String::new()));
    assert_eq!(table(&mut here), table(&mut there));
    // Once more: all of it is there.
    let loaded = programs.run_with_input(to, Which::Ours, &["-R", "-"], &saved);
    assert_eq!(loaded.status, Some(0));
    assert_eq!(here.count().unwrap() as usize, everything().len());

    // From a file, by way of the subcommand; what -o save says of a removal removes.
    let file = programs.directory().join("saved");
    std::fs::write(&file, format!("# {}\n\n{saved}", "saved")).unwrap();
    here.flush(None, None).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(programs.run(to, Which::Ours, &["--load-file", file]).status, Some(0));
    assert_eq!(table(&mut here), table(&mut there));
    let deleted = programs.run(from, Which::Ours, &["-D", "-o", "save"]).stdout;
    let removed = programs.run_with_input(to, Which::Ours, &["-R", "-"], &deleted);
    assert_eq!(removed.status, Some(0), "{}", removed.stderr);
    assert_eq!(there.count().unwrap(), 0);
    // They have a second less to live, and -D looks at that.
    assert!(here.count().unwrap() <= everything().len() as u32);
}

/// conntrack(8) reads what we write, as far as it does not fall over it: it crashes on files with
/// translations.
#[test]
fn conntrack_reads_what_we_save() {
    let lab = Lab::new().unwrap();
    let programs = Programs::new();
    let (from, to) = (&lab.client, &lab.server);
    let [mut there, mut here] = [from, to].map(|host| {
        prepare(host);
        connect(host)
    });
    for mut entry in everything() {
        entry.nat_src = None;
        entry.nat_dst = None;
        there.create(&entry).unwrap();
    }
    let saved = programs.run(from, Which::Ours, &["-L", "-o", "save"]).stdout;
    // It has no name for one of its own states.
    let saved = saved.replace("--state SYN_SENT2", "--state LISTEN");
    let loaded = programs.run_with_input(to, Which::Theirs, &["-R", "-"], &saved);
    assert_eq!((loaded.status, loaded.stderr), (Some(0), String::new()));
    assert_eq!(table(&mut here), table(&mut there));
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
        ("-U -f ipv6 -m 0x55", 6),
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
            if entry.mark == Some(0x55) {
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
    assert!(Status::SEEN_REPLY.contains(Status::default()));
}
