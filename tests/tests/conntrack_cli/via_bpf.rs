//! `dump --via bpf`, which reads the table from the kernel's memory: the same entries, in the same order, as
//! netlink tells.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use conntracker_tests::lab::{Host, Lab, TRACKING};
use conntracker_tests::tracer::{command, output, skip};
use conntracker_tests::traffic::{udp_flood, udp_sink};
use serde_json::Value;

use crate::entries::connect;
use crate::expectations;
use crate::lists::router;
use crate::programs::{Programs, Which, timeless, words};

/// What `dump` prints of a host's table.
fn dump(host: &Host, via: &str, args: &[&str]) -> String {
    let args = [&["dump", "--netns", &host.name, "--via", via], args].concat();
    let said = output(args).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// Whether the kernel has what the program needs; says so if not.
fn possible(host: &Host) -> bool {
    let said =
        output(["dump", "--netns", &host.name, "--via", "bpf", "--format", "plain"]).unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let possible = !said.contains("has no bpf_loop");
    if !possible {
        skip("the kernel has no bpf_loop (Linux 5.17+)");
    }
    possible
}

/// Both lists, once they agree in what does not pass.
fn same(host: &Host, args: &[&str], normal: fn(&str) -> String) -> String {
    let both = || ["netlink", "bpf"].map(|via| normal(&dump(host, via, args)));
    let mut lists = both();
    for _ in 0..5 {
        if lists[0] == lists[1] {
            break;
        }
        // Something ended in between.
        lists = both();
    }
    let [netlink, bpf] = lists;
    assert_eq!(bpf, netlink, "{args:?}");
    bpf
}

#[test]
fn it_lists_one_of_everything_as_netlink_and_conntrack_do() {
    let lab = Lab::new().unwrap();
    let (router, programs) = (router(&lab), Programs::new());
    if !possible(router) {
        return;
    }
    for format in ["plain", "plain,extended", "plain,labels,ktimestamp", "save"] {
        let list = same(router, &["--format", format], timeless);
        assert!(list.lines().count() > 40, "{list}");
    }
    let listed = || timeless(&dump(router, "bpf", &["--format", "plain"]));
    let theirs = || timeless(&programs.run(router, Which::Theirs, &words("-L")).stdout);
    assert!((0..5).any(|_| listed() == theirs()), "{}\n{}", listed(), theirs());
    // Filters are those of any list.
    for filter in
        [&["-p", "tcp"][..], &["-f", "ipv6"], &["--status", "assured"], &["-s", "192.0.2.1"]]
    {
        let list = same(router, &[&["--format", "plain"], filter].concat(), timeless);
        assert!(!list.is_empty(), "{filter:?}");
    }
}

/// JSON without what passes, and without identifiers, which only netlink tells.
fn flows(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let mut flow: Value = serde_json::from_str(line).unwrap();
        if flow["type"] != "flow" {
            continue;
        }
        let members = flow.as_object_mut().unwrap();
        for passing in ["id", "timeout_seconds", "first_seen", "last_seen"] {
            members.remove(passing);
        }
        lines += &(flow.to_string() + "\n");
    }
    lines
}

#[test]
fn json_has_all_that_netlink_tells_but_identifiers() {
    let lab = Lab::new().unwrap();
    let router = router(&lab);
    if !possible(router) {
        return;
    }
    expectations::master(&mut connect(router), "192.0.2.77", "198.51.100.2");
    let list = same(router, &["--format", "ndjson"], flows);
    for what in ["\"helper\"", "\"labels\"", "\"counters\"", "\"zone\":"] {
        assert!(list.contains(what), "no {what} in {list}");
    }
    // What is left of their time is the same to a second.
    let left = |via: &str| -> HashMap<String, i64> {
        let text = dump(router, via, &["--format", "ndjson"]);
        let flows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        flows
            .filter_map(|flow| {
                let key = format!("{} {} {}", flow["protocol"], flow["original"], flow["zone"]);
                Some((key, flow["timeout_seconds"].as_i64()?))
            })
            .collect()
    };
    let (bpf, netlink) = (left("bpf"), left("netlink"));
    assert!(netlink.len() > 40);
    for (key, left) in netlink {
        let ours = bpf[&key];
        assert!((left..left + 3).contains(&ours), "{key}: {ours}, then {left}");
    }
}

