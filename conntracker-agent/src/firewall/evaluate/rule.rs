//! One rule and one packet. Where an expression hangs on what is unknown, both possibilities are followed.

use super::{
    code::Code,
    compiled::Operation,
    compute,
    context::Context,
    decision::Decision,
    effect::Effect,
    elements::{Entry, Found, Mapped},
    entry, fib, metadata,
    packet::Packet,
    payload,
    registers::Registers,
    ruleset::Firewall,
    statement,
    tracking::Tracking,
    translation::Translation,
    unknown::{Unknown, UnknownSet},
    xt::{self, MatchResult, TargetResult},
};
use crate::{
    model::path::CtState,
    netlink::nftables::expression::{Destination, Expression, Register},
};

/// Possibilities of one rule that are followed.
const FOLLOWED: usize = 64;

/// How a rule ended for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleEnd {
    /// It did not match: the packet goes on to the next rule.
    NoMatch,
    /// It matched, with a verdict.
    Verdict(Code),
    /// It matched, and dropped the packet with an answer.
    Reject,
    /// It matched, and told NAT what to do.
    Translate(Translation),
    /// It matched, or not, and what became of the packet is unknown.
    Unknown,
}

/// One possibility: how the rule ends, and the packet behind it.
#[derive(Clone, Debug)]
pub(super) struct Possibility {
    pub end: RuleEnd,
    pub packet: Box<Packet>,
    /// The unknown that it was chosen by, if it is not the only one.
    pub why: UnknownSet,
}

/// Where the evaluation of a possibility stands.
struct Point {
    next: usize,
    registers: Registers,
    packet: Box<Packet>,
    why: UnknownSet,
}

/// Evaluates a rule: one possibility, and the others if there are several.
pub(super) fn evaluate(
    operations: &[Operation],
    packet: Box<Packet>,
    firewall: &Firewall,
    context: &Context<'_>,
) -> (Possibility, Vec<Possibility>) {
    let (registers, why) = (Registers::new(), UnknownSet::NONE);
    let mut point = Point { next: 0, registers, packet, why };
    let (mut open, mut ended) = (Vec::new(), Vec::new());
    loop {
        let end = if open.len() + ended.len() > FOLLOWED {
            point.why = point.why.union(Unknown::Branches.into());
            RuleEnd::Unknown
        } else {
            run(operations, &mut point, (firewall, context), &mut open, &mut ended)
        };
        let possibility = Possibility { end, packet: point.packet, why: point.why };
        let Some(next) = open.pop() else { return (possibility, ended) };
        ended.push(possibility);
        point = next;
    }
}

