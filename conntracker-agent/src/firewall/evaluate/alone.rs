//! One hook, or one base chain, by itself: what its rules do with a packet that comes to it, whatever became of it
//! before.

use std::rc::Rc;

use super::{
    chain::{BaseEnd, Walk},
    code::ChainNumber,
    context::Context,
    hook::{self, Behind, Part},
    journey::{Ending, Evaluation},
    order::HookFunction,
    packet::{Layer3, Packet},
    routes::Routes,
    ruleset::Firewall,
    state::{Fate, State},
    tracking::Tracking,
    unknown::UnknownSet,
};
use crate::model::{hook::Hook, path::CtState};

/// Where packets meet a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseHook {
    /// Hook.
    pub hook: Hook,
    /// It is of type nat: only the first packet of a flow comes to it.
    pub nat: bool,
    /// Packets come to it before conntrack looks them up.
    pub before_conntrack: bool,
}

impl Firewall {
    /// Where packets of IP meet a chain; `None` of chains that are at no hook of theirs.
    #[must_use]
    pub fn base_hook(&self, number: ChainNumber) -> Option<BaseHook> {
        let hooks = Hook::BY_NUMBER.into_iter().chain([Hook::Ingress, Hook::Egress]);
        let both = hooks.flat_map(|hook| [(hook, Layer3::Ip), (hook, Layer3::Ip6)]);
        both.into_iter().find_map(|(hook, layer3)| {
            let functions = self.functions(hook, layer3);
            let at = functions.iter().position(|function| match function {
                HookFunction::Chain(chain) => *chain == number,
                HookFunction::Nat(chains) => chains.contains(&number),
                HookFunction::Conntrack => false,
            })?;
            let nat = matches!(functions[at], HookFunction::Nat(_));
            let later = functions[at..].contains(&HookFunction::Conntrack);
            Some(BaseHook { hook, nat, before_conntrack: later || hook == Hook::Ingress })
        })
    }
}

/// Takes a packet through all functions of a hook alone: base chains, conntrack and NAT. `packet.tracking` is what
/// conntrack says once it has seen the packet.
#[must_use]
pub fn evaluate_hook(
    firewall: &Firewall,
    hook: Hook,
    packet: Packet,
    routes: &dyn Routes,
) -> Evaluation {
    let early = matches!(hook, Hook::Ingress | Hook::Prerouting | Hook::Output);
    let behind = hook::evaluate(firewall, Context { hook, routes }, state(packet, early));
    endings(behind)
}

/// Takes a packet through a part of one hook alone. `packet.tracking` is what conntrack says at its beginning.
#[must_use]
pub fn evaluate_at(
    firewall: &Firewall,
    (hook, part): (Hook, Part),
    packet: Packet,
    routes: &dyn Routes,
) -> Evaluation {
    let context = Context { hook, routes };
    endings(hook::evaluate_part(firewall, context, part, state(packet, false)))
}

fn endings(behind: Behind) -> Evaluation {
    let passed = behind.passed.into_iter().map(|state| (Fate::Accept, state));
    let all = behind.ended.into_iter().chain(passed);
    Evaluation { endings: all.map(|(fate, state)| Ending::of(fate, state)).collect() }
}

/// Takes a packet through a base chain alone. `packet.tracking` is what conntrack says once it has seen the packet.
/// Nothing of a chain that is at no hook.
#[must_use]
pub fn evaluate_chain(
    firewall: &Firewall,
    number: ChainNumber,
    packet: Packet,
    routes: &dyn Routes,
) -> Vec<Ending> {
    let Some(BaseHook { hook, before_conntrack, .. }) = firewall.base_hook(number) else {
        return Vec::new();
    };
    let state = state(packet, before_conntrack);
    let ends = Walk::new(firewall, Context { hook, routes }).base(number, state);
    let fate = |end: BaseEnd| match end {
        BaseEnd::Fate(fate) => fate,
        BaseEnd::Translate(_) => Fate::Accept,
    };
    ends.into_iter().map(|(end, state)| Ending::of(fate(end), state)).collect()
}

/// A packet at the beginning; `early`: conntrack sees it later.
fn state(mut packet: Packet, early: bool) -> State {
    let upcoming = Rc::new(packet.tracking.clone());
    if early {
        packet.tracking = Tracking::without_entry(CtState::Early);
    }
    let (packet, steps) = (Box::new(packet), Vec::new());
    State { packet, upcoming, steps, why: UnknownSet::NONE }
}
