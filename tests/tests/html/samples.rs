//! Recordings that pages are made of.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use conntracker::model::event::{EventKind, FlowEvent};
use conntracker::model::path::{Traversal, Verdict};
use conntracker::model::{Cause, L4, Tuple};
use conntracker::recording::statement::{Header, Owners, Ruleset};
use conntracker::recording::{End, Item, Options, Reader, Recorder};
use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::{self, Tracer};
use conntracker_tests::traffic::{
    ping4, tcp_connect, tcp_echo_server, tcp_exchange, udp_echo_server, udp_exchange, udp_send,
};
use tempfile::TempDir;

/// Text that would do something if it were anything but text, and how a page shows it.
pub const HOSTILE: &str = "</script><script>globalThis.hacked=1</script>\"><img src=x onerror=globalThis.hacked=1>${globalThis.hacked=1}'\u{2028}<!--";
pub const SHOWN: &str = "</script><script>globalThis.hacked=1</script>\"><img src=x onerror=globalThis.hacked=1>${globalThis.hacked=1}'\\u{2028}<!--";

/// A comment that nft accepts.
pub const COMMENT: &str =
    "</script><script>globalThis.hacked=1</script><img src=x onerror=globalThis.hacked=1>${hacked}";

/// The firewall of the traced router; a reload adds the last rule.
fn firewall(reloaded: bool) -> String {
    let last = if reloaded { "udp dport 9999 counter drop comment \"reloaded\"" } else { "" };
    format!(
        r#"
flush ruleset
table inet fw {{
    set web {{ type inet_service; elements = {{ 80, 443 }} }}
    chain from_client {{
        tcp dport @web counter accept comment "web"
        udp dport 53 counter accept comment "{COMMENT}"
        tcp dport 5432 counter jump database
    }}
    chain database {{
        ip saddr 10.99.0.0/16 counter accept
    }}
    chain never {{
        counter drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state established,related counter accept
        ct state invalid counter drop
        iifname "toclient" counter jump from_client
        tcp dport 5432 counter reject
        tcp dport 9 counter drop comment "discard"
        {last}
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related counter accept
        meta l4proto icmp counter accept
        udp dport 53 counter accept
        tcp dport 22 counter accept
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        counter
    }}
}}
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr 10.77.1.1 tcp dport 8080 counter dnat to 10.77.2.2:80
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "toserver" meta l4proto tcp counter masquerade
    }}
}}
"#
    )
}

/// A trace of a router, with a reload of its ruleset in between.
pub fn real() -> &'static Path {
    static REAL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &REAL.get_or_init(trace).1
}

fn trace() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("real.rec");
    let lab = Lab::tracking().unwrap();
    let Lab { client, router, server } = &lab;
    router.nft(&firewall(false)).unwrap();
    let record = path.to_str().unwrap();
    let args = ["trace", "--netns", &router.name, "-o", "-", "--no-fold", "--record", record];
    let backend = ["--backend", tracer::backend()];
    let tracer = Tracer::spawn(tracer::command(args.into_iter().chain(backend)).unwrap()).unwrap();
    let _servers = [
        tcp_echo_server(server, server.at(80)).unwrap(),
        tcp_echo_server(router, router.at(22)).unwrap(),
        udp_echo_server(server, server.at(53)).unwrap(),
        udp_echo_server(router, router.at(53)).unwrap(),
    ];
    for round in 0..24_u16 {
        if round == 12 {
            router.nft(&firewall(true)).unwrap();
            thread::sleep(Duration::from_millis(800));
        }
        let from = 30_000 + round;
        tcp_exchange(client, client.at(from), server.at(80), b"GET /").unwrap();
        tcp_exchange(client, client.at(from), router.at(8080), b"GET / by the router").unwrap();
        tcp_exchange(client, client.at(from), router.at(22), b"ssh").unwrap();
        udp_exchange(client, client.at(from), server.at(53), b"who is who?").unwrap();
        udp_exchange(router, "0.0.0.0:0".parse().unwrap(), server.at(53), b"who?").unwrap();
        ping4(client, server.v4().into(), 100 + round, 1).unwrap();
        if round % 2 == 0 {
            udp_send(client, client.at(from), server.at(9999), b"dropped once it is forbidden", 3)
                .unwrap();
            udp_send(client, client.at(from), router.at(161), b"dropped by the policy", 1).unwrap();
        }
        if round % 6 == 0 {
            // Answered by a reset.
            let _ =
                tcp_connect(client, client.at(from), server.at(5432), Duration::from_millis(200));
            let gone = "10.77.2.99:53".parse().unwrap();
            udp_send(client, client.at(from), gone, b"nobody has this address", 2).unwrap();
        }
        thread::sleep(Duration::from_millis(40));
    }
    thread::sleep(Duration::from_secs(4));
    tracer.finish().unwrap();
    (directory, path)
}

/// What a recording has.
#[derive(Default)]
struct Recorded {
    header: Header,
    owners: Vec<Owners>,
    rulesets: Vec<Ruleset>,
    events: Vec<FlowEvent>,
}

fn read(path: &Path) -> Recorded {
    let mut reader = Reader::new(File::open(path).unwrap()).unwrap();
    let mut all = Recorded::default();
    while let Some(item) = reader.next(End::Last).unwrap() {
        match item {
            Item::Header(header) => all.header = header,
            Item::Owners(owners) => all.owners.push(owners),
            Item::Ruleset(ruleset) => all.rulesets.push(ruleset),
            Item::Events(events) => all.events.extend(events),
            Item::Damage(damage) => panic!("{damage:?}"),
            _ => {}
        }
    }
    all
}

