//! `--by KEY`: groups in the place of flows, compared with the sums of `conntrack -L` and with counters of rules.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;

use conntracker::Conntrack;
use conntracker::conntrack::{Change, EXPECT_PERMANENT, MarkChange, NewEntry, NewExpectation};
use conntracker::model::{L4, Mark, Tuple};
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::conntrack::lines;
use conntracker_tests::tracer::{Tracer, backend, output};
use conntracker_tests::traffic::{
    ping4, tcp_connect, udp_echo_server, udp_exchange, udp_send, udp_sink,
};
use serde_json::{Value, json};

/// Conntrack flows, packets and bytes of the original direction, and of replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums([u64; 5]);

impl Sums {
    fn add(&mut self, other: [u64; 5]) {
        self.0.iter_mut().zip(other).for_each(|(sum, more)| *sum += more);
    }
}

/// An entry of `conntrack -L -o extended`.
struct Listed {
    protocol: String,
    values: Vec<(String, String)>,
}

impl Listed {
    fn all(router: &Host) -> Vec<Self> {
        let parse = |line: &String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let pairs = words.iter().filter_map(|word| word.split_once('='));
            let values = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            Self { protocol: words[2].to_owned(), values }
        };
        lines(router, &[]).unwrap().iter().map(parse).collect()
    }

    /// The values of a key: that of the original direction is the first one.
    fn of(&self, key: &str) -> Vec<&str> {
        self.values.iter().filter(|(of, _)| of == key).map(|(_, value)| value.as_str()).collect()
    }

    fn sums(&self) -> [u64; 5] {
        let number = |key: &str, nth: usize| self.of(key)[nth].parse().unwrap();
        [1, number("packets", 0), number("bytes", 0), number("packets", 1), number("bytes", 1)]
    }

    fn mark(&self) -> u32 {
        self.of("mark").first().map_or(0, |mark| mark.parse().unwrap())
    }
}

/// What conntrack(8) says, by a key.
fn listed(router: &Host, key: impl Fn(&Listed) -> String) -> BTreeMap<String, Sums> {
    let mut all: BTreeMap<String, Sums> = BTreeMap::new();
    for entry in Listed::all(router) {
        all.entry(key(&entry)).or_default().add(entry.sums());
    }
    all
}

fn sums(object: &Value) -> Sums {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Sums([
        number("/conntrack_flows"),
        number("/counters/original/packets"),
        number("/counters/original/bytes"),
        number("/counters/reply/packets"),
        number("/counters/reply/bytes"),
    ])
}

/// The groups of a document, by their key.
fn groups(document: &Value) -> BTreeMap<String, Value> {
    let key = |group: &Value| group.get("key").map_or("-", |key| key.as_str().unwrap()).to_owned();
    document["groups"].as_array().unwrap().iter().map(|group| (key(group), group.clone())).collect()
}

fn told(document: &Value) -> BTreeMap<String, Sums> {
    groups(document).iter().map(|(key, group)| (key.clone(), sums(group))).collect()
}

/// A trace of the router by a key, started before the traffic.
fn start(lab: &Lab, key: &str, args: &[&str]) -> Tracer {
    let options = ["--backend", backend(), "--by", key, "--format", "json"];
    Tracer::start(&lab.router, &[&options[..], args].concat()).unwrap()
}

fn document(tracer: Tracer) -> Value {
    serde_json::from_str(&tracer.finish().unwrap()).unwrap()
}

/// Flows of two clients to several ports, all of which are still in the table afterwards.
fn traffic(lab: &Lab) {
    let (c, s) = (&lab.client, &lab.server);
    let servers = [7u16, 9, 11, 13].map(|port| udp_echo_server(s, s.at(port)).unwrap());
    for (nth, server) in servers.iter().enumerate() {
        let to = server.address();
        for flow in 0..=nth as u16 {
            for packet in 0..=flow {
                let payload = vec![b'x'; 10 + usize::from(packet) * 100];
                udp_exchange(c, c.at(40_000 + flow), to, &payload).unwrap();
            }
        }
    }
    udp_exchange(&lab.router, lab.router.links[1].v4_at(50_000), s.at(7), b"from the router")
        .unwrap();
    assert_eq!(ping4(c, s.v4().into(), 77, 2).unwrap(), 2);
}

trait At {
    fn v4_at(&self, port: u16) -> std::net::SocketAddr;
}

