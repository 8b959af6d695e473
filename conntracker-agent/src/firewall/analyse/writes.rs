//! What rules and chains write, which chains they call, and whether they make the kernel track flows.

use super::field::{Writes, Written};
use crate::{
    firewall::evaluate::{
        Firewall,
        code::{ChainNumber, Code},
        compiled::{CompiledRule, Operation},
        elements::{Elements, Mapped},
        xt::{Match, Target},
    },
    model::table::Family,
    netlink::nftables::{
        expression::Expression,
        key::{base, ct, meta},
    },
};

/// What an operation writes by itself.
#[must_use]
pub fn written(operation: &Operation) -> Writes {
    let mut writes = Writes::default();
    match operation {
        Operation::Plain(expression) => match expression {
            Expression::PayloadSet { slice, .. } => writes.add(match slice.base {
                base::LL_HEADER => Written::LinkHeader,
                base::NETWORK_HEADER => Written::NetworkHeader,
                _ => Written::TransportHeader,
            }),
            Expression::ExthdrSet { .. } => writes.add(Written::TransportHeader),
            Expression::MetaSet { key, .. } => match *key {
                meta::MARK => writes.add(Written::Mark),
                meta::PRIORITY => writes.add(Written::Priority),
                meta::PKTTYPE => writes.add(Written::PacketType),
                _ => {}
            },
            // Marks, labels and helpers of the entry are no fields.
            Expression::CtSet { key: ct::ZONE, .. } | Expression::Notrack => {
                writes.add(Written::Conntrack);
            }
            Expression::Unknown(_) | Expression::Inner { .. } => writes = Writes::ALL,
            Expression::Tproxy { .. } | Expression::Synproxy { .. } => writes.add(Written::Mark),
            _ => {}
        },
        Operation::Target(target) => match target {
            Target::Continue | Target::Queue | Target::Reject(_) => {}
            Target::SetConnmark(..) | Target::SaveMark(_) => {}
            Target::Nat(..) | Target::Netmap(_) => {}
            Target::Mark(_) | Target::RestoreMark(_) | Target::AnyMark(_) => {
                writes.add(Written::Mark);
            }
            Target::Ct(_) => writes.add(Written::Conntrack),
            Target::Ttl(_) | Target::Tos(_) | Target::Prefix(_) => {
                writes.add(Written::NetworkHeader);
                writes.add(Written::TransportHeader);
            }
            Target::Classify(_) => writes.add(Written::Priority),
            Target::TcpOptions => writes.add(Written::TransportHeader),
            Target::Unknown(_) => writes = Writes::ALL,
        },
        Operation::Verdict(_)
        | Operation::Lookup { .. }
        | Operation::ObjectMap { .. }
        | Operation::Header(_)
        | Operation::Match(_) => {}
    }
    writes
}

/// The verdicts that a map has.
pub fn mapped(set: &Elements) -> impl Iterator<Item = Code> {
    set.entries().iter().filter_map(|entry| match entry.data {
        Mapped::Verdict(code) => Some(code),
        _ => None,
    })
}

/// The verdicts that an operation may give.
fn verdicts(operation: &Operation, firewall: &Firewall) -> Vec<Code> {
    match operation {
        Operation::Verdict(code) => vec![*code],
        Operation::Lookup { set, to: Some(_), .. } => {
            firewall.set(*set).map(|set| mapped(set).collect()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The chains that a rule calls.
pub fn called<'a>(
    rule: &'a CompiledRule,
    firewall: &'a Firewall,
) -> impl Iterator<Item = ChainNumber> + 'a {
    let codes = rule.operations.iter().flat_map(|operation| verdicts(operation, firewall));
    codes.filter_map(|code| match code {
        Code::Jump(chain) | Code::Goto(chain) => Some(chain),
        _ => None,
    })
}

/// What each chain writes, the chains included that it calls.
#[must_use]
pub fn of_chains(firewall: &Firewall) -> Vec<Writes> {
    let rules = |number| firewall.chain(number).map(|chain| &chain.rules[..]).unwrap_or_default();
    let mut writes: Vec<Writes> = firewall
        .chains()
        .map(|number| {
            let mut all = Writes::default();
            let operations = rules(number).iter().flat_map(|rule| &rule.operations);
            operations.for_each(|operation| all.join(written(operation)));
            all
        })
        .collect();
    // Chains call each other as deep as the kernel follows them, so that this ends.
    loop {
        let mut changed = false;
        for number in firewall.chains() {
            let mut all = writes[number as usize];
            for callee in rules(number).iter().flat_map(|rule| called(rule, firewall)) {
                all.join(writes.get(callee as usize).copied().unwrap_or(Writes::ALL));
            }
            changed |= writes[number as usize] != all;
            writes[number as usize] = all;
        }
        if !changed {
            return writes;
        }
    }
}

/// Whether rules make the kernel track flows of IPv4, and of IPv6: then it puts fragments together before rules see
/// them, from priority -400 on (`nf_defrag_ipv4`, `nf_defrag_ipv6`).
#[must_use]
pub fn tracked(firewall: &Firewall) -> [bool; 2] {
    let mut tracked = [false; 2];
    for number in firewall.chains() {
        let Some(chain) = firewall.chain(number) else { continue };
        let nat = firewall.base_hook(number).is_some_and(|base| base.nat);
        let mut operations = chain.rules.iter().flat_map(|rule| &rule.operations);
        if nat || operations.any(asks_conntrack) {
            tracked[0] |= matches!(chain.family, Family::Ip | Family::Inet);
            tracked[1] |= matches!(chain.family, Family::Ip6 | Family::Inet);
        }
    }
    tracked
}

fn asks_conntrack(operation: &Operation) -> bool {
    match operation {
        Operation::Plain(of) => matches!(of, Expression::Ct { .. } | Expression::CtSet { .. }),
        Operation::Match(of) => matches!(**of, Match::Conntrack(_) | Match::State(_)),
        _ => false,
    }
}
