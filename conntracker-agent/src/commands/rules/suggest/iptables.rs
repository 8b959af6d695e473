//! Suggested rules for iptables-restore and ip6tables-restore.

use std::io::{self, Write};

use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6};

use super::{CHAINS, Language, Services, comments, nft::subnet, remark};
use crate::{
    firewall::analyse::suggest::{AcceptRule, Subnet, Suggestion},
    model::hook::Hook,
};

/// Ports of one `multiport` (XT_MULTI_PORTS).
const PORTS: usize = 15;

/// Types of ICMPv6 that IPv6 cannot do without, and conntrack does not track.
const NEIGHBOURS: [u8; 8] = [130, 131, 132, 133, 134, 135, 136, 143];

pub(super) fn render(
    language: Language,
    remarks: &[String],
    suggestion: &Suggestion,
    services: &Services,
    out: &mut dyn Write,
) -> io::Result<()> {
    comments(remarks, out)?;
    writeln!(out, "*filter")?;
    for (_, _, name) in CHAINS {
        writeln!(out, ":{name} DROP [0:0]")?;
    }
    for (hook, _, name) in CHAINS {
        match hook {
            Hook::Input => writeln!(out, "-A {name} -i lo -j ACCEPT")?,
            Hook::Output => writeln!(out, "-A {name} -o lo -j ACCEPT")?,
            _ => {}
        }
        writeln!(out, "-A {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")?;
        if language == Language::Ip6tables && hook != Hook::Forward {
            for kind in NEIGHBOURS {
                writeln!(out, "-A {name} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT")?;
            }
        }
        for rule in suggestion.rules.iter().filter(|rule| rule.hook == hook) {
            writeln!(out, "# {}", remark(rule, services))?;
            for line in lines(rule) {
                writeln!(out, "-A {name} {line} -j ACCEPT")?;
            }
        }
    }
    writeln!(out, "COMMIT")
}

/// The matches of the rules that one of ours is: iptables has no sets of addresses.
pub(super) fn lines(rule: &AcceptRule) -> Vec<String> {
    let AcceptRule { interfaces, protocol, addresses, services, .. } = rule;
    let mut before = String::new();
    for (option, name) in ["-i", "-o"].into_iter().zip(interfaces) {
        if let Some(name) = name {
            before.push_str(&format!("{option} {name} "));
        }
    }
    let options = |option: &str, subnets: &std::collections::BTreeSet<Subnet>| -> Vec<String> {
        if subnets.is_empty() {
            return vec![String::new()];
        }
        subnets.iter().map(|of| format!("{option} {} ", subnet(*of))).collect()
    };
    let [sources, destinations] = addresses;
    let services = parts(*protocol, &services.iter().copied().collect::<Vec<_>>());
    let mut lines = Vec::new();
    for source in options("-s", sources) {
        for destination in options("-d", destinations) {
            lines.extend(
                services.iter().map(|service| format!("{before}{source}{destination}{service}")),
            );
        }
    }
    lines
}

/// The protocol with its services, in as few rules as there can be.
fn parts(protocol: u8, services: &[u16]) -> Vec<String> {
    let name = match protocol {
        IPPROTO_ICMP => "icmp".to_owned(),
        IPPROTO_ICMPV6 => "ipv6-icmp".to_owned(),
        other => crate::model::protocol::name(other).map_or(other.to_string(), str::to_owned),
    };
    let each = |option: &str| -> Vec<String> {
        services.iter().map(|service| format!("-p {name} {option} {service}")).collect()
    };
    match (protocol, services) {
        (_, []) => vec![format!("-p {protocol}")],
        (IPPROTO_ICMP, _) => each("-m icmp --icmp-type"),
        (IPPROTO_ICMPV6, _) => each("-m icmp6 --icmpv6-type"),
        (_, [_]) => each(&format!("-m {name} --dport")),
        _ => services
            .chunks(PORTS)
            .map(|ports| {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("-p {name} -m multiport --dports {}", ports.join(","))
            })
            .collect(),
    }
}
