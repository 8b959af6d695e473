//! `rules show` says what nft and iptables say: the same chains and rules under the same numbers,
//! with the same counters, and looking changes nothing.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;

use conntracker_tests::lab::{Host, Lab, output_without};
use conntracker_tests::tracer::listed::{array, chains};
use conntracker_tests::tracer::{output, stdout};
use conntracker_tests::traffic::{ping4, udp_echo_server, udp_exchange, udp_send};
use serde_json::Value;

const NFT: &str = "
    table inet fw {
        map ports { type inet_service : verdict; elements = { 7 : jump echo, 9 : drop }; }
        chain echo { counter jump deeper; }
        chain deeper { udp dport 7 counter accept comment \"# handle 99\"; }
        chain forward {
            type filter hook forward priority filter; policy drop;
            ct state established counter accept
            meta l4proto icmp counter accept
            udp dport vmap @ports
            counter
        }
        chain post { type nat hook postrouting priority srcnat; counter masquerade; }
    }
    table ip6 other { chain c { counter goto d; }; chain d { counter drop; }; }
";

/// For iptables-restore and iptables-legacy-restore alike.
const IPTABLES: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 5353 -j CT --notrack
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.77.1.0/24 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:echo - [0:0]
:deeper - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p icmp -m comment --comment \"-j DROP\" -j ACCEPT
-A FORWARD -p udp -m udp --dport 7 -j echo
-A FORWARD -p udp -m udp --dport 9 -j REJECT
-A echo -s 192.0.2.1/32 -j RETURN
-A echo -g deeper
-A deeper -m addrtype --dst-type UNICAST -j ACCEPT
COMMIT
";

/// Packets for most of the rules.
fn traffic(lab: &Lab) {
    let (c, s) = (&lab.client, &lab.server);
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    for port in 40_000..40_003 {
        udp_exchange(c, c.at(port), s.at(7), b"hello").unwrap();
    }
    udp_send(c, c.at(40_010), s.at(9), b"hello", 2).unwrap();
    udp_send(c, c.at(40_011), s.at(11), b"hello", 4).unwrap();
    assert_eq!(ping4(c, s.v4().into(), 7, 3).unwrap(), 3);
}

fn show(router: &Host, args: &[&str]) -> String {
    stdout(["rules", "show", "--netns", &router.name].iter().chain(args)).unwrap()
}

fn json(router: &Host) -> Value {
    serde_json::from_str(&show(router, &["--format", "json"])).unwrap()
}

#[test]
fn nft_lists_the_same_rules_with_the_same_handles_counters_and_texts() {
    let lab = Lab::new().unwrap();
    lab.router.nft(NFT).unwrap();
    traffic(&lab);
    let list = || lab.router.run(["nft", "-a", "list", "ruleset"]).unwrap();
    let before = list();
    let document = json(&lab.router);
    let text = show(&lab.router, &[]);
    assert_eq!(before, list(), "looking changed it");

    // Rebuild nft's listing from ours.
    let mut ours: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, chain) in chains(&document) {
        let name =
            format!("{} {}", table["table"].as_str().unwrap(), chain["name"].as_str().unwrap());
        let rules = array(&chain["rules"]).iter().map(|rule| {
            let counter = &rule["counter"];
            let values =
                format!("counter packets {} bytes {}", counter["packets"], counter["bytes"]);
            let text = rule["text"].as_str().unwrap();
            let text = if counter.is_null() {
                text.to_owned()
            } else {
                text.replacen("counter", &values, 1)
            };
            format!("{text} # handle {}", rule["handle"])
        });
        ours.insert(name, rules.collect());
        for (number, rule) in (1..).zip(array(&chain["rules"])) {
            assert_eq!(rule["position"], number);
            assert!(text.contains(rule["text"].as_str().unwrap()), "{rule}");
        }
        assert_eq!(chain["end"]["position"], array(&chain["rules"]).len() + 1);
    }
    let mut theirs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut table, mut chain) = (String::new(), None);
    for line in before.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, ..] => table = format!("{family} {name}"),
            ["chain", name, ..] => {
                chain = Some(theirs.entry(format!("{table} {name}")).or_default());
            }
            ["}"] => chain = None,
            ["type", ..] => {}
            _ => {
                if let Some(rules) = &mut chain {
                    rules.push(line.trim().to_owned());
                }
            }
        }
    }
    assert_eq!(ours, theirs);
    let counted: u64 = chains(&document)
        .flat_map(|(_, chain)| array(&chain["rules"]))
        .filter_map(|rule| rule["counter"]["packets"].as_u64())
        .sum();
    assert!(counted > 10, "{counted}");

    let forward = chains(&document).find(|(_, chain)| chain["name"] == "forward").unwrap().1;
    assert_eq!(
        forward["base"],
        serde_json::json!({"type": "filter", "hook": "forward", "priority": 0, "policy": "drop"})
    );
    let map = &array(&forward["rules"])[2];
    assert_eq!(map["actions"], serde_json::json!(["drop", "jump"]));
    assert_eq!(map["targets"], serde_json::json!([{"via": "jump", "chain": "echo"}]));
}

