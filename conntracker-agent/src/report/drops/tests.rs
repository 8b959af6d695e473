use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        Cause, ConntrackCause, L4,
        hook::Hook,
        path::{CtState, Outcome, Provenance, SiteKind, Verdict},
        table::Family,
    },
    report::fixtures,
};

/// 2026-01-01T00:00:01Z.
const AT: u64 = 1_767_225_601_000_000_000;

fn line(proto: u8, l4: L4, cause: Cause) -> DropLine {
    let flow = fixtures::flow(proto, "192.0.2.1", "198.51.100.7", l4);
    DropLine {
        at_ns: AT,
        first_ns: AT - 500_000_000,
        netns: "edge\u{1b}".to_owned(),
        several_namespaces: false,
        zone: Zone::DEFAULT,
        orig: flow.key.orig,
        folded: false,
        has_entry: true,
        point: DropPoint { cause, hook: Some(2), iif: 7, oif: 8 },
        iif: Some("lan".to_owned()),
        oif: None,
        path: None,
        process: None,
        packets: 1,
    }
}

fn render(line: DropLine, format: DropFormat) -> String {
    let mut out = Vec::new();
    DropOutput::Drop(Box::new(line)).render(format, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    text
}

fn text(line: DropLine) -> String {
    render(line, DropFormat::Text).trim_end().to_owned()
}

fn object(line: DropLine) -> Value {
    serde_json::from_str(&render(line, DropFormat::Ndjson)).unwrap()
}

const PORTS: L4 = L4::Ports { src: 40_000, dst: 443 };

/// A packet of the reply direction that a rule dropped.
fn by_rule() -> DropLine {
    let mut site = fixtures::nft(Family::Inet, "fw", "forward", SiteKind::Rule, 3);
    site.handle = Some(9);
    site.text = Some("counter drop comment \"\u{202e}\"".to_owned());
    let step = fixtures::step(site, Verdict::Drop, Provenance::Exact);
    let mut path = fixtures::traversal(Hook::Forward, vec![step]);
    path.outcome = Outcome::Dropped;
    path.direction = Direction::Reply;
    path.state = CtState::Established;
    let process = Process {
        direction: Direction::Original,
        uid: 1000,
        user: None,
        pid: Some(812),
        comm: Some("curl".to_owned()),
        cgroup_id: None,
        cgroup: None,
        inode: None,
    };
    DropLine {
        path: Some(Arc::new(path)),
        process: Some(Box::new(process)),
        ..line(6, PORTS, Cause::Netfilter)
    }
}

#[test]
fn a_line_says_who_where_and_by_which_rule() {
    assert_eq!(
        text(by_rule()),
        "2026-01-01T00:00:01.000000000Z tcp 192.0.2.1:40000 -> 198.51.100.7:443 (reply) process=curl[812] \
         at forward (lan -> -): table: inet fw, chain: forward, type: rule, position: 3, verdict: drop, \
         handle: 9, rule: counter drop comment \"\\u{202e}\""
    );
    let object = object(by_rule());
    assert_eq!(object["type"], "drop");
    assert_eq!(object["time"], "2026-01-01T00:00:01.000000000Z");
    assert_eq!(object["netns"], "edge\u{1b}");
    assert_eq!(
        object["original"],
        json!({"src": "192.0.2.1", "dst": "198.51.100.7", "sport": 40_000, "dport": 443})
    );
    assert_eq!((&object["direction"], &object["state"]), (&json!("reply"), &json!("established")));
    assert_eq!(
        (&object["hook"], &object["interfaces"]),
        (&json!("forward"), &json!({"in": "lan"}))
    );
    assert_eq!((&object["by"]["handle"], &object["by"]["position"]), (&json!(9), &json!(3)));
    assert_eq!((&object["process"]["comm"], &object["packets"]), (&json!("curl"), &json!(1)));
    assert!(object.get("first").is_none() && object.get("folded").is_none());
}

#[test]
fn packets_that_the_kernel_counted_together_have_a_number_and_no_port_of_their_own() {
    let counted =
        |l4, proto| DropLine { packets: 12, folded: true, ..line(proto, l4, Cause::Netfilter) };
    let folded = L4::Ports { src: 1024, dst: 443 };
    assert!(
        text(counted(folded, 17))
            .contains(" udp 192.0.2.1:* -> 198.51.100.7:443 packets=12 at forward (lan -> -): a rule that is not known")
    );
    let echo = L4::Icmp { kind: 8, code: 0, id: 0 };
    assert!(text(counted(echo, 1)).contains("192.0.2.1 -> 198.51.100.7 (type=8 | code=0 | id=*)"));
    let object = object(counted(folded, 17));
    assert_eq!((&object["packets"], &object["folded"]), (&json!(12), &json!(true)));
    assert_eq!(object["first"], "2026-01-01T00:00:00.500000000Z");
}

#[test]
fn what_no_rule_dropped_has_its_reason_with_its_meaning() {
    let lost = line(17, PORTS, Cause::Reason("IP_RPFILTER"));
    let said = text(DropLine { has_entry: false, several_namespaces: true, ..lost.clone() });
    assert!(
        said.contains(
            "Z [netns edge\\u{1b}] udp 192.0.2.1:40000 -> 198.51.100.7:443 (no entry) after forward"
        ),
        "{said}"
    );
    assert!(said.ends_with("(lan -> -): IP_RPFILTER, reverse path filter: the route to the source is not by the interface it came from"), "{said}");
    let object = object(lost);
    assert_eq!((&object["reason"], &object["after"]), (&json!("IP_RPFILTER"), &json!("forward")));
    assert!(object["meaning"].as_str().unwrap().starts_with("reverse path filter"));
    assert!(object.get("hook").is_none());

    let function = line(17, PORTS, Cause::Function("nf_queue"));
    assert!(text(function).ends_with(
        "in the kernel's nf_queue(), queued, and no program takes it or its queue is full"
    ));
    let full = line(17, PORTS, Cause::Conntrack(ConntrackCause::Full));
    assert!(text(DropLine { zone: Zone(3), ..full }).contains("Z [zone 3] udp"));
    let unknown = DropLine { point: DropPoint::default(), ..line(17, PORTS, Cause::Netfilter) };
    assert!(text(unknown).contains(" at an unknown hook (lan -> -): "));
}

#[test]
fn what_was_not_printed_is_a_line_too() {
    let render = |packets, format| {
        let mut out = Vec::new();
        DropOutput::NotPrinted { at_ns: AT, packets }.render(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        render(1234, DropFormat::Text),
        "2026-01-01T00:00:01.000000000Z … and 1234 more drops were not printed\n"
    );
    assert!(render(1, DropFormat::Text).ends_with("1 more drop was not printed\n"));
    let object: Value = serde_json::from_str(&render(2, DropFormat::Ndjson)).unwrap();
    let said = json!({"type": "drops_not_printed", "time": "2026-01-01T00:00:01.000000000Z", "packets": 2});
    assert_eq!(object, said);
}
