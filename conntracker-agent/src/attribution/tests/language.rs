//! A notation for rulesets, observations and solutions.
//!
//! A ruleset is one table: `base NAME POLICY` (`nat NAME POLICY`, `other NAME POLICY` on another
//! hook), `chain NAME`, `differs NAME` for one that the kernel has otherwise, and rules: `c` with an
//! exact counter (`w`: its target is watched, too), `b` with conditions behind it, `-` without; then what it does, several with `|`.

use std::fmt::Write;

use crate::{
    attribution::{
        ChainId, Counters, Finding, Observation, Packet, Program, Solution, Solved, SolvedVerdict,
        Spot,
    },
    firewall::{
        Ruleset,
        action::{Action, Target, Via},
        model::{Base, Chain, ChainType, Counter, Policy, Rule, Table},
    },
    model::{
        hook::Hook,
        path::Outcome,
        table::{Backend, Family},
    },
};

pub struct Named {
    pub program: Program,
    pub ruleset: Ruleset,
}

impl Named {
    pub fn chain(&self, name: &str) -> ChainId {
        let at = self.ruleset.tables[0].chains.iter().position(|chain| chain.name == name);
        self.program.id(0, at.unwrap()).unwrap()
    }

    fn name(&self, id: ChainId) -> &str {
        let (table, chain) = self.program.indices(id).unwrap();
        &self.ruleset.tables[table].chains[chain].name
    }
}

/// All counters are read, except in chains that differ.
struct All<'a>(&'a [String]);

impl Counters for (&Table, All<'_>) {
    fn agrees(&self, _: usize, chain: usize) -> bool {
        !self.1.0.contains(&self.0.chains[chain].name)
    }

    fn reads(&self, _: usize, chain: usize, rule: usize) -> bool {
        self.0.chains[chain].rules.get(rule).is_none_or(|rule| rule.counter.is_some())
    }
}

pub fn counted(text: &str) -> Named {
    let mut differs = Vec::new();
    let ruleset = ruleset(text, &mut differs);
    let mut program = Program::new(&ruleset, &(&ruleset.tables[0], All(&differs)));
    let chains = ruleset.tables[0].chains.iter().enumerate();
    let watched: Vec<Spot> = chains
        .flat_map(|(at, chain)| {
            let id = program.id(0, at).unwrap();
            let is_watched = |rule: &Rule| rule.text == "w";
            let rules = chain.rules.iter().zip(0..).filter(move |(rule, _)| is_watched(rule));
            rules.map(move |(_, index)| Spot { chain: id, index })
        })
        .collect();
    program.watch(watched.into_iter());
    Named { program, ruleset }
}

fn ruleset(text: &str, differs: &mut Vec<String>) -> Ruleset {
    let mut table = Table {
        family: Family::Ip,
        name: "t".to_owned(),
        backend: Backend::Nft,
        handle: None,
        iptables: false,
        dormant: false,
        chains: Vec::new(),
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let base = match words[..] {
            [] => continue,
            ["legacy"] => {
                table.backend = Backend::Legacy;
                continue;
            }
            ["chain", _] => None,
            ["differs", name] => {
                differs.push(name.to_owned());
                None
            }
            [kind @ ("base" | "nat" | "other"), _, policy] => Some(Base {
                kind: if kind == "nat" { ChainType::Nat } else { ChainType::Filter },
                hook: if kind == "other" { Hook::Output } else { Hook::Input },
                priority: 0,
                policy: Policy::parse(policy).unwrap(),
                counter: None,
                devices: Vec::new(),
            }),
            [counter, ref what @ ..] => {
                let chain = table.chains.last_mut().unwrap();
                chain.rules.push(rule(chain.end_position(), counter, &what.join(" ")));
                continue;
            }
        };
        table.chains.push(Chain {
            name: words[1].to_owned(),
            handle: None,
            base,
            rules: Vec::new(),
        });
    }
    Ruleset { tables: vec![table], ..Ruleset::default() }
}

fn rule(position: u32, counter: &str, what: &str) -> Rule {
    let mut rule = Rule {
        position,
        handle: None,
        text: counter.to_owned(),
        kinds: Vec::new(),
        counter: (counter != "-").then(Counter::default),
        nat_family: None,
        clauses: Vec::new(),
        counts_matches: matches!(counter, "c" | "w"),
        actions: Vec::new(),
        targets: Vec::new(),
    };
    for what in what.split('|') {
        let (name, to) = what.split_once(' ').unwrap_or((what, ""));
        let target = |via| Target { via, chain: to.to_owned() };
        let action = match name {
            "continue" => continue,
            "xt" => {
                rule.kinds.push("xt target TCPMSS".to_owned());
                continue;
            }
            "jump" => {
                rule.targets.push(target(Via::Jump));
                Action::Jump
            }
            "goto" => {
                rule.targets.push(target(Via::Goto));
                Action::Goto
            }
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "reject" => Action::Reject,
            "return" => Action::Return,
            "queue" => Action::Queue,
            "nat" => Action::Nat,
            "fwd" => Action::Forward,
            "synproxy" => Action::Synproxy,
            "unknown" => {
                rule.kinds.push("xt target NEW".to_owned());
                Action::Unknown
            }
            "wander" => Action::Unknown,
            other => panic!("{other}"),
        };
        rule.actions.push(action);
    }
    rule
}

