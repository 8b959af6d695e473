//! Flows that belong to others: those that a helper expected tell their parent, ICMP errors that conntrack does
//! not know tell which flow they quote. The plan of packets is the oracle.

use conntracker::Conntrack;
use conntracker::conntrack::{Change, EXPECT_PERMANENT, EntryKey, NewEntry, NewExpectation};
use conntracker::model::{L4, Tuple};
use conntracker_tests::lab::{Lab, TRACKING};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::tracer::{Tracer, stdout};
use conntracker_tests::traffic::{udp_send, udp_sink};
use serde_json::{Value, json};

fn ports(proto: u8, src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    Tuple { src, dst, proto, l4: L4::Ports { src: sport, dst: dport } }
}

#[test]
fn an_expected_flow_tells_its_parent() {
    let lab = Lab::new().unwrap();
    lab.router.nft(TRACKING).unwrap();
    let (client, server) = ("10.77.1.2", "10.77.2.2");
    let _sink = udp_sink(&lab.client, lab.client.at(5000)).unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json", "--no-fold"]).unwrap();
    // What a helper does when it reads of a data connection, which here is of another protocol.
    let parent = ports(6, client, 1000, server, 21);
    let data = ports(17, server, 0, client, 5000);
    lab.router
        .enter(|| {
            let mut conntrack = Conntrack::connect()?;
            let with = Change::default().helper("ftp".to_owned());
            conntrack.create(&NewEntry::new(parent, 300).unwrap().with(with))?;
            conntrack.create_expectation(
                &NewExpectation::new(
                    parent,
                    data,
                    ports(17, "255.255.255.255", 0, "255.255.255.255", u16::MAX),
                )
                .timeout(200)
                .flags(EXPECT_PERMANENT)
                .class(0)
                .helper("ftp".to_owned()),
            )?;
            Ok(())
        })
        .unwrap();
    for port in [2000, 2001] {
        udp_send(&lab.server, lab.server.at(port), lab.client.at(5000), b"x", 1).unwrap();
    }
    let expected = json!({
        "protocol": { "number": 6, "name": "tcp" },
        "src": client, "dst": server, "sport": 1000, "dport": 21
    });
    // By netlink.
    let dump = stdout(["dump", "--netns", &lab.router.name, "--format", "json"]).unwrap();
    let dump = Document::json(&dump).unwrap();
    let flow = |report: &Document, sport: u16| -> Value {
        let found = |flow: &&Value| flow["original"]["sport"] == sport;
        report.flows.iter().find(found).cloned().unwrap_or_default()
    };
    assert_eq!(flow(&dump, 2000)["parent"], expected, "{:?}", dump.flows);
    // By packets: no dump tells of what has ended.
    let gone = ports(17, server, 2001, client, 5000);
    lab.router.enter(|| Ok(Conntrack::connect()?.delete(&EntryKey::orig(gone))?)).unwrap();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    for sport in [2000, 2001] {
        assert_eq!(flow(&report, sport)["parent"], expected, "{:?}", report.flows);
    }
    assert!(flow(&report, 1000).get("parent").is_none());
}

#[test]
fn an_icmp_error_without_an_entry_tells_what_it_quotes() {
    let lab = Lab::new().unwrap();
    // No conntrack: all is known by its headers.
    lab.router
        .nft(
            "table inet quotes { chain f { type filter hook forward priority filter;
                icmp type destination-unreachable counter drop;
                icmpv6 type destination-unreachable counter drop; }; }",
        )
        .unwrap();
    let tracer = Tracer::start(&lab.router, &["--format", "json", "--dropped"]).unwrap();
    udp_send(&lab.client, lab.client.at(40_000), lab.server.at(7777), b"x", 1).unwrap();
    udp_send(&lab.client, lab.client.at6(40_006), lab.server.at6(7776), b"x", 1).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    let quoted = |kind: u8, name: &str| {
        let found =
            |flow: &&Value| flow["original"]["type"] == kind && flow["protocol"]["name"] == name;
        let flow = report.flows.iter().find(found);
        flow.unwrap_or_else(|| panic!("{:?}", report.flows))["quotes"].clone()
    };
    let udp = json!({ "number": 17, "name": "udp" });
    assert_eq!(
        quoted(3, "icmp"),
        json!({ "protocol": udp, "src": "10.77.1.2", "dst": "10.77.2.2", "sport": 40_000, "dport": 7777 })
    );
    assert_eq!(
        quoted(1, "icmpv6"),
        json!({ "protocol": udp, "src": "fd77:1::2", "dst": "fd77:2::2", "sport": 40_006, "dport": 7776 })
    );
}
