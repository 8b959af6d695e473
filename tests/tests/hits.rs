//! `conntracker rules hits`: the flows of each rule are those that were sent past it, and rules that
//! nothing matched are listed, nft and iptables alike.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use conntracker_tests::lab::{Host, Lab};
use conntracker_tests::tracer::{Finished, Tracer, command, skipped_without_counters};
use conntracker_tests::traffic::{tcp_connect, udp_echo_server, udp_exchange, udp_send};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const NFT: &str = "
table inet fw {
    chain user {
        udp dport 7 counter accept
        udp dport 11 counter
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established counter accept
        udp dport 7100 counter drop
        tcp dport 22 counter accept
        tcp dport 23 log
        meta l4proto udp counter jump user
    }
}
";

const IPTABLES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:user - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p udp -m udp --dport 7100 -j DROP
-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 23 -j ACCEPT
-A FORWARD -p udp -j user
-A user -p udp -m udp --dport 7 -j ACCEPT
-A user -p udp -m udp --dport 11
COMMIT
";

/// Flows that print a line each, some of them of many: 3 to port 7, 2 to port 7100, 1 to port 12, 2 to
/// TCP port 81.
fn traffic(lab: &Lab) {
    let (c, s) = (&lab.client, &lab.server);
    let from = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
    let _echo = udp_echo_server(s, s.at(7)).unwrap();
    for source in ["10.77.1.2", "10.78.0.1", "10.78.0.2"] {
        for port in 40_000..40_020 {
            udp_exchange(c, from(source, port), s.at(7), b"hello").unwrap();
        }
    }
    for source in ["10.78.0.1", "10.78.0.2"] {
        for port in 40_000..40_003 {
            udp_send(c, from(source, port), s.at(7100), b"hello", 2).unwrap();
        }
        let patience = Duration::from_millis(300);
        tcp_connect(c, from(source, 40_000), s.at(81), patience).unwrap_err();
    }
    udp_send(c, c.at(40_000), s.at(12), b"hello", 1).unwrap();
}

/// Flows that met each rule of forward and user and their ends, by position.
const FORWARD: [u64; 6] = [3, 2, 0, 0, 4, 3];
const USER: [u64; 3] = [3, 0, 1];

fn hits(router: &Host, args: &[&str], traffic: impl FnOnce()) -> String {
    let all = [&["rules", "hits", "--netns", &router.name], args].concat();
    let tracer = Tracer::spawn(command(all).unwrap()).unwrap();
    traffic();
    let Finished { status, stdout, stderr } = tracer.stop(Signal::SIGINT).unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    stdout
}

fn document(lab: &Lab) -> Value {
    let said = hits(&lab.router, &["--format", "json"], || traffic(lab));
    serde_json::from_str(&said).unwrap()
}

/// Flows by position of each chain of a table, the end of the chain behind its rules.
fn flows<'a>(document: &'a Value, table: &str) -> BTreeMap<&'a str, Vec<u64>> {
    let tables = document["tables"].as_array().unwrap();
    let table = tables.iter().find(|found| found["table"] == table).unwrap();
    let chain = |chain: &'a Value| {
        let rules = chain["rules"].as_array().unwrap().iter().chain([&chain["end"]]);
        let flows = rules.map(|rule| rule["flows"].as_u64().unwrap()).collect();
        (chain["name"].as_str().unwrap(), flows)
    };
    table["chains"].as_array().unwrap().iter().map(chain).collect()
}

/// Places of rules in a list, as (chain, position, text).
fn places(list: &Value) -> Vec<(&str, u64, &str)> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            let name = |key: &str| rule[key].as_str().unwrap();
            (name("chain"), rule["position"].as_u64().unwrap(), name("text"))
        })
        .collect()
}

