//! Plans: where links are needed so that counters identify the rules, and which counters they read. Pure.

use conntracker_common::{
    hook::{LOCAL_OUT, PRE_ROUTING},
    plan::{self, Guard, MAX_GAPS, MAX_SLOTS, RANGE_COUNTERS, Range, SEGMENT_EARLY, SEGMENT_MAIN},
};

use super::join::{ChainAt, Join, reachable};
use crate::{
    attribution::{ChainId, Program, Spot},
    bpf::{
        index::{
            Index,
            hooks::{HookFunction, HookList},
        },
        links::CONFIRMING_HOOKS,
        object::Role,
        symbols::Function,
    },
    firewall::{
        Ruleset,
        action::Action,
        model::{Chain, Policy},
    },
    model::table::Backend,
};

/// PREROUTING and OUTPUT, where conntrack has its own function.
const TRACKED_HOOKS: [u8; 2] = [PRE_ROUTING, LOCAL_OUT];

/// A base chain at a hook point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedChain {
    /// The chain; `None` if it was not listed.
    pub chain: Option<(ChainAt, ChainId)>,
    /// Address of the `struct nft_chain` or `struct xt_table`.
    pub address: u64,
    /// It is one of ip_tables.
    pub legacy: bool,
    /// Whether it sees only the first packet of a flow.
    pub nat: bool,
    /// Priority at the hook.
    pub priority: i32,
    /// Functions between the previous chain and this one.
    pub after: Others,
}

/// Functions at a hook other than base chains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// NAT is among them, which drops ICMP errors that it cannot translate.
    pub nat: bool,
    /// An unknown function is among them, which may drop packets.
    pub strangers: bool,
}

/// A link to attach, at a priority between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkWanted {
    /// Its role.
    pub role: Role,
    /// Higher than this,
    pub above: i32,
    /// and lower than this.
    pub below: i32,
}

/// How to trace packets at one hook point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookPlan {
    /// Number of the hook point.
    pub hook_point: u32,
    /// Base chains in order.
    pub chains: Vec<PlannedChain>,
    /// Functions between the last chain and the closing link.
    pub end: Others,
    /// For each link between chains: the number of chains before it.
    pub gaps: Vec<usize>,
    /// Links.
    pub links: Vec<LinkWanted>,
    /// Counters by slot.
    pub slots: Vec<Spot>,
    /// The counters' memory.
    pub ranges: Vec<Range>,
    /// Tables of ip_tables.
    pub legacy: Vec<Guard>,
    /// Whether NAT, and nothing else like it (IPVS), translates packets of the family.
    pub translates: bool,
}

/// What the plans are made of.
pub(super) struct Planner<'a> {
    pub index: &'a Index,
    pub ruleset: &'a Ruleset,
    pub join: &'a Join,
    pub program: &'a Program,
    /// Separate all chains.
    pub per_chain: bool,
    /// Whether probes see packets, which need no links, and no counters of nf_tables.
    pub probes: bool,
    /// IPVS is loaded.
    pub ipvs: bool,
    /// `Range::word` of counters of nf_tables and of ip_tables.
    pub words: (u16, u16),
}

