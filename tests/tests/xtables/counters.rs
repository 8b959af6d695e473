//! Each match against the kernel: packets of all kinds, byte by byte, meet a chain of rules without targets, and the
//! counters that move are those of the rules that the evaluator says match.
//!
//! `CONNTRACKER_XT_COUNTED` is the number of packets of each family and program.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use conntracker::firewall::evaluate::code::Code;
use conntracker::firewall::evaluate::interface::Interface;
use conntracker::firewall::evaluate::packet::{Packet, PacketType};
use conntracker::firewall::evaluate::state::{Fate, StepVerdict};
use conntracker::firewall::evaluate::unknown::Attribute;
use conntracker::firewall::evaluate::word::Word;
use conntracker::firewall::evaluate::{Firewall, Origin, evaluate};
use conntracker::firewall::legacy::raw;
use conntracker::netlink::nftables::{dump::Dump, expression::Expression, ruleset};
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::Random;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::equal::RouterOfLab;
use crate::options::{COMMON, of_packet};

const PACKETS: usize = 1_500;
const QUICK_PACKETS: usize = 300;

/// Rules of a chain.
const RULES: usize = 400;

/// A packet arrives before the call that sends it returns, but for busy machines.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a packet is made of.
struct Bytes(Vec<u8>);

impl Bytes {
    fn random(random: &mut Random, v6: bool) -> Self {
        let icmp = if v6 { 58 } else { 1 };
        let protocol = random.pick(&[6, 6, 6, 17, 17, icmp, 33, 132, 50, 51, 108, 47, 136]);
        let mut transport = vec![0; random.pick(&[20, 24, 32, 40])];
        for byte in &mut transport {
            *byte = random.below(256) as u8;
        }
        for at in [0, 2] {
            let port = if random.chance(70) { random.pick(&COMMON) } else { random.below(65_536) };
            transport[at..at + 2].copy_from_slice(&(port as u16).to_be_bytes());
        }
        match protocol {
            6 => tcp(random, &mut transport),
            // Length and no checksum.
            17 => transport[4..8].copy_from_slice(&[0, 20, 0, 0]),
            1 => transport[..2].copy_from_slice(&random.pick(&[[0, 0], [3, 1], [8, 0], [11, 0]])),
            58 => {
                transport[..2].copy_from_slice(&random.pick(&[[1, 4], [2, 0], [128, 0], [129, 0]]));
            }
            // The first 16 bits of an index are 0.
            50 => transport[..2].fill(0),
            51 if !v6 => transport[4..6].fill(0),
            51 => transport[..2].copy_from_slice(&[59, 1]),
            _ => {}
        }
        // The header of authentication is an extension header of IPv6: the protocol is that of the one behind it.
        let fragmented = random.chance(10) && !(v6 && protocol == 51);
        let fragment = if fragmented { random.pick(&[1, 2, 100]) } else { 0 };
        let ttl = random.pick(&[1, 5, 64, 128, 255]);
        let tos = random.pick(&[0, 0x10, 0x2e << 2, 2, 0xff]);
        Self(if v6 {
            v6_packet(random, &transport, (protocol, fragment, ttl, tos))
        } else {
            v4_packet(random, &transport, (protocol, fragment, ttl, tos))
        })
    }
}

fn tcp(random: &mut Random, transport: &mut [u8]) {
    transport[13] = random.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0xc2, 0x00]);
    // All of the header is there.
    let words = if random.chance(5) { 4 } else { random.pick(&[5, transport.len() / 4]) };
    transport[12] = (words as u8) << 4;
    if words > 5 {
        let size = (random.pick(&COMMON) as u16).to_be_bytes();
        let option = random.pick(&[[2, 4, size[0], size[1]], [1, 1, 1, 0], [3, 3, 7, 0]]);
        transport[20..24].copy_from_slice(&option);
        transport[24..].fill(1);
    }
}

