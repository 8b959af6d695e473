//! A packet at a hook: base chains, conntrack and NAT in order.

use super::{
    chain::{BaseEnd, Walk},
    code::ChainNumber,
    context::Context,
    decision::Decision,
    interface::Interface,
    nat,
    order::HookFunction,
    ruleset::Firewall,
    state::{Fate, State},
    unknown::Attr,
};
use crate::model::{hook::Hook, path::CtState};

use conntracker_common::conntrack::IPS_TEMPLATE;

/// Packets behind a hook, and those that ended there.
#[derive(Default)]
pub(super) struct Behind {
    pub passed: Vec<State>,
    pub ended: Vec<(Fate, State)>,
}

impl Behind {
    fn add(&mut self, fate: Fate, state: State) {
        if fate == Fate::Accept {
            state.add(&mut self.passed);
        } else {
            self.ended.push((fate, state));
        }
    }
}

/// A part of a hook, as records of packets tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Before conntrack's function: raw tables.
    Early,
    /// Behind it; all of a hook that does not have it.
    Late,
}

/// Takes a packet through a hook.
pub(super) fn evaluate(firewall: &Firewall, context: Context<'_>, state: State) -> Behind {
    let functions = firewall.functions(context.hook, state.packet.layer3());
    through(functions, &Walk::new(firewall, context), state)
}

/// Takes a packet through the functions before conntrack's, or through those behind it.
pub(super) fn evaluate_part(
    firewall: &Firewall,
    context: Context<'_>,
    part: Part,
    state: State,
) -> Behind {
    let functions = firewall.functions(context.hook, state.packet.layer3());
    let conntrack = functions.iter().position(|function| *function == HookFunction::Conntrack);
    let functions = match conntrack.and_then(|at| functions.split_at_checked(at)) {
        None => functions,
        Some((before, _)) if part == Part::Early => before,
        Some((_, behind)) => behind.split_first().map(|(_, behind)| behind).unwrap_or_default(),
    };
    through(functions, &Walk::new(firewall, context), state)
}

fn through(functions: &[HookFunction], walk: &Walk<'_>, state: State) -> Behind {
    let before = state.why;
    let mut behind = Behind { passed: vec![state], ended: Vec::new() };
    for function in functions {
        let mut next = Behind { passed: Vec::new(), ended: behind.ended };
        for mut state in behind.passed {
            match function {
                HookFunction::Chain(number) => filter(walk, *number, state, &mut next),
                HookFunction::Conntrack => {
                    conntrack(&mut state);
                    next.add(Fate::Accept, state);
                }
                HookFunction::Nat(chains) => translate(walk, chains, state, &mut next),
            }
        }
        behind = next;
    }
    if behind.ended.is_empty()
        && let [only] = behind.passed.as_mut_slice()
    {
        only.why = before;
    }
    behind
}

/// A base chain that is not of type nat.
fn filter(walk: &Walk<'_>, number: ChainNumber, mut state: State, next: &mut Behind) {
    let interface = match walk.context.hook {
        Hook::Ingress => &state.packet.input,
        Hook::Egress => &state.packet.output,
        _ => &Ok(None),
    };
    match meets(walk, number, interface) {
        Decision::No => return next.add(Fate::Accept, state),
        Decision::Yes => {}
        Decision::Undecided(why) => {
            state.why = state.why.union(why);
            next.add(Fate::Accept, state.clone());
        }
    }
    for (end, state) in walk.base(number, state) {
        match end {
            BaseEnd::Fate(fate) => next.add(fate, state),
            // The kernel takes such a rule in chains of type nat alone.
            BaseEnd::Translate(_) => next.add(Fate::Accept, state),
        }
    }
}

/// Whether packets of an interface meet a chain.
fn meets(walk: &Walk<'_>, number: ChainNumber, interface: &Attr<Option<Interface>>) -> Decision {
    let devices = walk.firewall.chain(number).map(|chain| chain.devices.as_slice());
    let devices = devices.unwrap_or_default();
    if devices.is_empty() {
        return Decision::Yes;
    }
    match interface {
        Ok(interface) => {
            let own = interface.as_ref().map(|interface| interface.name);
            devices.iter().any(|name| Some(Interface::named(name).name) == own).into()
        }
        Err(why) => Decision::Undecided((*why).into()),
    }
}

/// Conntrack looks the packet up, unless a rule took it away, or it has an entry already, because it is looped back.
fn conntrack(state: &mut State) {
    let tracking = &state.packet.tracking;
    let is_template = tracking.status.value() & IPS_TEMPLATE != 0;
    if tracking.state == Ok(CtState::Early) {
        state.packet.tracking = (*state.upcoming).clone();
    } else if is_template {
        let zone = tracking.zone;
        state.packet.tracking = (*state.upcoming).clone();
        state.packet.tracking.zone = zone;
    }
}

/// The chains of type nat, if the packet is the first of its flow, and the translation.
fn translate(walk: &Walk<'_>, chains: &[ChainNumber], mut state: State, next: &mut Behind) {
    let side = nat::side(walk.context.hook);
    match nat::passes_redirect(&state.packet) {
        Decision::Yes => {}
        Decision::No => return next.add(Fate::Drop, state),
        Decision::Undecided(why) => {
            state.why = state.why.union(why);
            next.add(Fate::Drop, state.clone());
        }
    }
    let tracking = &state.packet.tracking;
    match tracking.has_entry() {
        Ok(true) => {}
        Ok(false) => return next.add(Fate::Accept, state),
        Err(why) => {
            if !chains.is_empty() {
                state.why = state.why.union(why.into());
                return next.add(Fate::Unknown, state);
            }
            // Of an entry that may be there it is not known whether it is translated.
            state.packet.forget_address(side);
            state.packet.forget_port(side);
            return next.add(Fate::Accept, state);
        }
    }
    match nat::is_undecided(&state.packet, side) {
        Decision::Yes => first_packet(walk, chains, state, next),
        Decision::No => {
            nat::apply(&mut state.packet, side);
            next.add(Fate::Accept, state);
        }
        Decision::Undecided(why) => {
            state.why = state.why.union(why);
            let mut later = state.clone();
            nat::apply(&mut later.packet, side);
            next.add(Fate::Accept, later);
            first_packet(walk, chains, state, next);
        }
    }
}

/// The chains of type nat, until one of them translates.
fn first_packet(walk: &Walk<'_>, chains: &[ChainNumber], state: State, next: &mut Behind) {
    let side = nat::side(walk.context.hook);
    let mut live = vec![state];
    for chain in chains {
        let mut passed = Vec::new();
        for state in live {
            for (end, mut state) in walk.base(*chain, state) {
                match end {
                    BaseEnd::Fate(Fate::Accept) => state.add(&mut passed),
                    BaseEnd::Fate(fate) => next.add(fate, state),
                    BaseEnd::Translate(translation) => {
                        let found = nat::setup(&mut state.packet, &translation, &walk.context);
                        next.add(if found { Fate::Accept } else { Fate::Drop }, state);
                    }
                }
            }
        }
        live = passed;
    }
    for mut state in live {
        nat::decide_nothing(&mut state.packet.tracking, side);
        next.add(Fate::Accept, state);
    }
}
