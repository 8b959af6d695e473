//! Rules: conditions and a target.

use super::{Family, Group, LEVELS, Random, TWINS, user_chain};

const V4: [&str; 7] = [
    "-s 10.78.0.0/17",
    "-s 10.78.128.0/17",
    "-d 10.77.2.2/32",
    "-d 10.77.1.1/32",
    "! -s 10.77.2.2/32",
    "-s 10.77.0.0/16",
    "-m ttl --ttl-lt 64",
];

const V6: [&str; 7] = [
    "-s fd78::1:0/112",
    "-s fd78::2:0/112",
    "-d fd77:2::2/128",
    "-d fd77:1::1/128",
    "! -s fd77:2::2/128",
    "-s fd77::/16",
    "-m hl --hl-lt 64",
];

const TRANSPORT: [&str; 12] = [
    "-p tcp",
    "-p udp",
    "! -p udp",
    "-p tcp -m tcp --dport 80",
    "-p tcp -m multiport --dports 80,443",
    "-p tcp -m tcp --dport 20:100",
    "-p udp -m udp --dport 7",
    "-p udp -m multiport --dports 7,9,53",
    "-p udp -m udp --sport 53",
    "-p tcp -m tcp --tcp-flags SYN,ACK SYN",
    "-p udp -m udp ! --dport 9",
    "-p tcp -m tcp --sport 80",
];

const OTHER: [&str; 13] = [
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate INVALID,UNTRACKED",
    "-m conntrack --ctstate DNAT",
    "-m conntrack --ctdir ORIGINAL",
    "-m state --state NEW,ESTABLISHED",
    "-m mark --mark 0x1",
    "-m mark ! --mark 0x0",
    "-m connmark --mark 0x2",
    "-m connmark --mark 0x0",
    "-m addrtype --dst-type LOCAL",
    "-m length --length 0:80",
    "-m comment --comment \"for all -j DROP\"",
];

