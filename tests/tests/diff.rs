//! `conntracker diff`: changes of a firewall while traffic goes on, one at a time. Each is found and named by its rule, in
//! the flows that it is known to change and in no other.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::{PATIENCE, Tracer, backend, output};
use conntracker_tests::traffic::{Server, tcp_echo_server, udp_echo_server};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The firewall that is changed.
const FIREWALL: &str = r#"
table inet fw {
    set allowed { type inet_service; elements = { 7003, 7004 }; }
    chain marks {
        type filter hook forward priority mangle;
        udp dport 7002 counter ct mark set 0x5
    }
    chain services {
        udp dport 7001 counter accept
        tcp dport 8001 counter accept comment "web"
        udp dport @allowed counter accept
        ip saddr 10.77.1.0/24 tcp dport 8002 counter accept
        udp dport 7007 counter accept
        udp dport { 7005, 7007 } counter drop
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related counter accept
        counter jump services
        udp dport 7002 counter accept
    }
}
table ip nat {
    chain pre {
        type nat hook prerouting priority dstnat;
        udp dport 9001 counter dnat to 10.77.2.2:7001
    }
    chain post {
        type nat hook postrouting priority srcnat;
        oifname "toserver" counter masquerade
    }
}
"#;

/// Ports of the server that answer.
const UDP: [u16; 7] = [7001, 7002, 7003, 7004, 7005, 7006, 7007];
const TCP: [u16; 2] = [8001, 8002];

/// A port of the router that is translated to one of the server.
const TRANSLATED: u16 = 9001;

/// All flows that pass.
const PASS: &[&str] = &[
    "tcp 8001", "tcp 8002", "udp 7001", "udp 7002", "udp 7003", "udp 7004", "udp 7007", "udp 9001",
];

/// What a client sends all the time: a new flow to each port in each round.
struct Traffic<'a> {
    lab: &'a Lab,
    stop: AtomicBool,
    rounds: AtomicUsize,
}

impl<'a> Traffic<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self { lab, stop: AtomicBool::new(false), rounds: AtomicUsize::new(0) }
    }

    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.lab
                .client
                .enter(|| {
                    let server = self.lab.server.v4();
                    for port in UDP {
                        udp(server, port);
                    }
                    udp(self.lab.router.v4(), TRANSLATED);
                    for port in TCP {
                        tcp(server, port);
                    }
                    Ok(())
                })
                .unwrap();
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for so many whole rounds.
    fn rounds(&self, count: usize) {
        let wanted = self.rounds.load(Ordering::Relaxed) + count + 1;
        let start = Instant::now();
        while self.rounds.load(Ordering::Relaxed) < wanted {
            assert!(start.elapsed() < PATIENCE, "the traffic does not go on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asks, and waits a little for an answer.
fn udp(to: Ipv4Addr, port: u16) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    // Rejected, perhaps.
    let _ = socket.send_to(b"q", SocketAddrV4::new(to, port));
    let _ = socket.recv(&mut [0; 9]);
}

fn tcp(to: Ipv4Addr, port: u16) {
    let to = SocketAddrV4::new(to, port).into();
    let _ = TcpStream::connect_timeout(&to, Duration::from_millis(60));
}

/// Servers at all ports.
fn servers(server: &Host) -> Vec<Server> {
    let udp = UDP.iter().map(|port| udp_echo_server(server, server.at(*port)).unwrap());
    udp.chain(TCP.iter().map(|port| tcp_echo_server(server, server.at(*port)).unwrap())).collect()
}

fn lab(firewall: &str) -> Lab {
    let lab = Lab::new().unwrap();
    lab.router.nft(firewall).unwrap();
    lab
}

/// Flows that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    /// Flow, before, after.
    fates: BTreeSet<(&'static str, &'static str, &'static str)>,
    paths: BTreeSet<&'static str>,
    nat: BTreeSet<&'static str>,
    marks: BTreeSet<&'static str>,
}

/// What is expected of a change, and a text that its differences have.
struct Change {
    what: &'static str,
    expected: Expected,
    named: &'static [&'static str],
}

impl Change {
    fn nothing(what: &'static str) -> Self {
        Self { what, expected: Expected::default(), named: &[] }
    }

    fn fates(
        what: &'static str,
        flows: &[&'static str],
        (before, after): (&'static str, &'static str),
        named: &'static [&'static str],
    ) -> Self {
        let fates = flows.iter().map(|flow| (*flow, before, after)).collect();
        Self { what, expected: Expected { fates, ..Expected::default() }, named }
    }

    fn paths(what: &'static str, flows: &[&'static str], named: &'static [&'static str]) -> Self {
        let paths = flows.iter().copied().collect();
        Self { what, expected: Expected { paths, ..Expected::default() }, named }
    }

    /// Compares differences.
    fn check(&self, found: &Value) {
        let Self { what, expected, named } = self;
        let Expected { fates, paths, nat, marks } = expected;
        let list = |of: &str| found[of].as_array().unwrap().clone();
        let name = |change: &Value| {
            let flow = &change["flow"];
            format!("{} {}", flow["protocol"].as_str().unwrap(), flow["dport"])
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told: BTreeSet<(String, String, String)> = list("fates")
            .iter()
            .map(|of| (name(of), text(&of["before"]), text(&of["after"])))
            .collect();
        let owned = |(a, b, c): &(&str, &str, &str)| (a.to_string(), b.to_string(), c.to_string());
        let wanted: BTreeSet<_> = fates.iter().map(owned).collect();
        let all = serde_json::to_string_pretty(found).unwrap();
        assert_eq!(told, wanted, "{what}: fates\n{all}");
        for (of, flows) in [("paths", paths), ("nat", nat), ("marks", marks)] {
            let told: BTreeSet<String> = list(of).iter().map(name).collect();
            let wanted: BTreeSet<String> = flows.iter().map(|flow| (*flow).to_owned()).collect();
            assert_eq!(told, wanted, "{what}: {of}\n{all}");
        }
        for text in *named {
            let text = serde_json::to_string(text).unwrap();
            let text = text.trim_matches('"');
            assert!(all.contains(text), "{what}: nothing is said of {text}\n{all}");
        }
        println!("{what}: {} fates, {} paths", told.len(), paths.len());
    }
}