#[test]
fn each_order_is_that_of_netlink() {
    const COLUMNS: [&str; 29] = [
        "src",
        "dst",
        "sport",
        "dport",
        "reply-src",
        "reply-dst",
        "reply-sport",
        "reply-dport",
        "icmp-type",
        "icmp-code",
        "icmp-id",
        "netns",
        "family",
        "proto",
        "state",
        "status",
        "timeout",
        "packets",
        "bytes",
        "orig-packets",
        "orig-bytes",
        "reply-packets",
        "reply-bytes",
        "mark",
        "labels",
        "zone",
        "helper",
        "start",
        "stop",
    ];
    let lab = Lab::new().unwrap();
    // Nothing ends while the test looks.
    for timeout in ["udp_timeout", "udp_timeout_stream", "icmp_timeout", "tcp_timeout_time_wait"] {
        lab.router.sysctl(&format!("net.netfilter.nf_conntrack_{timeout}"), "900").unwrap();
    }
    let router = router(&lab);
    if !possible(router) {
        return;
    }
    for column in COLUMNS {
        let order = format!("--sort=-{column}");
        let all = same(router, &["--format", "plain,labels", &order], timeless);
        assert!(all.lines().count() > 38, "{column}: {all}");
        let top = same(router, &["--format", "plain,labels", &order, "--top", "3"], timeless);
        assert!(all.starts_with(&top) && top.lines().count() == 3, "{column}: {top}");
    }
    for format in ["xml", "save", "csv", "json", "ndjson"] {
        let list = dump(router, "bpf", &["--format", format, "--sort", "bytes", "--top", "1"]);
        assert!(!list.is_empty(), "{format}");
    }
    // The three with the most marks are those that conntrack(8) lists with marks.
    let marked = dump(router, "bpf", &["--format", "plain", "--sort=-mark", "--top", "3"]);
    let theirs = Programs::new().run(router, Which::Theirs, &["-L"]).stdout;
    let mark = |line: &str| -> u32 {
        let word = line.split(' ').find_map(|word| word.strip_prefix("mark="));
        word.map_or(0, |mark| mark.parse().unwrap())
    };
    let mut marks: Vec<u32> = theirs.lines().map(mark).collect();
    marks.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(marked.lines().map(mark).collect::<Vec<_>>(), marks[..3]);
}

#[test]
fn identifiers_and_the_classic_report_are_refused() {
    for (args, why) in [
        (&["--format", "plain,id"][..], "cannot tell identifiers"),
        (&["--format", "csv", "--sort", "id"], "cannot tell identifiers"),
        (&["--format", "plain", "--explain"], "--no-fold and --explain are for"),
        (&["--format", "plain", "--no-fold"], "--no-fold and --explain are for"),
        (&["--format", "report"], "--via bpf is for the formats"),
    ] {
        let said = output([&["dump", "--via", "bpf"], args].concat()).unwrap();
        let stderr = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

#[test]
fn a_reader_that_ends_early_ends_the_dump_without_a_word() {
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    load(router, 3000);
    for via in ["netlink", "bpf"] {
        if via == "bpf" && !possible(router) {
            return;
        }
        let args = ["dump", "--netns", &router.name, "--via", via, "--format", "plain"];
        let mut command = command(args).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut dump = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(dump.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("dport=443"), "{line}");
        let said = dump.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(said.stderr).unwrap(), "", "{via}");
    }
}

/// Makes entries that stay.
fn load(router: &Host, entries: u32) {
    let programs = Programs::new();
    let with = "-t 36000 -u SEEN_REPLY,ASSURED -p tcp --state ESTABLISHED";
    let to = "-d 198.51.100.2 --sport 1 --dport 443";
    let mut lines = String::new();
    for n in 0..entries {
        let source = Ipv4Addr::from_bits(0x0a09_0000 + n).to_string();
        lines += &["-I", with, "-s", &source, to].join(" ");
        lines.push('\n');
    }
    let said = programs.run_with_input(router, Which::Ours, &words("-R -"), &lines);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
}

#[test]
fn while_flows_come_and_go_each_one_that_stays_is_listed_once() {
    const STAY: u32 = 3000;
    let lab = Lab::new().unwrap();
    let router = &lab.router;
    router.nft(TRACKING).unwrap();
    // They end while the table is read, and their memory is used for others.
    router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").unwrap();
    load(router, STAY);
    if !possible(router) {
        return;
    }
    let _sink = udp_sink(&lab.server, lab.server.at(9)).unwrap();
    let to = SocketAddrV4::new(lab.server.v4(), 9);
    thread::scope(|scope| {
        let flood = scope.spawn(|| udp_flood(&lab.client, to, Duration::from_secs(6), 1));
        let mut came = 0;
        while !flood.is_finished() {
            let list = dump(router, "bpf", &["--format", "plain"]);
            let (stay, others): (Vec<&str>, Vec<&str>) =
                list.lines().partition(|line| line.contains("ESTABLISHED"));
            let mut sources: Vec<&str> = stay
                .iter()
                .map(|line| line.split(' ').find(|w| w.starts_with("src=")).unwrap())
                .collect();
            sources.sort_unstable();
            sources.dedup();
            assert_eq!((stay.len(), sources.len()), (STAY as usize, STAY as usize));
            // Nothing is made up of two entries.
            for line in &others {
                let to = format!("dst={} ", lab.server.v4());
                assert!(line.starts_with("udp ") && line.contains(&to), "{line}");
                assert!(line.contains(" dport=9 [UNREPLIED] src="), "{line}");
            }
            came = came.max(others.len());
        }
        assert!(flood.join().unwrap().unwrap() > 1000 && came > 100, "no flood");
    });
}