impl At for conntracker_tests::lab::Link {
    fn v4_at(&self, port: u16) -> std::net::SocketAddr {
        (self.v4, port).into()
    }
}

/// A router that counts, with this ruleset.
fn counting(rules: impl FnOnce(&Host)) -> Lab {
    let lab = Lab::new().unwrap();
    rules(&lab.router);
    lab.router.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
    lab
}

/// Packets of each rule of a table with a comment, by the comment.
fn counters(router: &Host, family: &str, table: &str) -> BTreeMap<String, u64> {
    let listing = router.run(["nft", "-j", "list", "table", family, table]).unwrap();
    let listing: Value = serde_json::from_str(&listing).unwrap();
    let rules =
        listing["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule"));
    rules
        .filter_map(|rule| {
            let comment = rule.get("comment")?.as_str()?.to_owned();
            let mut counters = rule["expr"].as_array()?.iter().filter_map(|e| e.get("counter"));
            Some((comment, counters.next()?["packets"].as_u64()?))
        })
        .collect()
}

const NFT: &str = "table ip acct {
    chain forward {
        type filter hook forward priority mangle;
        udp dport 7 counter ct mark set 0x1107 comment \"0x1100/0xff00\"
        udp dport 9 counter ct mark set 0x1109 comment \"0x1100/0xff00 too\"
        udp dport 11 counter ct mark set 0x220b comment \"0x2200/0xff00\"
    }
}";

#[test]
fn connmarks_of_nft_are_what_conntrack_and_the_rules_count() {
    let lab = counting(|router| router.nft(NFT).unwrap());
    let (masked, whole) = (start(&lab, "mark/0xff00", &[]), start(&lab, "mark", &[]));
    traffic(&lab);
    let (masked, whole) = (document(masked), document(whole));
    let by = |mask: u32| {
        listed(&lab.router, |entry| match (entry.mark() & mask, mask) {
            (mark, u32::MAX) => format!("{mark:#x}"),
            (mark, mask) => format!("{mark:#x}/{mask:#x}"),
        })
    };
    assert_eq!(told(&masked), by(0xff00));
    assert_eq!(told(&whole), by(u32::MAX));
    assert_eq!(whole["by"], json!({"type": "by", "key": "mark", "sort": "bytes"}));
    let all = Listed::all(&lab.router);
    let mut total = Sums::default();
    for entry in &all {
        total.add(entry.sums());
    }
    assert_eq!(sums(&masked["total"]), total);

    // Each packet of the original direction met the rule that marks its connection.
    let counters = counters(&lab.router, "ip", "acct");
    let masked = groups(&masked);
    let packets = |key: &str| sums(&masked[key]).0[1];
    assert_eq!(packets("0x1100/0xff00"), counters["0x1100/0xff00"] + counters["0x1100/0xff00 too"]);
    assert_eq!(packets("0x2200/0xff00"), counters["0x2200/0xff00"]);
    // Rules of nft that go on leave it open which of them it was, but for the chain.
    let chain = |flows: u64| {
        json!([{"known": "chain", "flows": flows, "backend": "nft", "family": "ip", "table": "acct",
            "label": "ip acct", "chain": "forward"}])
    };
    assert_eq!(masked["0x1100/0xff00"]["set_by"], chain(3), "{masked:#?}");
    assert_eq!(masked["0x2200/0xff00"]["set_by"], chain(3), "{masked:#?}");
    assert!(masked["0x0/0xff00"].get("set_by").is_none());
    // Which bits the rules set by one and by the other.
    let whole = groups(&whole);
    assert_eq!(sums(&whole["0x1107"]).0[0], 1);
    assert_eq!(sums(&whole["0x1109"]).0[0], 2);
}

