//! -E: both programs listen in one namespace while things happen.

use std::time::{Duration, Instant};

use conntracker::Conntrack;
use conntracker::conntrack::{Change, EntryKey, MarkChange};
use conntracker_tests::lab::{Guarded, Host, Lab, TRACKING};
use conntracker_tests::tracer::PATIENCE;
use nix::sys::signal::Signal;

use crate::entries::{connect, everything, exchange, lasting, ports, prepare};
use crate::programs::{Programs, Which, masked, versioned, words};
use conntracker::model::Mark;

/// Source addresses of what tells that somebody listens, and that all was told.
const FIRST: &str = "192.0.2.99";
const LAST: &str = "192.0.2.98";

fn probe(conntrack: &mut Conntrack, src: &str) {
    let entry = lasting(ports(17, src, 1, "192.0.2.2", 2));
    conntrack.create(&entry).unwrap();
    conntrack.delete(&EntryKey::orig(entry.orig)).unwrap();
}

/// Starts both with the same options, and waits until both listen.
fn listen(programs: &Programs, host: &Host, conntrack: &mut Conntrack, line: &str) -> [Guarded; 2] {
    let mut both = [Which::Theirs, Which::Ours].map(|which| {
        // Of their buffer's size nothing is to be proven here.
        let buffer = if which == Which::Theirs { " -b 8388608" } else { "" };
        programs.spawn(host, which, &words(&format!("{line}{buffer}")))
    });
    for program in &mut both {
        let start = Instant::now();
        while program.wait_for(FIRST, Duration::from_millis(50)).is_err() {
            assert!(start.elapsed() < PATIENCE, "{line}: {}", program.stderr());
            probe(conntrack, FIRST);
        }
    }
    both
}

/// Ends both; what they said, without what tells them apart.
fn finish(both: [Guarded; 2], conntrack: &mut Conntrack) -> [(Vec<String>, String); 2] {
    probe(conntrack, LAST);
    both.map(|mut program| {
        program.wait_for(LAST, PATIENCE).unwrap();
        assert!(program.stop(Signal::SIGINT, PATIENCE).unwrap().success());
        let stdout = program.stdout();
        let lines = stdout.lines().filter(|line| !line.contains(FIRST) && !line.contains(LAST));
        let summary = versioned(program.stderr().lines().last().unwrap_or_default());
        let (start, rest) = summary.split_once("): ").unwrap();
        // How often it was tried before both listened depends on the machine.
        let what = rest.split_once(' ').unwrap().1;
        (lines.map(timeless).collect(), format!("{start} {what}"))
    })
}

/// A line without times, and without the program's name, which is gone if the program was quick.
fn timeless(line: &str) -> String {
    let line = line.split(" progname=").next().unwrap();
    let mut line = masked(line, "<when>", "</when>");
    if line.starts_with('[') && !line.starts_with("[DESTROY]") {
        let (time, rest) = line.split_once("]\t").unwrap();
        let (seconds, micros) = time[1..].split_once('.').unwrap();
        assert!(seconds.len() == 10 && micros.len() == 6, "{time}");
        line = rest.to_owned();
    }
    line
}

/// Makes, changes and removes one of everything, and sends packets.
fn play(lab: &Lab, conntrack: &mut Conntrack) {
    for entry in everything() {
        conntrack.create(&entry).unwrap();
    }
    let change = Change::default().mark(MarkChange::to(Mark(0x99)));
    let key = EntryKey::orig(ports(6, "192.0.2.1", 1, "198.51.100.2", 443));
    conntrack.update(&key, &change).unwrap();
    let key = EntryKey::orig(ports(17, "10.0.0.1", 13, "10.0.0.3", 54));
    conntrack.update(&key, &change).unwrap();
    let _servers = exchange(lab);
    conntrack.flush(None, None).unwrap();
}

fn compare(line: &str, as_theirs: impl Fn(&str) -> String) {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    router.nft(TRACKING).unwrap();
    let mut conntrack = connect(router);
    let both = listen(&programs, router, &mut conntrack, line);
    play(&lab, &mut conntrack);
    let [(theirs, their_summary), (ours, our_summary)] = finish(both, &mut conntrack);
    let ours: Vec<String> = ours.iter().map(|line| as_theirs(line)).collect();
    assert!(theirs.len() > 90, "{line}: {theirs:?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        // In XML that is no longer told since 1.4.9.
        let told = if line.contains("xml") { theirs.split(" [USERSPACE]").next() } else { None };
        assert_eq!(ours, told.unwrap_or(theirs), "{line}");
    }
    assert_eq!((ours.len(), our_summary), (theirs.len(), their_summary), "{line}");
}

