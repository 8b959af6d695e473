//! Packets that are evaluated in a second, and a recording of many flows that predictions are made from. `cargo xtask
//! bench evaluate` runs this in a network namespace that holds nothing else.
//!
//! Arguments: the number of flows, the file to record to, and the file for the rules to compare them with. It prints a
//! line of JSON.

use std::{
    env, fs,
    io::Write,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use conntracker::{
    firewall::{
        evaluate::{
            Origin, Packet, evaluate, interface::Interface, tracking::Tracking, unknown::Attribute,
            word::Word,
        },
        objects::KernelObjects,
    },
    model::{L4, Tuple, event::EventKind},
    recording::{
        Options, Recorder, made_up,
        statement::{Header, Namespace, Ruleset},
    },
};

/// Rules of the rulesets that packets are evaluated against; a recording has the second.
const RULES: [usize; 3] = [10, 1_000, 10_000];

/// How long packets are evaluated.
const LONG: Duration = Duration::from_secs(2);

/// Runs a program, which must succeed.
fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).unwrap_or_else(|error| panic!("{program}: {error}"));
    }
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A firewall of so many rules, each of which a packet that none of them matches is compared with. `shift` of the ports
/// makes another one.
fn firewall(rules: usize, shift: usize) -> String {
    let mut text = String::from(
        "flush ruleset\ntable inet fw {\nchain forward {\ntype filter hook forward priority 0; policy drop;\n\
         ct state established,related counter accept\n",
    );
    for rule in 0..rules {
        let ports = [443, 80, 53, 25, 993, 22, 8080, 8443];
        let (client, server) = (rule % 16, rule / 16 % 64);
        let port = ports[(rule + shift) % ports.len()];
        text += &format!(
            "ip saddr 10.1.{client}.0/24 ip daddr 80.{}.{}.0/24 tcp dport {port} counter accept\n",
            server / 8,
            server * 4
        );
    }
    text + "ip saddr 10.1.0.0/16 tcp dport { 443, 80 } counter accept\n}\n}\n"
}

/// Packets a second, each of another flow, of which no rule decides.
fn speed(rules: usize) -> f64 {
    run("nft", &["-f", "-"], &firewall(rules, 0));
    let objects = KernelObjects::read();
    let firewall = objects.firewall().unwrap_or_else(|error| panic!("{error:#}"));
    let routes = objects.routes().unwrap_or_else(|error| panic!("{error:#}"));
    let (start, mut packets) = (Instant::now(), 0_u32);
    while start.elapsed() < LONG {
        let [_, _, high, low] = packets.to_be_bytes();
        let tuple = Tuple {
            src: IpAddr::from([10, 1, 250, low]),
            dst: IpAddr::from([80, 9, high, low]),
            proto: 6,
            l4: L4::Ports { src: 40_000, dst: 9 },
        };
        let Some(mut packet) = Packet::of(&tuple) else { continue };
        packet.input = Ok(Some(Interface::named("lan")));
        packet.mark = Word::new(0, Attribute::Mark.into());
        packet.tracking = Tracking::first(&tuple);
        let evaluation = evaluate(&firewall, packet, Origin::Received, &routes);
        assert!(evaluation.fate().is_ok(), "{:?}", evaluation.fate());
        packets += 1;
    }
    f64::from(packets) / start.elapsed().as_secs_f64()
}

fn record(flows: u64, path: PathBuf) {
    let listed = |command: &str| (command.to_owned(), run("sh", &["-c", command], ""));
    let ruleset = Ruleset {
        epoch: 1,
        at_ns: 1,
        listings: vec![listed("nft -j -a list ruleset"), listed("nft -a -s list ruleset")],
        objects: KernelObjects::read(),
        ..Ruleset::default()
    };
    let header = Header {
        host: "bench".to_owned(),
        start_ns: 1,
        namespaces: vec![Namespace {
            name: "-".to_owned(),
            interfaces: vec![(2, 2, "lan".to_owned()), (3, 3, "wan".to_owned())],
            ..Namespace::default()
        }],
        epochs: Some(1),
        ..Header::default()
    };
    let _ = fs::remove_file(&path);
    let options = Options { path, rotate: None, keep: None };
    let mut recorder = Recorder::create(options).unwrap_or_else(|error| panic!("{error:#}"));
    recorder.header(header, 1);
    recorder.ruleset(ruleset);
    // Their paths are of no ruleset.
    let events = made_up::events(flows);
    for event in events.iter().filter(|event| !matches!(event.kind, EventKind::Path(_))) {
        recorder.event(event);
        while recorder.waiting_bytes() > 16 << 20 {
            std::thread::yield_now();
        }
    }
    assert_eq!(recorder.lost(), 0);
    recorder.finish();
}

fn main() {
    // Cargo adds an argument of its own.
    let args: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [flows, recording, rules] = args.as_slice() else { panic!("flows, recording, rules") };
    let flows = flows.parse().unwrap_or_else(|error| panic!("{flows}: {error}"));
    run("ip", &["link", "add", "lan", "type", "veth", "peer", "name", "wan"], "");
    for (link, address) in [("lan", "10.1.0.1/16"), ("wan", "192.0.2.1/24")] {
        run("ip", &["address", "add", address, "dev", link], "");
        run("ip", &["link", "set", link, "up"], "");
    }
    run("ip", &["route", "add", "default", "via", "192.0.2.254"], "");
    let speeds = RULES.map(speed);
    run("nft", &["-f", "-"], &firewall(RULES[1], 0));
    record(flows, recording.into());
    fs::write(rules, firewall(RULES[1], 1)).unwrap_or_else(|error| panic!("{rules}: {error}"));
    println!("{{\"rules\": {RULES:?}, \"packets_per_second\": {speeds:.0?}}}");
}