#[test]
fn connmarks_of_iptables_tell_their_rule() {
    const RULES: &str = "*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 9 -j CONNMARK --set-xmark 0x2200/0xff00
-A FORWARD -p udp -m udp --dport 11 -j CONNMARK --set-xmark 0x1/0xff
COMMIT
";
    let lab =
        counting(|router| drop(router.run_with_input(["iptables-nft-restore"], RULES).unwrap()));
    let tracer = start(&lab, "mark/0xff00", &[]);
    traffic(&lab);
    let document = document(tracer);
    let by = listed(&lab.router, |entry| format!("{:#x}/0xff00", entry.mark() & 0xff00));
    assert_eq!(told(&document), by);
    let groups = groups(&document);
    let [setter] = &groups["0x2200/0xff00"]["set_by"].as_array().unwrap()[..] else {
        panic!("{groups:#?}")
    };
    assert_eq!((&setter["known"], &setter["flows"]), (&json!("rule"), &json!(2)), "{setter}");
    assert_eq!((&setter["chain"], &setter["position"]), (&json!("FORWARD"), &json!(1)), "{setter}");
    // Bits outside of the mask are no mark that this is about.
    assert!(groups["0x0/0xff00"].get("set_by").is_none(), "{groups:#?}");
}

#[test]
fn flows_that_a_helper_expected_have_the_mark_of_their_parent() {
    let lab = counting(|router| router.nft(conntracker_tests::lab::TRACKING).unwrap());
    let _sink = udp_sink(&lab.client, lab.client.at(5000)).unwrap();
    let tracer = start(&lab, "mark/0xff00", &[]);
    let ports = |proto, src: &str, sport, dst: &str, dport| {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Tuple { src, dst, proto, l4: L4::Ports { src: sport, dst: dport } }
    };
    let (client, server) = ("10.77.1.2", "10.77.2.2");
    // What a helper does when it reads of a data connection; see `lost/related.rs`.
    let parent = ports(6, client, 1000, server, 21);
    let data = ports(17, server, 0, client, 5000);
    let any = ports(17, "255.255.255.255", 0, "255.255.255.255", u16::MAX);
    lab.router
        .enter(|| {
            let mut conntrack = Conntrack::connect()?;
            let with =
                Change::default().helper("ftp".to_owned()).mark(MarkChange::to(Mark(0x3301)));
            conntrack.create(&NewEntry::new(parent, 300).unwrap().with(with))?;
            let expectation = NewExpectation::new(parent, data, any).timeout(200);
            let expectation = expectation.flags(EXPECT_PERMANENT).class(0).helper("ftp".to_owned());
            conntrack.create_expectation(&expectation)?;
            Ok(())
        })
        .unwrap();
    for port in [2000, 2001, 2002] {
        udp_send(&lab.server, lab.server.at(port), lab.client.at(5000), b"data", 2).unwrap();
    }
    let document = document(tracer);
    assert_eq!(
        told(&document),
        listed(&lab.router, |entry| format!("{:#x}/0xff00", entry.mark() & 0xff00))
    );
    let group = &groups(&document)["0x3300/0xff00"];
    assert_eq!(sums(group).0[..2], [4, 6], "{group}");
    assert_eq!((&group["related"], &group["parents"]), (&json!(3), &json!(1)), "{group}");
}

