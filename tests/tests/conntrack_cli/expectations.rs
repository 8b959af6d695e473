//! The table `expect`.

use std::time::{Duration, Instant};

use conntracker::Conntrack;
use conntracker::conntrack::{Change, EXPECT_INACTIVE, EXPECT_PERMANENT, NewEntry, NewExpectation};
use conntracker::flow::{L4, Tuple};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::PATIENCE;
use nix::sys::signal::Signal;

use crate::entries::{connect, lasting, ports};
use crate::programs::{Programs, Said, Which, masked, timeless, words};

/// Makes a flow with a helper that expects things.
fn master(conntrack: &mut Conntrack, src: &str, dst: &str) -> Tuple {
    let orig = ports(6, src, 1000, dst, 21);
    let with = Change { helper: Some("ftp".to_owned()), ..Change::default() };
    conntrack.create(&NewEntry { with, ..lasting(orig) }).unwrap();
    orig
}

/// One of each protocol, each of a flow of its own: FTP expects one at a time.
fn expectations(conntrack: &mut Conntrack) -> Vec<NewExpectation> {
    let mut all = Vec::new();
    for (n, proto) in [6, 17, 132, 136, 47, 50, 33].into_iter().enumerate() {
        let master = master(conntrack, &format!("192.0.2.{n}"), "198.51.100.2");
        let port = 5000 + n as u16;
        let l4 = |src, dst| match proto {
            47 => L4::Gre { src, dst },
            50 => L4::None,
            _ => L4::Ports { src, dst },
        };
        let tuple = |src: &str, dst: &str, l4| Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto,
            l4,
        };
        all.push(NewExpectation {
            master,
            zone: 0,
            tuple: tuple("203.0.113.1", &format!("203.0.113.{}", n + 2), l4(3, port)),
            mask: tuple("255.255.0.255", "255.255.255.255", l4(0xff, u16::MAX)),
            timeout: Some(200),
            flags: [0, EXPECT_PERMANENT, EXPECT_INACTIVE, EXPECT_PERMANENT | EXPECT_INACTIVE]
                [n % 4],
            class: Some(0),
            helper: (n % 2 == 0).then(|| "ftp".to_owned()),
            function: None,
            nat: None,
        });
    }
    let v6 = master(conntrack, "2001:db8::1", "2001:db8::2");
    all.push(NewExpectation {
        master: v6,
        zone: 0,
        tuple: ports(6, "2001:db8::2", 0, "2001:db8::1", 5000),
        mask: ports(6, "ffff:ffff:ffff:ffff::", 0, "ffff:ffff:ffff:ffff::", u16::MAX),
        timeout: Some(200),
        flags: 0,
        class: Some(0),
        helper: None,
        function: None,
        nat: None,
    });
    all
}

fn said(programs: &Programs, host: &Host, which: Which, line: &str) -> Said {
    let said = programs.run(host, which, &words(line));
    let lines = timeless(&said.stdout);
    let lines = lines.lines().map(|line| match line.split_once("]\t") {
        // The seconds that are left stand behind the time here.
        Some((_, rest)) => format!("T {}\n", rest.split_once(' ').unwrap().1),
        None => format!("{}\n", masked(line, "<when>", "</when>")),
    });
    Said { stdout: lines.collect(), ..said }
}

#[test]
fn expectations_are_listed_the_same_counted_and_removed() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    for expectation in expectations(&mut conntrack) {
        conntrack.create_expectation(&expectation).unwrap();
    }
    for line in [
        "-L expect",
        "-L expect -o extended,id,ktimestamp,labels",
        "-L expect -o timestamp",
        "-L expect -o save",
        "-L expect -o xml",
        "-L expect -o xml,timestamp",
        "-L expect -f ipv4",
        "-L expect -f ipv6",
        "-C expect",
        "-S expect",
        "-L -o labels",
        "-G expect -p tcp -s 203.0.113.1 -d 203.0.113.2 --sport 3 --dport 5000 --reply-port-src 1 --reply-port-dst 1",
        "-G expect -p tcp -s 203.0.113.1 -d 203.0.113.2 --sport 3 --dport 5001 --reply-port-src 1 --reply-port-dst 1",
        "-G expect -p gre -s 203.0.113.1 -d 203.0.113.6 --srckey 3 --dstkey 5004 --reply-key-src 1 --reply-key-dst 1",
        "-D expect -p tcp -s 203.0.113.1 -d 203.0.113.2 --sport 3 --dport 5001 --reply-port-src 1 --reply-port-dst 1",
    ] {
        let [theirs, ours] = [Which::Theirs, Which::Ours].map(|w| said(&programs, router, w, line));
        assert_eq!(ours, theirs, "{line}");
    }
    let listed = said(&programs, router, Which::Ours, "-L expect").stdout;
    assert_eq!(listed.lines().count(), 8, "{listed}");
    let delete = "-D expect -p tcp -s 203.0.113.1 -d 203.0.113.2 --sport 3 --dport 5000 --reply-port-src 1 --reply-port-dst 1";
    let deleted = said(&programs, router, Which::Ours, delete);
    assert_eq!((deleted.status, deleted.stdout.as_str()), (Some(0), ""));
    assert_eq!(said(&programs, router, Which::Ours, delete).status, Some(1));
    assert_eq!(said(&programs, router, Which::Theirs, "-C expect").stdout, "7\n");
    let emptied = said(&programs, router, Which::Ours, "-F expect");
    assert!(emptied.stderr.ends_with(": expectation table has been emptied.\n"));
    assert_eq!(said(&programs, router, Which::Theirs, "-C expect").stdout, "0\n");
}

