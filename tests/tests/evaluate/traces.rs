//! What the evaluator says that packets do, and what the kernel says that they did when it traced them.
//!
//! `CONNTRACKER_EVALUATED` is the number of rulesets of each kind.

use std::{collections::BTreeMap, env, thread};

use conntracker::{
    firewall::evaluate::{
        Evaluation, Firewall, Origin, Packet,
        code::Code,
        evaluate,
        packet::PacketType,
        routing_tables::RoutingTables,
        state::{EvaluatedStep, Fate, StepVerdict},
        unknown::Attribute,
        word::Word,
    },
    firewall::legacy::raw,
    model::{path::SiteKind, table},
};
use conntracker_tests::{
    burst, is_quick,
    lab::{Host, Lab},
    oracle::{self, Backend, ChainName, Step, StepKind, Verdict},
    rulesets::{Kind, ORACLE_TABLE, Ruleset},
    trial::{Bench, Trial},
};

use crate::{
    expressions::load,
    flows::{Flows, state, tuple},
    language, router,
};

/// Rulesets of each kind, and with `CONNTRACKER_TESTS=quick`.
const RULESETS: u32 = 200;
const QUICK_RULESETS: u32 = 12;

/// Traces of ip_tables do not tell the state: chains without rules do, because nf_tables traces their policies.
const STATES: &str = "table inet ct_oracle {
    chain pre_state { type filter hook prerouting priority -198; }
    chain out_state { type filter hook output priority -198; }
}";

/// Labs that share them.
const LABS: u32 = 3;

/// What came of the comparison.
#[derive(Default)]
pub(crate) struct Tally {
    pub packets: usize,
    /// Verdict and path are decided.
    pub decided: usize,
    /// Packets that are no answer of this host to a packet that it refuses, and no error of ICMP; and those of them
    /// whose verdict is decided.
    pub plain: usize,
    pub verdicts: usize,
    pub steps: usize,
    pub wrong: Vec<String>,
    /// Packets that are undecided, by the reasons.
    pub undecided: BTreeMap<String, usize>,
}

impl Tally {
    fn extend(&mut self, other: Self) {
        self.packets += other.packets;
        self.decided += other.decided;
        self.plain += other.plain;
        self.verdicts += other.verdicts;
        self.steps += other.steps;
        self.wrong.extend(other.wrong);
        for (reason, count) in other.undecided {
            *self.undecided.entry(reason).or_default() += count;
        }
    }
}

impl Tally {
    /// Prints it, and demands that nothing is wrong and so much is decided.
    pub(crate) fn pass(&self, kind: &str, decided_percent: usize) {
        let Self { packets, decided, plain, verdicts, steps, wrong, undecided } = self;
        println!(
            "{kind}: {packets} packets, {decided} decided with {steps} steps, {verdicts} of {plain} verdicts decided, {} wrong",
            wrong.len()
        );
        for (reason, count) in undecided {
            println!("{kind}: undecided: {count} {reason}");
        }
        for text in wrong.iter().take(5) {
            println!("{text}");
        }
        assert!(wrong.is_empty(), "{kind}: {} of {packets} packets are wrong", wrong.len());
        assert!(decided * 100 >= packets * decided_percent, "{kind}: too little is decided");
    }
}

/// Compares the rulesets that a function makes of numbers.
fn compare(kind: &str, generate: fn(u32) -> Ruleset, decided_percent: usize) {
    let rulesets = env::var("CONNTRACKER_EVALUATED").ok().map(|text| text.parse().unwrap());
    let rulesets = rulesets.unwrap_or(if is_quick() { QUICK_RULESETS } else { RULESETS });
    let tally = thread::scope(|scope| {
        let labs: Vec<_> = (0..LABS)
            .map(|lab| scope.spawn(move || run(generate, (lab..rulesets).step_by(LABS as usize))))
            .collect();
        let mut all = Tally::default();
        for lab in labs {
            all.extend(lab.join().unwrap());
        }
        all
    });
    println!("{kind}: {rulesets} rulesets");
    tally.pass(kind, decided_percent);
}