fn v4_packet(
    random: &mut Random,
    transport: &[u8],
    (protocol, fragment, ttl, tos): (u8, u16, u8, u8),
) -> Vec<u8> {
    let options = random.chance(15);
    let header = if options { 24 } else { 20 };
    let length = (header + transport.len()) as u16;
    let [high, low] = (fragment | random.pick(&[0, 0x4000])).to_be_bytes();
    let [a, b] = length.to_be_bytes();
    let words = (header / 4) as u8;
    let mut bytes = vec![0x40 | words, tos, a, b, 0x12, 0x34, high, low, ttl, protocol, 0, 0];
    let host = 3 + random.below(200) as u8;
    let source = random.pick(&[[10, 77, 1, 2], [10, 0, 0, host], [10, 78, 3, 4]]);
    let destination = random.pick(&[[10, 77, 2, 2], [10, 77, 1, 1], [10, 77, 2, host]]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(if options { &[1, 1, 1, 0][..] } else { &[] });
    bytes.extend(transport);
    bytes
}

fn v6_packet(
    random: &mut Random,
    transport: &[u8],
    (protocol, fragment, ttl, tos): (u8, u16, u8, u8),
) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut next = protocol;
    if fragment != 0 {
        let [high, low] = (fragment << 3).to_be_bytes();
        extensions = vec![next, 0, high, low, 0, 0, 0, 1];
        next = 44;
    }
    if random.chance(15) {
        // Padding.
        extensions = [&[next, 0, 1, 4, 0, 0, 0, 0][..], &extensions].concat();
        next = 60;
    }
    let length = ((extensions.len() + transport.len()) as u16).to_be_bytes();
    let mut bytes = vec![0x60 | tos >> 4, tos << 4, 0, 0, length[0], length[1], next, ttl];
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let host = random.below(200);
    bytes.extend(address(random.pick(&["fd77:1::2", "fd78::1:9"])));
    let other = format!("fd77::{host:x}");
    let destination = random.pick(&["fd77:2::2", "fd77:1::1", other.as_str()]);
    bytes.extend(address(destination));
    bytes.extend(extensions);
    bytes.extend(transport);
    bytes
}

/// Sends bytes as they are, but for the checksum of IPv4, which the kernel fills in.
fn send(socket: &Socket, bytes: &[u8]) {
    let to: IpAddr = if bytes[0] >> 4 == 4 {
        <[u8; 4]>::try_from(&bytes[16..20]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&bytes[24..40]).unwrap().into()
    };
    socket.send_to(bytes, &SockAddr::from(SocketAddr::new(to, 0))).unwrap();
}

/// A program that loads rules, and how their counters are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Legacy,
    Nft,
}

/// Rules as they are, and the packets that each one counted.
fn read(host: &Host, form: Form) -> (Firewall, Vec<u64>) {
    match form {
        Form::Legacy => {
            let raw = host.enter(raw::read).unwrap();
            let tables: Vec<_> = raw.iter().map(|table| table.decode().unwrap()).collect();
            let chain = &tables[0].chains[0];
            let counts = chain.rules.iter().map(|rule| rule.counter.packets).collect();
            (Firewall::new(&[], &tables), counts)
        }
        Form::Nft => {
            let tables = ruleset::tables(&host.enter(|| Ok(Dump::read()?)).unwrap()).unwrap();
            let chain = tables[0].chains.iter().find(|chain| chain.name == "PREROUTING").unwrap();
            let count = |expression: &Expression| match expression {
                Expression::Counter { packets, .. } => Some(*packets),
                _ => None,
            };
            let of_rule = |rule: &ruleset::Rule| rule.expressions.iter().find_map(count).unwrap();
            let counts = chain.rules.iter().map(of_rule).collect();
            (Firewall::new(&tables, &[]), counts)
        }
    }
}

/// What a run found.
#[derive(Debug, Default)]
struct Counted {
    packets: usize,
    matched: usize,
    not: usize,
    undecided: BTreeMap<String, usize>,
    dropped: usize,
}

