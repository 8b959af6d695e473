//! Rules with random options, for every match and target that is decoded.

use conntracker_tests::rulesets::Random;

/// A rule: its table, its chain and the rest of the line. It need not be in the form in which iptables saves it.
#[derive(Clone, Debug)]
pub struct Generated {
    pub table: &'static str,
    pub chain: &'static str,
    pub words: String,
}

/// A match: protocols before it, and its options.
type Options = fn(&mut Random, bool) -> String;

const BOTH: [(&str, Options); 28] = [
    ("addrtype", addrtype),
    ("comment", |random, _| {
        let comment = random.pick(&["plain", "two words", "a \\\"quote\\\"", "-j DROP"]);
        format!("-m comment --comment \"{comment}\"")
    }),
    ("connlabel", |random, _| {
        let set = if random.chance(30) { " --set" } else { "" };
        format!("-m connlabel {}--label {}{set}", not(random), random.below(128))
    }),
    ("connmark", |random, _| format!("-m connmark {}--mark {}", not(random), mark(random))),
    ("conntrack", conntrack),
    ("dccp", dccp),
    ("devgroup", devgroup),
    ("dscp", |random, _| format!("-m dscp {}--dscp {}", not(random), random.below(64))),
    ("ecn", |random, _| {
        let not = not(random);
        let ip = if random.chance(50) { " --ecn-ip-ect 2" } else { "" };
        format!("-p tcp -m ecn {not}--ecn-tcp-ece --ecn-tcp-cwr{ip}")
    }),
    ("esp", |random, _| format!("-p esp -m esp {}--espspi {}", not(random), range(random, 99_999))),
    ("helper", |random, _| {
        format!("-m helper {}--helper {}", not(random), random.pick(&["ftp", "sip-5060"]))
    }),
    ("ipcomp", |random, _| {
        format!("-p ipcomp -m ipcomp {}--ipcompspi {}", not(random), range(random, 65_535))
    }),
    ("iprange", iprange),
    ("length", |random, _| format!("-m length {}--length {}", not(random), range(random, 65_535))),
    ("mac", |random, _| {
        let [a, b] = [random.below(256), random.below(256)];
        format!("-m mac {}--mac-source 02:00:{a:02x}:00:ff:{b:02x}", not(random))
    }),
    ("mark", |random, _| format!("-m mark {}--mark {}", not(random), mark(random))),
    ("multiport", multiport),
    ("owner", owner),
    ("pkttype", |random, _| {
        let kind = random.pick(&["unicast", "broadcast", "multicast"]);
        format!("-m pkttype {}--pkt-type {kind}", not(random))
    }),
    ("sctp", |random, _| format!("-p sctp -m sctp{}", ports(random))),
    ("state", |random, _| {
        format!("-m state {}--state {}", not(random), some(random, &STATES[..5]))
    }),
    ("statistic", |random, _| {
        if random.chance(50) {
            let share = random.pick(&["0", "0.25", "0.5", "1"]);
            format!("-m statistic --mode random {}--probability {share}", not(random))
        } else {
            let every = 1 + random.below(9);
            format!("-m statistic --mode nth {}--every {every} --packet 0", not(random))
        }
    }),
    ("tcp", tcp),
    ("tcpmss", |random, _| {
        format!("-p tcp -m tcpmss {}--mss {}", not(random), range(random, 9_999))
    }),
    ("tos", |random, _| {
        let [value, mask] = [random.below(256), random.below(256)];
        format!("-m tos {}--tos {value:#x}/{mask:#x}", not(random))
    }),
    ("u32", u32_match),
    ("udp", |random, _| format!("-p udp -m udp{}", ports(random))),
    ("header", header),
];

const V4: [(&str, Options); 3] = [
    ("icmp", |random, _| {
        let kind = random.pick(&["any", "0", "3", "3/1", "8", "11/0", "255"]);
        format!("-p icmp -m icmp {}--icmp-type {kind}", not(random))
    }),
    ("ah", |random, _| format!("-p ah -m ah {}--ahspi {}", not(random), range(random, 99_999))),
    ("ttl", |random, _| ttl(random, "ttl")),
];

