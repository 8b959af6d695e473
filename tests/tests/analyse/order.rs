//! A proposed order saves what it says, and every rule that decides still decides for the same packets.

use std::collections::BTreeMap;

use conntracker_tests::lab::Lab;
use conntracker_tests::tracer::output;
use conntracker_tests::traffic::udp_send;
use serde_json::Value;

/// Rules of the chain `forward`; ports below 10 are dropped, 5 with a rule behind that accepts it.
const RULES: [&str; 8] = [
    "udp dport 1-10 counter drop",
    "udp dport 5 counter accept",
    "udp dport 20 counter accept",
    "udp dport 30 counter accept",
    "udp dport 40 limit rate 1000/second counter accept",
    "udp dport 50 counter accept",
    "udp dport 60 counter drop",
    "udp dport 55-65 counter accept",
];

/// Packets to each port.
const SENT: [(u16, usize); 7] = [(5, 3), (20, 1), (30, 20), (40, 2), (50, 30), (60, 2), (61, 4)];

fn load(lab: &Lab, rules: &[&str]) {
    let rules = rules.join("\n");
    let chain = "type filter hook forward priority 0; policy drop;";
    lab.router
        .nft(&format!(
            "flush ruleset\ntable inet fw {{\nchain forward {{\n{chain}\n{rules}\n}}\n}}"
        ))
        .unwrap();
    for (port, packets) in SENT {
        udp_send(&lab.client, lab.client.at(4000), lab.server.at(port), b"x", packets).unwrap();
    }
}

/// Packets that each rule has counted, by its text.
fn counted(lab: &Lab) -> BTreeMap<String, u64> {
    let said = output(["rules", "show", "--netns", &lab.router.name, "--format", "json"]).unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let rules = said["tables"][0]["chains"][0]["rules"].as_array().unwrap();
    let text = |rule: &Value| rule["text"].as_str().unwrap().to_owned();
    rules.iter().map(|rule| (text(rule), rule["counter"]["packets"].as_u64().unwrap())).collect()
}

#[test]
fn the_proposed_order_treats_packets_the_same_with_fewer_rules() {
    let lab = Lab::new().unwrap();
    load(&lab, &RULES);
    let before = counted(&lab);
    let ask = |format: &str| {
        let said =
            output(["rules", "order", "--netns", &lab.router.name, "--format", format]).unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    let said: Value = serde_json::from_str(&ask("json")).unwrap();
    let chain = &said["chains"][0];
    let order: Vec<usize> =
        chain["order"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize).collect();
    // The limit stays, and nothing passes it; 60 stays before 55-65. Port 5 counts nothing: it is dropped before.
    assert_eq!(order, [4, 1, 3, 2, 5, 6, 7, 8], "{said}");
    assert_eq!(
        (&said["different"], chain["moves"].as_array().unwrap().len()),
        (&0.into(), 2),
        "{said}"
    );
    assert!(said["compared"].as_u64().unwrap() > 1_000, "{said}");
    let sum = |rules: &[&str], counts: &BTreeMap<String, u64>| -> u64 {
        (1..)
            .zip(rules)
            .map(|(position, rule)| {
                let bare = rule.replace("limit rate 1000/second ", "");
                let same = |text: &&String| {
                    **text == *rule || text.contains("dport 40") && bare.contains("dport 40")
                };
                position * counts[counts.keys().find(same).unwrap()]
            })
            .sum()
    };
    let rules: Vec<&str> = order.iter().map(|at| RULES[at - 1]).collect();
    assert_eq!(chain["evaluations"][0].as_u64(), Some(sum(&RULES, &before)), "{said}");
    assert_eq!(chain["evaluations"][1].as_u64(), Some(sum(&rules, &before)), "{said}");
    let text = ask("text");
    assert!(
        text.contains(
            "move inet fw/forward 4: udp dport 30 counter accept\n    before inet fw/forward 1:"
        ),
        "{text}"
    );
    load(&lab, &rules);
    assert_eq!(counted(&lab), before);
    // It cannot be better.
    let said: Value = serde_json::from_str(&ask("json")).unwrap();
    assert_eq!(said["chains"], serde_json::json!([]), "{said}");
}
