//! Names that a filter asks for and that are not there now: a slip of the pen would look like an empty
//! report. They are told, not refused, for they may come later.

use std::io;

use nix::net::if_::if_nametoindex;

use crate::{
    firewall::{
        Ruleset,
        model::{Chain, Table},
    },
    model::{
        filter::{AnyOf, Filter, RuleFilter},
        path::{Site, SiteKind},
    },
    os::netns::Netns,
};

/// Helpers that the kernel has (net/netfilter/nf_conntrack_*.c); others are programs (nfct(8)).
const HELPERS: [&str; 13] = [
    "amanda",
    "ftp",
    "H.245",
    "irc",
    "netbios-ns",
    "pptp",
    "Q.931",
    "RAS",
    "sane",
    "sip",
    "snmp",
    "snmp_trap",
    "tftp",
];

/// One sentence for each name that is not there in any of the namespaces, as far as their rulesets were read.
pub(crate) fn missing<'a>(
    filter: &Filter,
    namespaces: &[&Netns],
    rulesets: impl Iterator<Item = &'a Ruleset>,
) -> Vec<String> {
    let mut said = helpers(filter);
    let names = filter.iif.0.iter().chain(&filter.oif.0).map(|term| &term.value);
    for name in names {
        let there = |netns: &&Netns| {
            let found = netns.enter(|| if_nametoindex(name.as_str()).map_err(io::Error::from));
            found.is_ok()
        };
        if !namespaces.iter().any(there) {
            said.push(format!("there is no interface `{name}` now"));
        }
    }
    let tables: Vec<&Table> = rulesets.flat_map(|ruleset| &ruleset.tables).collect();
    said.extend(rules(&filter.rule, &tables));
    said
}

/// Tells of names that conntrack's table alone can have.
pub(crate) fn tell(filter: &Filter) {
    for missing in helpers(filter) {
        log::warn!("{missing}");
    }
}

/// Of helpers it cannot be told whether they are there, only whether the kernel may bring them.
fn helpers(filter: &Filter) -> Vec<String> {
    let unknown = filter.helper.0.iter().filter(|term| !HELPERS.contains(&term.value.as_str()));
    unknown
        .map(|term| {
            format!(
                "the kernel has no helper `{}`; it has: {}. OtherFlows are programs (nfct(8))",
                term.value,
                HELPERS.join(", ")
            )
        })
        .collect()
}

fn rules(wanted: &AnyOf<RuleFilter>, tables: &[&Table]) -> Vec<String> {
    let nowhere = wanted.0.iter().filter(|term| !tables.iter().any(|t| is_in(&term.value, t)));
    nowhere.map(|term| format!("no chain and no rule is called `{}` now", term.value)).collect()
}

/// Whether a table has what a place names.
fn is_in(place: &RuleFilter, table: &Table) -> bool {
    let site = |chain: &Chain, numbers: Option<(u32, Option<u64>)>| Site {
        backend: table.backend,
        family: table.family,
        table: table.name.clone(),
        iptables: table.iptables,
        chain: chain.name.clone(),
        kind: if numbers.is_some() { SiteKind::Rule } else { SiteKind::Chain },
        position: numbers.map(|(position, _)| position),
        handle: numbers.and_then(|(_, handle)| handle),
        text: None,
    };
    table.chains.iter().any(|chain| {
        place.matches(&site(chain, None))
            || chain
                .rules
                .iter()
                .any(|rule| place.matches(&site(chain, Some((rule.position, rule.handle)))))
    })
}