const V6: [(&str, Options); 4] = [
    ("icmp6", |random, _| {
        let kind = random.pick(&["1", "1/4", "2", "128", "129", "133"]);
        format!("-p ipv6-icmp -m icmp6 {}--icmpv6-type {kind}", not(random))
    }),
    ("hl", |random, _| ttl(random, "hl")),
    ("mh", |random, _| {
        let first = random.below(10);
        format!("-p mobility-header -m mh {}--mh-type {first}:{}", not(random), first + 3)
    }),
    ("eui64", |_, _| "-m eui64".to_owned()),
];

/// A rule with a random match, or with several, and a random target.
pub fn generate(random: &mut Random, v6: bool) -> Generated {
    let all = BOTH.len() + if v6 { V6.len() } else { V4.len() };
    let own: &[(&str, Options)] = if v6 { &V6 } else { &V4 };
    let (name, options) = BOTH.iter().chain(own).nth(random.below(all)).copied().unwrap();
    let words = options(random, v6);
    let (table, chain, target) = target(random, v6, name);
    Generated { table, chain, words: format!("{words} {target}").trim_end().to_owned() }
}

fn target(random: &mut Random, v6: bool, name: &str) -> (&'static str, &'static str, String) {
    // Matches that are allowed at some hooks alone stay with a target that is allowed there.
    match name {
        "owner" => return ("filter", "OUTPUT", "-j ACCEPT".to_owned()),
        "mac" | "eui64" | "devgroup" | "addrtype" | "header" | "dccp" | "sctp" | "esp" | "ah"
        | "ipcomp" | "mh" => return ("filter", "INPUT", "-j DROP".to_owned()),
        _ => {}
    }
    let random_option = if random.chance(30) { " --random" } else { "" };
    let at = |port: usize| format!("{port}-{}", port + 9);
    let address =
        |host: usize| if v6 { format!("fd77::{host:x}") } else { format!("10.7.0.{host}") };
    let host = 1 + random.below(200);
    let mangle = |target: String| ("mangle", "PREROUTING", target);
    match random.below(16) {
        0 => mangle(format!("-j MARK --set-xmark {}", mark(random))),
        1 => mangle(format!("-j CONNMARK --set-xmark {}", mark(random))),
        2 | 3 => {
            let kind = random.pick(&["save", "restore"]);
            let [nf, ct] = [random.below(256), random.below(256)];
            mangle(format!("-j CONNMARK --{kind}-mark --nfmask {nf:#x} --ctmask {ct:#x}"))
        }
        4 if v6 => {
            let with = random.pick(&["icmp6-adm-prohibited", "icmp6-port-unreachable"]);
            ("filter", "FORWARD", format!("-j REJECT --reject-with {with}"))
        }
        4 => {
            let with = random.pick(&["icmp-net-unreachable", "icmp-admin-prohibited"]);
            ("filter", "FORWARD", format!("-j REJECT --reject-with {with}"))
        }
        5 => {
            let to = format!("{}-{}", address(host), address(host + 5));
            let kept = if random.chance(30) { " --persistent" } else { "" };
            ("nat", "POSTROUTING", format!("-j SNAT --to-source {to}{random_option}{kept}"))
        }
        6 => (
            "nat",
            "PREROUTING",
            format!("-j DNAT --to-destination {}{random_option}", address(host)),
        ),
        7 => ("nat", "POSTROUTING", format!("-j MASQUERADE{random_option}")),
        8 if v6 => ("nat", "PREROUTING", "-j NETMAP --to fd99::/64".to_owned()),
        8 => ("nat", "PREROUTING", format!("-j NETMAP --to 10.9.{host}.0/24")),
        9 => ("raw", "PREROUTING", "-j CT --notrack".to_owned()),
        10 => ("raw", "PREROUTING", format!("-j CT --zone {host}")),
        11 => {
            let (target, option) = if v6 { ("HL", "hl") } else { ("TTL", "ttl") };
            let how = random.pick(&["set", "inc", "dec"]);
            mangle(format!("-j {target} --{option}-{how} {host}"))
        }
        12 => mangle(format!("-j DSCP --set-dscp {}", random.below(64))),
        13 => mangle(format!("-j TOS --set-tos {host:#x}/{:#x}", random.below(256))),
        14 => ("mangle", "POSTROUTING", format!("-j CLASSIFY --set-class {host:x}:{:x}", host + 1)),
        // A protocol with ports of its own.
        _ if name == "tcp" && random.chance(60) => {
            let target = match random.below(3) {
                0 => format!("-j REDIRECT --to-ports {}{random_option}", at(8000)),
                1 => format!("-j DNAT --to-destination :{}", at(7000)),
                _ => "-j REJECT --reject-with tcp-reset".to_owned(),
            };
            let filter = target.contains("REJECT");
            if filter { ("filter", "INPUT", target) } else { ("nat", "PREROUTING", target) }
        }
        _ => ("filter", "INPUT", random.pick(&["", "-j ACCEPT", "-j RETURN", "-j LOG"]).to_owned()),
    }
}

