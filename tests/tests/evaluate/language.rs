//! Rulesets by number that use as much of nft's language as packets can meet: ranges, masks, concatenations,
//! intervals, maps, payload by offset, marks that are computed, routes. Some of it hangs on what no packet tells.

use std::fmt::Write;

use conntracker_tests::{
    lab::Host,
    rulesets::{Kind, Random, Ruleset, tracing},
};

/// A family of tables, with what is particular to it.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    conditions: &'static [&'static [&'static str]],
    translations: &'static [&'static str],
    sources: &'static [&'static str],
}

const V4: &[&str] = &[
    "ip saddr 10.78.0.0-10.78.127.255",
    "ip saddr != 10.77.2.0/25",
    "ip daddr & 255.255.0.255 == 10.77.0.2",
    "ip daddr { 10.77.1.0/24, 10.77.2.2-10.77.2.9 }",
    "ip daddr != { 10.77.1.1, 10.77.2.2 }",
    "ip ttl 63-64",
    "ip ttl != { 62, 63 }",
    "ip length 20-60",
    "ip length != 60",
    "ip protocol { tcp, icmp }",
    "ip protocol != tcp",
    "ip dscp cs0",
    "ip dscp != { cs1, af11 }",
    "ip frag-off & 0x1fff == 0",
    "@nh,72,8 6",
    "@nh,128,8 10",
    "icmp type echo-request",
    "icmp type != { echo-reply, destination-unreachable }",
    "icmp id > 1000",
    "ct original ip saddr 10.78.0.0/16",
    "ct original ip daddr 10.77.1.1",
    "ct reply ip saddr 10.77.2.2",
    "ip saddr . ip daddr { 10.78.0.0/16 . 10.77.2.0/24, 10.77.2.2 . 10.77.1.1-10.77.2.1 }",
    "ip daddr . th dport { 10.77.2.2 . 80, 10.77.1.1 . 53 }",
    "ip saddr . ip daddr . th dport { 10.78.0.0/16 . 10.77.0.0/16 . 50-100 }",
    "ip saddr . meta mark { 10.78.0.0/16 . 0-3 }",
    "ip saddr @changing",
    "ip saddr @timed",
];

const V6: &[&str] = &[
    "ip6 saddr fd78::1:0-fd78::1:ffff",
    "ip6 saddr & ffff:: == fd78::",
    "ip6 daddr { fd77:1::/64, fd77:2::2-fd77:2::9 }",
    "ip6 daddr != fd77:2::2",
    "ip6 hoplimit 60-63",
    "ip6 length < 40",
    "ip6 nexthdr tcp",
    "ip6 dscp cs0",
    "icmpv6 type { echo-request, destination-unreachable }",
    "icmpv6 code 4",
    "ct original ip6 saddr fd78::/64",
    "ip6 saddr . th dport { fd78::/64 . 1-100, fd77:2::2 . 80 }",
];

const COMMON: &[&str] = &[
    "tcp flags & (syn|ack) == syn",
    "tcp flags != syn",
    "tcp flags { syn, syn|ack }",
    "tcp flags & rst != 0",
    "tcp sport 1024-65535",
    "tcp dport { 22, 80-90, 443 }",
    "tcp dport != { 22, 80-90 }",
    "th dport 53",
    "th sport > 20000",
    "udp dport != 53",
    "@th,16,16 80",
    "@th,0,16 & 1 == 1",
    "meta length 60-100",
    "meta length != 60",
    "meta l4proto 6-17",
    "meta l4proto . th dport { tcp . 80, udp . 53, udp . 7 }",
    "meta mark & 0xff == 0x1",
    "meta mark 1-3",
    "meta mark != 0",
    "meta mark { 0, 2, 0x10-0x1f }",
    "iif toclient",
    "iifname \"toc*\"",
    "oifname != \"toserver\"",
    "iifname . oifname { toclient . toserver, toserver . toclient }",
    "meta iiftype ether",
    "meta pkttype { host, multicast }",
    "meta pkttype != host",
    "ct direction reply",
    "ct status confirmed",
    "ct status & (snat|dnat) != 0",
    "ct status & seen-reply == seen-reply",
    "meta l4proto tcp ct original proto-dst 80",
    "meta l4proto udp ct reply proto-src { 53, 80-90 }",
    "ct protocol tcp",
    "ct zone 0",
    "ct mark 1-3",
    "ct mark & 0x3 != 0",
    "ct state != established",
    "ct state . meta l4proto { new . tcp, established . udp }",
    "fib saddr type local",
    "fib daddr . iif type local",
    "fib saddr . iif oif exists",
    "fib saddr oif missing",
    "fib daddr oifname \"toserver\"",
    "fib saddr . mark . iif oif != 0",
];

