//! -L, -G, -C and -S, of one namespace with one of everything.

use conntracker_tests::lab::{Host, Lab, TRACKING};
use conntracker_tests::traffic;

use crate::entries::{connect, exchange, fill, prepare};
use crate::programs::{Programs, Said, Which, masked, timeless, words};

/// A router with one of everything, and real traffic.
pub fn router(lab: &Lab) -> &Host {
    let router = &lab.router;
    prepare(router);
    router.nft(TRACKING).unwrap();
    fill(router, &mut connect(router));
    let _servers = exchange(lab);
    traffic::gre_packet(&lab.client, lab.server.v4().into(), Some(7)).unwrap();
    router
}

/// What both say, apart from what passes.
fn both(programs: &Programs, host: &Host, line: &str) -> [Said; 2] {
    [Which::Theirs, Which::Ours].map(|which| {
        let said = programs.run(host, which, &words(line));
        Said { stdout: timeless(&said.stdout), ..said }
    })
}

fn same(programs: &Programs, host: &Host, line: &str) -> Said {
    // TIME_WAIT and the like end, and what is seen of an entry depends on who looks at it, too.
    for _ in 0..5 {
        let [theirs, ours] = both(programs, host, line);
        if theirs == ours {
            return ours;
        }
    }
    let [theirs, ours] = both(programs, host, line);
    assert_eq!(ours.stdout, theirs.stdout, "{line}");
    assert_eq!(ours, theirs, "{line}");
    ours
}

#[test]
fn plain_lists_are_the_same_bytes() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (router(&lab), Programs::new());
    let said = same(&programs, router, "-L");
    assert!(said.stdout.lines().count() > 40, "{}", said.stdout);
    for line in [
        "-L -o extended",
        "-L -o id",
        "-L -o ktimestamp",
        "-L -o timestamp",
        "-L -o labels",
        "-L -o userspace",
        "-L -o extended,id,ktimestamp,timestamp,labels,userspace",
        "-L -f ipv4 -o extended",
        "-L -f ipv6 -o id,labels",
        "-L conntrack -p tcp",
        "-L dying",
        "-L unconfirmed",
        "-C",
        "-C conntrack",
        "-S",
        "-S expect",
        "-C expect",
        "-G -p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 443",
        "-G -p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 443 -o extended,id,ktimestamp",
        "-G -p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 444",
        "-G -p gre -s 192.0.2.1 -d 198.51.100.2 --srckey 16 --dstkey 17 -o labels",
        "-G -p icmpv6 -s 2001:db8::1 -d 2001:db8::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 78",
        "-V",
    ] {
        same(&programs, router, line);
    }
    // Times are local ones.
    for zone in ["Asia/Kolkata", "EST5EDT,M3.2.0,M11.1.0", ""] {
        let [theirs, ours] = [Which::Theirs, Which::Ours].map(|which| {
            let program = programs.command(router, which, &["-L", "-p", "udp", "-o", "ktimestamp"]);
            let said = std::process::Command::new(&program[0])
                .args(&program[1..])
                .env("TZ", zone)
                .output()
                .unwrap();
            timeless(&String::from_utf8(said.stdout).unwrap())
        });
        assert!(ours.contains("[start="), "{ours}");
        assert_eq!(ours, theirs, "{zone:?}");
    }
}

/// States of protocols, as the kernel numbers them: conntrack(8) writes those of TCP in XML, whatever the
/// protocol.
const TCP: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
const SCTP: [&str; 10] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];
const DCCP: [&str; 8] =
    ["NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT"];

/// Our XML as theirs: without what ICMP has for ports, and with the states of TCP for SCTP.
pub fn xml_as_theirs(ours: &str) -> String {
    let mut lines = String::new();
    for line in ours.lines() {
        let mut line = line.to_owned();
        if line.contains("protoname=\"icmp") {
            for element in ["type", "code"] {
                for _direction in 0..2 {
                    line = without(&line, element);
                }
            }
            // Not the identifier of the entry, which comes later.
            for _direction in 0..2 {
                let end = line.find("direction=\"independent\"").unwrap();
                let (directions, rest) = line.split_at(end);
                line = without(directions, "id") + rest;
            }
        }
        let own: &[&str] = if line.contains("protoname=\"sctp\"") {
            &SCTP
        } else if line.contains("protoname=\"dccp\"") {
            &DCCP
        } else {
            &[]
        };
        for (name, as_tcp) in own.iter().zip(TCP) {
            let state = format!("<state>{name}</state>");
            if line.contains(&state) {
                line = line.replace(&state, &format!("<state>{as_tcp}</state>"));
                break;
            }
        }
        lines += &(line + "\n");
    }
    lines
}