/// Compares by `diff`.
fn diff(args: &[&str]) -> Value {
    let run = output([&["diff", "--format", "json"], args].concat()).unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let found: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{said}"));
    let fates = !found["fates"].as_array().unwrap().is_empty();
    assert_eq!(run.status.code(), Some(i32::from(fates)), "{said}");
    found
}

/// A recording of traffic, with a change in the middle: the file, and the times when the change was made and was over.
fn recorded(lab: &Lab, file: &Path, args: &[&str], change: impl FnOnce(&Host)) -> [String; 3] {
    let _servers = servers(&lab.server);
    let args = [&["--backend", backend(), "--record", file.to_str().unwrap()], args].concat();
    let tracer = Tracer::start_without_report(&lab.router, &args).unwrap();
    let traffic = Traffic::new(lab);
    let (before, changed) = thread::scope(|scope| {
        scope.spawn(|| traffic.run());
        let _stop = StopAtEnd(&traffic);
        traffic.rounds(3);
        let before = now();
        change(&lab.router);
        // Until the new rules are known.
        thread::sleep(Duration::from_millis(1_500));
        let changed = now();
        traffic.rounds(4);
        (before, changed)
    });
    let finished = tracer.stop(Signal::SIGINT).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    // What the kernel has counted is told at the end.
    [before, changed, now()]
}

struct StopAtEnd<'a>(&'a Traffic<'a>);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The time as an argument.
fn now() -> String {
    let run = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output();
    String::from_utf8(run.unwrap().stdout).unwrap().trim().to_owned()
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.rec");
    (directory, file)
}

/// A change of the text of [`FIREWALL`], loaded at once in its place.
fn reloaded(from: &str, to: &str) -> String {
    assert!(FIREWALL.contains(from), "{from}");
    format!("flush ruleset\n{}", FIREWALL.replacen(from, to, 1))
}

/// Makes a change in a recording of its own, and compares what was before that epoch and since.
fn by_epoch(change: &Change, firewall: &str, make: impl FnOnce(&Host)) {
    let lab = lab(firewall);
    let (_directory, file) = file();
    recorded(&lab, &file, &[], make);
    change.check(&diff(&[file.to_str().unwrap(), "--epoch", "2"]));
}

const STOPS: (&str, &str) = ("accepted", "dropped");

