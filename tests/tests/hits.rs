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
    // The rule without a counter may have matched, for all that can be told.
    let unused =
        [("forward", 3, "tcp dport 22 counter accept"), ("user", 2, "udp dport 11 counter")];
    assert_eq!(places(&document["unused"]), unused);
    assert_eq!(document["gone"], json!([]));
}

/// Flows of each rule of iptables are those that were sent.
fn counts_iptables(restore: &str) {
    let lab = Lab::new().unwrap();
    lab.router.run_with_input([restore], IPTABLES).unwrap();
    let document = document(&lab);
    let chains = flows(&document, "filter");
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
    counts_iptables("iptables-nft-restore");
}

#[test]
fn flows_of_each_rule_of_iptables_legacy_are_those_that_were_sent() {
    if !skipped_without_counters() {
        counts_iptables("iptables-legacy-restore");
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
    assert_eq!(numbers("chain forward:"), ["3", "2", "0", "?", "4", "3"], "{said}");
    assert_eq!(numbers("chain user "), ["3", "0", "1"], "{said}");
    let comments: Vec<&str> = said.lines().filter(|line| line.starts_with('#')).collect();
    let [traced, rest @ ..] = &comments[..] else { panic!("{said}") };
    assert!(traced.starts_with("# traced: 8 flows, "), "{said}");
    assert_eq!(
        rest,
        [
            "# rules that none of them matched: 2",
            "#   inet fw/forward 3: tcp dport 22 counter accept",
            "#   inet fw/user 2: udp dport 11 counter",
            "# rules of which it cannot be told (no counter that tells): 1",
        ],
        "{said}"
    );
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