#[test]
fn flows_of_each_rule_of_nft_are_those_that_were_sent() {
    let lab = Lab::new().unwrap();
    lab.router.nft(NFT).unwrap();
    let document = document(&lab);
    assert_eq!(document["schema"], "conntracker-hits/1");
    assert_eq!(document["netns"], lab.router.name.as_str());
    let chains = flows(&document, "inet fw");
    assert_eq!(chains["forward"], FORWARD);
    assert_eq!(chains["user"], USER);
    assert_eq!(document["flows"], 3 + 2 + 1 + 2);
    let mut unused =
        vec![("forward", 3, "tcp dport 22 counter accept"), ("user", 2, "udp dport 11 counter")];
    let counterless = ("forward", 4, "tcp dport 23 log");
    if document["backend"] == "probes" {
        // They see each rule.
        unused.insert(1, counterless);
        assert_eq!(document["unknown"], json!([]));
    } else {
        // It may have matched, for all that can be told.
        assert_eq!(unknown(&document), [(counterless.2, "no_counter", None)]);
    }
    assert_eq!(places(&document["unused"]), unused);
    assert_eq!(document["gone"], json!([]));
}

/// Flows of each rule of iptables are those that were sent.
fn counts_iptables(restore: &str, table: &str) {
    let lab = Lab::new().unwrap();
    lab.router.run_with_input([restore], IPTABLES).unwrap();
    let document = document(&lab);
    let chains = flows(&document, table);
    assert_eq!(chains["FORWARD"], FORWARD, "{restore}");
    assert_eq!(chains["user"], USER, "{restore}");
    let unused: Vec<_> = places(&document["unused"])
        .into_iter()
        .map(|(chain, position, _)| (chain, position))
        .collect();
    assert_eq!(unused, [("FORWARD", 3), ("FORWARD", 4), ("user", 2)], "{restore}");
}

#[test]
fn flows_of_each_rule_of_iptables_are_those_that_were_sent() {
    counts_iptables("iptables-nft-restore", "filter");
}

#[test]
fn flows_of_each_rule_of_iptables_legacy_are_those_that_were_sent() {
    if !skipped_without_counters() {
        counts_iptables("iptables-legacy-restore", "filter (legacy)");
    }
}

#[test]
fn text_lists_the_ruleset_with_flows_and_what_nothing_matched() {
    let lab = Lab::new().unwrap();
    lab.router.nft(NFT).unwrap();
    let said = hits(&lab.router, &[], || traffic(&lab));
    let numbers = |start: &str| -> Vec<String> {
        let chain = said.lines().skip_while(|line| !line.trim().starts_with(start)).skip(2);
        let chain = chain.take_while(|line| line.starts_with("      "));
        chain.map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect()
    };
    let probed = said.contains("\n# backend: probes\n");
    let counterless = if probed { "0" } else { "?" };
    assert_eq!(numbers("chain forward:"), ["3", "2", "0", counterless, "4", "3"], "{said}");
    assert_eq!(numbers("chain user "), ["3", "0", "1"], "{said}");
    // How rules without counters are told is not the business of this test.
    let comment = |line: &&str| line.starts_with('#') && !line.starts_with("# note: 1 of 7 rules");
    let comments: Vec<&str> = said.lines().filter(comment).collect();
    let [_, traced, rest @ ..] = &comments[..] else { panic!("{said}") };
    assert!(traced.starts_with("# traced: 8 flows, "), "{said}");
    let (by_links, by_probes) = (
        [
            "# rules that none of them matched: 2",
            "#   inet fw/forward 3: tcp dport 22 counter accept",
            "#   inet fw/user 2: udp dport 11 counter",
            "# rules of which it cannot be told (no counter that tells): 1",
        ],
        [
            "# rules that none of them matched: 3",
            "#   inet fw/forward 3: tcp dport 22 counter accept",
            "#   inet fw/forward 4: tcp dport 23 log",
            "#   inet fw/user 2: udp dport 11 counter",
        ],
    );
    assert_eq!(rest, if probed { by_probes } else { by_links }, "{said}");
}

#[test]
fn rules_that_went_while_it_looked_on_are_listed_as_gone() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    r.nft(NFT).unwrap();
    let said = hits(r, &["--format", "json"], || {
        udp_send(c, c.at(40_000), s.at(7100), b"hello", 1).unwrap();
        r.nft("flush chain inet fw user\nflush chain inet fw forward").unwrap();
    });
    let document: Value = serde_json::from_str(&said).unwrap();
    let text = "udp dport 7100 counter drop";
    assert_eq!(places(&document["gone"]), [("forward", 2, text)], "{document}");
    assert_eq!(document["gone"][0]["flows"], 1);
    assert_eq!(document["unused"], json!([]));
}

