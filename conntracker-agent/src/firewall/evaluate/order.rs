//! What packets meet at each hook, in which order.

use std::collections::BTreeMap;

use super::{code::ChainNumber, packet::Layer3};
use crate::{model::hook::Hook, netlink::nftables::ruleset::ChainHook};

/// NFPROTO_ numbers of families whose chains packets of IP meet.
const INET: u8 = 1;
pub(super) const IP: u8 = 2;
pub(super) const NETDEV: u8 = 5;
pub(super) const IP6: u8 = 10;

/// Priorities of functions that are no chains (`enum nf_ip_hook_priorities`).
const CONNTRACK: i32 = -200;
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;

/// A function at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookFunction {
    /// A base chain.
    Chain(ChainNumber),
    /// Conntrack looks the packet up.
    Conntrack,
    /// The chains of type nat, whatever their priorities are, and the translation (`nf_nat_inet_fn` of
    /// net/netfilter/nf_nat_core.c).
    Nat(Vec<ChainNumber>),
}

/// The functions at each hook, in order.
#[derive(Debug, Default)]
pub(super) struct HookOrder(BTreeMap<(Hook, bool), Vec<HookFunction>>);

impl HookOrder {
    /// Of base chains in the order in which they were registered, each with the family of its table.
    pub(super) fn new(chains: &[(ChainNumber, u8, ChainHook)]) -> Self {
        let mut order = BTreeMap::new();
        for hook in Hook::BY_NUMBER.into_iter().chain([Hook::Egress]) {
            for layer3 in [Layer3::Ip, Layer3::Ip6] {
                let at = |nat: bool| {
                    let here = chains.iter().filter(move |(_, family, base)| {
                        hook_of(*family, base) == Some(hook)
                            && sees(*family, layer3)
                            && (base.kind == "nat") == nat
                    });
                    let mut here: Vec<_> =
                        here.map(|(number, _, base)| (base.priority, *number)).collect();
                    in_order(&mut here);
                    here
                };
                let mut functions: Vec<(i32, HookFunction)> = at(false)
                    .into_iter()
                    .map(|(priority, number)| (priority, HookFunction::Chain(number)))
                    .collect();
                let nat = at(true).into_iter().map(|(_, number)| number).collect();
                // The first chain of type nat registers the functions of all hooks (`nf_nat_register_fn`).
                let translates =
                    |(_, of, base): &(_, u8, ChainHook)| base.kind == "nat" && sees(*of, layer3);
                functions.extend(others(hook, chains.iter().any(translates).then_some(nat)));
                // Stable: of the same priority, what is no chain comes last.
                functions.sort_by_key(|(priority, _)| *priority);
                let functions = functions.into_iter().map(|(_, function)| function).collect();
                order.insert((hook, layer3 == Layer3::Ip6), functions);
            }
        }
        Self(order)
    }

    /// The functions at a hook.
    pub(super) fn functions(&self, hook: Hook, layer3: Layer3) -> &[HookFunction] {
        self.0.get(&(hook, layer3 == Layer3::Ip6)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Functions at a hook that are no chains; `nat` has the chains that NAT calls, if it is registered.
fn others(hook: Hook, nat: Option<Vec<ChainNumber>>) -> Vec<(i32, HookFunction)> {
    let (conntrack, priority) = match hook {
        Hook::Prerouting | Hook::Output => (Some((CONNTRACK, HookFunction::Conntrack)), NAT_DST),
        Hook::Input | Hook::Postrouting => (None, NAT_SRC),
        Hook::Forward | Hook::Ingress | Hook::Egress => return Vec::new(),
    };
    let nat = nat.map(|chains| (priority, HookFunction::Nat(chains)));
    conntrack.into_iter().chain(nat).collect()
}

/// Sorts by priority. Of those that have the same, the kernel puts what was registered later before what was
/// registered earlier (`nf_hook_entries_grow` of net/netfilter/core.c).
fn in_order(registered: &mut [(i32, ChainNumber)]) {
    registered.reverse();
    registered.sort_by_key(|(priority, _)| *priority);
}

/// Whether packets meet the chains of a family.
fn sees(family: u8, layer3: Layer3) -> bool {
    match family {
        IP => layer3 == Layer3::Ip,
        IP6 => layer3 == Layer3::Ip6,
        INET | NETDEV => true,
        _ => false,
    }
}

/// The hook of a base chain that packets of IP meet; `None` of bridges, of ARP, and of unknown hooks.
fn hook_of(family: u8, base: &ChainHook) -> Option<Hook> {
    /// `NF_INET_INGRESS` of `enum nf_inet_hooks`, behind those that [`Hook::BY_NUMBER`] has.
    const INET_INGRESS: u32 = 5;
    match (family, base.number) {
        (NETDEV, 0) | (INET, INET_INGRESS) => Some(Hook::Ingress),
        (NETDEV, 1) => Some(Hook::Egress),
        (INET | IP | IP6, number) => Hook::BY_NUMBER.get(number as usize).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nftables::data::Verdict;

    fn base(kind: &str, number: u32, priority: i32) -> ChainHook {
        let (kind, devices) = (kind.to_owned(), Vec::new());
        ChainHook { kind, number, priority, policy: Verdict::Accept, devices }
    }

    #[test]
    fn nat_runs_at_a_priority_of_its_own_and_the_later_of_equals_first() {
        let bases = [
            (0, INET, base("filter", 0, 0)),
            (1, IP, base("nat", 0, 50)),
            (2, IP, base("filter", 0, -150)),
            (3, IP6, base("filter", 0, -150)),
            (4, INET, base("filter", 0, 0)),
            (5, INET, base("nat", 0, -100)),
            (6, IP, base("filter", 0, -300)),
            (7, IP, base("filter", 2, 0)),
        ];
        let order = HookOrder::new(&bases);
        assert_eq!(
            order.functions(Hook::Prerouting, Layer3::Ip),
            [
                HookFunction::Chain(6),
                HookFunction::Conntrack,
                HookFunction::Chain(2),
                HookFunction::Nat(vec![5, 1]),
                HookFunction::Chain(4),
                HookFunction::Chain(0),
            ]
        );
        assert_eq!(order.functions(Hook::Forward, Layer3::Ip), [HookFunction::Chain(7)]);
        assert_eq!(order.functions(Hook::Forward, Layer3::Ip6), []);
    }
}
