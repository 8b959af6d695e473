//! The expressions of each rule, as they were decoded, and as nft prints them with `--debug=netlink`.

use std::collections::BTreeMap;

use conntracker::netlink::nftables::{
    dump::Dump,
    ruleset::{Table, tables},
};
use conntracker_tests::{
    is_quick,
    lab::{Host, Lab},
    rulesets::{Kind, Ruleset},
};

use crate::render::render;

/// The text of each rule by its family, table, chain and handle.
type Rules = BTreeMap<String, Vec<String>>;

/// Tables of a namespace.
pub(crate) fn load(host: &Host) -> Vec<Table> {
    let dump = host.enter(|| Ok(Dump::read()?)).unwrap();
    // A recording keeps the bytes alone.
    tables(&Dump::of(dump.bytes().to_vec())).unwrap()
}

fn decoded(host: &Host) -> Rules {
    let mut rules = Rules::new();
    for table in load(host) {
        let family = match table.family {
            1 => "inet",
            2 => "ip",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            other => panic!("family {other}"),
        };
        for chain in &table.chains {
            for rule in &chain.rules {
                let key = format!("{family} {} {} {}", table.name, chain.name, rule.handle);
                rules.insert(key, rule.expressions.iter().map(render).collect());
            }
        }
    }
    rules
}

fn printed(host: &Host) -> Rules {
    let mut rules = Rules::new();
    let mut key = None;
    for line in host.run(["nft", "--debug=netlink", "list", "ruleset"]).unwrap().lines() {
        if let Some(expression) = line.strip_prefix("  [") {
            let rule = rules.entry(key.clone().unwrap()).or_default();
            rule.push(format!("[{}", expression.trim_end()));
        } else {
            let words: Vec<&str> = line.split(' ').collect();
            key = (words.len() >= 4).then(|| words[..4].join(" "));
        }
    }
    rules
}

/// Compares all rules of a namespace, and tells how many there are.
fn compare(host: &Host, what: &str) -> usize {
    let (mut decoded, mut printed) = (decoded(host), printed(host));
    // Counters move when a host tells of its multicast groups. What was read between two equal readings is of one time.
    loop {
        let again = self::decoded(host);
        if again == decoded {
            break;
        }
        (decoded, printed) = (again, self::printed(host));
    }
    for (key, text) in &printed {
        assert_eq!(decoded.get(key), Some(text), "{what}: {key}");
    }
    assert_eq!(decoded.len(), printed.len(), "{what}");
    decoded.len()
}

#[test]
fn the_features_of_the_language() {
    let lab = Lab::new().unwrap();
    lab.router.nft(include_str!("features.nft")).unwrap();
    assert!(compare(&lab.router, "features.nft") > 60);
}

#[test]
fn rulesets_of_programs() {
    let lab = Lab::new().unwrap();
    for (name, text) in [
        ("fw4.nft", include_str!("../attribution/rulesets/fw4.nft")),
        ("server.nft", include_str!("../attribution/rulesets/server.nft")),
        ("fail2ban.nft", include_str!("../attribution/rulesets/fail2ban.nft")),
    ] {
        lab.router.nft("flush ruleset").unwrap();
        lab.router.nft(text).unwrap();
        println!("{name}: {} rules", compare(&lab.router, name));
    }
}

#[test]
fn random_rulesets() {
    let lab = Lab::new().unwrap();
    for kind in [Kind::Nft, Kind::NftMixed, Kind::IptablesNft] {
        let mut rules = 0;
        for number in 0..if is_quick() { 10 } else { 60 } {
            lab.router.nft("flush ruleset").unwrap();
            let ruleset = Ruleset::generate(kind, number);
            ruleset.load(&lab.router).unwrap();
            rules += compare(&lab.router, &ruleset.to_string());
        }
        println!("{kind}: {rules} rules");
    }
}