fn not(random: &mut Random) -> &'static str {
    random.pick(&["", "", "! "])
}

/// One number, or two.
fn range(random: &mut Random, most: usize) -> String {
    let first = random.below(most);
    if random.chance(50) {
        return first.to_string();
    }
    format!("{first}:{}", first + 1 + random.below(most - first))
}

fn mark(random: &mut Random) -> String {
    let mark = random.below(0x1_0000);
    match random.below(3) {
        0 => format!("{mark:#x}"),
        1 => format!("{:#x}/0xff", mark & 0xff),
        _ => format!("{mark:#x}/0xffffffff"),
    }
}

/// Some of several names, at least one.
fn some(random: &mut Random, names: &[&str]) -> String {
    let mut chosen: Vec<&str> = names.iter().copied().filter(|_| random.chance(40)).collect();
    if chosen.is_empty() {
        chosen.push(names[random.below(names.len())]);
    }
    chosen.join(",")
}

/// Source and destination port, either or both.
fn ports(random: &mut Random) -> String {
    let mut words = String::new();
    for option in ["--sport", "--dport"] {
        if random.chance(60) {
            let (not, range) = (not(random), range(random, 65_535));
            words += &format!(" {not}{option} {range}");
        }
    }
    if words.is_empty() { " --dport 53".to_owned() } else { words }
}

const FLAGS: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];

fn tcp(random: &mut Random, _: bool) -> String {
    let mut words = format!("-p tcp -m tcp{}", ports(random));
    if random.chance(50) {
        let (not, mask, set) = (not(random), some(random, &FLAGS), some(random, &FLAGS));
        words += &format!(" {not}--tcp-flags {mask} {set}");
    }
    if random.chance(20) {
        words += &format!(" {}--tcp-option {}", not(random), 1 + random.below(250));
    }
    words
}

fn multiport(random: &mut Random, _: bool) -> String {
    let mut list = Vec::new();
    let mut count = 0;
    while count < 1 + random.below(14) {
        let port = range(random, 65_535);
        count += 1 + usize::from(port.contains(':'));
        list.push(port);
    }
    let option = random.pick(&["--sports", "--dports", "--ports"]);
    let protocol = random.pick(&["tcp", "udp", "sctp", "dccp"]);
    format!("-p {protocol} -m multiport {}{option} {}", not(random), list.join(","))
}

const STATES: [&str; 7] = ["INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"];

fn conntrack(random: &mut Random, v6: bool) -> String {
    let mut words = "-m conntrack".to_owned();
    let mut add = |percent, random: &mut Random, option: &str, value: String| {
        if random.chance(percent) {
            words += &format!(" {}--{option} {value}", not(random));
        }
    };
    let states = some(random, &STATES);
    add(70, random, "ctstate", states);
    for option in ["ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"] {
        let address = address(random, v6);
        add(20, random, option, address);
    }
    // Ports need a protocol, which comes before them.
    let with_ports = random.chance(30);
    if with_ports {
        add(100, random, "ctproto", random.clone().pick(&["6", "17"]).to_owned());
        for option in ["ctorigsrcport", "ctorigdstport", "ctreplsrcport", "ctrepldstport"] {
            let range = range(random, 65_535);
            add(40, random, option, range);
        }
    }
    let status = if random.chance(10) {
        "NONE".to_owned()
    } else {
        some(random, &["EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"])
    };
    add(30, random, "ctstatus", status);
    let expires = range(random, 9_999);
    add(20, random, "ctexpire", expires);
    if random.chance(30) || words == "-m conntrack" {
        words += random.pick(&[" --ctdir ORIGINAL", " --ctdir REPLY"]);
    }
    words
}

fn address(random: &mut Random, v6: bool) -> String {
    let [a, b] = [random.below(256), random.below(256)];
    if v6 {
        let prefix = random.pick(&[16, 48, 64, 120, 128]);
        format!("fd77:{a:x}::{b:x}/{prefix}")
    } else {
        let prefix = random.pick(&[8, 16, 20, 24, 32]);
        format!("10.{a}.0.{b}/{prefix}")
    }
}