#[test]
fn what_we_make_is_of_the_protocol() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    master(&mut conntrack, "192.0.2.1", "192.0.2.2");
    let line = "-I expect -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1000 --dport 21 -t 50 \
                --tuple-src 192.0.2.2 --tuple-dst 192.0.2.1 --mask-src 255.255.255.255 \
                --mask-dst 255.255.255.255 --tuple-port-src 0 --tuple-port-dst 5000 \
                --mask-port-src 0 --mask-port-dst 65535";
    let made = said(&programs, router, Which::Ours, line);
    assert_eq!((made.status, made.stdout + &made.stderr), (Some(0), String::new()));
    let listed = said(&programs, router, Which::Theirs, "-L expect").stdout;
    assert_eq!(
        listed,
        "T proto=6 src=192.0.2.2 dst=192.0.2.1 sport=0 dport=5000 mask-src=255.255.255.255 \
         mask-dst=255.255.255.255 sport=0 dport=65535 master-src=192.0.2.1 master-dst=192.0.2.2 \
         sport=1000 dport=21 class=0 helper=ftp\n"
    );
    // Theirs is of protocol 0, and nothing ever matches it.
    conntrack.flush_expectations(None).unwrap();
    said(&programs, router, Which::Theirs, line);
    assert!(said(&programs, router, Which::Theirs, "-L expect").stdout.starts_with("T proto=0 "));
    let nobody = line.replace("--sport 1000", "--sport 1001");
    let [theirs, ours] = [Which::Theirs, Which::Ours].map(|w| said(&programs, router, w, &nobody));
    assert_eq!(ours, theirs);
}

#[test]
fn their_events_are_the_same() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    let mut conntrack = connect(router);
    let expectations = expectations(&mut conntrack);
    for line in ["-E expect", "-E expect -o timestamp", "-E expect -o xml"] {
        let mut both =
            [Which::Theirs, Which::Ours].map(|w| programs.spawn(router, w, &words(line)));
        let (first, last) = (&expectations[6], &expectations[7]);
        for program in &mut both {
            let start = Instant::now();
            while program.wait_for("203.0.113.8", Duration::from_millis(50)).is_err() {
                assert!(start.elapsed() < PATIENCE, "{line}: {}", program.stderr());
                conntrack.create_expectation(first).unwrap();
                conntrack.flush_expectations(None).unwrap();
            }
        }
        for expectation in &expectations[..6] {
            conntrack.create_expectation(expectation).unwrap();
        }
        conntrack.flush_expectations(None).unwrap();
        conntrack.create_expectation(last).unwrap();
        conntrack.flush_expectations(None).unwrap();
        let [theirs, ours] = both.map(|mut program| {
            program.wait_for("2001:db8::2", PATIENCE).unwrap();
            program.stop(Signal::SIGINT, PATIENCE).unwrap();
            assert!(program.stderr().ends_with(" expectation events have been shown.\n"));
            let stdout = program.stdout();
            let lines = stdout
                .lines()
                .filter(|line| line.contains("203.0.113.1") && !line.contains("203.0.113.8"));
            lines
                .map(|line| line.split_once("]\t").map_or(line, |(_, rest)| rest).to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(ours.len(), 12, "{ours:?}");
        assert_eq!(ours, theirs, "{line}");
    }
}