/// The packets of the rules with this text, by nft's own counters.
fn counted(router: &Host, text: &str) -> u64 {
    let list = router.run(["nft", "list", "ruleset"]).unwrap();
    let lines = list.lines().filter(|line| line.contains(text));
    let packets =
        |line: &str| line.split_once("packets ")?.1.split(' ').next()?.parse::<u64>().ok();
    lines.filter_map(packets).sum()
}

/// Observes with what is said in the place of `conntracker rules hits`; returns status, document, messages.
fn observed(
    router: &Host,
    before: &[&str],
    traffic: impl FnOnce(),
) -> (Option<i32>, Value, String) {
    let hits = command(["rules", "hits", "--format", "json"]).unwrap();
    let mut all: Vec<_> = before.iter().map(std::ffi::OsStr::new).collect();
    all.push(hits.get_program());
    all.extend(hits.get_args());
    let mut command = router.command(all[0]);
    command.args(&all[1..]).stdin(std::process::Stdio::null());
    let tracer = Tracer::spawn(command).unwrap();
    traffic();
    let Finished { status, stdout, stderr } = tracer.stop(Signal::SIGINT).unwrap();
    (status.code(), serde_json::from_str(&stdout).unwrap(), stderr)
}

/// Of the rules of which it cannot be told whether packets met them: text, why, and what their own
/// counters say.
fn unknown(document: &Value) -> Vec<(&str, &str, Option<u64>)> {
    let rules = document["unknown"].as_array().unwrap().iter();
    rules
        .map(|rule| {
            let name = |key: &str| rule[key].as_str().unwrap();
            (name("text"), name("why"), rule["counted"].as_u64())
        })
        .collect()
}

#[test]
fn rules_where_packets_are_not_traced_are_not_called_unmatched() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    // No link fits between conntrack and a chain that is next to it.
    r.nft(
        "table netdev early {
            chain in {
                type filter hook ingress device toclient priority 0;
                udp dport 54 counter drop
                udp dport 56 counter drop
            }
        }
        table inet fw {
            chain near { type filter hook prerouting priority -199; udp dport 55 counter drop; }
            chain forward { type filter hook forward priority 0; ct state new counter; udp dport 57 counter; }
        }",
    )
    .unwrap();
    let (status, document, stderr) = observed(r, &[], || {
        for port in [53, 54, 55] {
            udp_send(c, c.at(40_000 + port), s.at(port), b"hello", 1).unwrap();
        }
    });
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!((counted(r, "dport 54"), counted(r, "dport 55")), (1, 1));
    let near = ("udp dport 55 counter drop", "not_observed", Some(1));
    let expected = [
        near,
        ("udp dport 54 counter drop", "not_observed", Some(1)),
        ("udp dport 56 counter drop", "not_observed", Some(0)),
    ];
    let found = unknown(&document);
    // Probes need no free priority.
    let links = found.contains(&near);
    let expected = if links { &expected[..] } else { &expected[1..] };
    assert_eq!(found, expected, "{document}");
    assert_eq!(places(&document["unused"]), [("forward", 2, "udp dport 57 counter")], "{document}");
    let notes: Vec<&str> =
        document["notes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(notes.iter().any(|note| note.contains("netdev early/in")), "{notes:?}");
    assert!(
        !links || notes.iter().any(|note| note.starts_with("PREROUTING of IPv4 is not traced")),
        "{notes:?}"
    );
}

#[test]
fn without_the_right_to_trace_rules_none_is_called_unmatched() {
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    r.nft(
        "table ip fw {
            chain forward { type filter hook forward priority 0; ct state new udp dport 666 counter drop; accept; }
        }",
    )
    .unwrap();
    let without = ["setpriv", "--bounding-set=-syslog", "--inh-caps=-syslog"];
    let (status, document, stderr) = observed(r, &without, || {
        udp_send(c, c.at(40_000), s.at(666), b"hello", 3).unwrap();
    });
    assert_eq!(status, Some(3), "{stderr}");
    assert!(stderr.contains("rules are not traced: "), "{stderr}");
    let moved = counted(r, "dport 666");
    assert_eq!(moved, 3);
    let text = "ct state new udp dport 666 counter drop";
    let expected = [(text, "rules_not_traced", Some(moved)), ("accept", "rules_not_traced", None)];
    assert_eq!(unknown(&document), expected);
    assert_eq!(document["unused"], json!([]));
}