#[test]
fn events_are_the_same() {
    compare("-E", str::to_owned);
}

#[test]
fn events_with_every_option_are_the_same() {
    compare("-E -o extended,id,ktimestamp,timestamp,labels,userspace", str::to_owned);
}

#[test]
fn saved_events_are_the_same_but_for_what_was_lost() {
    compare("-E -o save", |line| {
        let tail = line.find(" [USERSPACE]").map_or("", |at| &line[at..]);
        let line = line.split(" [USERSPACE]").next().unwrap();
        let line = line.split(" -m ").next().unwrap();
        let line = line.split(" --label-add ").next().unwrap().split(" -l ").next().unwrap();
        let line = match line.split_once("-p dccp --sport 0") {
            Some((start, _)) => format!("{start}-p dccp"),
            None => line.to_owned(),
        };
        line.replace(
            "-g 10.0.0.9:4444 -q 10.0.0.1 -p udp --sport 17 --dport 53 --reply-port-src 53",
            "-r 10.0.0.9 -q 10.0.0.1 -p udp --sport 17 --dport 53 --reply-port-src 4444",
        )
        .replace(
            "-n 10.0.0.1:4444 -p udp --sport 16 --dport 53 --reply-port-src 53 --reply-port-dst 16",
            "-q 10.0.0.1 -p udp --sport 16 --dport 53 --reply-port-src 53 --reply-port-dst 4444",
        ) + tail
    });
}

#[test]
fn events_as_xml_are_the_same_but_for_what_was_wrong() {
    compare("-E -o xml,timestamp,ktimestamp,labels", |line| {
        crate::lists::xml_as_theirs(line).trim_end().to_owned()
    });
}

#[test]
fn filters_choose_the_same_events() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    prepare(router);
    router.nft(TRACKING).unwrap();
    let mut conntrack = connect(router);
    let lines = [
        "-E -e NEW",
        "-E -e NEW,DESTROY -p udp",
        "-E -p udp -d 192.0.2.2",
        "-E -f ipv4 -o extended",
        "-E -e DESTROY -f ipv4",
    ];
    let running: Vec<[Guarded; 2]> =
        lines.iter().map(|line| listen(&programs, router, &mut conntrack, line)).collect();
    play(&lab, &mut conntrack);
    for (line, both) in lines.iter().zip(running) {
        let [(theirs, _), (ours, _)] = finish(both, &mut conntrack);
        assert_eq!(ours, theirs, "{line}");
    }
}

/// A number of entries, for events.
fn many(conntrack: &mut Conntrack, number: u16) {
    for n in 0..number {
        conntrack.create(&lasting(ports(17, "192.0.2.50", n, "192.0.2.2", 2))).unwrap();
    }
}

#[test]
fn the_buffer_has_the_size_that_is_asked_for() {
    const MANY: u16 = 6000;
    let lab = Lab::new().unwrap();
    let (host, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(host);
    let mut ours = programs.spawn(host, Which::Ours, &words("-E -b 16777216 -e NEW"));
    ours.wait_for("NOTICE: Netlink socket buffer size has been set to 33554432 bytes.", PATIENCE)
        .unwrap();
    while ours.wait_for(FIRST, Duration::from_millis(50)).is_err() {
        probe(&mut conntrack, FIRST);
    }
    ours.signal(Signal::SIGSTOP).unwrap();
    many(&mut conntrack, MANY);
    ours.signal(Signal::SIGCONT).unwrap();
    probe(&mut conntrack, LAST);
    ours.wait_for(LAST, PATIENCE).unwrap();
    ours.stop(Signal::SIGTERM, PATIENCE).unwrap();
    assert_eq!(ours.stdout().matches("src=192.0.2.50").count(), usize::from(MANY));
    assert!(!ours.stderr().contains("ENOBUFS"), "{}", ours.stderr());
    conntrack.flush(None, None).unwrap();

    let mut small = programs.spawn(host, Which::Ours, &words("-E -b 4096 -e NEW"));
    while small.wait_for(FIRST, Duration::from_millis(50)).is_err() {
        probe(&mut conntrack, FIRST);
    }
    small.signal(Signal::SIGSTOP).unwrap();
    many(&mut conntrack, 500);
    small.signal(Signal::SIGCONT).unwrap();
    small.wait_for("WARNING: We have hit ENOBUFS! We are losing events.", PATIENCE).unwrap();
    assert!(small.stop(Signal::SIGINT, PATIENCE).unwrap().success());
    assert!(small.stderr().ends_with(" flow events have been shown.\n"), "{}", small.stderr());
}