/// What no packet tells.
const UNDECIDED: &[&str] = &[
    "limit rate 100/second",
    "limit rate over 3/minute",
    "numgen inc mod 2 0",
    "meta random > 1000000",
    "quota over 5000 bytes",
    "tcp option maxseg exists",
    "meta skuid 0",
    "meta hour < \"12:00\"",
    "ct original packets > 1",
];

const STATEMENTS: &[&str] = &[
    "meta mark set 0x1",
    "meta mark set meta mark << 4",
    "meta mark set meta mark >> 1",
    "meta mark set meta mark ^ 0x3",
    "meta mark set meta mark & 0xf | 0x10",
    "meta mark set ct mark",
    "meta mark set tcp dport map { 80 : 1, 443 : 2, 0-79 : 3 }",
    "meta mark set iifname map { toclient : 0x11, toserver : 0x12 }",
    "ct mark set meta mark",
    "ct mark set ct mark | 0x4",
    "ct mark set th dport map { 7 : 1, 53 : 2, 80-90 : 3 }",
    "counter",
    "log prefix \"x\"",
];

const V4_STATEMENTS: &[&str] = &[
    "ip dscp set cs1",
    "ip ttl set 40",
    "update @changing { ip saddr timeout 1m }",
    "ip ecn set ect0",
];
const V6_STATEMENTS: &[&str] = &["ip6 hoplimit set 40", "ip6 dscp set af11"];

const VERDICTS: &[&str] = &["accept", "drop", "return", "continue", "", "", "", ""];

/// Maps of verdicts, with two chains.
const MAPS: &[&str] = &[
    "th dport vmap { 0-79 : jump A, 80-100 : goto B, 443 : return }",
    "meta l4proto . th dport vmap { tcp . 80 : jump A, udp . 53 : goto B, udp . 7 : continue }",
    "iifname vmap { toclient : jump A, toserver : jump B }",
    "ct state . ct direction vmap { new . original : jump A, established . reply : goto B }",
    "meta mark vmap { 0 : jump A, 1-15 : goto B, * : return }",
    "tcp flags vmap { syn : jump A, syn|ack : goto B, rst : return }",
];

const V4_TRANSLATIONS: &[&str] = &[
    "tcp dport 81 redirect to :8080",
    "ip daddr 10.77.1.1 tcp dport 22 dnat ip to 10.77.2.2:80",
    "ip daddr . tcp dport { 10.77.1.1 . 22, 10.77.2.2 . 80 } dnat ip to 10.77.2.2:443",
    "dnat ip to ip daddr . tcp dport map { 10.77.1.1 . 22 : 10.77.2.2 . 80 }",
    "udp dport 99 dnat ip to 10.77.2.2:7",
    "udp dport 53 redirect",
];
const V6_TRANSLATIONS: &[&str] = &[
    "tcp dport 81 redirect to :8080",
    "ip6 daddr fd77:1::1 tcp dport 22 dnat ip6 to [fd77:2::2]:80",
    "udp dport 99 dnat ip6 to [fd77:2::2]:7",
];
const V4_SOURCES: &[&str] = &[
    "masquerade",
    "oifname toserver snat ip to 10.77.2.1",
    "ip saddr 10.78.0.0/17 masquerade random",
    "meta l4proto { tcp, udp } masquerade to :6000-6999",
];
const V6_SOURCES: &[&str] = &["masquerade", "oifname toserver snat ip6 to fd77:2::1"];

const FAMILIES: [Family; 3] = [
    Family {
        name: "ip",
        conditions: &[V4, COMMON],
        translations: V4_TRANSLATIONS,
        sources: V4_SOURCES,
    },
    Family {
        name: "ip6",
        conditions: &[V6, COMMON],
        translations: V6_TRANSLATIONS,
        sources: V6_SOURCES,
    },
    Family {
        name: "inet",
        conditions: &[V4, V6, COMMON, COMMON],
        translations: &["tcp dport 81 redirect to :8080", "udp dport 53 redirect"],
        sources: &["masquerade"],
    },
];

const BASES: [(&str, &str, i32); 13] = [
    ("filter", "prerouting", -300),
    ("filter", "prerouting", -150),
    ("nat", "prerouting", -100),
    ("filter", "prerouting", -50),
    ("filter", "input", 0),
    ("filter", "forward", -50),
    ("filter", "forward", 0),
    ("filter", "output", -300),
    ("nat", "output", -100),
    ("route", "output", -150),
    ("filter", "output", 0),
    ("filter", "postrouting", -150),
    ("nat", "postrouting", 100),
];

/// Levels of user chains, two chains on each.
const LEVELS: usize = 2;

