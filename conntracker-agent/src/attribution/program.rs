//! The ruleset of a namespace as the kernel evaluates it, with what its counters can tell.

use std::collections::HashMap;

use super::{
    ChainId, Observation, SolvedVerdict, Spot,
    evaluate::{Marking, decides_before_counter, markings, needs},
    packet::Needs,
};
use crate::ruleset::{
    Ruleset,
    clause::{Clause, MapElements, MapVerdict},
    model::{Action, Backend, Chain, ChainType, Family, Policy, Rule, Table, Target, Via},
};

/// What is known of the kernel's side of a ruleset: which chains are as they were listed, and which
/// counters are read.
pub trait Counters {
    /// Whether the kernel's rules of a chain are those of the model, handle by handle.
    fn agrees(&self, table: usize, chain: usize) -> bool;

    /// Whether the counter of a rule is read; that of the end of the chain at index `rules.len()`,
    /// which is asked for in ip_tables only.
    fn reads(&self, table: usize, chain: usize, rule: usize) -> bool;
}

/// The ruleset of a namespace.
#[derive(Debug, Default)]
pub struct Program {
    /// Chains of all tables, table by table.
    chains: Vec<ProgramChain>,
    /// For each table, the number of its first chain.
    first: Vec<u32>,
    /// What rules can do, rule by rule.
    ways: Vec<Way>,
    /// By hook: what rules ask of packets where no counter tells, and what all of them ask.
    needs: [[Needs; 2]; HOOKS],
    /// Headers of packets are what conntrack knows of them: no rule changes them otherwise.
    keeps_headers: bool,
    /// A rule takes packets out of conntrack's hands.
    untracks: bool,
}

/// Hooks of all families: bits of [`ProgramChain::hook`].
const HOOKS: usize = 8;

/// What a counter tells of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// It moves exactly when the rule matches.
    Exact,
    /// Conditions stand behind it: without it no match, but it may move without one.
    Bound,
    /// A verdict can be given before it: a match need not move it.
    Loose,
    /// There is none, or it is not read.
    Blind,
}

/// What a rule can do with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Continue,
    Accept,
    Drop,
    Reject,
    Jump(ChainId),
    Goto(ChainId),
    Return,
    Queue,
    /// Accepts, or drops if it cannot translate; base chains of type nat behind it are passed over
    /// (`nf_nat_inet_fn` of net/netfilter/nf_nat_core.c).
    Nat,
    /// The same for packets of one family; those of the other one go on.
    NatOf {
        v6: bool,
    },
    /// Takes the packet, drops it, or lets those go on that are no part of a handshake.
    Synproxy,
    Stolen,
    /// Any verdict.
    Unknown,
    /// Any verdict, maybe after rules that are not in the model.
    Wander,
}

impl Way {
    /// Whether packets go through something that is not in the model, or through programs, or are made
    /// anew: what they are afterwards is not known.
    fn leaves_model(self) -> bool {
        matches!(self, Self::Queue | Self::Synproxy | Self::Wander)
    }

    /// The verdict that it always is.
    pub fn verdict(self) -> Option<SolvedVerdict> {
        Some(match self {
            Self::Continue => SolvedVerdict::Continue,
            Self::Accept => SolvedVerdict::Accept,
            Self::Drop => SolvedVerdict::Drop,
            Self::Reject => SolvedVerdict::Reject,
            Self::Jump(to) => SolvedVerdict::Jump(to),
            Self::Goto(to) => SolvedVerdict::Goto(to),
            Self::Return => SolvedVerdict::Return,
            Self::Queue => SolvedVerdict::Queue,
            Self::Stolen => SolvedVerdict::Stolen,
            Self::Nat | Self::NatOf { .. } | Self::Synproxy | Self::Unknown | Self::Wander => {
                return None;
            }
        })
    }
}

