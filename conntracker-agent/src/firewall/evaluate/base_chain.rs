//! One base chain by itself: what its rules do with a packet that comes to it, whatever became of it before.

use std::rc::Rc;

use super::{
    chain::{BaseEnd, Walk},
    code::ChainNumber,
    context::Context,
    journey::Ending,
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

/// Takes a packet through a base chain alone. `packet.tracking` is what conntrack says once it has seen the packet.
/// Nothing of a chain that is at no hook.
#[must_use]
pub fn evaluate_chain(
    firewall: &Firewall,
    number: ChainNumber,
    mut packet: Packet,
    routes: &dyn Routes,
) -> Vec<Ending> {
    let Some(BaseHook { hook, before_conntrack, .. }) = firewall.base_hook(number) else {
        return Vec::new();
    };
    let upcoming = Rc::new(packet.tracking.clone());
    if before_conntrack {
        packet.tracking = Tracking::without_entry(CtState::Early);
    }
    let state =
        State { packet: Box::new(packet), upcoming, steps: Vec::new(), why: UnknownSet::NONE };
    let ends = Walk::new(firewall, Context { hook, routes }).base(number, state);
    let ending = |(end, state): (BaseEnd, State)| {
        let fate = match end {
            BaseEnd::Fate(fate) => fate,
            BaseEnd::Translate(_) => Fate::Accept,
        };
        let State { packet, steps, why, .. } = state;
        Ending { fate, packet: *packet, steps, why }
    };
    ends.into_iter().map(ending).collect()
}