fn run(generate: fn(u32) -> Ruleset, numbers: impl Iterator<Item = u32>) -> Tally {
    let mut bench = Bench::new().unwrap();
    let mut tally = Tally::default();
    for number in numbers {
        let ruleset = language::without_contradictions(generate(number), &bench.lab.router);
        let flows = burst::flows(&bench.lab, number);
        let load_all = |ruleset: &Ruleset, lab: &Lab| {
            ruleset.load(&lab.router)?;
            let states = matches!(ruleset.kind, Kind::IptablesNft | Kind::IptablesLegacy);
            if states { lab.router.nft(STATES) } else { Ok(()) }
        };
        let trial = bench.try_loaded(ruleset, flows, None, load_all).unwrap();
        judge(&bench, &trial, &mut tally);
    }
    tally
}

/// Holds what the kernel says of a trial against what the evaluator says of the rules that are loaded.
pub(crate) fn judge(bench: &Bench, trial: &Trial, tally: &mut Tally) {
    let legacy = bench.lab.router.enter(raw::read).unwrap();
    let legacy: Vec<_> = legacy.iter().map(|table| table.decode().unwrap()).collect();
    let firewall = Firewall::new(&load(&bench.lab.router), &legacy);
    let router = router::tables(&bench.lab.router);
    let flows = Flows::new(&bench.lab.router);
    check(trial, &firewall, (&bench.lab.router, &router), flows, tally);
}

fn check(
    trial: &Trial,
    firewall: &Firewall,
    (host, tables): (&Host, &RoutingTables),
    mut flows: Flows,
    tally: &mut Tally,
) {
    for traced in &trial.traced.packets {
        let Some((packet, origin)) = packet(traced, &flows, (host, tables)) else { continue };
        tally.packets += 1;
        let evaluation = evaluate(firewall, packet.clone(), origin, tables);
        if origin != Origin::Answer && !traced.error {
            tally.plain += 1;
            tally.verdicts += usize::from(evaluation.fate().is_ok());
        }
        let steps: Vec<Vec<Step>> = evaluation
            .endings
            .iter()
            .map(|ending| ending.steps.iter().filter_map(|step| named(firewall, step)).collect())
            .collect();
        let met: Vec<Step> = traced.runs.iter().flat_map(|run| run.steps.clone()).collect();
        match decided(&evaluation) {
            Ok(fate) => {
                let dropped = traced.runs.last().is_some_and(oracle::Run::drops);
                let says_dropped = matches!(fate, Fate::Drop | Fate::Reject);
                if dropped != says_dropped || steps[0] != met {
                    tally.wrong.push(complaint(
                        trial,
                        traced,
                        &packet,
                        &evaluation,
                        &steps[0],
                        &met,
                    ));
                }
                tally.decided += 1;
                tally.steps += met.len();
                flows.note(&evaluation.endings[0]);
            }
            Err(why) => {
                *tally.undecided.entry(why).or_default() += 1;
                flows.doubt(&tuple(&traced.tuple), false);
            }
        }
        if traced.error {
            flows.doubt(&tuple(&traced.tuple), true);
        }
    }
}

/// What becomes of the packet, if that and all its steps are decided.
fn decided(evaluation: &Evaluation) -> Result<Fate, String> {
    let fate = evaluation.fate().map_err(|why| why.to_string())?;
    match evaluation.endings.as_slice() {
        [only] => match only.steps.iter().find(|step| !step.why.is_empty()) {
            None => Ok(fate),
            Some(step) => Err(format!("a step, for {}", step.why)),
        },
        several => Err(format!("the path, for {}", several[0].why)),
    }
}

/// The packet whose trace began, as far as the trace tells it, and where it came from.
fn packet(
    traced: &oracle::Packet,
    flows: &Flows,
    (host, tables): (&Host, &RoutingTables),
) -> Option<(Packet, Origin)> {
    let tuple = tuple(&traced.tuple);
    let mut packet = Packet::of(&tuple)?;
    let (network, transport) = &traced.headers;
    let long = |at: usize| u16::from_be_bytes([network[at], network[at + 1]]);
    if tuple.is_ipv4() {
        packet.set_length(long(2).into());
    } else {
        packet.set_length(u32::from(long(4)) + 40);
    }
    packet.set_headers(network, transport);
    packet.mark = Word::new(0, Attribute::Mark.into());
    packet.priority = Word::new(0, Attribute::Priority.into());
    packet.packet_type = Ok(PacketType::Host);
    packet.vlan = Ok(None);
    packet.output = Ok(None);
    let state = state(traced);
    packet.tracking = flows.tracking(&tuple, traced);
    let origin = if traced.local {
        packet.input = Ok(None);
        packet.output = Err(Attribute::OutputInterface.into());
        let answer = state.is_some_and(|state| state.name == "related");
        if answer { Origin::Answer } else { Origin::Local }
    } else {
        packet.input = Ok(Some(router::interface(host, tables, traced.input?)?));
        packet.owner = Ok(None);
        Origin::Received
    };
    Some((packet, origin))
}