#[derive(Debug)]
pub(super) struct ProgramChain {
    pub table: u32,
    /// Index in its table.
    index: u32,
    /// Policy and type of a base chain.
    pub base: Option<(Policy, ChainType)>,
    /// A bit for each hook from which it can be entered at all, and for each from which one packet
    /// can enter it more than once.
    entered: u8,
    entered_again: u8,
    /// A rule without a counter can lead here.
    pub called_blindly: bool,
    /// Its rules are the kernel's.
    pub known: bool,
    /// Its end has a counter that is read.
    pub end_counts: bool,
    /// nf_tables, where the depth of jumps is limited.
    pub nft: bool,
    pub rules: Vec<ProgramRule>,
    /// Rules that can do something else than go on without a counter that tells, ascending.
    pub blind: Vec<u32>,
    /// Rules that can set marks without a counter that tells, ascending.
    pub marking: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct ProgramRule {
    pub knowledge: Knowledge,
    /// A target of xtables that goes on: it drops packets that it cannot change.
    pub fragile: bool,
    /// Its target is looked at when it runs.
    pub watched: bool,
    /// What it asks of packets, if it is one of nf_tables.
    pub clauses: Vec<Clause>,
    /// Of the elements of its verdict map, what they do.
    pub map_ways: Option<Vec<Way>>,
    /// What it does to packet mark and connmark.
    pub markings: [Marking; 2],
    /// Its part of `Program::ways`.
    ways: (u32, u32),
}

impl Program {
    /// From the model.
    #[must_use]
    pub fn new(ruleset: &Ruleset, counters: &impl Counters) -> Self {
        let mut program = Self::default();
        for (number, table) in ruleset.tables.iter().enumerate() {
            let first = program.chains.len() as u32;
            program.first.push(first);
            let reads = |chain, rule| counters.reads(number, chain, rule);
            let mut build = Build { program: &mut program, table, first, names: names(table) };
            for (at, chain) in table.chains.iter().enumerate() {
                build.chain((number, at), chain, counters.agrees(number, at), &reads);
            }
            build.entries();
        }
        program.find_needs();
        let certain = |chain: &ProgramChain| {
            let rules = chain.rules.iter();
            chain.known && !rules.flat_map(|rule| program.ways(rule)).any(|way| way.leaves_model())
        };
        let mut rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        program.keeps_headers = program.chains.iter().all(certain)
            && !rules.any(|rule| rule.clauses.contains(&Clause::Headers));
        let mut rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
        let untracks = |kind: &String| {
            ["notrack", "text", "xt", "xt target CT", "xt target NOTRACK"].contains(&kind.as_str())
        };
        program.untracks = !program.chains.iter().all(|chain| chain.known)
            || rules.any(|rule| rule.kinds.iter().any(untracks));
        program
    }

    /// Takes from what is known of a packet what no rule at its hook asks for: then packets are alike
    /// that go the same way.
    pub fn forget_unneeded(&self, seen: &mut Observation) {
        let hook = seen.chains.first().and_then(|&id| self.chain(id)).map_or(0, ProgramChain::hook);
        let needs = self.needs.get(hook.trailing_zeros() as usize);
        // Where counters were not read, rules are as if they had none.
        let needs = needs.map_or(Needs::NONE, |needs| needs[usize::from(!seen.complete)]);
        seen.packet.keep(needs);
    }

    /// Whether packets' headers are what conntrack knows of them.
    #[must_use]
    pub fn keeps_headers(&self) -> bool {
        self.keeps_headers
    }

