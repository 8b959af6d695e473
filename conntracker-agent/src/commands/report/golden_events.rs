//! What the golden recording has: events of all kinds, by which a router could have told of a few flows.

use std::sync::Arc;

use crate::{
    model::{
        Cause, ConntrackCause, DropPoint, L4, Mark, NetnsId, Status, TimeOfDay, Tuple, Zone,
        ZoneDir,
        counters::Counters,
        event::{
            CountedFlows, DroppedEntry, DroppedPackets, Entry, EntryEnd, EntryPacket, EntrySource,
            EntryState, EventKind, FlowEvent, PacketPath,
        },
        flow::Counted,
        hook::Hook,
        path::{
            CtState, Direction, Doubt, MarksBehind, Outcome, Provenance, Site, SiteKind, Step,
            Traversal, Verdict,
        },
        process::Process,
        state::ProtoState,
        table::{Backend, Family},
    },
    recording::statement::{Counts, Header, Namespace, Owners, Ruleset},
};

const SECOND: u64 = 1_000_000_000;

/// When it was made: the time since boot, and the time of day.
const BOOT: u64 = 1_000 * SECOND;
const EPOCH: u64 = 1_796_000_000 * SECOND;

/// Namespaces: one whose packets programs see, and one that netlink alone tells of.
const EDGE: NetnsId = NetnsId(0);
const GUEST: NetnsId = NetnsId(1);

/// Hashes of the paths that drop.
const TELNET: u64 = 0x1122_3344_5566_7788;
const UDP: u64 = 0x99aa_bbcc_ddee_ff00;

pub fn header() -> Header {
    let interfaces = [(1, 2, "lan"), (2, 3, "wan"), (3, 1, "lo")];
    let interfaces = interfaces.map(|(number, index, name)| (number, index, name.to_owned()));
    let namespace = |id, name: &str, interfaces: Vec<_>| Namespace {
        id,
        name: name.to_owned(),
        interfaces,
        untraced: Vec::new(),
    };
    Header {
        version: "0.2.0".to_owned(),
        host: "edge".to_owned(),
        kernel: "6.12.57".to_owned(),
        backend: "probes".to_owned(),
        backend_reason: "the first one that works".to_owned(),
        namespaces: vec![
            Namespace {
                untraced: vec!["bridge filter/forward".to_owned()],
                ..namespace(EDGE.0, "edge", interfaces.to_vec())
            },
            namespace(GUEST.0, "guest", vec![(1, 2, "eth0".to_owned())]),
        ],
        start_ns: EPOCH,
        epochs: Some(2),
        notes: vec!["net.netfilter.nf_conntrack_timestamp is off".to_owned()],
        ..Header::default()
    }
}

pub fn owners() -> Owners {
    Owners {
        same_pids: true,
        users: vec![(104, "systemd-timesync".to_owned())],
        sockets: vec![(77_001, Some(612), Some("systemd-timesyn".to_owned()))],
        cgroups: vec![(4_711, "/system.slice/systemd-timesyncd.service".to_owned())],
    }
}

pub fn ruleset() -> Ruleset {
    let listing = "table inet fw {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
    Ruleset {
        netns: EDGE.0,
        epoch: 1,
        at_ns: BOOT,
        listings: vec![("nft -a list ruleset".to_owned(), listing.to_owned())],
        ..Ruleset::default()
    }
}

/// Counts after so many parts.
pub fn counts(parts: u64) -> Counts {
    let count = |(name, count): (&str, u64)| (name.to_owned(), count * parts);
    Counts {
        at_ns: BOOT + parts * 20 * SECOND,
        clock: (BOOT, EPOCH),
        sources: [("records", 40), ("new_flows", 7), ("dump_entries", 2)].map(count).to_vec(),
        losses: [("new_flow_records_lost", 0), ("path_races", 1)].map(count).to_vec(),
    }
}

fn ports(proto: u8, src: (&str, u16), dst: (&str, u16)) -> Tuple {
    let l4 = L4::Ports { src: src.1, dst: dst.1 };
    Tuple { src: src.0.parse().unwrap(), dst: dst.0.parse().unwrap(), proto, l4 }
}

fn other(proto: u8, src: &str, dst: &str, l4: L4) -> Tuple {
    Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, l4 }
}

