//! A better order of rules: those that most packets match come first, as far as no packet is treated otherwise.
//!
//! Two neighbours may change their order if no packet matches both, or if they do the same with it; and only if neither
//! of them writes something or hangs on packets before (limits, dynamic sets).

use super::{
    condition::Condition,
    field::Writes,
    reading::{RuleAt, tables},
    writes,
};
use crate::firewall::evaluate::{
    Firewall, Unknown,
    code::{ChainNumber, Code},
    compiled::{CompiledRule, Operation},
    unknown::UnknownSet,
    xt::Target,
};
use crate::firewall::rules::Rules;
use crate::netlink::nftables::expression::Expression;

/// Passes over a chain; each moves rules as long as that saves something.
const PASSES: usize = 8;

/// A rule that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its index in the chain as it is.
    pub rule: usize,
    /// The rule before which it goes, by its index in the chain as it is.
    pub before: usize,
}

/// A chain with a better order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainOrder {
    /// The chain.
    pub chain: ChainNumber,
    /// Its rules in the new order, by their indices now.
    pub order: Vec<usize>,
    /// How to get there, one after the other.
    pub moves: Vec<Move>,
    /// Packets that left the chain at a rule with a counter.
    pub packets: u128,
    /// Rules that were evaluated for these packets, and that the new order evaluates.
    pub evaluations: [u128; 2],
}

/// What matters of a rule.
struct Movable<'a> {
    condition: &'a Condition,
    /// The verdict, if that is all that it does.
    effect: Option<Code>,
    /// It may change its position, and others may pass it.
    free: bool,
    /// Packets that left the chain here.
    weight: u64,
}

/// The chains whose order can be better. `counter` says how many packets have matched a rule; rules of which that is not
/// known stay, and no other passes them.
pub fn order(firewall: &Firewall, counter: &dyn Fn(RuleAt) -> Option<u64>) -> Vec<ChainOrder> {
    let mut found = Vec::new();
    for table in tables(firewall) {
        for chain in &table.chains {
            let rules = firewall.chain(*chain).map(|of| &of.rules[..]).unwrap_or_default();
            let conditions = table.rules(*chain).iter();
            let movable: Vec<Movable<'_>> = rules
                .iter()
                .zip(conditions)
                .enumerate()
                .map(|(index, (rule, condition))| {
                    let count = counter((*chain, index));
                    let effect = effect(rule);
                    let leaves = effect.is_some() || !condition.takes.is_empty();
                    Movable {
                        condition,
                        effect,
                        free: count.is_some()
                            && !is_stateful(condition.open)
                            && writes_nothing(rule, firewall),
                        weight: count.filter(|_| leaves).unwrap_or_default(),
                    }
                })
                .collect();
            found.extend(better(*chain, &movable));
        }
    }
    found
}