    /// Whether a rule takes packets out of conntrack's hands.
    #[must_use]
    pub fn untracks(&self) -> bool {
        self.untracks
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

    /// A chain by the indices of its table in the ruleset and of the chain in the table.
    #[must_use]
    pub fn id(&self, table: usize, chain: usize) -> Option<ChainId> {
        let id = ChainId(self.first.get(table)?.checked_add(u32::try_from(chain).ok()?)?);
        (self.place(id)? == (table, chain)).then_some(id)
    }

    /// The indices of the table in the ruleset and of the chain in the table.
    #[must_use]
    pub fn place(&self, id: ChainId) -> Option<(usize, usize)> {
        self.chain(id).map(|chain| (chain.table as usize, chain.index as usize))
    }

    pub(super) fn chain(&self, id: ChainId) -> Option<&ProgramChain> {
        self.chains.get(id.0 as usize)
    }

    /// The targets of these rules are looked at when they run: [`super::Observation::sighted`] has
    /// those that did.
    pub fn watch(&mut self, rules: impl Iterator<Item = Spot>) {
        for Spot { chain, index } in rules {
            let chain = self.chains.get_mut(chain.0 as usize);
            if let Some(rule) = chain.and_then(|chain| chain.rules.get_mut(index as usize)) {
                rule.watched = true;
            }
        }
    }

    pub(super) fn rule(&self, spot: Spot) -> Option<&ProgramRule> {
        self.chain(spot.chain)?.rules.get(spot.index as usize)
    }

    pub(super) fn is_watched(&self, spot: Spot) -> bool {
        self.rule(spot).is_some_and(|rule| rule.watched)
    }

    pub(super) fn ways(&self, rule: &ProgramRule) -> &[Way] {
        &self.ways[rule.ways.0 as usize..rule.ways.1 as usize]
    }

    /// Whether a rule can lead to a chain at once.
    pub(super) fn leads(&self, rule: &ProgramRule, to: ChainId) -> bool {
        let ways = self.ways(rule);
        [Way::Jump(to), Way::Goto(to), Way::Wander]
            .iter()
            .any(|way| ways.binary_search(way).is_ok())
    }
}

impl ProgramRule {
    /// Whether it can set marks.
    pub fn marks(&self) -> bool {
        self.markings.iter().any(|marking| marking.set.is_some())
    }
}

impl ProgramChain {
    pub fn end(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Whether one packet can enter it more than once on its way through a hook.
    pub fn entered_again(&self, hook: u8) -> bool {
        self.entered_again & hook != 0
    }

    /// The bit of the hook of a base chain.
    pub fn hook(&self) -> u8 {
        if self.base.is_some() { self.entered } else { 0 }
    }
}

fn names(table: &Table) -> HashMap<&str, u32> {
    table.chains.iter().map(|chain| chain.name.as_str()).zip(0..).collect()
}

/// Adds the chains of a table.
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
        let told =
            |rule: &ProgramRule| matches!(rule.knowledge, Knowledge::Exact | Knowledge::Bound);
        let blind = |(rule, n): (&ProgramRule, u32)| {
            let decides = self.program.ways(rule) != [Way::Continue];
            (!told(rule) && decides).then_some(n)
        };
        let blind = rules.iter().zip(0..).filter_map(blind).collect();
        let marking = |(rule, n): (&ProgramRule, u32)| {
            let sets = |marking: &Marking| marking.set.is_some() && (marking.early || !told(rule));
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
        let from = self.program.ways.len();
        self.ways(rule);
        let ways = &mut self.program.ways[from..];
        ways.sort_unstable();
        let goes_on = *ways == [Way::Continue];
        // nft_synproxy_do_eval() lets packets other than TCP break off the rule, after its counter.
        let breaks = !legacy && ways.contains(&Way::Synproxy);
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
            ways: (from as u32, self.program.ways.len() as u32),
            map_ways: self.map_ways(rule),
            markings: if rule.kinds.iter().any(|kind| may_mark(kind)) {
                [Marking::ANYHOW; 2]
            } else {
                markings(&rule.clauses)
            },
            clauses: rule.clauses.clone(),
        }
    }

    /// What the elements of a rule's verdict map do, if it has one.
    fn map_ways(&self, rule: &Rule) -> Option<Vec<Way>> {
        let mut maps = rule.clauses.iter().filter_map(|clause| match clause {
            Clause::Map(map) => Some(map),
            _ => None,
        });
        let (Some(map), None) = (maps.next(), maps.next()) else { return None };
        let MapElements::Listed(elements) = &map.elements else { return None };
        let way = |verdict: &MapVerdict| match verdict {
            MapVerdict::Continue => Some(Way::Continue),
            MapVerdict::Plain(Action::Accept) => Some(Way::Accept),
            MapVerdict::Plain(Action::Drop) => Some(Way::Drop),
            MapVerdict::Plain(Action::Return) => Some(Way::Return),
            MapVerdict::Plain(Action::Queue) => Some(Way::Queue),
            MapVerdict::Plain(_) => None,
            MapVerdict::To(target) => Some(self.target(target)),
        };
        elements.iter().map(|element| way(&element.verdict)).collect()
    }