/// The ruleset of a number.
pub(crate) fn generate(number: u32) -> Ruleset {
    let mut random = Random::new(u64::from(number) + 0x1a4e);
    let mut text = format!("flush ruleset\n{}", tracing());
    for family in FAMILIES {
        if !random.chance(70) {
            continue;
        }
        let _ = writeln!(text, "table {} t {{", family.name);
        if family.name != "ip6" {
            text.push_str(
                "set changing { type ipv4_addr; flags dynamic, timeout; size 100; }\n\
                 set timed { type ipv4_addr; flags timeout; elements = { 10.77.2.2 timeout 1h } }\n",
            );
        }
        for (index, (kind, hook, priority)) in BASES.into_iter().enumerate() {
            if !random.chance(55) {
                continue;
            }
            let policy = if kind == "filter" && random.chance(8) { "drop" } else { "accept" };
            // Equal priorities happen, too.
            let priority = priority + [0, 1, 2][random.below(3)];
            let _ = writeln!(
                text,
                "chain {hook}{index} {{ type {kind} hook {hook} priority {priority}; policy {policy};"
            );
            for _ in 0..=random.below(6) {
                let rule = match kind {
                    "nat" => nat(family, hook, &mut random),
                    _ => rule(family, 0, kind != "route", &mut random),
                };
                let _ = writeln!(text, "{rule}");
            }
            text.push_str("}\n");
        }
        for level in 1..=LEVELS {
            for twin in ['a', 'b'] {
                let _ = writeln!(text, "chain user{level}{twin} {{");
                for _ in 0..random.below(5) {
                    let _ = writeln!(text, "{}", rule(family, level, false, &mut random));
                }
                text.push_str("}\n");
            }
        }
        text.push_str("}\n");
    }
    // What is called must be there before it is.
    let loads = vec![("nft", text)];
    Ruleset { kind: Kind::NftBare, number, loads, chains: Vec::new() }
}

/// The ruleset without the rules that nft does not take: conditions are put together by chance, and some exclude
/// each other.
pub(crate) fn without_contradictions(mut ruleset: Ruleset, host: &Host) -> Ruleset {
    if ruleset.kind != Kind::NftBare {
        return ruleset;
    }
    let text = &mut ruleset.loads[0].1;
    while let Err(error) = host.run_with_input(["nft", "-f", "-"], text) {
        let error = format!("{error:#}");
        let line = error.split("/dev/stdin:").nth(1).and_then(|at| at.split(':').next());
        let line: usize = line.and_then(|line| line.parse().ok()).expect(&error);
        *text = text.lines().enumerate().fold(String::new(), |mut kept, (index, own)| {
            if index + 1 != line {
                kept.push_str(own);
                kept.push('\n');
            }
            kept
        });
    }
    ruleset
}

fn conditions(family: Family, random: &mut Random) -> Vec<String> {
    let mut conditions = Vec::new();
    for list in family.conditions {
        if random.chance(30) {
            conditions.push(random.pick(list).to_owned());
        }
    }
    if random.chance(3) {
        conditions.push(random.pick(UNDECIDED).to_owned());
    }
    conditions
}

fn rule(family: Family, level: usize, drops: bool, random: &mut Random) -> String {
    let mut parts = conditions(family, random);
    if random.chance(30) {
        parts.push(random.pick(STATEMENTS).to_owned());
    }
    if random.chance(4) {
        let own = if family.name == "ip6" { V6_STATEMENTS } else { V4_STATEMENTS };
        parts.push(random.pick(own).to_owned());
    }
    let called = |random: &mut Random| format!("user{}{}", level + 1, random.pick(&['a', 'b']));
    let verdict = match random.below(10) {
        0..4 if level < LEVELS => {
            let word = random.pick(&["jump", "jump", "goto"]);
            format!("{word} {}", called(random))
        }
        4 if level < LEVELS => {
            let (one, other) = (called(random), called(random));
            random.pick(MAPS).replace('A', &one).replace('B', &other)
        }
        5 if drops && random.chance(50) => "reject".to_owned(),
        _ => random.pick(VERDICTS).to_owned(),
    };
    parts.push(match verdict.as_str() {
        "drop" if random.chance(60) => String::new(),
        _ => verdict,
    });
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "counter".to_owned() } else { parts.join(" ") }
}

fn nat(family: Family, hook: &str, random: &mut Random) -> String {
    if random.chance(40) {
        return rule(family, LEVELS, false, random);
    }
    let translation = match hook {
        "postrouting" => random.pick(family.sources),
        _ => random.pick(family.translations),
    };
    if translation.contains("daddr") {
        return translation.to_owned();
    }
    let mut parts = conditions(family, random);
    parts.truncate(1);
    parts.push(translation.to_owned());
    parts.join(" ")
}
