//! The commands on conntrack's table, with conntrack(8) as the witness: what one makes the other sees.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::process::Output;
use std::time::Duration;

use conntracker_tests::lab::{Guarded, Host, Lab, TRACKING};
use conntracker_tests::tracer::{PATIENCE, command, output, skip};
use conntracker_tests::traffic::{udp_echo_server, udp_exchange};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs a command in the router's namespace: exit status, what it printed, and its messages.
fn run(router: &Host, args: &[&str]) -> (Option<i32>, String, String) {
    let (name, rest) = args.split_first().unwrap();
    let Output { status, stdout, stderr } =
        output([&[*name, "--netns", &router.name], rest].concat()).unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The same of a command that must succeed: what it printed.
fn fine(router: &Host, args: &[&str]) -> String {
    let (status, stdout, stderr) = run(router, args);
    assert_eq!(status, Some(0), "{args:?}: {stderr}");
    stdout
}

/// What conntrack(8) lists, sorted, without what counts down.
fn listed(router: &Host) -> Vec<String> {
    let text = router.run(["conntrack", "-L", "-o", "labels"]).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [&words[..2], &words[3..]].concat().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const UDP: [&str; 10] =
    ["-p", "udp", "-s", "192.0.2.1", "-d", "198.51.100.2", "--sport", "1000", "--dport", "53"];

/// A lab whose router has three flows of UDP to port 7, none of them about to end.
fn with_flows() -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "600").unwrap();
    lab.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "600").unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    for port in 40_000..40_003 {
        udp_exchange(&lab.client, lab.client.at(port), lab.server.at(7), b"x").unwrap();
    }
    lab
}

#[test]
fn what_is_created_is_what_conntrack_lists_and_what_get_prints() {
    let lab = Lab::new().unwrap();
    // Entries have room for labels where a rule looks at them.
    lab.router
        .nft("table ip t { chain c { type filter hook input priority 0; ct label set 3; }; }")
        .unwrap();
    fine(
        &lab.router,
        &[&["create"][..], &UDP, &["-t", "600", "-m", "0x11", "-w", "4", "-l", "5"]].concat(),
    );
    let tcp = ["-p", "tcp", "-s", "fd00::1", "-d", "fd00::2", "--sport", "1000", "--dport", "80"];
    let more = ["-t", "10m", "--state", "established", "--status", "assured"];
    let replied = ["--status", "seen_reply"];
    fine(&lab.router, &[&["create"][..], &tcp, &more, &replied].concat());
    let icmp = ["-p", "icmp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--icmp-type", "8"];
    fine(&lab.router, &[&["create"][..], &icmp, &["--icmp-id", "9", "-t", "600"]].concat());
    let gre = ["-p", "gre", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport", "2"];
    fine(&lab.router, &[&["create"][..], &gre, &["-t", "600"]].concat());
    let nat = ["-t", "600", "--snat", "203.0.113.5"];
    let udp =
        ["-p", "udp", "-s", "192.0.2.9", "-d", "198.51.100.2", "--sport", "1", "--dport", "2"];
    fine(&lab.router, &[&["create"][..], &udp, &nat].concat());
    assert_eq!(
        listed(&lab.router),
        [
            "gre 47 src=192.0.2.1 dst=192.0.2.2 srckey=0x1 dstkey=0x2 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 srckey=0x2 dstkey=0x1 mark=0 use=1",
            "icmp 1 src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=9 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 type=0 code=0 id=9 mark=0 use=1",
            "tcp 6 ESTABLISHED src=fd00::1 dst=fd00::2 sport=1000 dport=80 src=fd00::2 dst=fd00::1 sport=80 dport=1000 [ASSURED] mark=0 use=1",
            "udp 17 src=192.0.2.1 dst=198.51.100.2 sport=1000 dport=53 [UNREPLIED] src=198.51.100.2 dst=192.0.2.1 sport=53 dport=1000 mark=17 zone=4 use=1",
            "udp 17 src=192.0.2.9 dst=198.51.100.2 sport=1 dport=2 [UNREPLIED] src=198.51.100.2 dst=203.0.113.5 sport=2 dport=1 mark=0 use=1",
        ]
        .map(str::to_owned)
    );
    // A second one of the same tuple is refused, and says why.
    let again = [&["create"][..], &UDP, &["-t", "600", "-w", "4"]].concat();
    let (status, _, said) = run(&lab.router, &again);
    assert_eq!(status, Some(1));
    assert!(said.contains("EEXIST") && said.lines().count() == 1, "{said}");

    let json = ["-w", "4", "--format", "ndjson"];
    let got = fine(&lab.router, &[&["get"][..], &UDP, &json].concat());
    let [flow] = &objects(&got)[..] else { panic!("{got}") };
    assert_eq!((&flow["mark"], &flow["zone"]), (&0x11.into(), &4.into()));
    assert_eq!(flow["original"]["dport"], 53);
    assert_eq!(flow["labels"], serde_json::json!([5]));
    let (status, nothing, said) = run(&lab.router, &[&["get"][..], &UDP].concat());
    assert_eq!((status, &*nothing), (Some(1), ""), "{said}");
    assert!(said.contains("no such entry"), "{said}");
}

#[test]
fn updates_and_deletions_are_of_the_filtered_entries_alone() {
    let lab = with_flows();
    let with = |what: &str| listed(&lab.router).iter().filter(|l| l.contains(what)).count();
    let update = ["update", "--sport", "40001-40002", "--set-mark", "0x25/0x0f"];
    let (status, _, said) = run(&lab.router, &update);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("2 entries changed"), "{said}");
    assert_eq!((with("mark=5 "), with("mark=0 ")), (2, 1));
    assert_eq!(fine(&lab.router, &["count", "-m", "5"]).trim(), "2");
    assert_eq!(fine(&lab.router, &["count"]).trim(), "3");

    let delete = ["delete", "-m", "5", "--sport", "40002", "--format", "ndjson"];
    let (status, removed, said) = run(&lab.router, &delete);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 entry removed"), "{said}");
    let [flow] = &objects(&removed)[..] else { panic!("{removed}") };
    assert_eq!(flow["original"]["sport"], 40_002);
    assert_eq!((with("sport=40002"), with("sport=4000")), (0, 2));

    let (status, removed, said) = run(&lab.router, &["delete", "--dport", "1"]);
    assert_eq!((status, &*removed), (Some(1), ""), "{said}");
    assert!(said.contains("0 entries removed"), "{said}");
    fine(&lab.router, &["flush"]);
    assert_eq!(fine(&lab.router, &["count"]).trim(), "0");
}

