//! Thousands of option sets, loaded, decoded from the kernel's bytes and written as iptables-save writes them.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;

use conntracker::firewall::evaluate::unknown::{Attribute, Unknown};
use conntracker::firewall::evaluate::xt::{Match, Target};
use conntracker::firewall::legacy::entries::{XtExtension, XtRule, XtTable, XtTarget};
use conntracker::firewall::legacy::raw;
use conntracker::model::table::Family;
use conntracker::netlink::nftables::{dump::Dump, expression::Expression, ruleset};
use conntracker_tests::is_quick;
use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::rulesets::Random;

use crate::options::{Generated, generate};
use crate::{render, render_target};

const RULES: usize = 3_000;
const QUICK_RULES: usize = 600;

/// XT_CONNTRACK_STATE_ALIAS in `match_flags`: it was written as `state`.
const ALIAS: (usize, u8) = (147, 0x20);

const CONNBYTES: &str = "-m connbytes --connbytes 5: --connbytes-dir both --connbytes-mode packets";
const CLUSTER: &str =
    "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 1";

const TABLES: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING"]),
    ("mangle", &["PREROUTING", "POSTROUTING"]),
    ("nat", &["PREROUTING", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

fn rules(v6: bool) -> Vec<Generated> {
    let count = env::var("CONNTRACKER_XT_RULES").map_or_else(
        |_| if is_quick() { QUICK_RULES } else { RULES },
        |count| count.parse().unwrap(),
    );
    let mut random = Random::new(4_000_000 + u64::from(v6));
    (0..count).map(|_| generate(&mut random, v6)).collect()
}

/// Loads the rules, and returns them as they are saved: by table and chain, in order.
fn load(
    host: &Host,
    program: &str,
    rules: &[Generated],
) -> BTreeMap<(String, String), Vec<String>> {
    let mut text = String::new();
    for (table, _) in TABLES {
        writeln!(text, "*{table}").unwrap();
        for rule in rules.iter().filter(|rule| rule.table == table) {
            writeln!(text, "-A {} {}", rule.chain, rule.words).unwrap();
        }
        text.push_str("COMMIT\n");
    }
    let restore = format!("{program}-restore");
    host.run_with_input([restore.as_str()], &text).unwrap();
    let saved = host.run([format!("{program}-save")]).unwrap();
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, words) = rule.split_once(' ').unwrap_or((rule, ""));
            found.entry((table.clone(), chain.to_owned())).or_default().push(words.to_owned());
        }
    }
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), rules.len());
    found
}

fn match_words(XtExtension { name, revision, info }: &XtExtension, v6: bool) -> String {
    if name == "comment" {
        let end = info.iter().position(|byte| *byte == 0).unwrap();
        let text = String::from_utf8_lossy(&info[..end]).replace('"', "\\\"");
        let quoted = text.contains([' ', '"']) || text.starts_with('-');
        return if quoted {
            format!("-m comment --comment \"{text}\"")
        } else {
            format!("-m comment --comment {text}")
        };
    }
    let found = Match::decode(name, (*revision).into(), info);
    let (at, bit) = ALIAS;
    let alias = name == "conntrack" && info[at] & bit != 0;
    render::matched(&found, name, alias, v6)
}

/// A rule in iptables-save's words, as far as its target's options are decoded.
fn words(rule: &XtRule, v6: bool) -> (String, bool) {
    let mut words = render::header(&rule.header, v6);
    words.extend(rule.matches.iter().map(|of| match_words(of, v6)));
    let mut whole = true;
    match &rule.target {
        XtTarget::Continue => {}
        XtTarget::Accept => words.push("-j ACCEPT".to_owned()),
        XtTarget::Drop => words.push("-j DROP".to_owned()),
        XtTarget::Return => words.push("-j RETURN".to_owned()),
        XtTarget::Extension(XtExtension { name, revision, info }) => {
            words.push(format!("-j {name}"));
            let target = Target::decode(name, (*revision).into(), info);
            match render_target::options(&target, name, v6) {
                Some(options) if options.is_empty() => {}
                Some(options) => words.push(options),
                None => whole = false,
            }
        }
        other => panic!("{other:?} was not written"),
    }
    (words.join(" "), whole)
}

