//! The comparison itself: a tracer that repeats what the kernel said is right, and each lie of it
//! is found. And the rulesets: over a few of them each feature meets a packet.

use std::collections::BTreeMap;

use conntracker_tests::burst::Planned;
use conntracker_tests::oracle::{Backend, Packet, Run, Step, Verdict};
use conntracker_tests::rulesets::{FEATURES, Kind, Ruleset};
use conntracker_tests::tracer::{Direction, L4, Tuple};
use conntracker_tests::trial::compare::{Crossing, crossings};
use conntracker_tests::trial::tally::{Tally, compare, met};
use conntracker_tests::trial::{Bench, Trial};
use serde_json::{Value, json};

/// Enough for everything to meet a packet.
const RULESETS: u32 = 40;

fn trials(kind: Kind, rulesets: u32) -> Vec<Trial> {
    let mut bench = Bench::new().unwrap();
    let run = |number| bench.try_ruleset(Ruleset::generate(kind, number), None).unwrap();
    (0..rulesets).map(run).collect()
}

fn step(step: &Step) -> Value {
    let Step { chain, kind, position, handle, verdict } = step;
    let (verdict, target) = match verdict {
        Verdict::Jump(chain) => ("jump".to_owned(), Some(chain)),
        Verdict::Goto(chain) => ("goto".to_owned(), Some(chain)),
        other => (other.to_string(), None),
    };
    let mut object = json!({
        "backend": if chain.backend == Backend::Nft { "nft" } else { "legacy" },
        "family": chain.family, "table": chain.table, "chain": chain.name,
        "type": format!("{kind:?}").to_lowercase(), "position": position,
        "verdict": verdict, "provenance": "exact",
    });
    if let Some(handle) = handle {
        object["handle"] = (*handle).into();
    }
    if let Some(target) = target {
        object["target"] = target.as_str().into();
    }
    object
}

fn traversal(crossing: &Crossing<'_>) -> Value {
    let state = match (crossing.early, crossing.state, crossing.first) {
        (true, ..) => "early",
        (_, Some(state), _) => state,
        (.., true) => "new",
        _ => "established",
    };
    let reply = crossing.direction == Some(Direction::Reply);
    let steps = crossing.runs.iter().flat_map(|run| &run.steps).map(step);
    json!({
        "hook": crossing.hook.name(), "state": state,
        "direction": if reply { "reply" } else { "original" },
        "outcome": if crossing.runs.last().is_some_and(Run::drops) { "dropped" } else { "passed" },
        "epoch": 1, "packets": 1, "steps": steps.collect::<Vec<_>>(),
        "packet_mark": {
            "before": crossing.mark.0.unwrap_or(0), "after": crossing.mark.1.unwrap_or(0)
        },
    })
}

fn tuple(tuple: Tuple) -> Value {
    let mut object = json!({"src": tuple.src, "dst": tuple.dst});
    match tuple.l4 {
        L4::Ports(src, dst) => {
            object["sport"] = src.into();
            object["dport"] = dst.into();
        }
        L4::Icmp(kind, code, id) => {
            object["type"] = kind.into();
            object["code"] = code.into();
            object["id"] = id.into();
        }
        _ => {}
    }
    object
}

/// What a tracer would report that knows everything: one flow object for each first packet.
fn omniscient(trials: &[Trial]) -> Vec<Value> {
    let mut flows: BTreeMap<Tuple, Value> = BTreeMap::new();
    for trial in trials {
        let begun: Vec<Tuple> = trial.flows.iter().map(Planned::tuple).collect();
        for packet in trial.traced.packets.iter().filter(|packet| begun.contains(&packet.tuple)) {
            let flow = flows.entry(packet.tuple).or_insert_with(|| flow(packet));
            // Only what comes before an answer.
            if flow["traversals"] == json!([]) {
                let original = Some(Direction::Original);
                let crossings = crossings(packet, original, true, &trial.listing);
                flow["traversals"] = crossings.iter().map(traversal).collect();
            }
        }
    }
    flows.into_values().collect()
}

fn flow(packet: &Packet) -> Value {
    json!({
        "protocol": {"number": packet.tuple.proto}, "zone": 0, "confirmed": false,
        "original": tuple(packet.tuple), "traversals": [],
    })
}

fn is_agreement(tally: &Tally) -> bool {
    tally.wrong == 0 && tally.seen == tally.flows
}

/// Changes one claim and expects it to be found out.
fn lie(trials: &[Trial], flows: &[Value], what: &str, change: impl Fn(&mut Value) -> bool) {
    let mut flows = flows.to_vec();
    let changed = flows
        .iter_mut()
        .flat_map(|flow| flow["traversals"].as_array_mut().unwrap())
        .find_map(|traversal| change(traversal).then_some(()));
    assert!(changed.is_some(), "nothing to lie about: {what}");
    let tally = compare(trials, &flows).unwrap();
    assert_eq!((tally.wrong, tally.unseen), (1, 1), "{what}: {tally}");
}