impl Planner<'_> {
    /// The plans of all hook points where rules can have an effect.
    pub fn plans(&self) -> Vec<HookPlan> {
        let mut plans = Vec::new();
        for (v6, family) in [false, true].into_iter().zip(&self.index.hooks) {
            for (hook, list) in (0..).zip(family) {
                let (early, main) = segments(hook, list);
                for (segment, functions, above) in
                    [(SEGMENT_EARLY, early, i32::MIN), (SEGMENT_MAIN, main, tracking(hook, list))]
                {
                    plans.extend(self.hook_point(v6, hook, segment, functions, above));
                }
            }
        }
        plans
    }

    fn hook_point(
        &self,
        v6: bool,
        hook: u8,
        segment: u8,
        functions: &[HookFunction],
        above: i32,
    ) -> Option<HookPlan> {
        let (chains, end) = self.chains(hook, functions);
        let (first, last) = (chains.first()?.priority, chains.last()?.priority);
        if chains.iter().all(|chain| chain.chain.is_some_and(|(at, _)| self.listed(at).is_idle())) {
            return None;
        }
        let below = if segment == SEGMENT_EARLY { CONNTRACK } else { i32::MAX };
        let mut links = vec![LinkWanted { role: Role::Open, above, below: first }];
        let mut gaps = Vec::new();
        if self.separates(&chains) {
            for (before, pair) in (1..).zip(chains.windows(2)) {
                let (above, below) = (pair[0].priority, pair[1].priority);
                if below.saturating_sub(above) > 1 && gaps.len() < MAX_GAPS {
                    gaps.push(before);
                    links.push(LinkWanted { role: Role::Gap, above, below });
                }
            }
        }
        let mut end_of_hook = Others::default();
        if segment == SEGMENT_EARLY || !CONFIRMING_HOOKS.contains(&hook) {
            links.push(LinkWanted { role: Role::Close, above: last, below });
        } else {
            end_of_hook = end;
        }
        if self.probes {
            links.clear();
        }
        let (slots, ranges) = self.counters(&chains);
        let tables = functions.iter().filter(|found| found.function == Function::Legacy);
        let legacy = self
            .index
            .legacy
            .iter()
            .filter(|table| tables.clone().any(|found| found.private == table.address))
            .map(|table| table.guard)
            .collect();
        let hook_point = plan::hook_point(v6, segment, hook);
        let mut hooked = self.index.hooks[usize::from(v6)].iter().flat_map(|list| &list.functions);
        let translates = !self.ipvs
            && hooked.any(|found| found.function == Function::Nat || found.nat_priority.is_some());
        let end = end_of_hook;
        Some(HookPlan { hook_point, chains, end, gaps, links, slots, ranges, legacy, translates })
    }

    /// The base chains among functions, and the other functions behind the last one.
    fn chains(&self, hook: u8, functions: &[HookFunction]) -> (Vec<PlannedChain>, Others) {
        let mut chains: Vec<PlannedChain> = Vec::new();
        let mut others = Others::default();
        for found in functions {
            if let Some(mut chain) = self.chain(hook, found) {
                chain.after = others;
                others = Others::default();
                chains.push(chain);
            } else if !chains.is_empty() {
                others.nat |= found.function == Function::Nat;
                others.strangers |= found.function == Function::Other;
            }
        }
        (chains, others)
    }

    fn chain(&self, hook: u8, found: &HookFunction) -> Option<PlannedChain> {
        if !matches!(found.function, Function::NfTables | Function::Legacy) {
            return None;
        }
        let at = self.join.base_chain(hook, found);
        let chain = at.and_then(|at| Some((at, self.program.id(at.0, at.1)?)));
        let nat = found.nat_priority.is_some();
        Some(PlannedChain {
            chain,
            address: found.private,
            legacy: found.function == Function::Legacy,
            nat,
            priority: found.priority,
            after: Others::default(),
        })
    }

    fn listed(&self, at: ChainAt) -> &Chain {
        &self.ruleset.tables[at.0].chains[at.1]
    }

    /// Whether links between the chains show more than counters do: which of several chains dropped a packet, if a
    /// rule without a counter may have, or which of several chains set a mark.
    fn separates(&self, chains: &[PlannedChain]) -> bool {
        let dropping = chains.iter().filter(|chain| self.can_drop(chain, false)).count();
        let marking = chains.iter().filter(|chain| self.can_mark(chain)).count();
        self.per_chain
            || marking > 1
            || (dropping > 1 && chains.iter().any(|chain| self.can_drop(chain, true)))
    }

    /// Whether rules of a chain set marks, of packets or of connections.
    fn can_mark(&self, chain: &PlannedChain) -> bool {
        let marks = |kind: &String| kind == "mangle" || kind.ends_with("MARK");
        chain.chain.is_some_and(|(at, _)| {
            let chains = reachable(self.ruleset, at).into_iter().map(|at| self.listed(at));
            chains.flat_map(|chain| &chain.rules).any(|rule| rule.kinds.iter().any(marks))
        })
    }

    /// Whether a chain can drop packets; with `unseen`, without moving a counter. (NAT rules do when they find no
    /// free port.)
    fn can_drop(&self, chain: &PlannedChain, unseen: bool) -> bool {
        let Some((at, _)) = chain.chain else { return true };
        let base = self.listed(at);
        if !unseen && base.base.as_ref().is_some_and(|base| base.policy == Policy::Drop) {
            return true;
        }
        reachable(self.ruleset, at).into_iter().any(|at| {
            let read: Vec<usize> = self.join.counters_of(at).map(|(index, _)| index).collect();
            let rules = self.listed(at).rules.iter().enumerate();
            rules.into_iter().any(|(index, rule)| {
                let drops = rule.actions.iter().any(|action| {
                    matches!(
                        action,
                        Action::Drop
                            | Action::Reject
                            | Action::Unknown
                            | Action::Queue
                            | Action::Synproxy
                            | Action::Nat
                    )
                });
                let tells = rule.counts_matches && read.binary_search(&index).is_ok();
                drops && !(unseen && tells)
            })
        })
    }

    /// The counters of all chains that packets can reach, in the order of their addresses.
    fn counters(&self, chains: &[PlannedChain]) -> (Vec<Spot>, Vec<Range>) {
        let mut found: Vec<(u64, u16, Spot)> = Vec::new();
        let counted = chains.iter().filter(|chain| chain.legacy || !self.probes);
        for (at, _) in counted.filter_map(|chain| chain.chain) {
            for chain in reachable(self.ruleset, at) {
                let Some(id) = self.program.id(chain.0, chain.1) else { continue };
                let word = match self.ruleset.tables[chain.0].backend {
                    Backend::Nft => self.words.0,
                    Backend::Legacy => self.words.1,
                };
                found.extend(self.join.counters_of(chain).map(|(index, address)| {
                    (address, word, Spot { chain: id, index: index as u32 })
                }));
            }
        }
        found.sort_unstable_by_key(|(address, _, spot)| (*address, *spot));
        // Chains that several base chains lead to.
        found.dedup_by_key(|(_, _, spot)| *spot);
        // [`Join`] excludes the others.
        debug_assert!(found.len() <= MAX_SLOTS as usize, "{} counters at one hook", found.len());
        let mut ranges: Vec<Range> = Vec::new();
        for (slot, (address, word, _)) in (0..).zip(&found) {
            match ranges.last_mut() {
                Some(range)
                    if u32::from(range.counters) < RANGE_COUNTERS
                        && range.word == *word
                        && range.address + u64::from(range.counters) * COUNTER == *address =>
                {
                    range.counters += 1;
                }
                _ => ranges.push(Range { address: *address, slot, counters: 1, word: *word }),
            }
        }
        (found.into_iter().map(|(_, _, spot)| spot).collect(), ranges)
    }
}

const COUNTER: u64 = plan::COUNTER_BYTES as u64;

/// NF_IP_PRI_CONNTRACK.
const CONNTRACK: i32 = -200;

/// Functions before and after conntrack's own.
fn segments(hook: u8, list: &HookList) -> (&[HookFunction], &[HookFunction]) {
    let conntrack = list.functions.iter().position(|found| found.function == Function::Conntrack);
    match conntrack.filter(|_| TRACKED_HOOKS.contains(&hook)) {
        Some(at) => list.functions.split_at(at),
        None => (&[], &list.functions),
    }
}

/// Priority of conntrack's own function at a hook, below which the main segment must not begin.
fn tracking(hook: u8, list: &HookList) -> i32 {
    let (early, _) = segments(hook, list);
    list.functions
        .get(early.len())
        .filter(|found| found.function == Function::Conntrack)
        .map_or(i32::MIN, |found| found.priority)
}

/// Why a record could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// The epoch has no such hook point or counter.
    Reference,
}