/// What `iptables -L -n -v -x --line-numbers` says of a table: by chain, (number, packets, bytes,
/// target) of each rule, and packets and bytes of the policy.
type Listed = BTreeMap<String, (Vec<(u64, u64, u64, String)>, Option<(u64, u64)>)>;

fn listed(router: &Host, program: &str, table: &str) -> Listed {
    let args = [program, "-t", table, "-L", "-n", "-v", "-x", "--line-numbers"];
    let text = router.run(args).unwrap();
    let mut chains = Listed::new();
    let mut chain = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Chain", name, rest @ ..] => {
                let policy = match rest {
                    ["(policy", _, packets, "packets,", bytes, "bytes)"] => {
                        Some((packets.parse().unwrap(), bytes.parse().unwrap()))
                    }
                    _ => None,
                };
                chain = Some(chains.entry((*name).to_owned()).or_insert((Vec::new(), policy)));
            }
            [number, packets, bytes, target, ..] if *number != "num" => {
                let [number, packets, bytes] =
                    [number, packets, bytes].map(|word| word.parse().unwrap());
                chain.as_mut().unwrap().0.push((number, packets, bytes, (*target).to_owned()));
            }
            _ => {}
        }
    }
    chains
}

/// What we say of a rule, as the target column of iptables has it.
fn target(rule: &Value) -> String {
    if let Some(target) = array(&rule["targets"]).first() {
        return target["chain"].as_str().unwrap().to_owned();
    }
    let last = array(&rule["kinds"]).last().unwrap().as_str().unwrap();
    match last.strip_prefix("xt target ").unwrap_or(last) {
        // As nf_tables has them where it can do without an extension of xtables.
        "notrack" => "CT".to_owned(),
        name => name.to_uppercase(),
    }
}