/// The first step of a traversal that is so.
fn find(traversal: &mut Value, is: impl Fn(&Value) -> bool) -> Option<&mut Value> {
    traversal["steps"].as_array_mut().unwrap().iter_mut().find(|step| is(step))
}

fn truth_and_lies(kind: Kind) {
    let trials = trials(kind, RULESETS);
    let flows = omniscient(&trials);
    let tally = compare(&trials, &flows).unwrap();
    assert!(is_agreement(&tally), "{kind}: {tally}\n{}\n{:#?}", tally.complaint(), tally.missing);
    assert_eq!((tally.exact_firsts, tally.steps.exact > 0), (tally.flows, true));

    lie(&trials, &flows, "a step too many", |traversal| {
        let steps = traversal["steps"].as_array_mut().unwrap();
        let Some(last) = steps.last().cloned() else { return false };
        steps.push(last);
        true
    });
    lie(&trials, &flows, "a step is missing", |traversal| {
        let steps = traversal["steps"].as_array_mut().unwrap();
        let rule = steps.iter().position(|step| step["type"] == "rule");
        rule.filter(|_| steps.len() > 2).map(|index| steps.remove(index)).is_some()
    });
    lie(&trials, &flows, "another position", |traversal| {
        let step = find(traversal, |step| step["type"] == "rule");
        step.map(|step| step["position"] = 99.into()).is_some()
    });
    lie(&trials, &flows, "another verdict", |traversal| {
        let step = find(traversal, |step| step["verdict"] == "jump");
        step.map(|step| step["verdict"] = "continue".into()).is_some()
    });
    lie(&trials, &flows, "another target", |traversal| {
        let step = find(traversal, |step| step["verdict"] == "goto");
        step.map(|step| step["target"] = "nowhere".into()).is_some()
    });
    lie(&trials, &flows, "another outcome", |traversal| {
        let passed = traversal["outcome"] == "passed";
        traversal["outcome"] = if passed { "dropped" } else { "passed" }.into();
        true
    });
    lie(&trials, &flows, "another mark", |traversal| {
        traversal["packet_mark"]["before"] = 77.into();
        true
    });
    lie(&trials, &flows, "inferred, but wrong", |traversal| {
        let steps = traversal["steps"].as_array_mut().unwrap();
        steps.retain(|step| step["type"] == "rule");
        let Some(step) = steps.first_mut() else { return false };
        step["provenance"] = "inferred".into();
        step["position"] = 98.into();
        true
    });
    lie(&trials, &flows, "the verdict of a chain", |traversal| {
        let steps = traversal["steps"].as_array_mut().unwrap();
        if steps.len() != 1 || steps[0]["verdict"] != "accept" {
            return false;
        }
        for (key, value) in [("type", "chain"), ("provenance", "chain"), ("verdict", "drop")] {
            steps[0][key] = value.into();
        }
        true
    });

    // Less than everything, but nothing wrong.
    let mut modest = flows;
    for flow in &mut modest {
        for traversal in flow["traversals"].as_array_mut().unwrap() {
            for step in traversal["steps"].as_array_mut().unwrap() {
                step["provenance"] = "inferred".into();
            }
            let steps = traversal["steps"].as_array_mut().unwrap();
            if steps.len() > 2 {
                steps.remove(0);
            }
        }
    }
    let tally = compare(&trials, &modest).unwrap();
    assert_eq!((tally.wrong, tally.steps.exact, tally.seen), (0, 0, tally.flows), "{tally}");
    coverage(kind, &trials);
}

/// Each feature met packets.
fn coverage(kind: Kind, trials: &[Trial]) {
    const NFT_ONLY: [&str; 5] =
        ["named set", "concatenation", "verdict map", "named verdict map", "dnat by map"];
    let met = met(trials);
    println!("{kind}, {} rulesets, steps by what the rule has: {met:?}", trials.len());
    let hooks =
        ["prerouting", "input", "forward", "output", "postrouting"].map(|h| format!("hook {h}"));
    let depths = ["depth 1", "depth 2", "depth 3", "policy drop"].map(str::to_owned);
    let features = FEATURES.iter().map(|(name, _)| (*name).to_owned());
    for feature in features.chain(hooks).chain(depths) {
        let possible = kind == Kind::Nft || !NFT_ONLY.contains(&feature.as_str());
        assert_eq!(met.contains_key(&feature), possible, "{kind}: {feature}");
    }
}

#[test]
fn lies_about_nft_are_found() {
    truth_and_lies(Kind::Nft);
}

#[test]
fn lies_about_iptables_nft_are_found() {
    truth_and_lies(Kind::IptablesNft);
}

#[test]
fn lies_about_iptables_legacy_are_found() {
    truth_and_lies(Kind::IptablesLegacy);
}