fn legacy(v6: bool) {
    let lab = Lab::new().unwrap();
    let program = if v6 { "ip6tables-legacy" } else { "iptables-legacy" };
    let rules = rules(v6);
    let saved = load(&lab.router, program, &rules);
    let raw = lab.router.enter(raw::read).unwrap();
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    let tables: Vec<XtTable> =
        raw.iter().map(|table| table.decode().unwrap()).filter(|of| of.family == family).collect();
    let mut compared = BTreeMap::<&str, usize>::new();
    for ((table, chain), lines) in &saved {
        let of = tables.iter().find(|of| of.name == *table).unwrap();
        let of = of.chains.iter().find(|of| of.name == *chain).unwrap();
        assert_eq!(of.rules.len(), lines.len(), "{table} {chain}");
        for (rule, line) in of.rules.iter().zip(lines) {
            let (words, whole) = words(rule, v6);
            if whole {
                assert_eq!(words, *line);
            } else {
                assert!(line.starts_with(&words), "{line}\n{words}");
            }
            for of in &rule.matches {
                *compared.entry(of.name.as_str()).or_default() += 1;
            }
        }
    }
    println!("{program}: {} rules, matches {compared:?}", rules.len());
    assert!(compared.len() > 25, "{compared:?}");
}

#[test]
fn legacy_v4() {
    legacy(false);
}

#[test]
fn legacy_v6() {
    legacy(true);
}

/// Rules of iptables-nft: what stays an xt expression.
fn nft(v6: bool) {
    let lab = Lab::new().unwrap();
    let program = if v6 { "ip6tables-nft" } else { "iptables-nft" };
    let rules = rules(v6);
    let saved = load(&lab.router, program, &rules);
    let dump = lab.router.enter(|| Ok(Dump::read()?)).unwrap();
    let tables = ruleset::tables(&dump).unwrap();
    let mut compared = BTreeMap::<String, usize>::new();
    for ((table, chain), lines) in &saved {
        let of = tables.iter().find(|of| of.name == *table).unwrap();
        let of = of.chains.iter().find(|of| of.name == *chain).unwrap();
        assert_eq!(of.rules.len(), lines.len(), "{table} {chain}");
        for (rule, line) in of.rules.iter().zip(lines) {
            for expression in &rule.expressions {
                let (name, words) = match expression {
                    Expression::Match { name, revision, info } => {
                        let revision = u8::try_from(*revision).unwrap();
                        let (name, info) = (name.clone(), info.clone());
                        let of = XtExtension { name, revision, info };
                        (of.name.clone(), match_words(&of, v6))
                    }
                    Expression::Target { name, revision, info } => {
                        let target = Target::decode(name, *revision, info);
                        let options = render_target::options(&target, name, v6);
                        let words = format!("-j {name} {}", options.unwrap_or_default());
                        (name.clone(), words.trim_end().to_owned())
                    }
                    _ => continue,
                };
                // All of its words: behind them another extension begins.
                let mut after = line.match_indices(&words).map(|(at, _)| &line[at + words.len()..]);
                let whole = |after: &str| {
                    after.is_empty() || after.starts_with(" -m ") || after.starts_with(" -j ")
                };
                assert!(after.any(|after| whole(after) || name == "LOG"), "{line}\n{words}");
                *compared.entry(name).or_default() += 1;
            }
        }
    }
    println!("{program}: {} rules, extensions {compared:?}", rules.len());
    assert!(compared.len() > 25, "{compared:?}");
}

#[test]
fn nft_v4() {
    nft(false);
}

#[test]
fn nft_v6() {
    nft(true);
}

