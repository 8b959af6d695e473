//! Decoded matches in iptables-save's words.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker::firewall::evaluate::packet::Side;
use conntracker::firewall::evaluate::xt::address::{AddrType, IpRange, Limit};
use conntracker::firewall::evaluate::xt::compare::Range;
use conntracker::firewall::evaluate::xt::conntrack::{self, Conntrack, EntryAddress};
use conntracker::firewall::evaluate::xt::meta::{DevGroup, Owner};
use conntracker::firewall::evaluate::xt::multiport::Multiport;
use conntracker::firewall::evaluate::xt::network::{Ecn, Tos, Ttl};
use conntracker::firewall::evaluate::xt::tcp::{Ports, Tcp};
use conntracker::firewall::evaluate::xt::transport::{Dccp, Icmp};
use conntracker::firewall::evaluate::xt::u32_match::{U32, U32Operation};
use conntracker::firewall::evaluate::xt::{Match, Statistic};
use conntracker::firewall::legacy::entries::{DeviceMatch, HeaderMatch};
use conntracker::model::path::Direction;

pub fn not(inverted: bool) -> &'static str {
    if inverted { "! " } else { "" }
}

/// `5` or `5:9`.
fn numbers<T: Display + PartialEq>(Range { first, last, .. }: &Range<T>, between: &str) -> String {
    if first == last { first.to_string() } else { format!("{first}{between}{last}") }
}

fn option<T: Display + PartialEq>(name: &str, range: &Range<T>) -> String {
    format!("{}--{name} {}", not(range.inverted), numbers(range, ":"))
}

/// `0x7` or `0x7/0xff`.
pub fn masked(value: u32, mask: u32) -> String {
    if mask == u32::MAX { format!("{value:#x}") } else { format!("{value:#x}/{mask:#x}") }
}

/// The names of bits that are set.
fn names(bits: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "NONE".to_owned() } else { set.join(",") }
}

/// The name, if any, under which iptables-save writes it, and the words behind it.
pub fn matched(found: &Match, name: &str, alias: bool, v6: bool) -> String {
    let words = match found {
        Match::AddrType(of) => addrtype(of),
        Match::Ah(of) => option("ahspi", &of.spis),
        Match::Connlabel(of) => {
            let set = if of.sets { " --set" } else { "" };
            format!("{}--label \"{}\"{set}", not(of.inverted), of.bit)
        }
        Match::Connmark(of) => {
            format!("{}--mark {}", not(of.inverted), masked(of.mark, of.mask))
        }
        Match::Conntrack(of) if alias => {
            let (states, inverted) = of.states.unwrap();
            return format!("-m state {}--state {}", not(inverted), state_names(states));
        }
        Match::Conntrack(of) => conntrack_words(of, v6),
        Match::Dccp(of) => dccp(of),
        Match::DevGroup(of) => devgroup(of),
        Match::Ecn(of) => ecn(of),
        Match::Esp(of) => option("espspi", &of.spis),
        Match::Eui64 => String::new(),
        Match::Helper(of) => format!("{}--helper {}", not(of.inverted), of.name),
        Match::Icmp(of) => icmp(of, v6),
        Match::IpComp(of) => option("ipcompspi", &of.cpis),
        Match::IpRange(of) => iprange(of, v6),
        Match::Length(of) => option("length", &of.lengths),
        Match::Mac(of) => {
            let bytes: Vec<String> = of.address.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}--mac-source {}", not(of.inverted), bytes.join(":"))
        }
        Match::Mark(of) => format!("{}--mark {}", not(of.inverted), masked(of.mark, of.mask)),
        Match::Mobility(of) => option("mh-type", &of.types),
        Match::Multiport(of) => multiport(of),
        Match::Owner(of) => owner(of),
        Match::PktType(of) => {
            let kind = ["unicast", "broadcast", "multicast"][of.kind as usize];
            format!("{}--pkt-type {kind}", not(of.inverted))
        }
        Match::Sctp(of) => ports(&of.ports).join(" "),
        Match::Statistic(of) => statistic(of),
        Match::Tcp(of) => tcp(of),
        Match::TcpMss(of) => option("mss", &of.sizes),
        Match::Tos(of) if name == "dscp" => {
            format!("{}--dscp 0x{:02x}", not(of.inverted), of.value >> 2)
        }
        Match::Tos(Tos { value, mask, inverted }) => {
            format!("{}--tos 0x{value:02x}/0x{mask:02x}", not(*inverted))
        }
        Match::Ttl(of) => ttl(*of, name),
        Match::U32(of) => u32_match(of),
        Match::Udp(of) => ports(&of.ports).join(" "),
        other => panic!("{other:?} is not rendered"),
    };
    format!("-m {name} {words}").trim_end().to_owned()
}