#[test]
fn rules_that_let_packets_pass_no_longer() {
    let policy = &["policy"][..];
    for (change, from, to) in [
        (
            Change::fates(
                "a drop before an accept",
                &["udp 7001", "udp 9001"],
                STOPS,
                &["udp dport 7001 counter drop", "udp dport 7001 counter accept"],
            ),
            "udp dport 7001 counter accept",
            "udp dport 7001 counter drop\nudp dport 7001 counter accept",
        ),
        (
            Change::fates("an accept is removed", &["tcp 8001"], STOPS, policy),
            "tcp dport 8001 counter accept comment \"web\"",
            "",
        ),
        (
            Change::fates(
                "an element of a set is removed",
                &["udp 7004"],
                STOPS,
                &["udp dport @allowed counter accept", "policy"],
            ),
            "7003, 7004",
            "7003",
        ),
        (
            Change::fates(
                "a range of addresses is narrowed",
                &["tcp 8002"],
                STOPS,
                &["ip saddr 10.77.1.0/24 tcp dport 8002", "policy"],
            ),
            "10.77.1.0/24",
            "10.77.1.128/25",
        ),
        (
            Change::fates(
                "a port is changed",
                &["udp 7002"],
                STOPS,
                &["udp dport 7002 counter accept"],
            ),
            "udp dport 7002 counter accept",
            "udp dport 7012 counter accept",
        ),
        (
            Change::fates(
                "rules change places, with effect",
                &["udp 7007"],
                STOPS,
                &["udp dport { 7005, 7007 } counter drop"],
            ),
            "udp dport 7007 counter accept\n        udp dport { 7005, 7007 } counter drop",
            "udp dport { 7005, 7007 } counter drop\n        udp dport 7007 counter accept",
        ),
    ] {
        by_epoch(&change, FIREWALL, |router| router.nft(&reloaded(from, to)).unwrap());
    }
}

#[test]
fn a_jump_an_established_accept_and_a_policy() {
    let mut jump = Change::fates(
        "a jump is removed",
        &["tcp 8001", "tcp 8002", "udp 7001", "udp 7003", "udp 7004", "udp 7007", "udp 9001"],
        STOPS,
        &["policy"],
    );
    // They pass, or do not, as before, without the jump.
    jump.expected.paths = ["udp 7002", "udp 7005", "udp 7006"].into();
    let replies = Change::fates(
        "the accept of replies is removed",
        PASS,
        ("accepted", "replies dropped"),
        &["policy"],
    );
    for (change, from, to) in [
        (jump, "counter jump services", ""),
        (replies, "ct state established,related counter accept", ""),
        (
            Change::fates("a policy accepts", &["udp 7006"], ("dropped", "accepted"), &["policy"]),
            "policy drop",
            "policy accept",
        ),
        (
            Change::fates(
                "a drop is removed",
                &["udp 7005"],
                ("dropped", "accepted"),
                &["counter accept"],
            ),
            "udp dport { 7005, 7007 } counter drop",
            "udp dport { 7005, 7007 } counter accept",
        ),
    ] {
        by_epoch(&change, FIREWALL, |router| router.nft(&reloaded(from, to)).unwrap());
    }
}

#[test]
fn translations_marks_and_rejects() {
    let mut target = Change::paths(
        "another target of dnat",
        &["udp 9001"],
        &["destination 10.77.2.2:7001", "destination 10.77.2.2:7003", "dnat to 10.77.2.2:7003"],
    );
    target.expected.paths = ["udp 9001"].into();
    target.expected.nat = ["udp 9001"].into();
    let mut snat =
        Change::paths("snat is added", &["udp 7003"], &["source 10.77.2.77", "snat to 10.77.2.77"]);
    snat.expected.nat = ["udp 7003"].into();
    // No base chain is left at the hook: only translations tell.
    let mut without = Change::paths("masquerade is removed", &[], &["source 10.77.2.1"]);
    without.expected.nat = PASS.iter().copied().collect();
    let mut mark =
        Change::paths("another mark", &["udp 7002"], &["ct mark set 0x00000006", "0x5", "0x6"]);
    mark.expected.marks = ["udp 7002"].into();
    for (change, from, to) in [
        (target, "dnat to 10.77.2.2:7001", "dnat to 10.77.2.2:7003"),
        (
            snat,
            "oifname \"toserver\" counter masquerade",
            "udp dport 7003 counter snat to 10.77.2.77\noifname \"toserver\" counter masquerade",
        ),
        (without, "oifname \"toserver\" counter masquerade", ""),
        (mark, "ct mark set 0x5", "ct mark set 0x6"),
        (
            Change::paths(
                "reject in the place of drop",
                &["udp 7005"],
                &["{ 7005, 7007 } counter reject"],
            ),
            "udp dport { 7005, 7007 } counter drop",
            "udp dport { 7005, 7007 } counter reject",
        ),
    ] {
        by_epoch(&change, FIREWALL, |router| router.nft(&reloaded(from, to)).unwrap());
    }
}