/// The rule without `-A CHAIN`.
pub(super) fn rule(
    family: Family,
    group: &Group,
    chain: &str,
    level: usize,
    random: &mut Random,
) -> String {
    let (transport, target) = target(family, group, level, random);
    let mut words = Vec::new();
    if random.chance(25) {
        words.push(random.pick(if family == Family::V4 { &V4 } else { &V6 }));
    }
    match transport {
        Some(transport) => words.push(transport),
        None if random.chance(40) => words.push(match (random.below(8), family) {
            (0, Family::V4) => "-p icmp -m icmp --icmp-type 8",
            (0, Family::V6) => "-p ipv6-icmp -m icmp6 --icmpv6-type 128",
            _ => random.pick(&TRANSPORT),
        }),
        None => {}
    }
    // Names of devices are refused in builtin chains where there can be none.
    if random.chance(12) && !matches!(chain, "OUTPUT" | "POSTROUTING") {
        words.push(random.pick(&["-i toclient", "-i toserver", "-i to+"]));
    } else if random.chance(12) && !matches!(chain, "PREROUTING" | "INPUT") {
        words.push(random.pick(&["-o toserver", "! -o toserver"]));
    }
    if random.chance(30) {
        words.push(random.pick(&OTHER));
    }
    words.push(&target);
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// What the target needs to know of the transport protocol, and the target.
fn target(
    family: Family,
    group: &Group,
    level: usize,
    random: &mut Random,
) -> (Option<&'static str>, String) {
    let calls = usize::from(level < LEVELS);
    let only = |wanted: bool| usize::from(wanted);
    let kind = random.weighted(&[
        (14, ""),
        (8 + 12 * only(group.table == "mangle"), "MARK"),
        (5 + 10 * only(group.table == "mangle"), "CONNMARK"),
        (22 * calls, "-j"),
        (7 * calls, "-g"),
        (8, "RETURN"),
        (8, "ACCEPT"),
        (2 * only(group.table != "nat"), "DROP"),
        (4 * only(group.table == "filter"), "REJECT"),
        (8 * only(group.table == "raw"), "CT --notrack"),
        (30 * only(group.table == "nat"), "NAT"),
    ]);
    let target = match kind {
        "" => String::new(),
        "MARK" => random
            .pick(&[
                "-j MARK --set-xmark 0x1/0xffffffff",
                "-j MARK --set-xmark 0x2/0xffffffff",
                "-j MARK --set-xmark 0x10/0x10",
                "-j MARK --set-xmark 0x0/0xffffffff",
            ])
            .to_owned(),
        "CONNMARK" => random
            .pick(&[
                "-j CONNMARK --set-xmark 0x1/0xffffffff",
                "-j CONNMARK --set-xmark 0x2/0xffffffff",
                "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
                "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            ])
            .to_owned(),
        "-j" | "-g" => {
            format!("{kind} {}", user_chain(group, level + 1, random.pick(&TWINS)))
        }
        "REJECT" => return reject(family, random),
        "NAT" => return nat(family, group, random),
        other => format!("-j {other}"),
    };
    (None, target)
}

fn reject(family: Family, random: &mut Random) -> (Option<&'static str>, String) {
    if random.chance(35) {
        return (Some("-p tcp"), "-j REJECT --reject-with tcp-reset".to_owned());
    }
    let how = match family {
        Family::V4 => random.pick(&["icmp-port-unreachable", "icmp-host-prohibited"]),
        Family::V6 => random.pick(&["icmp6-port-unreachable", "icmp6-adm-prohibited"]),
    };
    (None, format!("-j REJECT --reject-with {how}"))
}

fn nat(family: Family, group: &Group, random: &mut Random) -> (Option<&'static str>, String) {
    const V4: [(Option<&str>, &str); 5] = [
        (Some("-p tcp -m tcp --dport 22"), "DNAT --to-destination 10.77.2.2:80"),
        (Some("-p udp -m udp --dport 53"), "DNAT --to-destination 10.77.2.2"),
        (Some("-p tcp -m tcp --dport 80"), "DNAT --to-destination 10.77.2.2:443"),
        (Some("-p udp -m udp --dport 99"), "REDIRECT --to-ports 7"),
        (Some("-p tcp -m tcp --dport 81"), "REDIRECT --to-ports 8080"),
    ];
    const V6: [(Option<&str>, &str); 5] = [
        (Some("-p tcp -m tcp --dport 22"), "DNAT --to-destination [fd77:2::2]:80"),
        (Some("-p udp -m udp --dport 53"), "DNAT --to-destination fd77:2::2"),
        (Some("-p tcp -m tcp --dport 80"), "DNAT --to-destination [fd77:2::2]:443"),
        (Some("-p udp -m udp --dport 99"), "REDIRECT --to-ports 7"),
        (Some("-p tcp -m tcp --dport 81"), "REDIRECT --to-ports 8080"),
    ];
    let v4 = family == Family::V4;
    let (transport, target) = match group.prefix {
        "dst" => random.pick(if v4 { &V4 } else { &V6 }),
        "src" if v4 => random.pick(&[
            (None, "MASQUERADE"),
            (None, "SNAT --to-source 10.77.2.1"),
            (Some("-p udp"), "SNAT --to-source 10.77.2.1:5000-5999"),
            (Some("-p tcp"), "MASQUERADE --to-ports 6000-6999"),
        ]),
        "src" => random.pick(&[
            (None, "MASQUERADE"),
            (None, "SNAT --to-source fd77:2::1"),
            (Some("-p udp"), "SNAT --to-source [fd77:2::1]:5000-5999"),
            (Some("-p tcp"), "MASQUERADE --to-ports 6000-6999"),
        ]),
        _ if v4 => (None, "SNAT --to-source 10.77.1.2"),
        _ => (None, "SNAT --to-source fd77:1::2"),
    };
    (transport, format!("-j {target}"))
}