fn turned(tuple: Tuple) -> Tuple {
    tuple.inverted().unwrap()
}

/// So many milliseconds after the beginning.
fn event(netns: NetnsId, ms: u64, kind: EventKind) -> FlowEvent {
    FlowEvent { netns, at_ns: BOOT + ms * 1_000_000, kind }
}

fn state(reply: Tuple, status: u32) -> EntryState {
    EntryState {
        reply,
        zone_dir: ZoneDir::Both,
        status: Status(status),
        mark: Some(Mark(0x2200)),
        process: None,
    }
}

fn packet(orig: Tuple, entry: EntryState) -> EntryPacket {
    EntryPacket {
        zone: Zone(0),
        orig,
        entry,
        packet_mark: Mark(7),
        interfaces: Some((1, 2)),
        counted: None,
    }
}

fn ended(orig: Tuple, reply: Tuple, ms: u64, state: Option<ProtoState>) -> EventKind {
    EventKind::Ended(EntryEnd {
        zone: Zone(0),
        orig,
        reply,
        zone_dir: ZoneDir::Both,
        status: Status(0x18e),
        mark: Mark(0x2200),
        confirmed: true,
        counters: Some([
            Counters { packets: 12, bytes: 2_311 },
            Counters { packets: 15, bytes: 18_420 },
        ]),
        start_ns: Some(EPOCH + SECOND),
        stop_ns: BOOT + ms * 1_000_000 - 40_000,
        state,
    })
}

fn entry(orig: Tuple, reply: Option<Tuple>) -> Entry {
    Entry {
        zone: Zone(0),
        orig,
        reply,
        parent: None,
        zone_dir: ZoneDir::Both,
        status: Status(0x8),
        state: None,
        mark: None,
        timeout: None,
        counters: [None; 2],
        id: None,
        use_count: None,
        helper: None,
        labels: Vec::new(),
        secctx: None,
        start_ns: None,
        stop_ns: None,
    }
}

/// A dumped entry that has everything.
fn full_entry(orig: Tuple, reply: Tuple) -> Entry {
    let state = ProtoState::Tcp { state: 3, wscale: [Some(7), Some(9)], flags: [Some(3), None] };
    Entry {
        zone: Zone(5),
        parent: Some(ports(6, ("10.1.0.7", 50_000), ("203.0.113.21", 21))),
        zone_dir: ZoneDir::Original,
        status: Status(0x18f),
        state: Some(state),
        mark: Some(Mark(u32::MAX)),
        timeout: Some(431_999),
        counters: [Some(Counters { packets: 3, bytes: 180 }), Some(Counters::default())],
        id: Some(0xdead_beef),
        use_count: Some(2),
        helper: Some("ftp".to_owned()),
        labels: vec![1, 127],
        secctx: Some("system_u:object_r:unlabeled_t:s0".to_owned()),
        start_ns: Some(EPOCH - 60 * SECOND),
        stop_ns: Some(EPOCH - SECOND),
        ..entry(orig, Some(reply))
    }
}

fn dropped(orig: Tuple, entry: DroppedEntry, cause: Cause, first_ms: u64) -> DroppedPackets {
    DroppedPackets {
        zone: Zone(0),
        orig,
        entry,
        point: DropPoint { cause, hook: Some(2), iif: 1, oif: 2 },
        path_hash: 0,
        packets: 1,
        first_ns: BOOT + first_ms * 1_000_000,
    }
}

fn site(chain: &str, kind: SiteKind, position: Option<u32>, text: Option<&str>) -> Arc<Site> {
    Arc::new(Site {
        backend: Backend::Nft,
        family: Family::Inet,
        table: "fw".to_owned(),
        iptables: false,
        chain: chain.to_owned(),
        kind,
        position,
        handle: position.map(|position| u64::from(position) + 10),
        text: text.map(str::to_owned),
    })
}

