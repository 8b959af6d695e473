//! Reports for the tests of all renderers.

use std::sync::Arc;

use crate::{
    flowtable::FlowTable,
    model::{
        Cause, ConntrackCause, Details, DropPoint, Drops, Flow, FlowKey, L4, Mark, NetnsId,
        Origins, Paths, Status, Tuple, Zone, ZoneDir,
        counters::Counters,
        event::{DroppedEntry, DroppedPackets, EventKind, FlowEvent},
        hook::Hook,
        loss::Loss,
        order,
        other::{FlowSums, OtherFlows},
        path::{
            CtState, Direction, Doubt, Outcome, Provenance, Site, SiteKind, Step, Traversal,
            Verdict,
        },
        process::Process,
        state::ProtoState,
        table::{Backend, Family},
    },
    report::{Footer, Header, Interface, Namespace, Report},
};

/// 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A flow that conntrack told of.
pub fn flow(proto: u8, src: &str, dst: &str, l4: L4) -> Flow {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let orig = Tuple { src, dst, proto, l4 };
    let mut flow =
        Flow::new(FlowKey { netns: NetnsId(0), zone: Zone::DEFAULT, orig, entry: true }, START);
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

/// A packet that netfilter dropped at each drop point (hook, input and output interface); 255 is an unknown hook.
pub fn drops(places: &[(u8, u32, u32)]) -> Option<Box<Drops>> {
    let by_netfilter: Vec<_> =
        places.iter().map(|&(hook, iif, oif)| (Cause::Netfilter, hook, iif, oif)).collect();
    dropped_by(&by_netfilter)
}

/// The same, with who dropped it.
pub fn dropped_by(places: &[(Cause, u8, u32, u32)]) -> Option<Box<Drops>> {
    let orig = ports(6, "192.0.2.1", 1, "192.0.2.2", 1).key.orig;
    let mut table = FlowTable::new(false, 10);
    for &(cause, hook, iif, oif) in places {
        let hook = (hook != 255).then_some(hook);
        let dropped = DroppedPackets {
            zone: Zone::DEFAULT,
            orig,
            entry: DroppedEntry::None { quotes: None },
            point: DropPoint { cause, hook, iif, oif },
            path_hash: 0,
            packets: 1,
            first_ns: START,
        };
        let kind = EventKind::Dropped(dropped);
        table.take(FlowEvent { netns: NetnsId(0), at_ns: START, kind });
    }
    table.snapshot().into_flows().next().and_then(|line| line.drops)
}

/// A flow that was dropped and never got a conntrack entry.
pub fn only_dropped(mut flow: Flow) -> Flow {
    flow.key.entry = false;
    flow.origins.dump = false;
    flow.origins.drops = true;
    flow.drops = drops(&[(1, 2, 0)]);
    flow
}

/// A plain report of flows in one namespace.
pub fn report(flows: Vec<Flow>) -> Report {
    let mut flows = flows;
    order::sort(&mut flows);
    Report {
        header: header(),
        flows,
        footer: Footer::default(),
        coverage: Err("no packets".to_owned()),
        untold: Vec::new(),
    }
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
    let interface =
        |&(index, name): &(u32, &str)| Interface { number: index, index, name: name.to_owned() };
    let interfaces = interfaces.iter().map(interface).collect();
    Namespace { id: NetnsId(id), name: name.to_owned(), interfaces, untraced: Vec::new() }
}

/// A site of nf_tables.
pub fn nft(family: Family, table: &str, chain: &str, kind: SiteKind, position: u32) -> Site {
    let rule = kind == SiteKind::Rule;
    Site {
        backend: Backend::Nft,
        family,
        table: table.to_owned(),
        iptables: false,
        chain: chain.to_owned(),
        kind,
        position: (kind != SiteKind::Chain).then_some(position),
        handle: rule.then_some(u64::from(position) + 10),
        text: rule.then(|| "counter".to_owned()),
    }
}

/// A site of iptables-legacy.
pub fn legacy(table: &str, chain: &str, kind: SiteKind, position: u32) -> Site {
    let site = nft(Family::Ip, table, chain, kind, position);
    let text = site.text.map(|_| format!("-A {chain} -j ACCEPT"));
    Site { backend: Backend::Legacy, iptables: true, handle: None, text, ..site }
}

pub fn step(site: Site, verdict: Verdict, provenance: Provenance) -> Step {
    Step { site: Arc::new(site), verdict, provenance, placed: true }
}

/// The first packet of a flow, which passed.
pub fn traversal(hook: Hook, steps: Vec<Step>) -> Traversal {
    Traversal {
        hook,
        direction: Direction::Original,
        state: CtState::New,
        outcome: Outcome::Passed,
        epoch: 1,
        packet_mark: (0, 0),
        marks: Arc::new([]),
        connmark: Some((0, 0)),
        nat: None,
        fragment: false,
        steps: steps.into(),
        doubt: None,
    }
}

pub fn ways(all: Vec<(Traversal, u64)>) -> Paths {
    let mut paths = Paths::default();
    for (traversal, packets) in all {
        paths.add(&Arc::new(traversal), packets);
    }
    paths
}

/// Paths through tables of iptables and of nft, with steps of every kind.
fn paths() -> Paths {
    use Provenance::{Chain, Exact, Inferred};
    let mark = |text: &str, site: Site| Site { text: Some(text.to_owned()), ..site };
    let mut pre = traversal(
        Hook::Prerouting,
        vec![
            step(
                mark(
                    "-A PREROUTING -j CONNMARK --set-xmark 0x10/0xffffffff",
                    legacy("mangle", "PREROUTING", SiteKind::Rule, 1),
                ),
                Verdict::Continue,
                Exact,
            ),
            step(legacy("mangle", "PREROUTING", SiteKind::Policy, 2), Verdict::Accept, Exact),
        ],
    );
    pre.connmark = Some((0, 0x10));
    let forward = |outcome, epoch, last| {
        let mut way = traversal(
            Hook::Forward,
            vec![
                step(
                    nft(Family::Inet, "fw4", "forward", SiteKind::Rule, 2),
                    Verdict::Jump("user".to_owned()),
                    Inferred,
                ),
                step(
                    mark(
                        "counter jump {\n\t\tdrop\n\t}",
                        nft(Family::Inet, "fw4", "user", SiteKind::Rule, 1),
                    ),
                    Verdict::Unknown,
                    Exact,
                ),
                step(
                    nft(Family::Inet, "fw4", "user", SiteKind::Return, 2),
                    Verdict::Return,
                    Inferred,
                ),
                step(nft(Family::Inet, "fw4", "forward", SiteKind::Rule, 12), last, Exact),
            ],
        );
        way.outcome = outcome;
        way.epoch = epoch;
        way
    };
    let mut post = traversal(
        Hook::Postrouting,
        vec![
            step(nft(Family::Ip6, "nat", "post\ning", SiteKind::Chain, 0), Verdict::Accept, Chain),
            step(nft(Family::Inet, "fw4", "post", SiteKind::Policy, 1), Verdict::Accept, Exact),
        ],
    );
    post.packet_mark = (0, 1);
    post.nat = Some((
        ports(6, "192.0.2.80", 443, "10.0.0.2", 40123).key.orig,
        ports(6, "192.0.2.80", 443, "198.51.100.1", 40123).key.orig,
    ));
    let mut back = traversal(
        Hook::Prerouting,
        vec![step(legacy("raw", "PREROUTING", SiteKind::Policy, 1), Verdict::Accept, Exact)],
    );
    back.direction = Direction::Reply;
    back.state = CtState::Early;
    back.connmark = None;
    back.fragment = true;
    back.doubt = Some(Doubt::Nested);
    ways(vec![
        (pre, 3),
        (forward(Outcome::Passed, 1, Verdict::Accept), 2),
        (forward(Outcome::Dropped, 2, Verdict::Drop), 1),
        (post, 2),
        (back, 1),
    ])
}

/// A packet that the policy of a chain dropped, and one that an unknown rule of another chain dropped.
fn blocked_paths() -> Paths {
    let dropped = |site, provenance| {
        let mut way = traversal(Hook::Input, vec![step(site, Verdict::Drop, provenance)]);
        way.outcome = Outcome::Dropped;
        way.state = CtState::Untracked;
        way.connmark = None;
        way
    };
    ways(vec![
        (dropped(legacy("filter", "INPUT", SiteKind::Policy, 7), Provenance::Exact), 1),
        (dropped(legacy("security", "INPUT", SiteKind::Chain, 0), Provenance::Chain), 1),
    ])
}

/// A report with flows that have every field, and flows that have hardly any.
pub fn sample() -> Report {
    let mut translated = ports(6, "10.0.0.2", 1024, "192.0.2.80", 443);
    translated.reply = Some(ports(6, "192.0.2.80", 443, "198.51.100.1", 40123).key.orig);
    // seen_reply, assured, confirmed, src_nat, src_nat_done, and one that has no name yet.
    translated.status = Status(0x1_009e);
    translated.state = Some(ProtoState::Tcp { state: 3, wscale: [None; 2], flags: [None; 2] });
    translated.mark = Some(Mark(0x10));
    translated.packet_mark = Some(Mark(1));
    translated.interfaces = Some((2, 3));
    translated.timeout = Some(431_999);
    translated.flows.add(3);
    translated.ended = 2;
    translated.process = Some(Box::new(Process {
        direction: Direction::Original,
        uid: 1000,
        user: Some("me".to_owned()),
        pid: Some(812),
        comm: Some("a\nb".to_owned()),
        cgroup_id: Some(4242),
        cgroup: Some("/user.slice".to_owned()),
        inode: Some(31_337),
    }));
    translated.counters =
        Some([Counters { packets: 10, bytes: 840 }, Counters { packets: 8, bytes: 9_000_000_000 }]);
    translated.first_ns = START + SECOND;
    translated.last_ns = START + 60 * SECOND + 123_456_789;
    translated.drops = drops(&[(2, 2, 3), (4, 0, 3), (2, 2, 3)]);
    translated.origins.packets = true;
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

    translated.paths = paths();

    let mut blocked = only_dropped(ports(17, "10.0.0.9", 68, "255.255.255.255", 67));
    blocked.key.netns = NetnsId(1);
    blocked.drops = dropped_by(&[
        (Cause::Netfilter, 255, 2, 9),
        (Cause::Reason("NEIGH_FAILED"), 4, 2, 9),
        (Cause::Function("nf_queue"), 0, 2, 0),
        (Cause::Reason("TLS_SW"), 255, 2, 0),
    ]);
    blocked.paths = blocked_paths();

    let mut ping = confirmed(icmp(1, "10.0.0.2", "192.0.2.80", 8, 0, 0));
    ping.key.zone = Zone(5);
    ping.zone_dir = ZoneDir::Original;
    ping.reply = Some(icmp(1, "192.0.2.80", "10.0.0.2", 0, 0, 77).key.orig);
    ping.mark = Some(Mark(0));
    ping.interfaces = Some((0, 3));

    let mut gre = flow(47, "10.0.0.2", "192.0.2.80", L4::Gre { src: 1, dst: 2 });
    gre.drops = dropped_by(&[(Cause::Conntrack(ConntrackCause::InsertFailed), 4, 2, 3)]);

    let mut sctp = ports(132, "2001:db8::1", 1024, "2001:db8::2", 3868);
    sctp.process = Some(Box::new(Process {
        direction: Direction::Reply,
        uid: 0,
        user: None,
        pid: None,
        comm: None,
        cgroup_id: Some(1),
        cgroup: None,
        inode: None,
    }));
    sctp.state = Some(ProtoState::Sctp { state: 77, vtag: [None; 2] });

    let mut unknown = flow(253, "::ffff:192.0.2.1", "2001:db8::2", L4::None);
    unknown.origins = Origins { ends: true, ..Origins::default() };
    unknown.unconfirmed = 2;

    let mut report = report(vec![translated, blocked, ping, gre, sctp, unknown]);
    report.header.namespaces.push(namespace(1, "red", &[(2, "veth0")]));
    report.header.epochs = Some(2);
    report.header.filters = vec!["--proto".to_owned(), "!igmp".to_owned()];
    report.header.notes = vec!["accounting is off:\nnet.netfilter.nf_conntrack_acct=0".to_owned()];
    report.footer = Footer {
        sources: vec![("records", 12), ("dumped", 7)],
        losses: vec![Loss::NewFlowRecordsLost.times(0), Loss::EventOverruns.times(2)],
        others: others(),
    };
    report
}

/// Flows that are not listed.
fn others() -> OtherFlows {
    let mut others = OtherFlows::default();
    *others.of(17) = FlowSums {
        flows: 3,
        conntrack_flows: 2,
        packets: 40,
        bytes: 4_000,
        dropped_packets: 5,
        lost_packets: 1,
    };
    others.of(253).flows = 1;
    others
}