fn iptables_agrees(backend: &str, restore: &str, program: &str, save: &[&str]) {
    let lab = Lab::new().unwrap();
    lab.router.run_with_input([restore], IPTABLES).unwrap();
    traffic(&lab);
    let list = || -> String {
        let all = lab.router.run(save).unwrap();
        all.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |s, l| s + l + "\n")
    };
    let names = || lab.router.run(["cat", "/proc/net/ip_tables_names"]).unwrap();
    let before = (list(), names());
    let document = json(&lab.router);
    assert_eq!(before, (list(), names()), "looking changed it");
    assert_eq!(document["skipped"], serde_json::json!({}));

    let order: Vec<_> = array(&document["tables"]).iter().map(|t| t["table"].clone()).collect();
    let mark = if backend == "legacy" { " (legacy)" } else { "" };
    assert_eq!(order, ["raw", "nat", "filter"].map(|table| format!("{table}{mark}")));
    let mut packets = 0;
    for table in array(&document["tables"]) {
        assert_eq!((&table["backend"], &table["family"]), (&backend.into(), &"ip".into()));
        assert_eq!(table["iptables"], true);
        let theirs = listed(&lab.router, program, table["name"].as_str().unwrap());
        let mut ours = Listed::new();
        for chain in array(&table["chains"]) {
            let counts =
                |counter: &Value| Some((counter["packets"].as_u64()?, counter["bytes"].as_u64()?));
            let rules = array(&chain["rules"]).iter().map(|rule| {
                assert_eq!(rule["counts_matches"], true, "{rule}");
                let (packets, bytes) = counts(&rule["counter"]).unwrap();
                (rule["position"].as_u64().unwrap(), packets, bytes, target(rule))
            });
            let name = chain["name"].as_str().unwrap();
            // nf_tables does not count what meets a policy.
            let policy = match backend {
                "nft" => theirs[name].1,
                _ => counts(&chain["base"]["counter"]),
            };
            ours.insert(name.to_owned(), (rules.collect(), policy));
        }
        assert_eq!(ours, theirs);
        packets += ours.values().flat_map(|(rules, _)| rules).map(|rule| rule.1).sum::<u64>();
    }
    assert!(packets > 10, "{packets}");
    if backend == "legacy" {
        let forward = chains(&document).find(|(_, chain)| chain["name"] == "FORWARD").unwrap().1;
        assert_eq!(forward["base"]["counter"]["packets"], 4);
    }
}

#[test]
fn iptables_nft_numbers_the_same_rules() {
    iptables_agrees(
        "nft",
        "iptables-nft-restore",
        "iptables-nft",
        &["nft", "-a", "list", "ruleset"],
    );
}

#[test]
fn iptables_legacy_numbers_the_same_rules() {
    let save = ["iptables-legacy-save", "-c"];
    iptables_agrees("legacy", "iptables-legacy-restore", "iptables-legacy", &save);
}

#[test]
fn both_backends_at_once_and_both_families() {
    let lab = Lab::new().unwrap();
    let filter = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                  -A INPUT -p tcp -j DROP\nCOMMIT\n";
    for restore in [
        "iptables-nft-restore",
        "ip6tables-nft-restore",
        "iptables-legacy-restore",
        "ip6tables-legacy-restore",
    ] {
        lab.router.run_with_input([restore], filter).unwrap();
    }
    lab.router.nft("table inet filter { chain INPUT { counter; }; }").unwrap();
    let document = json(&lab.router);
    let tables: Vec<_> = array(&document["tables"])
        .iter()
        .map(|t| [&t["table"], &t["family"], &t["backend"]].map(|v| v.as_str().unwrap().to_owned()))
        .collect();
    let [filter, old, ip] = ["filter", "filter (legacy)", "ip"];
    let [ip6, nft, legacy] = ["ip6", "nft", "legacy"];
    assert_eq!(
        tables,
        [
            [filter, ip, nft],
            [old, ip, legacy],
            [filter, ip6, nft],
            [old, ip6, legacy],
            ["inet filter", "inet", nft]
        ]
    );
    let selected = show(&lab.router, &["ip6 filter/INPUT"]);
    let heads: Vec<_> = selected.lines().filter(|line| line.contains("table ")).collect();
    assert_eq!(heads[1], "table filter (legacy) (ip6, iptables-legacy)");
    assert!(heads[0].starts_with("table filter (ip6, iptables-nft, handle "), "{selected}");
    assert_eq!(selected.matches("chain INPUT").count(), 2);
    let old = show(&lab.router, &["filter (legacy)/INPUT"]);
    let heads: Vec<_> = old.lines().filter(|line| line.contains("table ")).collect();
    assert_eq!(
        heads,
        [
            "table filter (legacy) (ip, iptables-legacy)",
            "table filter (legacy) (ip6, iptables-legacy)"
        ]
    );
    assert!(
        array(&document["notes"]).iter().any(|note| note.as_str().unwrap().contains("both loaded"))
    );
    assert_eq!(selected.matches("chain ").count(), 2, "{selected}");
}

