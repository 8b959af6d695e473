//! From the tables of a ruleset to a [`Program`].

use std::collections::HashMap;

use super::{
    ChainId,
    evaluate::{decides_before_counter, markings},
    program::{Counters, Knowledge, Marking, Program, ProgramChain, ProgramRule, RuleOutcome},
};
use crate::{
    attribution::evaluate::needs,
    firewall::{
        Ruleset,
        action::{Action, Target, Via},
        clause::{Clause, MapElements, MapVerdict},
        model::{Chain, Rule, Table},
    },
    model::table::{Backend, Family},
};

impl Program {
    /// From the model.
    #[must_use]
    pub fn new(ruleset: &Ruleset, counters: &impl Counters) -> Self {
        let mut program = Self::default();
        for (number, table) in ruleset.tables.iter().enumerate() {
            program.first.push(program.chains.len() as u32);
            add_table(&mut program, (number, table), counters);
        }
        program.find_needs();
        program.find_changes(ruleset);
        program
    }

    /// Finds the changes that rules make to packets and that later conditions see.
    fn find_changes(&mut self, ruleset: &Ruleset) {
        let of_ip = |chain: &&ProgramChain| {
            let family = ruleset.tables.get(chain.table as usize).map(|table| table.family);
            matches!(family, Some(Family::Ip | Family::Ip6 | Family::Inet))
        };
        let known = self.chains.iter().filter(of_ip).all(|chain| chain.known);
        let leaves = self.outcomes.iter().any(|outcome| outcome.leaves_model());
        let mut rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        let changes = rules.clone().any(|rule| rule.clauses.contains(&Clause::Headers));
        let untracks = |kind: &String| {
            ["notrack", "text", "xt", "xt target CT", "xt target NOTRACK"].contains(&kind.as_str())
        };
        // An unknown statement may send packets, so it counts as one that does.
        let sends = |kind: &String| {
            ["dup", "synproxy", "text", "xt", "xt target SYNPROXY", "xt target TEE"]
                .contains(&kind.as_str())
        };
        self.keeps_headers = known && !leaves && !changes;
        self.only_rejects_send = known
            && !leaves
            && !self.outcomes.contains(&RuleOutcome::Unknown)
            && !rules.clone().any(|rule| rule.kinds.iter().any(sends));
        self.untracks = !known || rules.any(|rule| rule.kinds.iter().any(untracks));
    }

    fn find_needs(&mut self) {
        for chain in &self.chains {
            for rule in &chain.rules {
                let needs = needs(&rule.clauses);
                let tells = matches!(rule.knowledge, Knowledge::Exact);
                for (hook, found) in self.needs.iter_mut().enumerate() {
                    if chain.entered & 1 << hook != 0 {
                        found[1] = found[1].and(needs);
                        if !tells {
                            found[0] = found[0].and(needs);
                        }
                    }
                }
            }
        }
    }
}

fn names(table: &Table) -> HashMap<&str, u32> {
    table.chains.iter().map(|chain| chain.name.as_str()).zip(0..).collect()
}

/// Adds the chains of a table, whose number comes first.
fn add_table(program: &mut Program, (number, table): (usize, &Table), counters: &impl Counters) {
    let first = program.chains.len() as u32;
    let reads = |chain, rule| counters.reads(number, chain, rule);
    let mut build = Build { program, table, first, names: names(table) };
    for (at, chain) in table.chains.iter().enumerate() {
        build.chain((number, at), chain, counters.agrees(number, at), &reads);
    }
    build.entries();
}

struct Build<'a> {
    program: &'a mut Program,
    table: &'a Table,
    first: u32,
    names: HashMap<&'a str, u32>,
}

