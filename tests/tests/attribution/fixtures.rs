//! Rulesets as Docker, firewalld and kube-proxy write them: they load, are indexed, and their packets
//! are attributed.

use conntracker_tests::rulesets::{Kind, Ruleset, tracing};
use conntracker_tests::tracer::report::Document;
use conntracker_tests::trial::surroundings::{flows, surroundings};
use conntracker_tests::trial::tally::compare;
use conntracker_tests::trial::{self, Bench, Trial};

const DOCKER: &str = include_str!("../../../conntracker-agent/src/firewall/fixtures/docker.txt");
pub const FIREWALLD: &str =
    include_str!("../../../conntracker-agent/src/firewall/fixtures/firewalld.txt");
pub const KUBE_PROXY: &str =
    include_str!("../../../conntracker-agent/src/firewall/fixtures/kube-proxy.txt");

#[test]
fn rulesets_of_other_programs() {
    let mut bench = Bench::new().unwrap();
    surroundings(&bench.lab).unwrap();
    let mut tracer = trial::trace(&bench.lab.router).unwrap();
    let trials: Vec<Trial> = (0..)
        .zip([DOCKER, FIREWALLD, KUBE_PROXY])
        .map(|(number, text)| {
            let text = format!("flush ruleset\n{}{text}", tracing());
            let loads = vec![("nft", text)];
            let ruleset = Ruleset { kind: Kind::Nft, number, loads, chains: Vec::new() };
            let flows = flows(&bench.lab, number);
            bench.try_flows(ruleset, flows, Some(&mut tracer)).unwrap()
        })
        .collect();
    let report = Document::json(&tracer.finish().unwrap()).unwrap();
    for (name, trial) in ["docker", "firewalld", "kube-proxy"].into_iter().zip(trials) {
        let packets = &trial.traced.packets;
        let steps = packets.iter().flat_map(|packet| &packet.runs).map(|run| run.steps.len());
        let met = steps.sum::<usize>();
        let tally = compare(&[trial], &report.flows).unwrap();
        println!("{name}: {tally}; {met} steps of the kernel");
        assert!(tally.wrong == 0, "{name}: {}", tally.complaint());
        let known = tally.steps.exact + tally.steps.evaluated;
        assert!(known * 100 >= tally.steps.told() * 95, "{name}: {tally}");
        assert!(tally.unseen == 0 && tally.claims > 0, "{name}: {:#?}", tally.missing);
        if name == "docker" {
            // Every rule of it has a counter.
            assert_eq!(tally.exact_firsts, tally.flows, "{tally}");
        }
    }
}
