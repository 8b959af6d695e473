//! Tables of ip_tables and ip6_tables in the form in which packets are evaluated. A rule is a header to compare, its
//! matches and its target, in this order (`ipt_do_table` of net/ipv4/netfilter/ip_tables.c).

use super::{
    code::{ChainNumber, Code},
    compiled::{CompiledChain, CompiledRule, Operation},
    order::{IP, IP6},
    xt::{Match, Target},
};
use crate::{
    firewall::{
        iptables::built_in,
        legacy::entries::{XtChain, XtRule, XtTable, XtTarget},
        model::{ChainType, Policy},
    },
    model::{
        hook::Hook,
        table::{Backend, Family},
    },
    netlink::nftables::{data::Verdict, ruleset::ChainHook},
};

/// NFPROTO_ number of a table.
pub(super) fn family(table: &XtTable) -> u8 {
    if table.family == Family::Ip6 { IP6 } else { IP }
}

/// The hook, type and priority of a built-in chain.
pub(super) fn hook(table: &XtTable, chain: &XtChain) -> Option<ChainHook> {
    let base = chain.base.as_ref()?;
    let (kind, hook, priority) = built_in(&table.name, &chain.name)?;
    let number = Hook::BY_NUMBER.iter().position(|of| *of == hook)? as u32;
    let policy = if base.policy == Policy::Drop { Verdict::Drop } else { Verdict::Accept };
    let kind = if kind == ChainType::Nat { "nat" } else { kind.name() };
    Some(ChainHook { kind: kind.to_owned(), number, priority, policy, devices: Vec::new() })
}

/// A chain of a table whose first chain gets the number `first`.
pub(super) fn compile(table: &XtTable, chain: &XtChain, first: ChainNumber) -> CompiledChain {
    CompiledChain {
        backend: Backend::Legacy,
        family: table.family,
        table: table.name.clone(),
        name: chain.name.clone(),
        policy: chain.base.map(|base| match base.policy {
            Policy::Drop => Code::Drop,
            Policy::Accept => Code::Accept,
        }),
        devices: Vec::new(),
        rules: chain.rules.iter().map(|of| rule(of, first)).collect(),
    }
}

fn rule(rule: &XtRule, first: ChainNumber) -> CompiledRule {
    let mut operations = vec![Operation::Header(Box::new(rule.header))];
    operations.extend(rule.matches.iter().map(|of| {
        Operation::Match(Box::new(Match::decode(&of.name, of.revision.into(), &of.info)))
    }));
    let number = |chain: usize| first + chain as ChainNumber;
    operations.push(match &rule.target {
        XtTarget::Continue => Operation::Verdict(Code::Continue),
        XtTarget::Accept => Operation::Verdict(Code::Accept),
        XtTarget::Drop => Operation::Verdict(Code::Drop),
        XtTarget::Queue => Operation::Verdict(Code::Queue),
        XtTarget::Return => Operation::Verdict(Code::Return),
        XtTarget::Jump(chain) => Operation::Verdict(Code::Jump(number(*chain))),
        XtTarget::Goto(chain) => Operation::Verdict(Code::Goto(number(*chain))),
        XtTarget::Extension(of) => {
            Operation::Target(Target::decode(&of.name, of.revision.into(), &of.info))
        }
    });
    CompiledRule { handle: None, operations }
}
