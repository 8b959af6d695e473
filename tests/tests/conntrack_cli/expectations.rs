//! The table `expect`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use conntracker::Conntrack;
use conntracker::conntrack::{Change, EXPECT_INACTIVE, EXPECT_PERMANENT, NewExpectation};
use conntracker::model::{L4, Tuple};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::{PATIENCE, conntrack};
use nix::sys::signal::Signal;

use crate::entries::{connect, lasting, ports};
use crate::programs::{Programs, Said, Which, masked, timeless, words};

/// Makes a flow with a helper that expects things.
pub fn master(conntrack: &mut Conntrack, src: &str, dst: &str) -> Tuple {
    let orig = ports(6, src, 1000, dst, 21);
    let with = Change::default().helper("ftp".to_owned());
    conntrack.create(&lasting(orig).with(with)).unwrap();
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
        all.push(
            NewExpectation::new(
                master,
                tuple("203.0.113.1", &format!("203.0.113.{}", n + 2), l4(3, port)),
                tuple("255.255.0.255", "255.255.255.255", l4(0xff, u16::MAX)),
            )
            .timeout(200)
            .flags(
                [0, EXPECT_PERMANENT, EXPECT_INACTIVE, EXPECT_PERMANENT | EXPECT_INACTIVE][n % 4],
            )
            .class(0)
            .helper((n % 2 == 0).then(|| "ftp".to_owned())),
        );
    }
    let v6 = master(conntrack, "2001:db8::1", "2001:db8::2");
    all.push(
        NewExpectation::new(
            v6,
            ports(6, "2001:db8::2", 0, "2001:db8::1", 5000),
            ports(6, "ffff:ffff:ffff:ffff::", 0, "ffff:ffff:ffff:ffff::", u16::MAX),
        )
        .timeout(200)
        .class(0),
    );
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
    assert_eq!(listed.lines().count(), 7, "{listed}");
    // Theirs counts those that it lists.
    assert_eq!(said(&programs, router, Which::Theirs, "-C expect").stdout, "7\n");
    assert_eq!(said(&programs, router, Which::Ours, "-C expect").stdout, "8\n");
    let delete = "-D expect -p tcp -s 203.0.113.1 -d 203.0.113.2 --sport 3 --dport 5000 --reply-port-src 1 --reply-port-dst 1";
    let deleted = said(&programs, router, Which::Ours, delete);
    assert_eq!((deleted.status, deleted.stdout.as_str()), (Some(0), ""));
    assert_eq!(said(&programs, router, Which::Ours, delete).status, Some(1));
    assert_eq!(said(&programs, router, Which::Theirs, "-C expect").stdout, "6\n");
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
    let theirs = said(&programs, router, Which::Theirs, "-L expect").stdout;
    assert!(!theirs.contains("proto=6 "), "{theirs}");
    let nobody = line.replace("--sport 1000", "--sport 1001");
    conntrack.flush_expectations(None).unwrap();
    let [theirs, ours] = [Which::Theirs, Which::Ours].map(|w| said(&programs, router, w, &nobody));
    assert_eq!(ours, theirs);
}

#[test]
fn their_events_are_the_same() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (&lab.router, Programs::new());
    // Otherwise of flows that are there before somebody listens no expectations are told of.
    router.sysctl("net.netfilter.nf_conntrack_events", "1").unwrap();
    let mut table = connect(router);
    let expectations = expectations(&mut table);
    for line in ["-E expect", "-E expect -o timestamp", "-E expect -o xml"] {
        // Theirs says nothing before it ends: it does not flush its output.
        let start = Instant::now();
        let mut both = [Which::Theirs, Which::Ours].map(|which| {
            let before = conntrack::listeners(router).unwrap();
            let program = programs.spawn(router, which, &words(line));
            while conntrack::listeners(router).unwrap() == before {
                assert!(start.elapsed() < PATIENCE, "{line}: {}", program.stderr());
                thread::sleep(Duration::from_millis(5));
            }
            program
        });
        for expectation in &expectations {
            table.create_expectation(expectation).unwrap();
        }
        table.flush_expectations(None).unwrap();
        let told = both[1].wait_for("2001:db8::2", Duration::from_secs(5));
        assert!(told.is_ok(), "{line}: {}{}", both[1].stdout(), both[1].stderr());
        while unread(router) {
            assert!(start.elapsed() < PATIENCE, "{line}");
            thread::sleep(Duration::from_millis(5));
        }
        let [theirs, ours] = both.map(|mut program| {
            program.stop(Signal::SIGINT, PATIENCE).unwrap();
            assert!(program.stderr().ends_with(" 16 expectation events have been shown.\n"));
            let stdout = program.stdout();
            let lines = stdout.lines();
            lines
                .map(|line| line.split_once("]\t").map_or(line, |(_, rest)| rest).to_owned())
                .collect::<Vec<_>>()
        });
        assert!(ours.len() >= 16, "{ours:?}");
        assert_eq!(ours, theirs, "{line}");
    }
}

/// Whether a netlink socket of the namespace has something in its receive buffer.
fn unread(host: &Host) -> bool {
    let table = host.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netlink")?)).unwrap();
    // sk Eth Pid Groups Rmem …
    table.lines().skip(1).any(|line| line.split_whitespace().nth(4).is_some_and(|rmem| rmem != "0"))
}
