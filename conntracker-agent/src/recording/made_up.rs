//! Events of made up flows, for benchmarks.
//!
//! The flows are masqueraded TCP connections of random clients to random servers, each with its first packet, the path
//! of that through FORWARD and POSTROUTING, its first reply, and its end with counters.

use std::{net::IpAddr, sync::Arc};

use crate::model::{
    L4, Mark, NetnsId, Status, TimeOfDay, Tuple, Zone, ZoneDir,
    counters::Counters,
    event::{EntryEnd, EntryPacket, EntryState, EventKind, FlowEvent, PacketPath},
    hook::Hook,
    path::{CtState, Direction, Outcome, Provenance, Site, SiteKind, Step, Traversal, Verdict},
    state::ProtoState,
    table::{Backend, Family},
};

/// A generator that gives the same numbers each time (Steele, Lea and Flood: SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The events of many flows, in the order of their times.
#[must_use]
pub fn events(flows: u64) -> Vec<FlowEvent> {
    let mut random = Random(1);
    let paths: Vec<[Arc<Traversal>; 2]> =
        (0..50).map(|n| [path(Hook::Forward, n), path(Hook::Postrouting, n)]).collect();
    let mut events = Vec::new();
    let mut now = 1_000_000_000_000_u64;
    let router = IpAddr::from([192, 0, 2, 1]);
    for _ in 0..flows {
        now += random.below(40_000);
        let client = IpAddr::from([10, 1, random.below(16) as u8, random.below(250) as u8]);
        let server = IpAddr::from((0x5000_0000 + random.below(20_000) as u32 * 77).to_be_bytes());
        let dport = [443, 443, 443, 80, 53, 25, 993, 22][random.below(8) as usize];
        let sport = 1024 + random.below(64_000) as u16;
        let orig =
            Tuple { src: client, dst: server, proto: 6, l4: L4::Ports { src: sport, dst: dport } };
        let public = if random.below(10) == 0 { 1024 + random.below(64_000) as u16 } else { sport };
        let reply =
            Tuple { src: server, dst: router, proto: 6, l4: L4::Ports { src: dport, dst: public } };
        let untranslated = orig.inverted().unwrap_or(orig);
        let netns = NetnsId(0);
        let mut add = |at_ns, kind| events.push(FlowEvent { netns, at_ns, kind });
        let packet = |status| EntryPacket {
            zone: Zone(0),
            orig,
            entry: EntryState {
                reply,
                zone_dir: ZoneDir::Both,
                status: Status(status),
                mark: Some(Mark(0)),
                process: None,
            },
            packet_mark: Mark(0),
            interfaces: Some((2, 3)),
            counted: None,
        };
        let [forward, postrouting] = &paths[random.below(50) as usize];
        let took = |traversal: Arc<Traversal>, hash| {
            EventKind::Path(PacketPath {
                zone: Zone(0),
                orig,
                has_entry: true,
                interfaces: (2, 3),
                path_hash: hash,
                traversal,
            })
        };
        add(now, EventKind::New(packet(0x188)));
        add(now + 1_000 + random.below(3_000), took(Arc::clone(forward), 7));
        let translated = Arc::new(Traversal {
            nat: Some((untranslated, reply)),
            ..Traversal::clone(postrouting)
        });
        add(now + 4_000 + random.below(3_000), took(translated, 8));
        add(now + 500_000 + random.below(90_000_000), EventKind::Replied(packet(0x18a)));
        let (packets, bytes) = (5 + random.below(60), 400 + random.below(80_000));
        let lasted = 1_000_000_000 + random.below(30_000_000_000);
        add(
            now + lasted,
            EventKind::Ended(EntryEnd {
                zone: Zone(0),
                orig,
                reply,
                zone_dir: ZoneDir::Both,
                status: Status(0x18e),
                mark: Mark(0),
                confirmed: true,
                counters: Some([
                    Counters { packets, bytes },
                    Counters {
                        packets: packets + random.below(20),
                        bytes: bytes * 9 + random.below(1_000_000),
                    },
                ]),
                start_ns: None,
                stop_ns: now + lasted,
                state: Some(ProtoState::Tcp { state: 7, wscale: [None; 2], flags: [None; 2] }),
            }),
        );
    }
    // Ends come long after beginnings, among those of others.
    events.sort_by_key(|event| event.at_ns);
    let clock = EventKind::Clock(TimeOfDay::at(0, 1_767_225_600_000_000_000));
    events.insert(0, FlowEvent { netns: NetnsId(0), at_ns: 1, kind: clock });
    events
}

/// One of many paths through a hook: a jump, rules of a chain, and the one that accepts.
fn path(hook: Hook, n: u64) -> Arc<Traversal> {
    let site = |chain: &str, kind, position: u64| {
        Arc::new(Site {
            backend: Backend::Nft,
            family: Family::Inet,
            table: "fw".to_owned(),
            iptables: false,
            chain: chain.to_owned(),
            kind,
            position: Some(position as u32),
            handle: Some(position + 10),
            text: (kind == SiteKind::Rule).then(|| {
                format!("tcp dport {} counter accept comment \"service {n}\"", n + position)
            }),
        })
    };
    let step = |site, verdict| Step { site, verdict, provenance: Provenance::Exact, placed: true };
    let chain = hook.name();
    let steps = [
        step(site(chain, SiteKind::Rule, 1), Verdict::Jump("services".to_owned())),
        step(site("services", SiteKind::Rule, n), Verdict::Continue),
        step(site("services", SiteKind::Return, 60), Verdict::Return),
        step(site(chain, SiteKind::Rule, 2 + n), Verdict::Accept),
    ];
    Arc::new(Traversal {
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
        steps: Arc::new(steps),
        doubt: None,
    })
}