    fn target(&self, target: &Target) -> Way {
        let chain = self.names.get(target.chain.as_str()).map(|at| ChainId(self.first + at));
        match (chain, target.via) {
            (Some(chain), Via::Jump) => Way::Jump(chain),
            (Some(chain), Via::Goto) => Way::Goto(chain),
            (None, _) => Way::Wander,
        }
    }

    /// Adds what a rule can do.
    fn ways(&mut self, rule: &Rule) {
        let ways = &mut self.program.ways;
        let from = ways.len();
        ways.extend(rule.actions.iter().filter_map(|action| {
            Some(match action {
                Action::Accept => Way::Accept,
                Action::Drop => Way::Drop,
                Action::Reject => Way::Reject,
                Action::Return => Way::Return,
                Action::Queue => Way::Queue,
                Action::Nat => match rule.nat_family {
                    Some(family) if self.table.family == Family::Inet => {
                        Way::NatOf { v6: family == Family::Ip6 }
                    }
                    _ => Way::Nat,
                },
                Action::Synproxy => Way::Synproxy,
                Action::Forward => Way::Stolen,
                Action::Unknown if of_xtables(rule) => Way::Unknown,
                Action::Unknown => Way::Wander,
                // Among the targets.
                Action::Jump | Action::Goto => return None,
            })
        }));
        let targets: Vec<Way> = rule.targets.iter().map(|target| self.target(target)).collect();
        let ways = &mut self.program.ways;
        ways.extend(targets);
        if ways.len() == from {
            ways.push(Way::Continue);
        }
    }

    /// Finds out how often a packet can enter each chain: the sum over the rules that lead there, in
    /// an order in which callers come before callees.
    fn entries(&mut self) {
        let first = self.first as usize;
        let Program { chains, ways, .. } = &mut *self.program;
        let chains = &mut chains[first..];
        let target = |way: &Way| match way {
            Way::Jump(to) | Way::Goto(to) => Some(to.0 as usize - first),
            _ => None,
        };
        let ways_of = |rule: &ProgramRule| &ways[rule.ways.0 as usize..rule.ways.1 as usize];
        let mut callers = vec![0_u32; chains.len()];
        let mut called_blindly = vec![false; chains.len()];
        for rule in chains.iter().flat_map(|chain| &chain.rules) {
            for to in ways_of(rule).iter().filter_map(target) {
                callers[to] += 1;
                called_blindly[to] |= rule.knowledge == Knowledge::Blind;
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
        // Rules and chains that are not in the model may lead anywhere, if packets come there.
        let (mut wander, mut wander_blindly) = (0, 0);
        for chain in &*chains {
            let wanders = |rule: &&ProgramRule| ways_of(rule).contains(&Way::Wander);
            for rule in chain.rules.iter().filter(wanders) {
                wander |= chain.entered;
                if rule.knowledge == Knowledge::Blind {
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
                // The kernel takes no loops: a model with one is wrong somewhere.
                if callers > 0 {
                    chain.entered_again = u8::MAX;
                }
            }
            chain.called_blindly = blindly || wander_blindly != 0;
        }
    }
}

/// Whether a part of a rule may set marks in a way that is not known: extensions of xtables do, but for
/// those that are known not to.
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

/// Whether what is unknown of a rule is a target of xtables, which gives verdicts and nothing else.
/// nft cannot write rules with those, and iptables none with anything else that is unknown.
fn of_xtables(rule: &Rule) -> bool {
    rule.kinds.iter().any(|kind| kind == "xt" || kind.starts_with("xt target "))
        && !rule.kinds.iter().any(|kind| kind == "text" || kind == "vmap")
}