/// Rules evaluated for the packets that leave a chain.
fn evaluations(rules: &[Movable<'_>], order: &[usize]) -> u128 {
    let each = (1_u128..).zip(order).map(|(position, at)| position * u128::from(rules[*at].weight));
    each.sum()
}

fn better(chain: ChainNumber, rules: &[Movable<'_>]) -> Option<ChainOrder> {
    let mut order: Vec<usize> = (0..rules.len()).collect();
    let mut moves = Vec::new();
    for _ in 0..PASSES {
        let before = moves.len();
        for at in 1..order.len() {
            let own = &rules[order[at]];
            // How much it saves to go before each of the rules that it may pass.
            let (mut gain, mut best) = (0_i128, (0_i128, at));
            for to in (0..at).rev() {
                let other = &rules[order[to]];
                if !commute(own, other) {
                    break;
                }
                gain += i128::from(own.weight) - i128::from(other.weight);
                if gain > best.0 {
                    best = (gain, to);
                }
            }
            let (_, to) = best;
            if to < at {
                moves.push(Move { rule: order[at], before: order[to] });
                order[to..=at].rotate_right(1);
            }
        }
        if moves.len() == before {
            break;
        }
    }
    if moves.is_empty() {
        return None;
    }
    let now: Vec<usize> = (0..rules.len()).collect();
    Some(ChainOrder {
        chain,
        packets: rules.iter().map(|rule| u128::from(rule.weight)).sum(),
        evaluations: [evaluations(rules, &now), evaluations(rules, &order)],
        order,
        moves,
    })
}

/// The same rules in these orders.
#[must_use]
pub fn reordered(rules: &Rules, orders: &[ChainOrder]) -> Firewall {
    fn sorted<T: Clone>(rules: &mut Vec<T>, order: Option<&ChainOrder>) {
        if let Some(ChainOrder { order, .. }) = order {
            *rules = order.iter().filter_map(|at| rules.get(*at).cloned()).collect();
        }
    }
    let (mut nft, mut legacy) = (rules.nft.clone(), rules.legacy.clone());
    // Chains have numbers in this order.
    let mut number = 0..;
    let mut next = || {
        let number: Option<ChainNumber> = number.next();
        orders.iter().find(|of| Some(of.chain) == number)
    };
    for chain in nft.iter_mut().flat_map(|table| &mut table.chains) {
        sorted(&mut chain.rules, next());
    }
    for chain in legacy.iter_mut().flat_map(|table| &mut table.chains) {
        sorted(&mut chain.rules, next());
    }
    Firewall::new(&nft, &legacy)
}

/// Whether it makes no difference which of two neighbours comes first.
fn commute(one: &Movable<'_>, two: &Movable<'_>) -> bool {
    if !one.free || !two.free {
        return false;
    }
    let same = one.effect.is_some() && one.effect == two.effect;
    let apart =
        || one.condition.bound.iter().all(|a| two.condition.bound.iter().all(|b| !a.meets(b)));
    same || apart()
}

/// Whether packets before decide.
fn is_stateful(open: UnknownSet) -> bool {
    open.iter().any(|why| !matches!(why, Unknown::Attribute(_)))
}

fn writes_nothing(rule: &CompiledRule, firewall: &Firewall) -> bool {
    let changes = |operation: &Operation| match operation {
        Operation::Plain(
            Expression::CtSet { .. }
            | Expression::Dynset { .. }
            | Expression::MetaSet { .. }
            | Expression::ObjectRef { .. }
            | Expression::FlowOffload { .. },
        )
        | Operation::ObjectMap { .. } => true,
        Operation::Target(target) => {
            !matches!(target, Target::Continue | Target::Queue | Target::Reject(_))
        }
        _ => writes::written(operation) != Writes::default(),
    };
    // What else a called chain does is not looked at.
    !rule.operations.iter().any(changes) && writes::called(rule, firewall).next().is_none()
}

/// The verdict of a rule that does nothing else but count.
fn effect(rule: &CompiledRule) -> Option<Code> {
    let does_more = |operation: &Operation| match operation {
        Operation::Plain(expression) => matches!(
            expression,
            Expression::Log { .. }
                | Expression::Dup { .. }
                | Expression::Reject { .. }
                | Expression::Nat { .. }
                | Expression::Masq { .. }
                | Expression::Redir { .. }
                | Expression::Queue { .. }
                | Expression::Fwd { .. }
                | Expression::Unknown(_)
        ),
        Operation::Target(_) | Operation::Lookup { to: Some(_), .. } => true,
        _ => false,
    };
    match rule.operations.last()? {
        Operation::Verdict(code @ (Code::Accept | Code::Drop | Code::Return))
            if !rule.operations.iter().any(does_more) =>
        {
            Some(*code)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::analyse::{field::Fields, field::Source, region::Region, values::Values};
    use crate::model::table::Family;

    fn condition(fields: &mut Fields, first: u128, last: u128) -> Condition {
        let field = fields.load(Source::port(true));
        let field = fields.number(field);
        let region = Region::ALL.narrowed(field, &Values::range(first, last)).unwrap();
        Condition { bound: vec![region.clone()], takes: vec![region], ..Condition::default() }
    }

    #[test]
    fn rules_pass_those_that_they_do_not_overlap_or_that_do_the_same() {
        let mut fields = Fields::new(Family::Inet);
        // Range of ports, verdict, packets.
        let rules = [
            (1, 10, Code::Drop, 0),
            (5, 5, Code::Accept, 900),
            (20, 20, Code::Accept, 50),
            (20, 30, Code::Accept, 700),
            (1, 100, Code::Drop, 10),
        ];
        let conditions: Vec<Condition> =
            rules.iter().map(|(first, last, ..)| condition(&mut fields, *first, *last)).collect();
        let movable = |index: usize| {
            let (.., code, weight) = rules[index];
            let condition = &conditions[index];
            Movable { condition, effect: Some(code), free: true, weight }
        };
        let all: Vec<_> = (0..rules.len()).map(movable).collect();
        let found = better(7, &all).unwrap();
        // Port 5 stays behind the drop of 1 to 10.
        assert_eq!(found.order, [3, 0, 1, 2, 4]);
        assert_eq!(found.packets, 1660);
        assert_eq!(
            found.evaluations,
            [2 * 900 + 3 * 50 + 4 * 700 + 5 * 10, 700 + 3 * 900 + 4 * 50 + 5 * 10]
        );
        let stays: Vec<_> =
            (0..rules.len()).map(|at| Movable { free: false, ..movable(at) }).collect();
        assert_eq!(better(7, &stays), None);
    }
}
