//! Reports for the tests of all renderers.

use crate::{
    flow::{Details, Drops, Flow, FlowKey, FlowTable, L4, NetnsId, Status, Tuple, ZoneDir, order},
    kernel::{
        bpf::record::{Counted, Kind, Record},
        netlink::ctnetlink::{Counters, ProtoState},
    },
    report::{Footer, Header, Loss, Namespace, Report},
};

/// 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A flow that conntrack told of.
pub fn flow(proto: u8, src: &str, dst: &str, l4: L4) -> Flow {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let orig = Tuple { src, dst, proto, l4 };
    let mut flow = Flow::new(FlowKey { netns: NetnsId(0), zone: 0, orig }, START);
    flow.origins.dump = true;
    flow
}

pub fn ports(proto: u8, src: &str, sport: u16, dst: &str, dport: u16) -> Flow {
    flow(proto, src, dst, L4::Ports { src: sport, dst: dport })
}

pub fn icmp(proto: u8, src: &str, dst: &str, kind: u8, code: u8, id: u16) -> Flow {
    flow(proto, src, dst, L4::Icmp { kind, code, id })
}

pub fn confirmed(mut flow: Flow) -> Flow {
    flow.status = flow.status.union(Status::SEEN_REPLY);
    flow
}

/// A packet dropped at each place (hook, input and output interface); 255 for an unknown hook.
pub fn drops(places: &[(u8, u32, u32)]) -> Option<Drops> {
    let orig = ports(6, "192.0.2.1", 1, "192.0.2.2", 1).key.orig;
    let mut table = FlowTable::new(false);
    for (n, &(hook, iif, oif)) in places.iter().enumerate() {
        let record = Record {
            kind: Kind::Drop,
            ktime_ns: 1,
            netns_cookie: 1,
            orig,
            reply: None,
            status: Status::default(),
            ct_mark: None,
            packet_mark: 0,
            interfaces: Some((iif, oif)),
            zone: 0,
            zone_dir: 3,
            hook: (hook != 255).then_some(hook),
            fragment: false,
            counted: Some(Counted { since_ns: 1, count: n as u64 + 1 }),
        };
        table.record(NetnsId(0), &record, START);
    }
    table.flows().next().and_then(|flow| flow.drops.clone())
}

/// A flow that was dropped and never got a conntrack entry.
pub fn only_dropped(mut flow: Flow) -> Flow {
    flow.origins.dump = false;
    flow.origins.drops = true;
    flow.drops = drops(&[(1, 2, 0)]);
    flow
}

/// A plain report of flows in one namespace.
pub fn report(flows: Vec<Flow>) -> Report {
    let mut flows = flows;
    order::sort(&mut flows);
    Report { header: header(), flows, footer: Footer::default() }
}

fn header() -> Header {
    Header {
        version: "0.2.0",
        host: "fw1".to_owned(),
        kernel: "6.12.0-test".to_owned(),
        backend: "links".to_owned(),
        backend_reason: "netfilter BPF links work here".to_owned(),
        namespaces: vec![namespace(0, "-", &[(2, "eth0"), (3, "eth1")])],
        start_ns: START,
        end_ns: START + 90 * SECOND + 1,
        filters: Vec::new(),
        folded: true,
        epochs: None,
        notes: Vec::new(),
    }
}

pub fn namespace(id: u32, name: &str, interfaces: &[(u32, &str)]) -> Namespace {
    let interfaces = interfaces.iter().map(|&(index, name)| (index, name.to_owned())).collect();
    Namespace { id: NetnsId(id), name: name.to_owned(), interfaces }
}

/// A report in which everything occurs that can be known of a flow, and flows of which next to
/// nothing is known.
pub fn sample() -> Report {
    let mut translated = ports(6, "10.0.0.2", 1024, "192.0.2.80", 443);
    translated.reply = Some(ports(6, "192.0.2.80", 443, "198.51.100.1", 40123).key.orig);
    // seen_reply, assured, confirmed, src_nat, src_nat_done, and one that has no name yet.
    translated.status = Status(0x1_009e);
    translated.state = Some(ProtoState::Tcp { state: 3, wscale: [None; 2], flags: [None; 2] });
    translated.mark = Some(0x10);
    translated.packet_mark = Some(1);
    translated.interfaces = Some((2, 3));
    translated.timeout = Some(431_999);
    translated.flows.add(3);
    translated.counters =
        Some([Counters { packets: 10, bytes: 840 }, Counters { packets: 8, bytes: 9_000_000_000 }]);
    translated.first_ns = START + SECOND;
    translated.last_ns = START + 60 * SECOND + 123_456_789;
    translated.drops = drops(&[(2, 2, 3), (4, 0, 3), (2, 2, 3)]);
    translated.origins.links = true;
    translated.origins.events = true;
    translated.origins.drops = true;
    translated.details = Some(Box::new(Details {
        id: Some(4_000_000_000),
        use_count: Some(1),
        helper: Some("ftp".to_owned()),
        labels: vec![1, 127],
        secctx: Some("system_u".to_owned()),
        start_ns: Some(START + SECOND),
        stop_ns: Some(START + 60 * SECOND),
    }));

    let mut blocked = only_dropped(ports(17, "10.0.0.9", 68, "255.255.255.255", 67));
    blocked.key.netns = NetnsId(1);
    blocked.drops = drops(&[(255, 2, 9)]);

    let mut ping = confirmed(icmp(1, "10.0.0.2", "192.0.2.80", 8, 0, 0));
    ping.key.zone = 5;
    ping.zone_dir = ZoneDir::Original;
    ping.reply = Some(icmp(1, "192.0.2.80", "10.0.0.2", 0, 0, 77).key.orig);
    ping.mark = Some(0);
    ping.interfaces = Some((0, 3));

    let gre = flow(47, "10.0.0.2", "192.0.2.80", L4::Gre { src: 1, dst: 2 });

    let mut sctp = ports(132, "2001:db8::1", 1024, "2001:db8::2", 3868);
    sctp.state = Some(ProtoState::Sctp { state: 77, vtag: [None; 2] });

    let unknown = flow(253, "::ffff:192.0.2.1", "2001:db8::2", L4::None);

    let mut report = report(vec![translated, blocked, ping, gre, sctp, unknown]);
    report.header.namespaces.push(namespace(1, "red", &[(2, "veth0")]));
    report.header.filters = vec!["--proto".to_owned(), "!igmp".to_owned()];
    report.header.notes = vec!["accounting is off:\nnet.netfilter.nf_conntrack_acct=0".to_owned()];
    report.footer = Footer {
        sources: vec![("records", 12), ("dumped", 7)],
        losses: vec![
            Loss { name: "ring_full", meaning: "records did not fit the ring", count: 0 },
            Loss { name: "overruns", meaning: "times netlink events were lost", count: 2 },
        ],
    };
    report
}