/// A path of a new packet through a hook.
fn through(hook: Hook, outcome: Outcome, epoch: u32, steps: &[(Arc<Site>, Verdict)]) -> Traversal {
    let step = |(site, verdict): &(Arc<Site>, Verdict)| Step {
        site: Arc::clone(site),
        verdict: verdict.clone(),
        provenance: Provenance::Exact,
        placed: true,
    };
    Traversal {
        hook,
        direction: Direction::Original,
        state: CtState::New,
        outcome,
        epoch,
        packet_mark: (0, 7),
        marks: Arc::new([]),
        connmark: Some((0, 0x2200)),
        nat: None,
        fragment: false,
        steps: steps.iter().map(step).collect(),
        doubt: None,
    }
}

fn took(orig: Tuple, has_entry: bool, path_hash: u64, traversal: Traversal) -> EventKind {
    let traversal = Arc::new(traversal);
    let interfaces = (1, 2);
    EventKind::Path(PacketPath { zone: Zone(0), orig, has_entry, interfaces, path_hash, traversal })
}

/// The path of a packet that a rule of chain `services` takes.
fn accepted(epoch: u32) -> Traversal {
    let jump =
        site("forward", SiteKind::Rule, Some(2), Some("iifname \"lan\" counter jump services"));
    let accept = site("services", SiteKind::Rule, Some(1), Some("tcp dport 443 counter accept"));
    let steps = [(jump, Verdict::Jump("services".to_owned())), (accept, Verdict::Accept)];
    through(Hook::Forward, Outcome::Passed, epoch, &steps)
}

fn rejected(text: &str, verdict: Verdict) -> Traversal {
    let steps = [(site("forward", SiteKind::Rule, Some(3), Some(text)), verdict)];
    through(Hook::Forward, Outcome::Dropped, 1, &steps)
}

/// A path of which little is known.
fn doubtful() -> Traversal {
    let mut path = through(Hook::Input, Outcome::Passed, 1, &[]);
    let legacy = Arc::new(Site {
        backend: Backend::Legacy,
        family: Family::Ip,
        table: "filter".to_owned(),
        iptables: true,
        ..Site::clone(&site("INPUT", SiteKind::Policy, Some(4), None))
    });
    let step = |site, verdict, provenance, placed| Step { site, verdict, provenance, placed };
    path.steps = Arc::new([
        step(legacy, Verdict::Accept, Provenance::Inferred, true),
        step(site("input", SiteKind::Chain, None, None), Verdict::Accept, Provenance::Chain, true),
        step(
            site("local", SiteKind::Return, Some(9), None),
            Verdict::Return,
            Provenance::Inferred,
            false,
        ),
    ]);
    let chain = site("input", SiteKind::Chain, None, None);
    path.marks = Arc::new([MarksBehind { chain, alone: true, packet: 7, connection: 1 }]);
    (path.direction, path.state) = (Direction::Reply, CtState::Established);
    (path.fragment, path.doubt) = (true, Some(Doubt::Nested));
    path
}