/// What no packet has, or what is not evaluated, is said by its reason.
#[test]
fn what_is_never_decided_has_a_reason() {
    let attribute = Unknown::Attribute;
    let all: [(&str, &str, Unknown); 22] = [
        ("limit", "-m limit --limit 5/min", Unknown::Limit),
        (
            "hashlimit",
            "-m hashlimit --hashlimit-upto 5/min --hashlimit-name test --hashlimit-mode srcip",
            Unknown::Limit,
        ),
        ("recent", "-m recent --set --name test", Unknown::DynamicSet),
        ("connlimit", "-m connlimit --connlimit-above 5", Unknown::ConnLimit),
        ("quota", "-m quota --quota 1000", Unknown::Quota),
        ("time", "-m time --timestart 10:00", Unknown::Time),
        ("set", "-m set --match-set addresses src", Unknown::DynamicSet),
        ("connbytes", CONNBYTES, Unknown::LaterPackets),
        ("cpu", "-m cpu --cpu 0", attribute(Attribute::Meta)),
        ("cgroup", "-m cgroup --cgroup 5", attribute(Attribute::Socket)),
        ("socket", "-m socket --nowildcard", attribute(Attribute::Socket)),
        ("physdev", "-m physdev --physdev-in eth0", attribute(Attribute::InterfaceDetails)),
        ("policy", "-m policy --dir in --pol none", attribute(Attribute::Meta)),
        ("realm", "-m realm --realm 5", attribute(Attribute::Meta)),
        ("rpfilter", "-m rpfilter --invert", attribute(Attribute::Routes)),
        ("string", "-m string --algo bm --string x", attribute(Attribute::Payload)),
        ("bpf", "-m bpf --bytecode \"1,6 0 0 1\"", Unknown::Extension),
        ("cluster", CLUSTER, Unknown::Extension),
        ("frag", "-m frag --fragid 5", attribute(Attribute::IpOptions)),
        ("hbh", "-m hbh --hbh-len 8", attribute(Attribute::IpOptions)),
        ("ipv6header", "-m ipv6header --header frag --soft", attribute(Attribute::IpOptions)),
        ("rt", "-m rt --rt-type 0", attribute(Attribute::IpOptions)),
    ];
    let lab = Lab::new().unwrap();
    lab.router.run(["ipset", "create", "addresses", "hash:ip"]).unwrap();
    for v6 in [false, true] {
        let only_v6 = |name: &str| matches!(name, "frag" | "hbh" | "ipv6header" | "rt");
        let only_v4 = |name: &str| matches!(name, "realm" | "set");
        let here = |(name, ..): &&(&str, &str, Unknown)| {
            if v6 { !only_v4(name) } else { !only_v6(name) }
        };
        let all: Vec<_> = all.iter().filter(here).collect();
        let mut text = "*raw\n".to_owned();
        for (name, words, _) in &all {
            // Packets that come in have no cgroup, and no route yet.
            let output = matches!(*name, "cgroup" | "realm");
            let chain = if output { "OUTPUT" } else { "PREROUTING" };
            writeln!(text, "-A {chain} {words}").unwrap();
        }
        text.push_str("COMMIT\n");
        let restore = if v6 { "ip6tables-legacy-restore" } else { "iptables-legacy-restore" };
        lab.router.run_with_input([restore], &text).unwrap();
        let raw = lab.router.enter(raw::read).unwrap();
        let family = if v6 { Family::Ip6 } else { Family::Ip };
        let table = raw.iter().find(|table| table.family == family).unwrap().decode().unwrap();
        let rules: Vec<&XtRule> = table.chains.iter().flat_map(|chain| &chain.rules).collect();
        assert_eq!(rules.len(), all.len());
        for (name, _, why) in all {
            let mut found = rules.iter().flat_map(|rule| &rule.matches);
            let of = found.find(|of| of.name == *name).unwrap();
            let found = Match::decode(&of.name, of.revision.into(), &of.info);
            // Of an extension header it is known at least whether a packet has any.
            let header = matches!(*name, "frag" | "hbh" | "rt");
            let undecided = if header { Match::ExtensionHeader } else { Match::Unknown(*why) };
            assert_eq!(found, undecided, "{name}");
        }
    }
}