impl Build<'_> {
    fn chain(
        &mut self,
        (table, at): (usize, usize),
        chain: &Chain,
        known: bool,
        reads: &impl Fn(usize, usize) -> bool,
    ) {
        let legacy = self.table.backend == Backend::Legacy;
        let rules: Vec<_> = chain
            .rules
            .iter()
            .enumerate()
            .map(|(n, rule)| {
                let counted = (legacy || rule.counter.is_some()) && reads(at, n);
                self.rule(rule, known && counted)
            })
            .collect();
        let evidence =
            |rule: &ProgramRule| matches!(rule.knowledge, Knowledge::Exact | Knowledge::Bound);
        let blind = |(rule, n): (&ProgramRule, u32)| {
            let decides = self.program.outcomes(rule) != [RuleOutcome::Continue];
            (!evidence(rule) && decides).then_some(n)
        };
        let blind = rules.iter().zip(0..).filter_map(blind).collect();
        let marking = |(rule, n): (&ProgramRule, u32)| {
            let sets = |marking: &Marking| marking.acts() && (marking.early || !evidence(rule));
            rule.markings.iter().any(sets).then_some(n)
        };
        let marking = rules.iter().zip(0..).filter_map(marking).collect();
        self.program.chains.push(ProgramChain {
            table: table as u32,
            index: at as u32,
            base: chain.base.as_ref().map(|base| (base.policy, base.kind)),
            entered: chain.base.as_ref().map_or(0, |base| 1 << base.hook as u8),
            entered_again: 0,
            called_blindly: false,
            known,
            end_counts: known && legacy && reads(at, rules.len()),
            nft: !legacy,
            rules,
            blind,
            marking,
        });
    }

    fn rule(&mut self, rule: &Rule, counted: bool) -> ProgramRule {
        let legacy = self.table.backend == Backend::Legacy;
        let from = self.program.outcomes.len();
        self.outcomes(rule);
        let outcomes = &mut self.program.outcomes[from..];
        outcomes.sort_unstable();
        let goes_on = *outcomes == [RuleOutcome::Continue];
        // nft_synproxy_do_eval() ends the rule for packets other than TCP, after its counter.
        let breaks = !legacy && outcomes.contains(&RuleOutcome::Synproxy);
        ProgramRule {
            knowledge: match counted {
                // ip_tables counts when all matches have matched.
                true if decides_before_counter(&rule.clauses) => Knowledge::Loose,
                true if (legacy || rule.counts_matches) && !breaks => Knowledge::Exact,
                true => Knowledge::Bound,
                false => Knowledge::Blind,
            },
            watched: false,
            fragile: goes_on && rule.kinds.iter().any(|kind| kind.starts_with("xt target ")),
            outcomes: (from as u32, self.program.outcomes.len() as u32),
            map_outcomes: self.map_outcomes(rule),
            markings: if rule.kinds.iter().any(|kind| may_mark(kind)) {
                [Marking::ANYHOW; 2]
            } else {
                markings(&rule.clauses)
            },
            clauses: rule.clauses.clone(),
        }
    }

    /// What the elements of a rule's verdict map do, if it has one.
    fn map_outcomes(&self, rule: &Rule) -> Option<Vec<RuleOutcome>> {
        let mut maps = rule.clauses.iter().filter_map(|clause| match clause {
            Clause::Map(map) => Some(map),
            _ => None,
        });
        let (Some(map), None) = (maps.next(), maps.next()) else { return None };
        let MapElements::Listed(elements) = &map.elements else { return None };
        let outcome = |verdict: &MapVerdict| match verdict {
            MapVerdict::Continue => Some(RuleOutcome::Continue),
            MapVerdict::Plain(Action::Accept) => Some(RuleOutcome::Accept),
            MapVerdict::Plain(Action::Drop) => Some(RuleOutcome::Drop),
            MapVerdict::Plain(Action::Return) => Some(RuleOutcome::Return),
            MapVerdict::Plain(Action::Queue) => Some(RuleOutcome::Queue),
            MapVerdict::Plain(_) => None,
            MapVerdict::To(target) => Some(self.target(target)),
        };
        elements.iter().map(|element| outcome(&element.verdict)).collect()
    }

    fn target(&self, target: &Target) -> RuleOutcome {
        let chain = self.names.get(target.chain.as_str()).map(|at| ChainId(self.first + at));
        match (chain, target.via) {
            (Some(chain), Via::Jump) => RuleOutcome::Jump(chain),
            (Some(chain), Via::Goto) => RuleOutcome::Goto(chain),
            (None, _) => RuleOutcome::Wander,
        }
    }

    /// Adds what a rule can do.
    fn outcomes(&mut self, rule: &Rule) {
        let outcomes = &mut self.program.outcomes;
        let from = outcomes.len();
        outcomes.extend(rule.actions.iter().filter_map(|action| {
            Some(match action {
                Action::Accept => RuleOutcome::Accept,
                Action::Drop => RuleOutcome::Drop,
                Action::Reject => RuleOutcome::Reject,
                Action::Return => RuleOutcome::Return,
                Action::Queue => RuleOutcome::Queue,
                Action::Nat => match rule.nat_family {
                    Some(family) if self.table.family == Family::Inet => {
                        RuleOutcome::NatOf { v6: family == Family::Ip6 }
                    }
                    _ => RuleOutcome::Nat,
                },
                Action::Synproxy => RuleOutcome::Synproxy,
                Action::Forward => RuleOutcome::Stolen,
                Action::Unknown if of_xtables(rule) => RuleOutcome::Unknown,
                Action::Unknown => RuleOutcome::Wander,
                // Among the targets.
                Action::Jump | Action::Goto => return None,
            })
        }));
        let targets: Vec<RuleOutcome> =
            rule.targets.iter().map(|target| self.target(target)).collect();
        let outcomes = &mut self.program.outcomes;
        outcomes.extend(targets);
        if outcomes.len() == from {
            outcomes.push(RuleOutcome::Continue);
        }
    }

    /// Computes how often a packet can enter each chain: the sum over the rules that lead to it, with callers before
    /// callees.
    fn entries(&mut self) {
        let first = self.first as usize;
        let Program { chains, outcomes, .. } = &mut *self.program;
        let chains = &mut chains[first..];
        let target = |outcome: &RuleOutcome| match outcome {
            RuleOutcome::Jump(to) | RuleOutcome::Goto(to) => Some(to.0 as usize - first),
            _ => None,
        };
        let ways_of =
            |rule: &ProgramRule| &outcomes[rule.outcomes.0 as usize..rule.outcomes.1 as usize];
        let mut callers = vec![0_u32; chains.len()];
        let mut called_blindly = vec![false; chains.len()];
        for rule in chains.iter().flat_map(|chain| &chain.rules) {
            for to in ways_of(rule).iter().filter_map(target) {
                callers[to] += 1;
                called_blindly[to] |= rule.knowledge.is_silent();
            }
        }
        let mut ready: Vec<usize> = (0..chains.len()).filter(|&at| callers[at] == 0).collect();
        while let Some(at) = ready.pop() {
            let (entered, again) = (chains[at].entered, chains[at].entered_again);
            let targets: Vec<usize> =
                chains[at].rules.iter().flat_map(ways_of).filter_map(target).collect();
            for to in targets {
                let callee = &mut chains[to];
                callee.entered_again |= again | (callee.entered & entered);
                callee.entered |= entered;
                callers[to] -= 1;
                if callers[to] == 0 {
                    ready.push(to);
                }
            }
        }
        // Rules and chains that are not in the model may lead to any chain, if packets reach them.
        let (mut wander, mut wander_blindly) = (0, 0);
        for chain in &*chains {
            let wanders = |rule: &&ProgramRule| ways_of(rule).contains(&RuleOutcome::Wander);
            for rule in chain.rules.iter().filter(wanders) {
                wander |= chain.entered;
                if rule.knowledge.is_silent() {
                    wander_blindly |= chain.entered;
                }
            }
            if !chain.known {
                wander_blindly |= chain.entered;
            }
        }
        for ((chain, callers), blindly) in chains.iter_mut().zip(callers).zip(called_blindly) {
            if chain.base.is_none() {
                chain.entered_again |= wander | wander_blindly;
                // The kernel accepts no loops, so a model with one is wrong.
                if callers > 0 {
                    chain.entered_again = u8::MAX;
                }
            }
            chain.called_blindly = blindly || wander_blindly != 0;
        }
    }
}

/// Whether a part of a rule may set marks to an unknown value. Extensions of xtables may, except those in the list.
fn may_mark(kind: &str) -> bool {
    const HARMLESS: [&str; 16] = [
        "ACCEPT",
        "CHECKSUM",
        "CLASSIFY",
        "CT",
        "DNAT",
        "HL",
        "LOG",
        "MASQUERADE",
        "NETMAP",
        "NFLOG",
        "REDIRECT",
        "REJECT",
        "SNAT",
        "TCPMSS",
        "TTL",
        "TRACE",
    ];
    match kind.strip_prefix("xt target ") {
        Some(target) => !HARMLESS.contains(&target),
        None => kind == "text" || kind == "xt",
    }
}

/// Whether the unknown part of a rule is a target of xtables, which only gives verdicts. nft cannot write rules with
/// such targets, and iptables writes no other unknown parts.
fn of_xtables(rule: &Rule) -> bool {
    rule.kinds.iter().any(|kind| kind == "xt" || kind.starts_with("xt target "))
        && !rule.kinds.iter().any(|kind| kind == "text" || kind == "vmap")
}