/// The events of the first part.
pub fn start() -> Vec<FlowEvent> {
    let web = ports(6, ("10.1.0.5", 40_000), ("203.0.113.9", 443));
    let web_reply = ports(6, ("203.0.113.9", 443), ("198.51.100.1", 61_000));
    let service = ports(17, ("192.0.2.77", 3_333), ("198.51.100.1", 8_080));
    let service_reply = ports(17, ("10.1.0.9", 80), ("192.0.2.77", 3_333));
    let data = ports(6, ("203.0.113.21", 20), ("10.1.0.7", 50_001));
    let control = ports(6, ("10.1.0.7", 50_000), ("203.0.113.21", 21));
    let ntp = ports(17, ("198.51.100.1", 123), ("2001:db8::123", 123));
    let ntp = Tuple { src: "2001:db8::1".parse().unwrap(), ..ntp };
    let timesync = Process {
        direction: Direction::Original,
        uid: 104,
        user: None,
        pid: None,
        comm: None,
        cgroup_id: Some(4_711),
        cgroup: None,
        inode: Some(77_001),
    };
    let told = Process {
        direction: Direction::Reply,
        user: Some("root".to_owned()),
        comm: Some("sshd".to_owned()),
        cgroup: Some("/".to_owned()),
        uid: 0,
        pid: Some(99),
        cgroup_id: None,
        inode: None,
    };
    let masquerade =
        site("postrouting", SiteKind::Rule, Some(1), Some("oifname \"wan\" counter masquerade"));
    let translated = Traversal {
        nat: Some((turned(web), web_reply)),
        ..through(Hook::Postrouting, Outcome::Passed, 1, &[(masquerade, Verdict::Accept)])
    };
    let clock = EventKind::Clock(TimeOfDay::at(BOOT, EPOCH));
    let local = |orig: Tuple, process| EntryPacket {
        interfaces: None,
        entry: EntryState { process: Some(Box::new(process)), ..state(turned(orig), 0x188) },
        ..packet(orig, state(turned(orig), 0x188))
    };
    let ssh = ports(6, ("10.1.0.2", 50_022), ("10.1.0.1", 22));
    vec![
        event(EDGE, 0, clock),
        event(GUEST, 1, EventKind::PacketsSeen(false)),
        event(EDGE, 1, EventKind::DumpBegan),
        event(
            EDGE,
            2,
            EventKind::Entry(EntrySource::Dump, Box::new(full_entry(data, turned(data)))),
        ),
        event(EDGE, 3, EventKind::DumpEnded { whole: true }),
        event(EDGE, 4, EventKind::KernelCounts),
        event(EDGE, 1_000, EventKind::New(packet(web, state(web_reply, 0x188)))),
        event(EDGE, 1_001, took(web, true, 0, accepted(1))),
        event(EDGE, 1_002, took(web, true, 0, translated)),
        event(EDGE, 1_030, EventKind::Replied(packet(web, state(web_reply, 0x18a)))),
        event(
            EDGE,
            2_000,
            EventKind::New(EntryPacket {
                counted: Some(Counted { since_ns: BOOT + SECOND, count: 1 }),
                ..packet(service, state(service_reply, 0x1a8))
            }),
        ),
        event(EDGE, 2_500, EventKind::New(packet(control, state(turned(control), 0x188)))),
        event(EDGE, 2_600, EventKind::Related { zone: Zone(5), orig: data, parent: control }),
        event(EDGE, 3_000, EventKind::New(local(ntp, timesync))),
        event(EDGE, 3_100, EventKind::New(local(ssh, told))),
        event(EDGE, 3_101, took(ssh, true, 0, doubtful())),
        event(
            EDGE,
            4_000,
            EventKind::Counted(CountedFlows {
                zone: Zone(0),
                orig: service,
                counted: Counted { since_ns: BOOT + SECOND, count: 1 },
                replied: true,
            }),
        ),
        event(EDGE, 4_001, EventKind::Reported),
    ]
}