#[test]
fn rules_whose_counters_are_not_read_are_not_called_unmatched() {
    if skipped_without_counters() {
        return;
    }
    let lab = Lab::new().unwrap();
    let (c, r) = (&lab.client, &lab.router);
    let many = (0..4_200).map(|n| format!("-A INPUT -s 203.0.{}.{} -j RETURN\n", n / 250, n % 250));
    let rules = format!(
        "*filter\n{}-A INPUT -p udp --dport 81 -j DROP\n-A INPUT -p udp --dport 80 -j ACCEPT\nCOMMIT\n",
        many.collect::<String>()
    );
    r.run_with_input(["iptables-legacy-restore"], &rules).unwrap();
    let to = SocketAddr::new(r.links[0].v4.into(), 80);
    let (_, document, stderr) = observed(r, &[], || {
        udp_send(c, c.at(40_000), to, b"hello", 3).unwrap();
    });
    // By targets that are looked at (probes) a drop and an acceptance are not told: they are verdicts.
    let found = unknown(&document);
    let of = |text: &str| found.iter().find(|(rule, ..)| rule.contains(text)).copied();
    let matched = of("--dport 80").unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!((matched.1, matched.2), ("counter_not_read", Some(3)));
    assert_eq!(of("--dport 81").unwrap().2, Some(0));
    assert!(places(&document["unused"]).iter().all(|(_, position, _)| *position <= 4096));
}

/// A reject in a chain that OUTPUT uses, too: its answer is a packet in the middle of the refused one.
#[test]
fn rules_of_packets_that_are_known_by_their_chains_alone_are_not_called_unmatched() {
    if skipped_without_counters() {
        return;
    }
    let lab = Lab::new().unwrap();
    let (c, r, s) = (&lab.client, &lab.router, &lab.server);
    let rules = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:reject - [0:0]
-A FORWARD -p tcp --dport 25 -j reject
-A FORWARD -p tcp --dport 26 -j reject
-A OUTPUT -p tcp --dport 26 -j reject
-A reject -p tcp -j REJECT --reject-with tcp-reset
-A reject -j REJECT
COMMIT
";
    r.run_with_input(["iptables-legacy-restore"], rules).unwrap();
    let (status, document, stderr) = observed(r, &[], || {
        for port in 40_000..40_003 {
            tcp_connect(c, c.at(port), s.at(25), Duration::from_millis(300)).unwrap_err();
        }
    });
    let met = flows(&document, "filter (legacy)");
    let unmatched: Vec<(&str, u64)> =
        places(&document["unused"]).into_iter().map(|(chain, n, _)| (chain, n)).collect();
    let list = r.run(["iptables-legacy-save", "-c"]).unwrap();
    let matched: Vec<&str> =
        list.lines().filter(|l| l.starts_with('[') && !l.starts_with("[0:0]")).collect();
    assert_eq!(matched.len(), 2, "{list}");
    assert!(!unmatched.contains(&("FORWARD", 1)) && !unmatched.contains(&("reject", 1)));
    // Either the packets are told, or it is said that they are not.
    let told = met["FORWARD"][0] > 0 && met["reject"][0] > 0;
    if !told {
        assert_eq!(status, Some(3), "{stderr}");
        assert!(stderr.contains("paths_nested="), "{stderr}");
        let why: Vec<&str> = unknown(&document).iter().map(|(_, why, _)| *why).collect();
        assert!(!why.is_empty() && why.iter().all(|why| *why == "packets_untold"), "{document}");
    }
}

#[test]
fn rules_that_came_while_it_looked_on_may_have_been_met_before_they_were_traced() {
    let lab = Lab::new().unwrap();
    let r = &lab.router;
    r.nft(NFT).unwrap();
    let (_, document, _) = observed(r, &[], || {
        r.nft("add rule inet fw user udp dport 13 counter").unwrap();
        std::thread::sleep(Duration::from_millis(500));
    });
    let late = unknown(&document).into_iter().find(|(text, ..)| text.contains("dport 13"));
    assert_eq!(late, Some(("udp dport 13 counter", "came_later", None)), "{document}");
    assert!(places(&document["unused"]).iter().any(|(_, _, text)| text.contains("dport 11")));
}
