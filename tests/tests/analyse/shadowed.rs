//! No packet meets a rule of which that is proved, whatever ruleset it is: the kernel's own traces tell.
//!
//! `CONNTRACKER_SHADOWED` is the number of rulesets of each kind.

use std::collections::BTreeSet;
use std::env;

use conntracker::firewall::analyse::shadowed::{Finding, shadowed};
use conntracker::firewall::objects::KernelObjects;
use conntracker_tests::is_quick;
use conntracker_tests::lab::Lab;
use conntracker_tests::oracle::StepKind;
use conntracker_tests::rulesets::{Kind, ORACLE_TABLE, Ruleset};
use conntracker_tests::tracer::output;
use conntracker_tests::trial::Bench;
use serde_json::Value;

/// Rulesets of each kind, and with `CONNTRACKER_TESTS=quick`.
const RULESETS: u32 = 60;
const QUICK_RULESETS: u32 = 8;

/// Table, chain and position of a rule.
type Rule = (String, String, String, u32);

fn compare(kind: Kind) {
    let rulesets = env::var("CONNTRACKER_SHADOWED").ok().map(|text| text.parse().unwrap());
    let rulesets = rulesets.unwrap_or(if is_quick() { QUICK_RULESETS } else { RULESETS });
    let mut bench = Bench::new().unwrap();
    let (mut rules, mut proved, mut reachable, mut met) = (0, 0, 0, 0);
    for number in 0..rulesets {
        let trial = bench.try_ruleset(Ruleset::generate(kind, number), None).unwrap();
        let objects = bench.lab.router.enter(|| Ok(KernelObjects::read())).unwrap();
        let (firewall, routes) = (objects.firewall().unwrap(), objects.routes().unwrap());
        let mut never: BTreeSet<Rule> = BTreeSet::new();
        for ((chain, index), finding) in shadowed(&firewall, &routes) {
            let site = firewall.site(chain, index).unwrap();
            if site.table == ORACLE_TABLE {
                continue;
            }
            rules += 1;
            match finding {
                Finding::Proved(_) => {
                    let family = site.family.name().to_owned();
                    never.insert((family, site.table, site.chain, site.position.unwrap()));
                }
                Finding::Reachable(_) => reachable += 1,
                Finding::NotProved(_) => {}
            }
        }
        proved += never.len();
        let steps = trial.traced.packets.iter().flat_map(|packet| &packet.runs);
        for step in steps.flat_map(|run| &run.steps).filter(|step| step.kind == StepKind::Rule) {
            let chain = step.chain.clone();
            let rule = (chain.family, chain.table, chain.name, step.position);
            met += 1;
            assert!(!never.contains(&rule), "{rule:?} is met: {step}\n{}", trial.ruleset);
        }
    }
    println!(
        "{kind}: {rules} rules, {proved} proved, {reachable} reachable; met {met} times, none of the proved ones"
    );
    assert!(proved > 0 && met > 0, "{kind}: nothing was compared");
}

#[test]
fn rules_of_nft() {
    compare(Kind::Nft);
}

#[test]
fn rules_of_iptables_nft() {
    compare(Kind::IptablesNft);
}

#[test]
fn rules_of_iptables_legacy() {
    compare(Kind::IptablesLegacy);
}

const FIREWALL: &str = r#"table inet fw {
    set bad { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 }; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr @bad drop
        ip saddr 192.0.2.77 tcp dport 22 accept
        tcp dport 1000-2000 accept
        tcp dport { 1000, 1999 } counter drop comment "never"
        udp dport 53 limit rate 1/second accept
        fib daddr type local drop
        jump lan
    }
    chain lan { ip saddr 10.77.1.0/24 accept; }
}"#;

#[test]
fn each_answer_has_its_evidence() {
    let lab = Lab::new().unwrap();
    lab.router.nft(FIREWALL).unwrap();
    let run = |args: &[&str]| {
        let said = output([&["rules", "shadowed"], args].concat()).unwrap();
        assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    let netns = lab.router.name.as_str();
    let text = run(&["--netns", netns]);
    assert!(
        text.contains("fw/forward 3: ip saddr 192.0.2.77 tcp dport 22 accept\n  proved:"),
        "{text}"
    );
    assert!(text.contains("# proved: 2, reachable: 6, not proved: 1"), "{text}");
    assert!(text.contains("# limits:"), "{text}");
    assert!(run(&["--netns", netns, "--all"]).contains("(perhaps: "));
    let said: Value = serde_json::from_str(&run(&["--netns", netns, "--format", "json"])).unwrap();
    let rules = said["rules"].as_array().unwrap();
    let findings: Vec<_> = rules.iter().map(|rule| rule["finding"].as_str().unwrap()).collect();
    let (r, p, n) = ("reachable", "proved", "not_proved");
    assert_eq!(findings, [r, r, p, r, p, r, n, r, r], "{said}");
    assert_eq!(rules[4]["covered_by"][0]["position"], 4, "{said}");
    assert!(rules[5]["perhaps"].as_str().unwrap().contains("limit"), "{said}");
    // A file of rules is compiled by the kernel, and a chain can be chosen.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.nft");
    std::fs::write(&file, FIREWALL).unwrap();
    let file = file.to_str().unwrap();
    let said: Value =
        serde_json::from_str(&run(&[file, "inet fw/lan", "--format", "json"])).unwrap();
    assert_eq!(said["sums"]["rules"], 1, "{said}");
    let wrong = output(["rules", "shadowed", "--netns", netns, "inet fw/nothere"]).unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("nothere"));
}