#[test]
fn addresses_and_ports_are_what_conntrack_counts_folded_or_not() {
    let lab = counting(|router| router.nft(conntracker_tests::lab::TRACKING).unwrap());
    let tracers: Vec<Tracer> =
        [("src", &[][..]), ("dport", &["--no-fold"]), ("proto", &[]), ("dst", &[])]
            .map(|(key, args)| start(&lab, key, args))
            .into();
    traffic(&lab);
    let documents: Vec<Value> = tracers.into_iter().map(document).collect();
    let list = |key: &dyn Fn(&Listed) -> String| listed(&lab.router, key);
    assert_eq!(told(&documents[0]), list(&|entry| entry.of("src")[0].to_owned()));
    let service = |entry: &Listed| match entry.of("dport").first() {
        Some(port) => format!("{port}/{}", entry.protocol),
        None => "-".to_owned(),
    };
    assert_eq!(told(&documents[1]), list(&service));
    assert_eq!(told(&documents[2]), list(&|entry| entry.protocol.clone()));
    assert_eq!(told(&documents[3]), list(&|entry| entry.of("dst")[0].to_owned()));
    assert_eq!(
        (&documents[0]["header"]["folded"], &documents[1]["header"]["folded"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn rules_have_the_drops_that_their_counters_have() {
    let lab = Lab::new().unwrap();
    lab.router
        .nft(
            "table inet fw {
                chain forward {
                    type filter hook forward priority filter; policy drop;
                    udp dport 600-699 counter drop comment \"drop\"
                    tcp dport 22 counter reject comment \"reject\"
                    udp dport 7 counter accept comment \"accept\"
                    ct state established counter accept comment \"established\"
                }
            }",
        )
        .unwrap();
    let tracer = start(&lab, "rule", &[]);
    let reasons = start(&lab, "reason", &["--dropped"]);
    let (c, s) = (&lab.client, &lab.server);
    for port in 0..20 {
        udp_send(c, c.at(30_000 + port), s.at(600 + port % 3), b"x", 3).unwrap();
    }
    tcp_connect(c, c.at(41_000), s.at(22), std::time::Duration::from_millis(300)).unwrap_err();
    for port in [40_000, 40_001] {
        let _server = udp_echo_server(s, s.at(7)).unwrap();
        udp_exchange(c, c.at(port), s.at(7), b"hello").unwrap();
    }
    udp_send(c, c.at(42_000), s.at(1234), b"x", 4).unwrap();
    let document = document(tracer);
    let counters = counters(&lab.router, "inet", "fw");
    let mut seen = 0;
    for group in groups(&document).values() {
        let dropped = group["dropped_packets"].as_u64().unwrap();
        let Some(text) = group["rule"]["text"].as_str() else { continue };
        let (_, comment) = text.split_once("comment \"").unwrap();
        let comment = comment.trim_end_matches('"');
        seen += 1;
        let drops = matches!(comment, "drop" | "reject");
        assert_eq!(dropped, if drops { counters[comment] } else { 0 }, "{group}");
        let flows = match comment {
            "drop" => 20,
            "reject" => 1,
            _ => 2,
        };
        assert_eq!(group["flows"], flows, "{group}");
    }
    assert_eq!(seen, 4, "{document:#}");
    let policy = &groups(&document)["inet fw/forward policy"];
    assert_eq!(policy["dropped_packets"], 4, "{policy}");
    assert_eq!(document["by"]["sort"], "drops");
    let all: u64 = counters["drop"] + counters["reject"] + 4;
    assert_eq!(document["total"]["dropped_packets"], all);

    let reasons = self::document(reasons);
    assert_eq!(groups(&reasons)["netfilter"]["dropped_packets"], all, "{reasons:#}");
}

#[test]
fn a_table_and_values_for_programs_have_the_same_numbers() {
    let lab = counting(|router| router.nft(conntracker_tests::lab::TRACKING).unwrap());
    let tracer = |format| {
        let args = ["--by", "dport", "--top", "2", "--sort", "flows", "--format", format];
        Tracer::start(&lab.router, &args).unwrap()
    };
    let tracers = ["text", "csv", "ndjson"].map(tracer);
    traffic(&lab);
    let [text, csv, lines] = tracers.map(|tracer| tracer.finish().unwrap());
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let [head, first, second, others, total] = &rows[..] else { panic!("{text}") };
    assert_eq!(
        (head[0], first[8], second[8], others[8], total[8]),
        ("flows", "13/udp", "11/udp", "others", "total")
    );
    assert!(text.contains("# by: dport, sorted by flows, the first 2\n"), "{text}");
    let values: Vec<Vec<&str>> =
        csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(values.len(), 3, "{csv}");
    for (row, value) in [first, second, others].into_iter().zip(&values) {
        assert_eq!(row[..8], value[2..10], "{text}{csv}");
    }
    let kinds: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, ["header", "by", "group", "group", "others", "total", "footer"]);
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for (args, why) in [
        (&["--by", "port"][..], "there are: src, dst"),
        (&["--by", "mark/0"], "no mask of a mark"),
        (&["--sort", "bytes"], "--by"),
        (&["--top", "3"], "--by"),
        (&["--by", "src", "--top", "0"], "0"),
        (&["--format", "csv"], "--by"),
        (&["--by", "rule", "-c"], "declines to trace"),
        (&["--by", "src", "--explain"], "cannot be used with"),
        (&["--by", "src", "--compat", "v0.1"], "cannot be used with"),
    ] {
        let refused = output(["trace"].iter().chain(args)).unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    }
    for (args, why) in [
        (&["--sort", "name"][..], "is for groups"),
        (&["--by", "src", "--sort", "first"], "groups have no times"),
        (&["--by", "src", "--top", "0"], "leaves no group"),
        (&["--by", "src", "--format", "path"], "leave out --by"),
    ] {
        let refused = output(["report", "no-such.rec"].iter().chain(args)).unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    }
}