fn count(form: Form, v6: bool) {
    let packets = env::var("CONNTRACKER_XT_COUNTED").map_or_else(
        |_| if is_quick() { QUICK_PACKETS } else { PACKETS },
        |count| count.parse().unwrap(),
    );
    let mut random = Random::new(6_000_000 + 2 * (form as u64) + u64::from(v6));
    let lab = Lab::new().unwrap();
    // The first rule counts every packet.
    let mut words = vec![String::new()];
    words.extend((0..RULES).map(|_| of_packet(&mut random, v6)));
    let mut text = "*raw\n".to_owned();
    for words in &words {
        writeln!(text, "-A PREROUTING {words}").unwrap();
    }
    text.push_str("COMMIT\n");
    let program = format!(
        "ip{}tables-{}-restore",
        if v6 { "6" } else { "" },
        if form == Form::Legacy { "legacy" } else { "nft" }
    );
    lab.router.run_with_input([program], &text).unwrap();
    let (firewall, mut before) = read(&lab.router, form);
    assert_eq!(before.len(), words.len());
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = lab.client.enter(|| {
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
        if v6 {
            socket.set_header_included_v6(true)?;
        } else {
            socket.set_header_included_v4(true)?;
        }
        Ok(socket)
    });
    let socket = socket.unwrap();
    let mut counted = Counted::default();
    while counted.packets < packets {
        let Bytes(bytes) = Bytes::random(&mut random, v6);
        send(&socket, &bytes);
        let start = Instant::now();
        let mut last = Vec::new();
        // Counters are not read at once: another packet may come meanwhile, so two readings must be equal.
        let after = loop {
            let (_, after) = read(&lab.router, form);
            let moved = after[0] != before[0] || start.elapsed() > PATIENCE;
            if moved && after == last {
                break after;
            }
            last = after;
            thread::sleep(Duration::from_micros(100));
        };
        let moved: Vec<u64> =
            after.iter().zip(&before).map(|(after, before)| after - before).collect();
        before = after;
        // The router's or the client's own packets came too, or this one was refused before the chain.
        if moved[0] != 1 {
            continue;
        }
        counted.packets += 1;
        compare(&firewall, &bytes, &words, &moved, &mut counted);
    }
    println!("{form:?}, {}: {counted:?}", if v6 { "IPv6" } else { "IPv4" });
    assert!(counted.dropped > 0 && counted.matched > packets * 10, "{counted:?}");
}

fn compare(
    firewall: &Firewall,
    bytes: &[u8],
    words: &[String],
    moved: &[u64],
    counted: &mut Counted,
) {
    let mut packet = Packet::of_bytes(bytes).unwrap();
    let client = Interface { hardware: Ok(1), group: Ok(0), ..Interface::named("toclient") };
    packet.input = Ok(Some(client));
    packet.output = Ok(None);
    packet.mark = Word::new(0, Attribute::Mark.into());
    packet.packet_type = Ok(PacketType::Host);
    let mut link = conntracker::firewall::evaluate::header::Header::UNKNOWN;
    let kind = if bytes[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    link.set(0, &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2, kind[0], kind[1]]);
    packet.link = Some(link);
    let evaluation = evaluate(firewall, packet.clone(), Origin::Received, &RouterOfLab);
    let [ending] = &evaluation.endings[..] else { panic!("{:?}", evaluation.endings.len()) };
    let mut says = vec![Ok(false); words.len()];
    for step in &ending.steps {
        if step.verdict == StepVerdict::Unknown {
            // What becomes of the packet behind this rule is not said.
            says[step.index..].fill(Err(ending.why));
        }
        let site = firewall.site(step.chain, step.index).unwrap();
        // A match that drops the packet is a step, too, but its rule does not count.
        let matched = step.verdict == StepVerdict::Code(Code::Continue);
        if site.chain == "PREROUTING" && step.index < words.len() && matched {
            says[step.index] = if step.why.is_empty() { Ok(true) } else { Err(step.why) };
        }
    }
    let wrong = |index: usize| says[index].is_ok_and(|says| says != (moved[index] == 1));
    if let Some(index) = (0..words.len()).find(|index| wrong(*index)) {
        panic!(
            "rule {index}: {}\nsays {:?}, counted {}\n{packet:?}\n{bytes:02x?}\n{:#?}",
            words[index],
            says[index],
            moved[index],
            &words[..index]
        );
    }
    for says in &says {
        match says {
            Ok(true) => counted.matched += 1,
            Ok(false) => counted.not += 1,
            Err(why) => *counted.undecided.entry(why.to_string()).or_default() += 1,
        }
    }
    counted.dropped += usize::from(ending.fate == Fate::Drop);
}

#[test]
fn legacy_v4() {
    count(Form::Legacy, false);
}

#[test]
fn legacy_v6() {
    count(Form::Legacy, true);
}

#[test]
fn nft_v4() {
    count(Form::Nft, false);
}

#[test]
fn nft_v6() {
    count(Form::Nft, true);
}