/// A recording that states what was recorded, but for its events.
fn recorder(directory: &TempDir, recorded: Recorded) -> (Recorder, PathBuf) {
    let path = directory.path().join("made.rec");
    let options = Options { path: path.clone(), rotate: None, keep: None };
    let mut recorder = Recorder::create(options).unwrap();
    let Recorded { header, owners, rulesets, events: _ } = recorded;
    recorder.header(header, 0);
    for owners in owners {
        recorder.owners(owners, 0);
    }
    for ruleset in rulesets {
        recorder.ruleset(ruleset);
    }
    (recorder, path)
}

/// The tuples of an event: the original direction of its flow, and the reply.
fn tuples(kind: &mut EventKind) -> Option<(&mut Tuple, Option<&mut Tuple>)> {
    match kind {
        EventKind::New(packet) | EventKind::Replied(packet) => {
            packet.counted = None;
            Some((&mut packet.orig, Some(&mut packet.entry.reply)))
        }
        EventKind::Dropped(packets) => Some((&mut packets.orig, None)),
        EventKind::Path(path) => Some((&mut path.orig, None)),
        EventKind::Ended(end) => Some((&mut end.orig, Some(&mut end.reply))),
        _ => None,
    }
}

/// So many flows in an hour, each as one of the real ones.
pub fn many(flows: u32) -> (TempDir, PathBuf) {
    let mut recorded = read(real());
    let mut samples: Vec<(Tuple, Vec<FlowEvent>)> = Vec::new();
    let mut others = Vec::new();
    for mut event in recorded.events.drain(..) {
        let Some((orig, _)) = tuples(&mut event.kind) else {
            // Dumps would show the real flows; the rest says how events are to be understood.
            if matches!(
                event.kind,
                EventKind::Clock(_) | EventKind::KernelCounts | EventKind::PacketsSeen(_)
            ) {
                others.push(event);
            }
            continue;
        };
        let orig = *orig;
        match samples.iter_mut().find(|(of, _)| *of == orig) {
            Some((_, all)) => all.push(event),
            None => samples.push((orig, vec![event])),
        }
    }
    samples.retain(|(orig, _)| matches!(orig.l4, L4::Ports { .. }) && orig.is_ipv4());
    assert!(samples.len() > 20, "{}", samples.len());
    let directory = tempfile::tempdir().unwrap();
    let (mut recorder, path) = recorder(&directory, recorded);
    for event in &others {
        recorder.event(event);
    }
    for n in 0..flows {
        let (_, sample) = &samples[n as usize % samples.len()];
        let [_, b, c, d] = n.to_be_bytes();
        let (address, port) = (IpAddr::from([10, 100 + b, c, d]), 20_000 + (n % 40_000) as u16);
        let later = u64::from(n) * 3_600_000_000_000 / u64::from(flows);
        for event in sample {
            let mut event = event.clone();
            event.at_ns += later;
            if let EventKind::Dropped(packets) = &mut event.kind {
                packets.first_ns += later;
            }
            if let Some((orig, reply)) = tuples(&mut event.kind) {
                let client = |end: &mut IpAddr, l4: &mut L4, source: bool| {
                    *end = address;
                    if let L4::Ports { src, dst } = l4 {
                        *(if source { src } else { dst }) = port;
                    }
                };
                client(&mut orig.src, &mut orig.l4, true);
                if let Some(Tuple { dst, l4, .. }) = reply {
                    client(dst, l4, false);
                }
            }
            recorder.event(&event);
        }
    }
    recorder.finish();
    (directory, path)
}

/// Names of these things, each hostile and with the thing in front.
pub const NAMED: [&str; 11] = [
    "host",
    "kernel",
    "note",
    "untold",
    "netns",
    "interface",
    "table",
    "chain",
    "rule",
    "target",
    "process",
];

fn hostile(of: &str) -> String {
    assert!(NAMED.contains(&of), "{of}");
    format!("{of}{HOSTILE}")
}

/// A recording in which whoever could choose a name chose a hostile one.
pub fn with_hostile_names() -> (TempDir, PathBuf) {
    let mut recorded = read(real());
    let Recorded { header, events, .. } = &mut recorded;
    (header.host, header.kernel) = (hostile("host"), hostile("kernel"));
    header.notes.push(hostile("note"));
    header.untold.push(hostile("untold"));
    for namespace in &mut header.namespaces {
        namespace.name = hostile("netns");
        for (.., name) in &mut namespace.interfaces {
            *name = hostile("interface");
        }
    }
    for event in events.iter_mut() {
        match &mut event.kind {
            EventKind::New(packet) | EventKind::Replied(packet) => {
                if let Some(process) = &mut packet.entry.process {
                    process.comm = Some(hostile("process"));
                }
            }
            EventKind::Path(path) => path.traversal = Arc::new(renamed(&path.traversal)),
            EventKind::Dropped(packets) if packets.point.cause.is_elsewhere() => {
                packets.point.cause = Cause::Function(HOSTILE);
            }
            _ => {}
        }
    }
    let events = std::mem::take(events);
    let directory = tempfile::tempdir().unwrap();
    // The ruleset stays as it was listed: a comment in it is hostile. What packets met is not in it.
    let (mut recorder, path) = recorder(&directory, recorded);
    for event in &events {
        recorder.event(event);
    }
    recorder.finish();
    (directory, path)
}

fn renamed(path: &Traversal) -> Traversal {
    let mut path = path.clone();
    let mut steps = path.steps.to_vec();
    for step in &mut steps {
        let site = Arc::make_mut(&mut step.site);
        (site.table, site.chain) = (hostile("table"), hostile("chain"));
        site.text = site.text.take().map(|_| hostile("rule"));
        if let Verdict::Jump(target) = &mut step.verdict {
            *target = hostile("target");
        }
    }
    path.steps = steps.into();
    path
}