/// The events of the second part.
pub fn rest() -> Vec<FlowEvent> {
    let web = ports(6, ("10.1.0.5", 40_000), ("203.0.113.9", 443));
    let web_reply = ports(6, ("203.0.113.9", 443), ("198.51.100.1", 61_000));
    let telnet = ports(6, ("10.1.0.6", 41_000), ("203.0.113.9", 23));
    let syslog = ports(17, ("10.1.0.6", 514), ("203.0.113.9", 514));
    let ping = other(1, "10.1.0.5", "203.0.113.9", L4::Icmp { kind: 8, code: 0, id: 99 });
    let unreachable = other(1, "203.0.113.1", "198.51.100.1", L4::Icmp { kind: 3, code: 1, id: 0 });
    let tunnel = other(47, "10.1.0.5", "203.0.113.9", L4::Gre { src: 1, dst: 2 });
    let ospf = other(89, "10.1.0.5", "224.0.0.5", L4::None);
    let sctp = ports(132, ("10.1.0.5", 7_000), ("203.0.113.9", 7_001));
    let dccp = ports(33, ("10.1.0.5", 7_000), ("203.0.113.9", 7_001));
    let guest = ports(17, ("10.9.0.5", 5_353), ("10.9.0.1", 53));
    let tcp = ProtoState::Tcp { state: 7, wscale: [None; 2], flags: [None; 2] };
    let drop = rejected("tcp dport 23 counter drop", Verdict::Drop);
    let reject = rejected("udp dport 514 counter reject", Verdict::Reject);
    let without = |quotes| DroppedEntry::None { quotes };
    let first = |of: DroppedPackets, hash| DroppedPackets { packets: 0, path_hash: hash, ..of };
    let counted = |of: DroppedPackets, hash| DroppedPackets { packets: 41, path_hash: hash, ..of };
    let telnet_state = || DroppedEntry::State(state(turned(telnet), 0x0));
    let at = |ms, netns, source, entry| event(netns, ms, EventKind::Entry(source, Box::new(entry)));
    let full = Cause::Conntrack(ConntrackCause::Full);
    let clash = Cause::Conntrack(ConntrackCause::InsertFailed);
    let chain = Cause::Conntrack(ConntrackCause::ChainTooLong);
    vec![
        event(EDGE, 10_000, took(telnet, true, TELNET, drop)),
        event(
            EDGE,
            10_000,
            EventKind::Dropped(first(
                dropped(telnet, telnet_state(), Cause::Netfilter, 10_000),
                TELNET,
            )),
        ),
        event(EDGE, 10_500, took(syslog, false, UDP, reject)),
        event(
            EDGE,
            10_500,
            EventKind::Dropped(first(
                dropped(syslog, without(None), Cause::Netfilter, 10_500),
                UDP,
            )),
        ),
        event(
            EDGE,
            11_000,
            EventKind::Dropped(counted(
                dropped(telnet, DroppedEntry::Tuple, Cause::Netfilter, 10_100),
                TELNET,
            )),
        ),
        event(
            EDGE,
            11_000,
            EventKind::Dropped(counted(
                dropped(syslog, without(None), Cause::Netfilter, 10_600),
                UDP,
            )),
        ),
        event(EDGE, 11_001, EventKind::DropCountsTaken),
        event(EDGE, 11_100, EventKind::Dropped(dropped(ping, without(None), full, 11_100))),
        event(EDGE, 11_200, EventKind::Dropped(dropped(sctp, DroppedEntry::Tuple, clash, 11_200))),
        event(EDGE, 11_250, EventKind::Dropped(dropped(dccp, DroppedEntry::Tuple, chain, 11_250))),
        event(
            EDGE,
            11_300,
            EventKind::Dropped(dropped(
                unreachable,
                without(Some(web_reply)),
                Cause::Reason("IP_RPFILTER"),
                11_300,
            )),
        ),
        event(
            EDGE,
            11_400,
            EventKind::Dropped(DroppedPackets {
                point: DropPoint {
                    cause: Cause::Function("ip6_pkt_drop"),
                    hook: None,
                    iif: 0,
                    oif: 0,
                },
                ..dropped(ospf, without(None), full, 11_400)
            }),
        ),
        event(EDGE, 12_000, EventKind::New(packet(tunnel, state(turned(tunnel), 0x188)))),
        event(EDGE, 12_100, EventKind::New(packet(ping, state(turned(ping), 0x188)))),
        event(EDGE, 12_150, EventKind::Replied(packet(ping, state(turned(ping), 0x18a)))),
        event(EDGE, 13_000, ended(web, web_reply, 13_000, Some(tcp))),
        event(
            EDGE,
            13_100,
            ended(
                sctp,
                turned(sctp),
                13_100,
                Some(ProtoState::Sctp { state: 4, vtag: [Some(17), None] }),
            ),
        ),
        event(
            EDGE,
            13_200,
            ended(
                dccp,
                turned(dccp),
                13_200,
                Some(ProtoState::Dccp { state: 5, role: Some(1), handshake_seq: Some(1 << 40) }),
            ),
        ),
        event(EDGE, 13_300, ended(ping, turned(ping), 13_300, None)),
        event(EDGE, 13_400, took(web, true, 0, accepted(2))),
        at(14_000, GUEST, EntrySource::NewEvent, entry(guest, Some(turned(guest)))),
        at(
            14_100,
            GUEST,
            EntrySource::UpdateEvent,
            Entry { status: Status(0xa), ..entry(guest, None) },
        ),
        at(
            14_200,
            GUEST,
            EntrySource::EndEvent,
            Entry { stop_ns: Some(EPOCH + 14 * SECOND), ..entry(guest, None) },
        ),
        event(GUEST, 15_000, EventKind::PacketsSeen(true)),
        event(EDGE, 16_000, EventKind::Clock(TimeOfDay::at(BOOT, EPOCH + 5 * SECOND))),
        event(EDGE, 17_000, EventKind::DumpBegan),
        event(EDGE, 17_001, EventKind::DumpEnded { whole: false }),
    ]
}