fn ports(Ports { source, destination }: &Ports) -> Vec<String> {
    [("sport", source), ("dport", destination)]
        .into_iter()
        .filter(|(_, range)| (range.first, range.last, range.inverted) != (0, u16::MAX, false))
        .map(|(name, range)| option(name, range))
        .collect()
}

fn flags(flags: u8) -> String {
    const NAMES: [(u32, &str); 6] =
        [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG")];
    names(flags.into(), &NAMES)
}

fn tcp(of: &Tcp) -> String {
    let mut words = ports(&of.ports);
    if of.option != 0 {
        words.push(format!("{}--tcp-option {}", not(of.option_inverted), of.option));
    }
    let (mask, set) = of.flags;
    if (mask, set) != (0, 0) {
        let not = not(of.flags_inverted);
        words.push(format!("{not}--tcp-flags {} {}", flags(mask), flags(set)));
    }
    words.join(" ")
}

fn multiport(Multiport { side, ports, inverted }: &Multiport) -> String {
    let option = match side {
        Some(Side::Source) => "sports",
        Some(Side::Destination) => "dports",
        None => "ports",
    };
    let ports: Vec<String> = ports
        .iter()
        .map(|&(first, last)| numbers(&Range { first, last, inverted: false }, ":"))
        .collect();
    format!("{}--{option} {}", not(*inverted), ports.join(","))
}

fn state_names(states: u16) -> String {
    let all = [
        (conntrack::INVALID, "INVALID"),
        (conntrack::NEW, "NEW"),
        (conntrack::RELATED, "RELATED"),
        (conntrack::ESTABLISHED, "ESTABLISHED"),
        (conntrack::UNTRACKED, "UNTRACKED"),
        (conntrack::SNAT, "SNAT"),
        (conntrack::DNAT, "DNAT"),
    ];
    names(states.into(), &all.map(|(bit, name)| (bit.into(), name)))
}

fn conntrack_words(of: &Conntrack, v6: bool) -> String {
    const SIDES: [&str; 4] = ["ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"];
    let mut words = Vec::new();
    if let Some((states, inverted)) = of.states {
        words.push(format!("{}--ctstate {}", not(inverted), state_names(states)));
    }
    if let Some((protocol, inverted)) = of.protocol {
        words.push(format!("{}--ctproto {protocol}", not(inverted)));
    }
    for (name, address) in SIDES.iter().zip(&of.addresses) {
        if let Some(EntryAddress { address, mask, inverted }) = address {
            let (address, mask) = (union(address, v6), union(mask, v6));
            words.push(format!("{}--{name} {}", not(*inverted), network(address, mask)));
        }
    }
    for (name, port) in SIDES.iter().zip(&of.ports) {
        words.extend(port.as_ref().map(|range| option(&format!("{name}port"), range)));
    }
    if let Some((status, inverted)) = of.status {
        const NAMES: [(u32, &str); 4] =
            [(1, "EXPECTED"), (2, "SEEN_REPLY"), (4, "ASSURED"), (8, "CONFIRMED")];
        words.push(format!("{}--ctstatus {}", not(inverted), names(status.into(), &NAMES)));
    }
    words.extend(of.expires.as_ref().map(|range| option("ctexpire", range)));
    words.extend(of.direction.map(|direction| match direction {
        Direction::Original => "--ctdir ORIGINAL".to_owned(),
        Direction::Reply => "--ctdir REPLY".to_owned(),
    }));
    words.join(" ")
}

/// `union nf_inet_addr`.
pub fn union(bytes: &[u8; 16], v6: bool) -> IpAddr {
    match bytes {
        [a, b, c, d, ..] if !v6 => Ipv4Addr::new(*a, *b, *c, *d).into(),
        bytes => Ipv6Addr::from(*bytes).into(),
    }
}

/// `ADDRESS` or `ADDRESS/PREFIX`.
fn network(address: IpAddr, mask: IpAddr) -> String {
    let (prefix, all) = match mask {
        IpAddr::V4(mask) => (u32::from(mask).leading_ones(), 32),
        IpAddr::V6(mask) => (u128::from(mask).leading_ones(), 128),
    };
    if prefix == all { address.to_string() } else { format!("{address}/{prefix}") }
}

fn iprange(of: &IpRange, v6: bool) -> String {
    let all = [("src-range", &of.source), ("dst-range", &of.destination)];
    let words: Vec<String> = all
        .into_iter()
        .filter_map(|(name, range)| {
            let Range { first, last, inverted } = range.as_ref()?;
            let (first, last) = (union(first, v6), union(last, v6));
            Some(format!("{}--{name} {first}-{last}", not(*inverted)))
        })
        .collect();
    words.join(" ")
}

fn addrtype(of: &AddrType) -> String {
    const NAMES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let bits: Vec<(u32, &str)> = (0..).map(|bit| 1 << bit).zip(NAMES).collect();
    let mut words = Vec::new();
    for (name, (types, inverted)) in [("src-type", of.source), ("dst-type", of.destination)] {
        if types != 0 {
            words.push(format!("{}--{name} {}", not(inverted), names(types.into(), &bits)));
        }
    }
    match of.limit {
        Some(Limit::Input) => words.push("--limit-iface-in".to_owned()),
        Some(Limit::Output) => words.push("--limit-iface-out".to_owned()),
        None => {}
    }
    words.join(" ")
}

fn dccp(of: &Dccp) -> String {
    const NAMES: [&str; 11] = [
        "REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC",
        "SYNCACK", "INVALID",
    ];
    let bits: Vec<(u32, &str)> = (0..).map(|bit| 1 << bit).zip(NAMES).collect();
    let mut words = ports(&of.ports);
    if let Some((types, inverted)) = of.types {
        words.push(format!("{}--dccp-types {}", not(inverted), names(types.into(), &bits)));
    }
    if let Some((option, inverted)) = of.option {
        words.push(format!("{}--dccp-option {option}", not(inverted)));
    }
    words.join(" ")
}

fn devgroup(of: &DevGroup) -> String {
    let all = [("src-group", of.input), ("dst-group", of.output)];
    let words = all.into_iter().filter_map(|(name, group)| {
        let (group, mask, inverted) = group?;
        Some(format!("{}--{name} {}", not(inverted), masked(group, mask)))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn ecn(of: &Ecn) -> String {
    let mut words = Vec::new();
    for (name, set) in [("ecn-tcp-ece", of.ece), ("ecn-tcp-cwr", of.cwr)] {
        words.extend(set.map(|set| format!("{}--{name}", not(!set))));
    }
    words.extend(of.ip.map(|(ect, inverted)| format!("{}--ecn-ip-ect {ect}", not(inverted))));
    words.join(" ")
}

fn icmp(Icmp { kind, codes, inverted }: &Icmp, v6: bool) -> String {
    let option = if v6 { "icmpv6-type" } else { "icmp-type" };
    let kind = match (kind, codes) {
        (None, _) => "any".to_owned(),
        (Some(kind), (0, 0xff)) => kind.to_string(),
        (Some(kind), (code, _)) => format!("{kind}/{code}"),
    };
    format!("{}--{option} {kind}", not(*inverted))
}

fn owner(of: &Owner) -> String {
    let mut words = Vec::new();
    words.extend(of.socket.map(|exists| format!("{}--socket-exists", not(!exists))));
    for (name, range) in [("uid-owner", &of.users), ("gid-owner", &of.groups)] {
        words.extend(
            range
                .as_ref()
                .map(|range| format!("{}--{name} {}", not(range.inverted), numbers(range, "-"))),
        );
    }
    if of.supplementary {
        words.push("--suppl-groups".to_owned());
    }
    words.join(" ")
}

fn statistic(of: &Statistic) -> String {
    match *of {
        Statistic::Random(share, inverted) => {
            let share = f64::from(share) / f64::from(1_u32 << 31);
            format!("--mode random {}--probability {share:.11}", not(inverted))
        }
        Statistic::Nth(every, inverted) => {
            format!("--mode nth {}--every {every} --packet 0", not(inverted))
        }
    }
}

fn ttl(of: Ttl, name: &str) -> String {
    match of {
        Ttl::Equal(value) => format!("--{name}-eq {value}"),
        Ttl::NotEqual(value) => format!("! --{name}-eq {value}"),
        Ttl::Less(value) => format!("--{name}-lt {value}"),
        Ttl::Greater(value) => format!("--{name}-gt {value}"),
    }
}

fn u32_match(U32 { tests, inverted }: &U32) -> String {
    let tests: Vec<String> = tests
        .iter()
        .map(|test| {
            let mut text = format!("{:#x}", test.offset);
            for (operation, number) in &test.steps {
                text += match operation {
                    U32Operation::And => "&",
                    U32Operation::ShiftLeft => "<<",
                    U32Operation::ShiftRight => ">>",
                    U32Operation::At => "@",
                };
                text += &format!("{number:#x}");
            }
            let value = |&(first, last): &(u32, u32)| {
                if first == last { format!("{first:#x}") } else { format!("{first:#x}:{last:#x}") }
            };
            format!("{text}={}", test.values.iter().map(value).collect::<Vec<_>>().join(","))
        })
        .collect();
    format!("{}--u32 \"{}\"", not(*inverted), tests.join("&&"))
}

/// Address, devices, protocol and fragment, as they stand before the matches.
pub fn header(header: &HeaderMatch, v6: bool) -> Vec<String> {
    let mut words = Vec::new();
    let address = |number: u128| -> IpAddr {
        if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
    };
    for (option, of) in ["-s", "-d"].into_iter().zip(&header.addresses) {
        if of.mask != 0 || of.inverted {
            // iptables-save writes the prefix always.
            let (is, mask) = (address(of.value), address(of.mask));
            let prefix = if v6 { of.mask.leading_ones() } else { (of.mask as u32).leading_ones() };
            assert_eq!(network(is, mask).split('/').next(), Some(is.to_string().as_str()));
            words.push(format!("{}{option} {is}/{prefix}", not(of.inverted)));
        }
    }
    for (option, DeviceMatch { name, mask, inverted }) in
        ["-i", "-o"].into_iter().zip(&header.devices)
    {
        if mask[0] != 0 {
            let end = name.iter().position(|byte| *byte == 0).unwrap();
            let wildcard = name[end - 1] == b'+';
            assert_eq!(wildcard, mask[end] == 0, "the zero behind a whole name is compared");
            let name = String::from_utf8_lossy(&name[..end]).into_owned();
            words.push(format!("{}{option} {name}", not(*inverted)));
        }
    }
    if let Some((protocol, inverted)) = header.protocol {
        words.push(format!("{}-p {}", not(inverted), protocol_name(protocol)));
    }
    if header.fragment.0 {
        words.push(format!("{}-f", not(header.fragment.1)));
    }
    words
}

/// As /etc/protocols and iptables have it.
fn protocol_name(protocol: u16) -> String {
    let name = match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        108 => "ipcomp",
        132 => "sctp",
        135 => "mobility-header",
        other => return other.to_string(),
    };
    name.to_owned()
}