#[test]
fn changes_without_effect_are_none() {
    let swapped =
        "tcp dport 8001 counter accept comment \"web\"\n        udp dport 7001 counter accept";
    let rules =
        "udp dport 7001 counter accept\n        tcp dport 8001 counter accept comment \"web\"";
    for (what, from, to) in [
        ("the same is loaded again", "udp dport 7001", "udp dport 7001"),
        ("rules change places, without effect", rules, swapped),
        ("a comment is changed", "comment \"web\"", "comment \"web, of June\""),
        (
            "a rule is added that nothing meets",
            "udp dport 7001 counter accept",
            "tcp dport 9 counter drop\nudp dport 7001 counter accept",
        ),
    ] {
        let change = Change::nothing(what);
        by_epoch(&change, FIREWALL, |router| router.nft(&reloaded(from, to)).unwrap());
    }
    by_epoch(&Change::nothing("a rule is replaced by an equal one"), FIREWALL, |router| {
        let listed = router.run(["nft", "-a", "list", "chain", "inet", "fw", "services"]).unwrap();
        let line = listed.lines().find(|line| line.contains("udp dport 7001")).unwrap();
        let handle = line.rsplit("handle ").next().unwrap();
        let replace =
            format!("replace rule inet fw services handle {handle} udp dport 7001 counter accept");
        router.nft(&replace).unwrap();
    });
}

#[test]
fn tables_of_iptables() {
    let add = |args: &'static [&'static str]| {
        move |router: &Host| {
            router.run(args).unwrap();
        }
    };
    by_epoch(
        &Change::paths("a rule of iptables in mangle", &["udp 7003"], &["mangle/FORWARD"]),
        FIREWALL,
        add(&[
            "iptables",
            "-t",
            "mangle",
            "-A",
            "FORWARD",
            "-p",
            "udp",
            "--dport",
            "7003",
            "-j",
            "MARK",
            "--set-mark",
            "3",
        ]),
    );
    by_epoch(
        &Change::fates(
            "a rule of iptables-legacy that drops",
            &["tcp 8001"],
            STOPS,
            &["filter (legacy)/FORWARD 1"],
        ),
        FIREWALL,
        add(&["iptables-legacy", "-A", "FORWARD", "-p", "tcp", "--dport", "8001", "-j", "DROP"]),
    );
}

#[test]
fn an_element_of_a_set_between_two_times() {
    let lab = lab(FIREWALL);
    let (_directory, file) = file();
    let [before, _, end] = recorded(&lab, &file, &[], |router| {
        router.nft("delete element inet fw allowed { 7004 }").unwrap();
    });
    let found = diff(&[file.to_str().unwrap(), "--at", &before, "--at", &end]);
    Change::fates("an element is removed", &["udp 7004"], STOPS, &["policy"]).check(&found);
}

#[test]
fn two_recordings() {
    let lab = lab(FIREWALL);
    let (_directories, files): (Vec<_>, Vec<_>) = (0..3).map(|_| file()).unzip();
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    recorded(&lab, Path::new(files[0]), &[], |_| {});
    recorded(&lab, Path::new(files[1]), &["--no-fold"], |_| {});
    Change::nothing("two recordings of the same").check(&diff(&files[..2]));
    lab.router.nft(&reloaded("tcp dport 8001 counter accept comment \"web\"", "")).unwrap();
    recorded(&lab, Path::new(files[2]), &[], |_| {});
    let removed = Change::fates("an accept is removed", &["tcp 8001"], STOPS, &["policy"]);
    removed.check(&diff(&[files[0], files[2]]));
    removed.check(&diff(&[files[1], files[2]]));
}

/// Rules of iptables that do what [`FIREWALL`] does.
const IPTABLES: &str = "*nat
-A PREROUTING -p udp --dport 9001 -j DNAT --to-destination 10.77.2.2:7001
-A POSTROUTING -o toserver -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
:services -
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -j services
-A FORWARD -p udp --dport 7002 -j ACCEPT
-A services -p udp --dport 7001 -j ACCEPT
-A services -p tcp --dport 8001 -m comment --comment web -j ACCEPT
-A services -p udp --dport 7003:7004 -j ACCEPT
-A services -s 10.77.1.0/24 -p tcp --dport 8002 -j ACCEPT
-A services -p udp --dport 7005 -j DROP
COMMIT
";

#[test]
fn two_halves_of_a_quiet_recording_differ_in_nothing() {
    for (restore, args) in [
        (None, &[][..]),
        (None, &["--no-fold"][..]),
        (Some("iptables-restore"), &[]),
        (Some("iptables-legacy-restore"), &[]),
    ] {
        let lab = match restore {
            None => lab(FIREWALL),
            Some(restore) => {
                let lab = Lab::new().unwrap();
                lab.router.run_with_input([restore], IPTABLES).unwrap();
                lab
            }
        };
        let (_directory, file) = file();
        let [_, middle, end] = recorded(&lab, &file, args, |_| {});
        let found = diff(&[file.to_str().unwrap(), "--at", &middle, "--at", &end]);
        Change::nothing(restore.unwrap_or("nft")).check(&found);
        assert!(found["compared"].as_u64().unwrap() >= 10, "{found}");
    }
}