#[test]
fn looking_at_a_namespace_without_legacy_tables_makes_none() {
    let lab = Lab::new().unwrap();
    lab.router.nft(NFT).unwrap();
    let names =
        || lab.router.run(["cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]);
    // The files are not there at all where the modules are not loaded.
    let before = names().unwrap_or_default();
    show(&lab.router, &[]);
    assert_eq!((before.as_str(), names().unwrap_or_default().as_str()), ("", ""));
}

#[test]
fn nothing_to_show_is_said_and_nothing_found_is_a_failure() {
    let lab = Lab::new().unwrap();
    let run = |args: &[&str]| {
        let all = ["rules", "show", "--netns", &lab.router.name];
        let output = output(all.iter().chain(args)).unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), stdout, stderr)
    };
    let (code, out, said) = run(&[]);
    assert_eq!((code, out.as_str(), said.lines().count()), (Some(0), "", 1), "{said}");
    assert!(said.contains("is empty"), "{said}");
    let (code, out, _) = run(&["--format", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["tables"]), (Some(0), &serde_json::json!([])));
    assert_eq!(document["schema"], "conntracker-rules/1");

    lab.router.nft(NFT).unwrap();
    let (code, out, said) = run(&["inet fw/nowhere"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        said.contains("no table or chain `inet fw/nowhere`; the tables are: ip6 other, inet fw")
    );
    assert_eq!(run(&["--format", "yaml"]).0, Some(2));
    let no_such = output(["rules", "show", "--netns", "no-such-lab"]).unwrap();
    assert_eq!(no_such.status.code(), Some(1));
    assert_eq!(output(["rules"]).unwrap().status.code(), Some(2));
}

#[test]
fn what_cannot_be_looked_at_is_named_and_is_not_empty() {
    const MISSING: [&str; 5] =
        ["nft", "iptables-legacy-save", "iptables-save", "ip6tables-legacy-save", "ip6tables-save"];
    let lab = Lab::new().unwrap();
    let run = |path: &str, missing: &[&str]| {
        let args = ["rules", "show", "--format", "json", "--netns", &lab.router.name];
        let mut command = conntracker_tests::tracer::command(args).unwrap();
        let output = output_without(missing, command.env("PATH", path)).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document, said)
    };
    // Nobody has made any rule there: nothing is missed.
    let (code, nothing, said) = run("/nonexistent", &MISSING);
    assert_eq!((code, &nothing["notes"]), (Some(0), &serde_json::json!([])), "{said}");
    assert!(said.contains("is empty"), "{said}");

    lab.router.nft(NFT).unwrap();
    lab.router.run_with_input(["iptables-legacy-restore"], IPTABLES).unwrap();
    let (code, nothing, said) = run("/nonexistent", &MISSING);
    let unread: Vec<_> =
        array(&nothing["unread"]).iter().map(|note| note.as_str().unwrap()).collect();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        unread[0],
        "nft is not found, in PATH or elsewhere: rules of nf_tables are not shown"
    );
    assert!(unread[1].starts_with("tables of iptables-legacy are in use (ip: "), "{unread:?}");
    assert!(!said.contains("is empty"), "{said}");
    assert!(unread.iter().all(|note| said.contains(note)), "{said}");
    // A directory of PATH that depends on where we stand does not count; those of the system always do.
    let (code, all, said) = run("usr/sbin:.", &[]);
    assert_eq!((code, all.get("unread")), (Some(0), None), "{said}");
    let backends: Vec<_> = array(&all["tables"]).iter().map(|table| &table["backend"]).collect();
    assert!(backends.iter().any(|b| *b == "nft") && backends.iter().any(|b| *b == "legacy"));
}