/// `passed` or `dropped`, then `among=A..B`, `elsewhere=N`, `blind` (counters were not read), `answered`
/// (the sender was told), and spots whose counters moved: `CHAIN/POSITION*COUNT`, `CHAIN/end`. `targets_seen`:
/// targets of watched rules were looked at; those that ran are `CHAIN/POSITION=VERDICT`.
pub fn observe(named: &Named, text: &str) -> Observation {
    let table = &named.ruleset.tables[0];
    let on_hook = |chain: &&Chain| chain.base.as_ref().is_some_and(|base| base.hook == Hook::Input);
    let chains: Vec<ChainId> =
        table.chains.iter().filter(on_hook).map(|chain| named.chain(&chain.name)).collect();
    let mut seen = Observation {
        among: (0, chains.len() - 1),
        chains,
        elsewhere: Vec::new(),
        v6: false,
        moved: Vec::new(),
        complete: true,
        targets_seen: None,
        outcome: Outcome::Passed,
        packet: Packet::default(),
    };
    for word in text.split_whitespace() {
        if word == "passed" {
            seen.outcome = Outcome::Passed;
        } else if word == "dropped" {
            seen.outcome = Outcome::Dropped;
        } else if word == "blind" {
            seen.complete = false;
        } else if word == "answered" {
            seen.packet.answered = true;
        } else if word == "sighted" {
            seen.targets_seen = Some(Vec::new());
        } else if let Some((spot, verdict)) = word.split_once('=').filter(|_| word.contains('/')) {
            let (chain, place) = spot.split_once('/').unwrap();
            let spot = Spot { chain: named.chain(chain), index: place.parse::<u32>().unwrap() - 1 };
            let verdict = match verdict {
                "continue" => SolvedVerdict::Continue,
                "accept" => SolvedVerdict::Accept,
                "drop" => SolvedVerdict::Drop,
                other => panic!("{other}"),
            };
            seen.targets_seen.as_mut().unwrap().push((spot, verdict));
        } else if let Some(among) = word.strip_prefix("among=") {
            let (first, last) = among.split_once("..").unwrap();
            seen.among = (first.parse().unwrap(), last.parse().unwrap());
        } else if let Some(place) = word.strip_prefix("elsewhere=") {
            seen.elsewhere.push(place.parse().unwrap());
        } else {
            let (spot, count) = word.split_once('*').unwrap_or((word, "1"));
            let (chain, place) = spot.split_once('/').unwrap();
            let index = match place {
                "end" => {
                    let chain = table.chains.iter().find(|of| of.name == chain);
                    chain.unwrap().rules.len() as u32
                }
                number => number.parse::<u32>().unwrap() - 1,
            };
            let spot = Spot { chain: named.chain(chain), index };
            seen.moved.push((spot, count.parse().unwrap()));
        }
    }
    seen.moved.sort();
    seen
}

/// A solution as text.
pub fn solved(named: &Named, solution: &Solution) -> String {
    let steps: Vec<String> = solution.steps.iter().map(|step| show(named, step)).collect();
    let mut text = steps.join(", ");
    if solution.finding != Finding::Agrees {
        write!(text, " ({:?})", solution.finding).unwrap();
    }
    text
}

pub fn show(
    named: &Named,
    &Solved { chain, index, verdict, provenance, placed }: &Solved,
) -> String {
    let (table, at) = named.program.indices(chain).unwrap();
    let end = named.ruleset.tables[table].chains[at].rules.len() as u32;
    let place = match index {
        None => String::new(),
        Some(index) if index == end => "/end".to_owned(),
        Some(index) => format!("/{}", index + 1),
    };
    let verdict = match verdict {
        SolvedVerdict::Jump(to) => format!("jump {}", named.name(to)),
        SolvedVerdict::Goto(to) => format!("goto {}", named.name(to)),
        other => format!("{other:?}").to_lowercase(),
    };
    let provenance = format!("{provenance:?}").to_lowercase();
    let order = if placed { "" } else { " somewhere" };
    format!("{}{place} {verdict} {provenance}{order}", named.name(chain))
}