/// A step as the oracle has it; `None` of its own table.
fn named(firewall: &Firewall, step: &EvaluatedStep) -> Option<Step> {
    let site = firewall.site(step.chain, step.index).unwrap();
    if site.table == ORACLE_TABLE {
        return None;
    }
    let name = |chain| firewall.chain_name(chain).to_owned();
    let verdict = match step.verdict {
        StepVerdict::Reject => Verdict::Reject,
        StepVerdict::Unknown => Verdict::Unknown,
        StepVerdict::Code(code) => match code {
            Code::Drop => Verdict::Drop,
            Code::Accept => Verdict::Accept,
            Code::Stolen => Verdict::Stolen,
            Code::Queue => Verdict::Queue,
            Code::Continue | Code::Break => Verdict::Continue,
            Code::Return => Verdict::Return,
            Code::Jump(to) => Verdict::Jump(name(to)),
            Code::Goto(to) => Verdict::Goto(name(to)),
        },
    };
    Some(Step {
        chain: ChainName {
            backend: match site.backend {
                table::Backend::Legacy => Backend::Legacy,
                _ => Backend::Nft,
            },
            family: site.family.name().to_owned(),
            table: site.table.clone(),
            name: site.chain.clone(),
        },
        kind: match site.kind {
            SiteKind::Policy => StepKind::Policy,
            SiteKind::Return => StepKind::Return,
            _ => StepKind::Rule,
        },
        position: site.position.unwrap(),
        handle: site.handle,
        verdict,
    })
}

fn complaint(
    trial: &Trial,
    traced: &oracle::Packet,
    packet: &Packet,
    evaluation: &Evaluation,
    steps: &[Step],
    met: &[Step],
) -> String {
    let lines = |steps: &[Step]| -> String {
        steps.iter().flat_map(|step| ["\n  ".to_owned(), step.to_string()]).collect()
    };
    let same = steps.iter().zip(met).take_while(|(one, two)| one == two).count();
    let rule = |step: Option<&Step>| {
        let step = step?;
        let ChainName { family, table, name, .. } = &step.chain;
        trial.ruleset.rule(family, table, name, step.position).map(str::to_owned)
    };
    // Rulesets of the tests' own have no list of chains.
    let text =
        if trial.ruleset.chains.is_empty() { trial.ruleset.to_string() } else { String::new() };
    let states: Vec<_> =
        traced.runs.iter().map(|run| (&run.chain.name, run.state, run.mark)).collect();
    format!(
        "{} {}: {:?} looped {:?} {:?}\n{states:?}\nsays {:?}{}\nkernel:{}\nfirst difference: {:?} / {:?}\ntracking: {:?}\n{text}",
        trial.ruleset.kind,
        trial.ruleset.number,
        traced.tuple,
        traced.looped,
        traced.tuples,
        evaluation.fate(),
        lines(steps),
        lines(met),
        rule(steps.get(same)),
        rule(met.get(same)),
        packet.tracking,
    )
}

#[test]
fn rules_that_meet_many_packets() {
    compare("nft", |number| Ruleset::generate(Kind::Nft, number), 85);
}

#[test]
fn rules_of_all_kinds() {
    compare("all kinds", language::generate, 70);
}

#[test]
fn iptables_nft() {
    compare("iptables-nft", |number| Ruleset::generate(Kind::IptablesNft, number), 85);
}

#[test]
fn iptables_legacy() {
    compare("iptables-legacy", |number| Ruleset::generate(Kind::IptablesLegacy, number), 85);
}