#[test]
fn all_entries_are_meant_where_that_is_said() {
    let lab = with_flows();
    let (status, _, said) = run(&lab.router, &["update", "--all", "--set-mark", "7"]);
    assert_eq!(status, Some(0), "{said}");
    let listed_all = listed(&lab.router);
    assert!(listed_all.iter().all(|line| line.contains(" mark=7 ")), "{listed_all:?}");
    let (status, removed, said) = run(&lab.router, &["delete", "--all"]);
    assert_eq!((status, removed.lines().count()), (Some(0), 3), "{said}");
    assert_eq!(listed(&lab.router).len(), 0);
}

/// What lists print of an entry can be asked for: of those that conntrack(8) marks so.
#[test]
fn what_is_printed_as_a_status_can_be_asked_for() {
    let lab = with_flows();
    let tuple = ["-p", "udp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport"];
    for (port, status) in [("2", "unreplied"), ("3", "seen_reply,assured"), ("4", "ASSURED")] {
        let create = [&["create"][..], &tuple, &[port, "-t", "600", "--status", status]].concat();
        fine(&lab.router, &create);
    }
    let theirs = |word: &str| listed(&lab.router).iter().filter(|l| l.contains(word)).count();
    let ours = |command: &[&str]| fine(&lab.router, command).trim().to_owned();
    for (word, status) in [("[UNREPLIED]", "unreplied"), ("[ASSURED]", "assured")] {
        let count = theirs(word);
        assert!(count > 0 && count < 6, "{word}");
        assert_eq!(ours(&["count", "--status", status]), count.to_string());
        let not = format!("!{status}");
        assert_eq!(ours(&["count", "--status", &not]), (6 - count).to_string());
        let dump = ["dump", "--format", "plain", "--status", status];
        let lines = fine(&lab.router, &dump);
        assert!(lines.lines().all(|line| line.contains(word)), "{lines}");
        assert_eq!(lines.lines().count(), count);
    }
    let update = ["update", "--status", "unreplied", "--set-mark", "9"];
    assert_eq!(run(&lab.router, &update).0, Some(0));
    assert_eq!(theirs(" mark=9 "), theirs("[UNREPLIED]"));
    let gone = fine(&lab.router, &["delete", "--status", "unreplied"]);
    assert!(!gone.is_empty() && gone.lines().all(|line| line.contains("[UNREPLIED]")), "{gone}");
    assert_eq!(theirs("[UNREPLIED]"), 0);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let tuple = ["-s", "192.0.2.1", "-d", "192.0.2.2"];
    for (args, reason) in [
        (&["delete"][..], "`delete --all` is for all entries"),
        (&["create", "-p", "esp", "--status", "tired"], "unknown status `tired`"),
        (&["create", "-p", "esp", "--helper", ""], "no helper can be called ``"),
        (
            &[&["create", "-p", "esp", "-t", "9", "--status", "unreplied,seen_reply"][..], &tuple]
                .concat(),
            "says of a bit that it is set, and that it is not",
        ),
        (&["update", "-p", "udp"], "nothing to change"),
        (&["update", "--add-label", "1", "--remove-label", "1"], "both added and removed"),
        (&[&["get", "-p", "udp"][..], &tuple].concat(), "needs --sport and --dport"),
        (&[&["get", "-p", "icmp"][..], &tuple].concat(), "needs --icmp-type"),
        (&["get", "-p", "esp", "-s", "::1", "-d", "192.0.2.1"], "different families"),
        (&["create", "-p", "esp"], "required"),
        (
            &[&["create", "-p", "esp", "-t", "9", "--state", "x"][..], &tuple].concat(),
            "no such state",
        ),
        (&["create", "-p", "nonsense"], "unknown protocol `nonsense`"),
        (&["events", "-e", "birth"], "'birth' for '--event"),
        (&["events", "--buffer", "5"], "must be from 4K to 1G"),
        (&["count", "--dropped"], "--dropped needs `trace`"),
    ] {
        let output = output(args).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_helper_that_the_kernel_lacks_is_named() {
    let lab = Lab::new().unwrap();
    let entry = ["-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport", "2"];
    let create = [&["create"][..], &entry, &["-t", "9", "--helper", "nosuch"]].concat();
    let (status, _, said) = run(&lab.router, &create);
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("the kernel has no helper `nosuch` for this protocol"), "{said}");
    assert_eq!(listed(&lab.router).len(), 0);
}

#[test]
fn statistics_are_those_of_the_kernel() {
    let lab = with_flows();
    let text = fine(&lab.router, &["stats"]);
    assert!(text.starts_with(&format!("namespace {}: 3 of ", lab.router.name)), "{text}");
    let theirs = lab.router.run(["conntrack", "-S"]).unwrap();
    let cpus = theirs.lines().count();
    assert_eq!(text.lines().filter(|line| line.starts_with("cpu ")).count(), cpus);
    let [stats] = &objects(&fine(&lab.router, &["stats", "--format", "json"]))[..] else {
        panic!()
    };
    assert_eq!((&stats["entries"], stats["cpus"].as_array().unwrap().len()), (&3.into(), cpus));
    // The sum over the CPUs of each counter that conntrack names.
    for name in ["found", "invalid", "insert", "insert_failed", "drop", "early_drop", "error"] {
        let word = |line: &str| -> u64 {
            let word =
                line.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            word.unwrap().parse().unwrap()
        };
        let want: u64 = theirs.lines().map(word).sum();
        let ours = stats["cpus"].as_array().unwrap().iter();
        let got: u64 = ours.map(|cpu| cpu[name].as_u64().unwrap()).sum();
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn events_are_those_that_happen_and_the_table_comes_first_if_wanted() {
    let lab = with_flows();
    let args = ["events", "--netns", &lab.router.name, "--table-first", "--dport", "7,9"];
    let listen = |format| {
        let mut command = command(args.iter().chain(&["--format", format])).unwrap();
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut events = Guarded::spawn(&mut command).unwrap();
        events.wait_for("listening", PATIENCE).unwrap();
        events
    };
    let mut events = listen("ndjson");
    let mut saved = listen("save");
    let ours =
        ["-p", "udp", "-s", "192.0.2.1", "-d", "198.51.100.2", "--sport", "1", "--dport", "9"];
    let others =
        ["-p", "udp", "-s", "192.0.2.1", "-d", "198.51.100.2", "--sport", "1", "--dport", "8"];
    for tuple in [others, ours] {
        fine(&lab.router, &[&["create"][..], &tuple, &["-t", "600"]].concat());
        fine(&lab.router, &["update", "--sport", "1", "--set-mark", "7"]);
        fine(&lab.router, &["delete", "--sport", "1"]);
    }
    // They are printed by then.
    let start = std::time::Instant::now();
    while !events.stdout().contains("\"destroy\"") && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    while !saved.stdout().contains("\n-D ") && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    for events in [&mut events, &mut saved] {
        events.signal(Signal::SIGINT).unwrap();
        assert!(events.wait(PATIENCE).unwrap().success(), "{}", events.stderr());
    }
    let first = |line: &str| line.split(' ').next().map(str::to_owned);
    let verbs: Vec<_> = saved.stdout().lines().filter_map(first).collect();
    assert_eq!(verbs, ["#", "-A", "-A", "-A", "#", "-A", "-U", "-D"]);
    let said = objects(&events.stdout());
    let kind = |object: &Value| object["type"].as_str().unwrap().to_owned();
    let kinds: Vec<String> = said.iter().map(kind).collect();
    let want = ["resync_begin", "event", "event", "event", "resync_end", "event", "event", "event"];
    assert_eq!(kinds, want, "{said:?}");
    let event = |object: &Value| object["event"].as_str().unwrap().to_owned();
    let happened: Vec<String> = said[5..].iter().map(event).collect();
    assert_eq!(happened, ["new", "update", "destroy"]);
    assert!(said[5..].iter().all(|e| e["flow"]["original"]["dport"] == 9 && e["portid"].is_u64()));
    assert_eq!(said[6]["flow"]["mark"], 7);
    assert!(said[1..4].iter().all(|object| event(object) == "resync"));
}

#[test]
fn events_end_in_order_whichever_signal_asks_for_it() {
    let lab = with_flows();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let args = ["events", "--netns", &lab.router.name, "--table-first", "--format", "xml"];
        let mut command = command(args).unwrap();
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut events = Guarded::spawn(&mut command).unwrap();
        events.wait_for("resync_end", PATIENCE).unwrap();
        // Of a trace this asks for a report. Here it writes what is in the buffer.
        events.signal(Signal::SIGUSR1).unwrap();
        assert!(events.stop(signal, PATIENCE).unwrap().success(), "{signal}: {}", events.stderr());
        let document = events.stdout();
        assert!(document.trim_end().ends_with("</conntrack>"), "{signal}: {document}");
    }
}

/// Lines, sorted, without what counts down or up.
fn timeless(text: &str) -> Vec<String> {
    let without = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let lasting = |(at, word): &(usize, &&str)| {
            let time = word.bytes().all(|b| b.is_ascii_digit()) || word.starts_with("delta-time=");
            *at < 3 || !time
        };
        let words = words.iter().enumerate().filter(lasting).map(|(_, word)| *word);
        let mut line = words.collect::<Vec<_>>().join(" ");
        for element in ["timeout", "deltatime"] {
            let (open, close) = (format!("<{element}>"), format!("</{element}>"));
            if let (Some(start), Some(end)) = (line.find(&open), line.find(&close)) {
                line.replace_range(start..end, "");
            }
        }
        line
    };
    let mut lines: Vec<String> = text.lines().map(without).collect();
    lines.sort();
    lines
}

#[test]
fn lists_are_those_of_conntrack_in_any_order() {
    let lab = with_flows();
    lab.router.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
    lab.router.sysctl("net.netfilter.nf_conntrack_timestamp", "1").unwrap();
    let _server = udp_echo_server(&lab.server, lab.server.at(8)).unwrap();
    for (port, len) in [(40_010, 100), (40_011, 300), (40_012, 200)] {
        let bytes = vec![1; len];
        udp_exchange(&lab.client, lab.client.at(port), lab.server.at(8), &bytes).unwrap();
    }
    for (ours, theirs) in [
        ("plain", &[][..]),
        ("extended", &["-o", "extended"]),
        ("extended,id", &["-o", "extended,id"]),
        ("plain,id", &["-o", "id"]),
        ("xml", &["-o", "xml"]),
    ] {
        let want = lab.router.run(["conntrack", "-L"].iter().chain(theirs)).unwrap();
        let got = fine(&lab.router, &["dump", "--format", ours]);
        assert_eq!(timeless(&got), timeless(&want), "{ours}");
    }
    let ports = |args: &[&str]| -> Vec<String> {
        let text = fine(&lab.router, &[&["dump", "--format", "csv"][..], args].concat());
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().unwrap();
        let at = names.iter().position(|name| *name == "sport").unwrap();
        lines
            .map(|line| {
                assert_eq!(line.len(), names.len());
                line[at].to_owned()
            })
            .collect()
    };
    // Ages of entries pass as timeouts do: what is printed besides is compared up to them.
    let began = |text: &str| text.matches(" [start=").count();
    let want = lab.router.run(["conntrack", "-L", "-o", "ktimestamp"]).unwrap();
    assert_eq!(began(&fine(&lab.router, &["dump", "--format", "ktimestamp"])), began(&want));
    assert_eq!(began(&want), 3);
    assert_eq!(ports(&["--sort=-bytes", "--top", "2"]), ["40011", "40012"]);
    assert_eq!(ports(&["--sort", "bytes", "--dport", "8"]), ["40010", "40012", "40011"]);
    assert_eq!(ports(&["--sort", "sport", "--top", "2"]), ["40000", "40001"]);
    assert_eq!(ports(&["--dport", "1"]), Vec::<String>::new());
    let args = ["dump", "--format", "json", "--sort=-bytes", "--top", "2"];
    let json: Value = serde_json::from_str(&fine(&lab.router, &args)).unwrap();
    let largest: Vec<_> = (0..3).map(|n| &json["flows"][n]["original"]["sport"]).collect();
    assert_eq!(largest, [&40_011.into(), &40_012.into(), &Value::Null]);
    assert_eq!(json["footer"]["totals"]["flows"], 2);

    // What is saved makes the same entries anew, by conntrack(8) itself.
    let saved = fine(&lab.router, &["dump", "--format", "save"]);
    fine(&lab.router, &["flush"]);
    lab.router.run_with_input(["conntrack", "-R", "-"], &saved).unwrap();
    assert_eq!(fine(&lab.router, &["count"]).trim(), "6");
    let again = fine(&lab.router, &["dump", "--format", "save"]);
    let tuples = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(|line| line.split(" -t ").next().unwrap().to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(tuples(&again), tuples(&saved));
}

#[test]
fn flows_in_a_flowtable_are_saved_and_made_again() {
    let lab = Lab::new().unwrap();
    let flowtable = "
        table inet offloading {
            flowtable fast { hook ingress priority 0; devices = { toclient, toserver }; }
            chain forward { type filter hook forward priority 0; ct state established flow add @fast; }
        }
    ";
    if let Err(error) = lab.router.nft(flowtable) {
        let error = format!("{error:#}");
        // nf_flow_table is not there.
        assert!(error.contains("No such file or directory"), "{error}");
        return skip("no flowtables");
    }
    let _server = udp_echo_server(&lab.server, lab.server.at(7)).unwrap();
    for _ in 0..3 {
        udp_exchange(&lab.client, lab.client.at(40_000), lab.server.at(7), b"x").unwrap();
    }
    let listed = lab.router.run(["conntrack", "-L"]).unwrap();
    assert!(listed.contains("[OFFLOAD]"), "{listed}");
    let saved = fine(&lab.router, &["dump", "--format", "save"]);
    assert!(saved.starts_with("-A -t 30 "), "{saved}");
    lab.router.nft("delete table inet offloading").unwrap();
    fine(&lab.router, &["flush"]);
    lab.router.run_with_input(["conntrack", "-R", "-"], &saved).unwrap();
    let again = fine(&lab.router, &["dump", "--format", "save"]);
    // But for the seconds that are left.
    let rest = |line: &str| line.split_once(" -u ").map(|(_, rest)| rest.to_owned());
    assert!(rest(&saved).is_some() && rest(&again) == rest(&saved), "{saved}{again}");
}
