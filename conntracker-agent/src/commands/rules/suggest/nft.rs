//! Suggested rules for `nft -f`.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{self, Write},
};

use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6};

use super::{CHAINS, Services, comments, remark};
use crate::{
    firewall::analyse::suggest::{AcceptRule, Subnet, Suggestion},
    model::{hook::Hook, protocol},
};

/// What IPv6 cannot do without, and conntrack does not track: neighbours, routers, groups.
const NEIGHBOURS: &str = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, \
                          mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept";

pub(super) fn render(
    remarks: &[String],
    suggestion: &Suggestion,
    services: &Services,
    out: &mut dyn Write,
) -> io::Result<()> {
    comments(remarks, out)?;
    writeln!(out, "table inet suggested {{")?;
    for (hook, name, _) in CHAINS {
        writeln!(out, "\tchain {name} {{")?;
        writeln!(out, "\t\ttype filter hook {name} priority filter; policy drop;")?;
        match hook {
            Hook::Input => writeln!(out, "\t\tiif \"lo\" accept")?,
            Hook::Output => writeln!(out, "\t\toif \"lo\" accept")?,
            _ => {}
        }
        writeln!(out, "\t\tct state established,related accept")?;
        if hook != Hook::Forward {
            writeln!(out, "\t\t{NEIGHBOURS}")?;
        }
        for rule in suggestion.rules.iter().filter(|rule| rule.hook == hook) {
            writeln!(out, "\t\t# {}", remark(rule, services))?;
            writeln!(out, "\t\t{}", text(rule))?;
        }
        writeln!(out, "\t}}")?;
    }
    writeln!(out, "}}")
}

/// A rule in one line.
pub(super) fn text(rule: &AcceptRule) -> String {
    let AcceptRule { interfaces, v6, protocol, addresses, services, .. } = rule;
    let mut parts = Vec::new();
    for (word, name) in ["iifname", "oifname"].into_iter().zip(interfaces) {
        parts.extend(name.as_ref().map(|name| format!("{word} \"{name}\"")));
    }
    let family = if *v6 { "ip6" } else { "ip" };
    for (word, subnets) in ["saddr", "daddr"].into_iter().zip(addresses) {
        if !subnets.is_empty() {
            parts.push(format!(
                "{family} {word} {}",
                set(&subnets.iter().map(|of| subnet(*of)).collect())
            ));
        }
    }
    let service = match *protocol {
        IPPROTO_ICMP => Some("icmp type".to_owned()),
        IPPROTO_ICMPV6 => Some("icmpv6 type".to_owned()),
        of => protocol::name(of).map(|name| format!("{name} dport")),
    };
    match service.filter(|_| !services.is_empty()) {
        Some(service) => parts.push(format!("{service} {}", set(services))),
        None => parts.push(format!("meta l4proto {protocol}")),
    }
    parts.push("accept".to_owned());
    parts.join(" ")
}

/// An address or a subnet.
pub(super) fn subnet(of: Subnet) -> String {
    if of.is_single() { of.first.to_string() } else { format!("{}/{}", of.first, of.bits) }
}

/// One value, or a set.
fn set<T: Display>(values: &BTreeSet<T>) -> String {
    let all: Vec<String> = values.iter().map(ToString::to_string).collect();
    match &all[..] {
        [one] => one.clone(),
        _ => format!("{{ {} }}", all.join(", ")),
    }
}