/// Evaluates a rule from a point on, to its end.
fn run(
    operations: &[Operation],
    point: &mut Point,
    (firewall, context): (&Firewall, &Context<'_>),
    open: &mut Vec<Point>,
    ended: &mut Vec<Possibility>,
) -> RuleEnd {
    while let Some(operation) = operations.get(point.next) {
        point.next += 1;
        let effect = match operation {
            Operation::Verdict(code) => Effect::Verdict(*code),
            Operation::Lookup { set, from, to, invert } => {
                let lookup = Lookup { set: *set, from: *from, to: *to, invert: *invert };
                lookup.evaluate(point, firewall, open, ended)
            }
            Operation::ObjectMap { set, from, kind } => {
                let lookup = Lookup { set: *set, from: *from, to: None, invert: false };
                let found = lookup.evaluate(point, firewall, open, ended);
                if found == Effect::Next { statement::object(*kind) } else { found }
            }
            Operation::Header(header) => {
                matched(MatchResult::Matches(xt::ip::decide(header, &point.packet)))
            }
            Operation::Match(of) => matched(of.result(&point.packet, context)),
            Operation::Target(of) => target(of.apply(&mut point.packet, context)),
            Operation::Plain(expression) => plain(expression, point, context),
        };
        match effect {
            Effect::Next | Effect::Verdict(Code::Continue) => {}
            Effect::Break | Effect::Verdict(Code::Break) => return RuleEnd::NoMatch,
            Effect::NextOrBreak(why) => {
                point.why = point.why.union(why);
                let (packet, why) = (point.packet.clone(), point.why);
                ended.push(Possibility { end: RuleEnd::NoMatch, packet, why });
            }
            Effect::Verdict(code) => return RuleEnd::Verdict(code),
            Effect::Reject => return RuleEnd::Reject,
            Effect::Translate(translation) => return RuleEnd::Translate(translation),
            Effect::Unknown(why) => {
                point.why = point.why.union(why);
                return RuleEnd::Unknown;
            }
        }
    }
    RuleEnd::Verdict(Code::Continue)
}

/// The effect of a match.
fn matched(result: MatchResult) -> Effect {
    match result {
        MatchResult::Matches(Decision::Yes) => Effect::Next,
        MatchResult::Matches(Decision::No) => Effect::Break,
        MatchResult::Matches(Decision::Undecided(why)) => Effect::NextOrBreak(why),
        MatchResult::Drops => Effect::Verdict(Code::Drop),
        MatchResult::Unknown(why) => Effect::Unknown(why),
    }
}

/// The effect of a target.
fn target(result: TargetResult) -> Effect {
    match result {
        TargetResult::Continue => Effect::Next,
        TargetResult::Reject => Effect::Reject,
        TargetResult::Queue => Effect::Verdict(Code::Queue),
        TargetResult::Translate(translation) => Effect::Translate(translation),
        TargetResult::Unknown(why) => Effect::Unknown(why),
    }
}

/// An expression that is no lookup.
fn plain(expression: &Expression, point: &mut Point, context: &Context<'_>) -> Effect {
    use Expression as E;
    let Point { registers, packet, .. } = point;
    match expression {
        E::Payload { slice, to } => payload::load(packet, slice, *to, registers),
        E::PayloadSet { slice, from, .. } => {
            payload::store(packet, slice, &registers.load(*from, slice.len as usize))
        }
        E::Meta { key, to } => metadata::load(packet, *key, *to, registers, context.hook),
        E::MetaSet { key, from } => {
            metadata::store(packet, *key, *from, registers);
            Effect::Next
        }
        E::Ct { key, direction, to } => entry::load(packet, *key, *direction, *to, registers),
        E::CtSet { key, from, .. } => {
            entry::store(packet, *key, *from, registers);
            Effect::Next
        }
        E::Fib { to, result, flags } => {
            fib::load(packet, (*result, *flags), *to, registers, context)
        }
        E::Immediate { to, value } => {
            registers.store(*to, value);
            Effect::Next
        }
        E::Notrack => {
            notrack(packet);
            Effect::Next
        }
        _ => compute::evaluate(expression, registers)
            .unwrap_or_else(|| statement::evaluate(expression, packet, registers)),
    }
}

/// Takes the packet from conntrack, unless it has an entry already (`nft_notrack_eval`).
fn notrack(packet: &mut Packet) {
    packet.tracking = match packet.tracking.has_entry() {
        Ok(true) => return,
        Ok(false) => Tracking::without_entry(CtState::Untracked),
        Err(_) => Tracking::unknown(),
    };
}

/// A lookup.
struct Lookup {
    set: usize,
    from: Register,
    to: Option<Destination>,
    invert: bool,
}

impl Lookup {
    fn evaluate(
        &self,
        point: &mut Point,
        firewall: &Firewall,
        open: &mut Vec<Point>,
        ended: &mut Vec<Possibility>,
    ) -> Effect {
        let Some(set) = firewall.set(self.set) else {
            return Effect::Unknown(Unknown::Expression.into());
        };
        if set.dynamic {
            return self.any(&mut point.registers, Unknown::DynamicSet.into());
        }
        let key = point.registers.load(self.from, set.key_len);
        let why = key.why;
        match set.find(&key) {
            Found::None if self.invert => Effect::Next,
            Found::None => Effect::Break,
            Found::One(_) if self.invert => Effect::Break,
            Found::One(entry) => self.found(entry, &mut point.registers),
            Found::Any => self.any(&mut point.registers, why.union(Unknown::Branches.into())),
            Found::Some(_) if self.to.is_none() => Effect::NextOrBreak(why),
            Found::Some(entries) => {
                point.why = point.why.union(why);
                for entry in entries {
                    let mut registers = point.registers.clone();
                    let (packet, why) = (point.packet.clone(), point.why);
                    match self.found(entry, &mut registers) {
                        Effect::Verdict(code) => {
                            let end = RuleEnd::Verdict(code);
                            ended.push(Possibility { end, packet, why });
                        }
                        Effect::Next => {
                            open.push(Point { next: point.next, registers, packet, why });
                        }
                        Effect::NextOrBreak(more) | Effect::Unknown(more) => {
                            let why = why.union(more);
                            ended.push(Possibility { end: RuleEnd::Unknown, packet, why });
                        }
                        Effect::Break | Effect::Reject | Effect::Translate(_) => {}
                    }
                }
                // None of them.
                Effect::Break
            }
        }
    }

    /// An element that was found.
    fn found(&self, entry: &Entry, registers: &mut Registers) -> Effect {
        let mut effect = match (self.to, &entry.data) {
            (None, _) => Effect::Next,
            (Some(Destination::Verdict), Mapped::Verdict(code)) => Effect::Verdict(*code),
            (Some(Destination::Register(to)), Mapped::Value(value)) => {
                registers.store(to, value);
                Effect::Next
            }
            // A chain or an object that is not in the dump.
            _ => return Effect::Unknown(Unknown::Expression.into()),
        };
        for expression in &entry.expressions {
            if let Effect::NextOrBreak(why) = statement::stateful(expression) {
                effect = match effect {
                    Effect::Next => Effect::NextOrBreak(why),
                    _ => Effect::Unknown(why),
                };
            }
        }
        effect
    }

    /// Any element, or none.
    fn any(&self, registers: &mut Registers, why: UnknownSet) -> Effect {
        match self.to {
            None => Effect::NextOrBreak(why),
            Some(Destination::Verdict) => Effect::Unknown(why),
            Some(Destination::Register(to)) => {
                registers.store_unknown(to, 16, why);
                Effect::NextOrBreak(why)
            }
        }
    }
}