/// A line without the first element of this name.
fn without(line: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    match (line.find(&open), line.find(&close)) {
        (Some(start), Some(end)) => {
            format!("{}{}", &line[..start], &line[end + close.len()..])
        }
        _ => line.to_owned(),
    }
}

#[test]
fn xml_lists_are_the_same_but_for_what_was_wrong() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (router(&lab), Programs::new());
    for line in [
        "-L -o xml",
        "-L -o xml,extended,id,ktimestamp,timestamp,labels,userspace",
        "-L -f ipv6 -o xml",
        "-L -p icmp -o xml",
    ] {
        let mut differ = String::new();
        let agreed = (0..5).any(|_| {
            let [theirs, ours] = both(&programs, router, line);
            assert_ne!(ours.stdout, theirs.stdout, "{line}: nothing was wrong");
            let as_theirs = xml_as_theirs(&ours.stdout);
            differ = format!("{line}\n{as_theirs}\n{}", theirs.stdout);
            as_theirs == theirs.stdout && ours.stderr == theirs.stderr && ours.status == Some(0)
        });
        assert!(agreed, "{differ}");
    }
    // Documents are whole; where there is nothing, there is none.
    let of = |line: &str| programs.run(router, Which::Ours, &words(line)).stdout;
    let get = "-G -p tcp -s 192.0.2.1 -d 198.51.100.2 --sport 1 --dport 443 -o xml";
    assert!(of(get).ends_with("</flow>\n</conntrack>\n"), "{}", of(get));
    assert_eq!(of(&get.replace("443", "444")), "");
}

#[test]
fn saved_lists_are_the_same_but_for_what_was_lost() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (router(&lab), Programs::new());
    let mut differ = String::new();
    let agreed = (0..5).any(|_| {
        let [theirs, ours] = both(&programs, router, "-L -o save");
        let as_theirs: String = ours
            .stdout
            .lines()
            .map(|line| {
                let line = line.split(" -m ").next().unwrap();
                let line = line.split(" --label-add ").next().unwrap();
                // A kernel without DCCP says neither ports nor state.
                let line = match line.split_once("-p dccp --sport 0") {
                    Some((start, _)) => format!("{start}-p dccp"),
                    None => line.to_owned(),
                };
                // A translation of nothing but a port they take for none.
                let line = line
                    .replace(
                    "-g 10.0.0.9:4444 -q 10.0.0.1 -p udp --sport 17 --dport 53 --reply-port-src 53",
                    "-r 10.0.0.9 -q 10.0.0.1 -p udp --sport 17 --dport 53 --reply-port-src 4444",
                )
                .replace(
                    "-n 10.0.0.1:4444 -p udp --sport 16 --dport 53 --reply-port-src 53 --reply-port-dst 16",
                    "-q 10.0.0.1 -p udp --sport 16 --dport 53 --reply-port-src 53 --reply-port-dst 4444",
                );
                line + "\n"
            })
            .collect();
        differ = format!("{as_theirs}\n{}", theirs.stdout);
        as_theirs == theirs.stdout
    });
    assert!(agreed, "{differ}");
    let ours = programs.run(router, Which::Ours, &["-L", "-o", "save"]).stdout;
    for lost in [" -m 17\n", " -m 7\n", " --label-add foo,last\n", " --label-add foo\n"] {
        assert!(ours.contains(lost), "{lost}: {ours}");
    }
}

/// -z sets back what it shows, and no more.
#[test]
fn counters_are_set_back_for_those_shown() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (router(&lab), Programs::new());
    let zeroed = |line: &str| {
        let shown = programs.run(router, Which::Ours, &words(line)).stdout;
        assert!(shown.contains("packets=1 "), "{line}: {shown}");
    };
    let packets = |line: &str| {
        let shown = programs.run(router, Which::Theirs, &words(line)).stdout;
        let counts = shown.split_whitespace().filter_map(|word| word.strip_prefix("packets="));
        counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>()
    };
    let (udp, rest) = ("-L -p udp --dport 7", "-L -p icmp -s 10.77.1.2");
    let others = packets(rest);
    assert!(packets(udp) > 0 && others > 0);
    zeroed(&format!("{udp} -z"));
    assert_eq!((packets(udp), packets(rest)), (0, others));
    let all = programs.run(router, Which::Ours, &["-L", "-z"]).stdout;
    assert!(all.contains("packets=2 "), "{all}");
    assert_eq!(packets("-L"), 0);
    assert_eq!(masked("a=1 b", "a=", " "), "a=T b");
}
