//! The rules in the form in which packets are evaluated: chains and sets by their numbers.

use std::collections::HashMap;

use super::{
    code::{ChainNumber, Code},
    compiled::{CompiledChain, CompiledRule, Operation},
    elements::Elements,
    ip_tables,
    order::{HookFunction, HookOrder},
    packet::Layer3,
    state::StepVerdict,
    xt,
};
use crate::{
    firewall::legacy::entries::XtTable,
    model::{
        hook::Hook,
        path::{self, Site, SiteKind},
        table::{Backend, Family},
    },
    netlink::nftables::{
        data::Verdict,
        expression::Expression,
        ruleset::{Rule, Table},
    },
};

/// The rules of a host.
#[derive(Debug, Default)]
pub struct Firewall {
    chains: Vec<CompiledChain>,
    sets: Vec<Elements>,
    order: HookOrder,
}

/// Numbers of the chains and sets of a table.
struct Names<'a> {
    chains: HashMap<&'a str, ChainNumber>,
    sets: HashMap<&'a str, (usize, Option<u32>)>,
}

impl Firewall {
    /// Compiles tables of nf_tables, and of ip_tables. Which of two base chains comes first that have the same
    /// priority, one in each of them, the kernel does not tell: here it is that of ip_tables.
    #[must_use]
    pub fn new(tables: &[Table], legacy: &[XtTable]) -> Self {
        let (mut chains, mut sets, mut bases) = (Vec::new(), Vec::new(), Vec::new());
        for table in tables {
            let numbered = (chains.len() as ChainNumber..).zip(&table.chains);
            let sets_numbered = (sets.len()..).zip(&table.sets);
            let names = Names {
                chains: numbered.clone().map(|(at, chain)| (chain.name.as_str(), at)).collect(),
                sets: sets_numbered
                    .map(|(at, set)| (set.name.as_str(), (at, set.object_kind)))
                    .collect(),
            };
            for (number, chain) in numbered {
                let hook = chain.hook.as_ref();
                if let Some(hook) = hook.filter(|_| !table.dormant) {
                    bases.push((number, table.family, hook.clone()));
                }
                chains.push(CompiledChain {
                    backend: Backend::Nft,
                    family: Family::of_number(table.family),
                    table: table.name.clone(),
                    name: chain.name.clone(),
                    policy: hook.map(|hook| match hook.policy {
                        Verdict::Drop => Code::Drop,
                        _ => Code::Accept,
                    }),
                    devices: hook.map(|hook| hook.devices.clone()).unwrap_or_default(),
                    rules: chain.rules.iter().map(|rule| compile(rule, &names)).collect(),
                });
            }
            sets.extend(table.sets.iter().map(|set| Elements::new(set, &names.chains)));
        }
        for table in legacy {
            let first = chains.len() as ChainNumber;
            for (number, chain) in (first..).zip(&table.chains) {
                let hook = ip_tables::hook(table, chain);
                bases.extend(hook.map(|hook| (number, ip_tables::family(table), hook)));
                chains.push(ip_tables::compile(table, chain, first));
            }
        }
        Self { chains, sets, order: HookOrder::new(&bases) }
    }

    /// What a packet meets at a hook, in order.
    pub(super) fn functions(&self, hook: Hook, layer3: Layer3) -> &[HookFunction] {
        self.order.functions(hook, layer3)
    }

    /// A chain by its number.
    pub(in crate::firewall) fn chain(&self, number: ChainNumber) -> Option<&CompiledChain> {
        self.chains.get(number as usize)
    }

    /// The numbers of all chains.
    pub(in crate::firewall) fn chains(&self) -> std::ops::Range<ChainNumber> {
        0..self.chains.len() as ChainNumber
    }

    /// All chains in the order of their numbers.
    pub(super) fn compiled_chains(&self) -> &[CompiledChain] {
        &self.chains
    }

    /// All sets.
    pub(super) fn sets(&self) -> &[Elements] {
        &self.sets
    }

    /// A set by its number.
    pub(in crate::firewall) fn set(&self, number: usize) -> Option<&Elements> {
        self.sets.get(number)
    }

    /// Whether a chain belongs to a hook.
    #[must_use]
    pub fn is_base(&self, number: ChainNumber) -> bool {
        self.chain(number).is_some_and(|chain| chain.policy.is_some())
    }

    /// Whether the kernel counts the packets that a rule matches. Where it does not, nobody sees that a packet met a
    /// rule that has no verdict.
    #[must_use]
    pub fn has_counter(&self, number: ChainNumber, index: usize) -> bool {
        let Some(chain) = self.chain(number) else { return false };
        let counts = |operation: &Operation| {
            matches!(operation, Operation::Plain(Expression::Counter { .. }))
        };
        let rule = chain.rules.get(index);
        chain.backend == Backend::Legacy
            || rule.is_none_or(|rule| rule.operations.iter().any(counts))
    }

    /// The verdict of a step, with the names of chains.
    #[must_use]
    pub fn verdict(&self, verdict: StepVerdict) -> path::Verdict {
        use path::Verdict;

        let name = |chain| self.chain_name(chain).to_owned();
        match verdict {
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
        }
    }

    /// The name of a chain.
    #[must_use]
    pub fn chain_name(&self, number: ChainNumber) -> &str {
        self.chain(number).map(|chain| chain.name.as_str()).unwrap_or_default()
    }

    /// The rule at an index of a chain, or with the number of rules its policy or return. The text of rules, and
    /// whether iptables-nft made their table, is in listings alone.
    #[must_use]
    pub fn site(&self, number: ChainNumber, index: usize) -> Option<Site> {
        let chain = self.chain(number)?;
        let rule = chain.rules.get(index);
        let kind = match (rule, chain.policy) {
            (Some(_), _) => SiteKind::Rule,
            (None, Some(_)) => SiteKind::Policy,
            (None, None) => SiteKind::Return,
        };
        Some(Site {
            backend: chain.backend,
            family: chain.family,
            table: chain.table.clone(),
            iptables: chain.backend == Backend::Legacy,
            chain: chain.name.clone(),
            kind,
            position: Some(index.min(chain.rules.len()) as u32 + 1),
            handle: rule.and_then(|rule| rule.handle),
            text: None,
        })
    }
}

/// A rule with its chains and sets. An expression whose chain or set is not in the dump stays as it is, and is
/// unknown when it is evaluated.
fn compile(rule: &Rule, names: &Names<'_>) -> CompiledRule {
    let found = |expression: &Expression| match expression {
        Expression::Verdict(verdict) => Code::of(verdict, &names.chains).map(Operation::Verdict),
        Expression::Lookup { set, from, to, invert } => {
            let (set, _) = *names.sets.get(set.as_str())?;
            Some(Operation::Lookup { set, from: *from, to: *to, invert: *invert })
        }
        Expression::ObjectMap { set, from } => {
            let (set, kind) = *names.sets.get(set.as_str())?;
            Some(Operation::ObjectMap { set, from: *from, kind: kind? })
        }
        Expression::Match { name, revision, info } => {
            Some(Operation::Match(Box::new(xt::Match::decode(name, *revision, info))))
        }
        Expression::Target { name, revision, info } => {
            Some(Operation::Target(xt::Target::decode(name, *revision, info)))
        }
        _ => None,
    };
    let operation = |expression: &Expression| {
        found(expression).unwrap_or_else(|| Operation::Plain(expression.clone()))
    };
    CompiledRule {
        handle: Some(rule.handle),
        operations: rule.expressions.iter().map(operation).collect(),
    }
}