fn iprange(random: &mut Random, v6: bool) -> String {
    let mut words = "-m iprange".to_owned();
    for option in ["--src-range", "--dst-range"] {
        if random.chance(60) || option == "--dst-range" && words == "-m iprange" {
            let first = random.below(200);
            let last = first + random.below(50);
            let range = if v6 {
                format!("fd77::{first:x}-fd77::{last:x}")
            } else {
                format!("10.0.0.{first}-10.0.0.{last}")
            };
            words += &format!(" {}{option} {range}", not(random));
        }
    }
    words
}

fn addrtype(random: &mut Random, v6: bool) -> String {
    let types: &[&str] = if v6 {
        &["UNICAST", "LOCAL", "ANYCAST", "MULTICAST", "UNREACHABLE"]
    } else {
        &[
            "UNSPEC",
            "UNICAST",
            "LOCAL",
            "BROADCAST",
            "ANYCAST",
            "MULTICAST",
            "BLACKHOLE",
            "UNREACHABLE",
        ]
    };
    let (not_source, source) = (not(random), some(random, types));
    let mut words = format!("-m addrtype {not_source}--src-type {source}");
    if random.chance(50) {
        let (not, to) = (not(random), some(random, types));
        words += &format!(" {not}--dst-type {to}");
    }
    if random.chance(20) && !v6 {
        words += " --limit-iface-in";
    }
    words
}

fn dccp(random: &mut Random, _: bool) -> String {
    let mut words = format!("-p dccp -m dccp{}", ports(random));
    if random.chance(50) {
        let (not, types) = (not(random), some(random, &["REQUEST", "DATA", "ACK", "RESET"]));
        words += &format!(" {not}--dccp-types {types}");
    }
    if random.chance(20) {
        words += &format!(" {}--dccp-option {}", not(random), 1 + random.below(250));
    }
    words
}

fn devgroup(random: &mut Random, _: bool) -> String {
    let mask = random.pick(&["", "/0xff"]);
    format!("-m devgroup {}--src-group {:#x}{mask}", not(random), random.below(256))
}

fn owner(random: &mut Random, _: bool) -> String {
    let mut words = "-m owner".to_owned();
    for option in ["uid", "gid"] {
        if random.chance(60) || option == "gid" && words == "-m owner" {
            let not = not(random);
            words += &format!(" {not}--{option}-owner {}", range(random, 60_000).replace(':', "-"));
        }
    }
    if words.contains("gid") && random.chance(30) {
        words += " --suppl-groups";
    }
    if random.chance(30) {
        words += &format!(" {}--socket-exists", not(random));
    }
    words
}

fn ttl(random: &mut Random, name: &str) -> String {
    let value = random.below(256);
    match random.below(4) {
        0 => format!("-m {name} --{name}-eq {value}"),
        1 => format!("-m {name} ! --{name}-eq {value}"),
        2 => format!("-m {name} --{name}-lt {value}"),
        _ => format!("-m {name} --{name}-gt {value}"),
    }
}

fn u32_match(random: &mut Random, _: bool) -> String {
    let mut tests = Vec::new();
    for _ in 0..=random.below(4) {
        let mut test = format!("{:#x}", random.below(40));
        for _ in 0..random.below(4) {
            let number = random.below(31);
            test += &format!("{}{number:#x}", random.pick(&["&", ">>", "<<", "@"]));
        }
        let first = random.below(1000);
        test += &format!("={first:#x}:{:#x},{:#x}", first + 9, first + 99);
        tests.push(test);
    }
    format!("-m u32 {}--u32 \"{}\"", not(random), tests.join("&&"))
}

fn header(random: &mut Random, v6: bool) -> String {
    let mut words = String::new();
    for option in ["-s", "-d"] {
        if random.chance(60) {
            let (not, address) = (not(random), address(random, v6));
            words += &format!("{not}{option} {address} ");
        }
    }
    if random.chance(50) {
        words += &format!("{}-i {} ", not(random), random.pick(&["eth0", "eth+", "wg-tunnel.1"]));
    }
    if random.chance(50) {
        words += &format!("{}-p {} ", not(random), random.pick(&["tcp", "udp", "200", "gre"]));
    }
    if !v6 && random.chance(30) {
        words += &format!("{}-f ", not(random));
    }
    words.trim_end().to_owned()
}
