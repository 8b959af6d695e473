//! The smallest set of rules that accepts given flows and, unless subnets are asked for, no others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::model::hook::Hook;

/// Prefixes that addresses are put together in, at the widest: as long as those of most subnets.
const V4_SUBNET: u8 = 24;
const V6_SUBNET: u8 = 64;

/// Addresses from which on a subnet is taken for them.
const SUBNET_FROM: usize = 2;

/// A flow that passed, as the filter chains see its first packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassedFlow {
    /// [`Hook::Input`], [`Hook::Forward`] or [`Hook::Output`].
    pub hook: Hook,
    /// Names of the interfaces of input and output, where the hook has them.
    pub interfaces: [Option<String>; 2],
    /// Source, and destination as translated; `None`: this host's own address.
    pub addresses: [Option<IpAddr>; 2],
    /// IPv6.
    pub v6: bool,
    /// Protocol above IP.
    pub protocol: u8,
    /// Destination port, or type of ICMP.
    pub service: Option<u16>,
}

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// The first address.
    pub first: IpAddr,
    /// Bits that all have in common.
    pub bits: u8,
}

impl Subnet {
    /// How many hosts may have an address in it: without the first and the last one of subnets of IPv4.
    #[must_use]
    pub fn hosts(self) -> u128 {
        let length = if self.first.is_ipv4() { 32 } else { 128 };
        let all = 1_u128.checked_shl(length - u32::from(self.bits)).unwrap_or(u128::MAX);
        if self.first.is_ipv4() && self.bits < 31 { all - 2 } else { all }
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.bits == if self.first.is_ipv4() { 32 } else { 128 }
    }
}

/// Flows that one rule accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptRule {
    /// The hook of its chain.
    pub hook: Hook,
    /// Interfaces of input and output.
    pub interfaces: [Option<String>; 2],
    /// IPv6.
    pub v6: bool,
    /// Protocol above IP.
    pub protocol: u8,
    /// Sources and destinations; none: this host's own addresses.
    pub addresses: [BTreeSet<Subnet>; 2],
    /// Destination ports, or types of ICMP; none: the protocol has neither.
    pub services: BTreeSet<u16>,
    /// Flows of the recording that it accepts.
    pub flows: u64,
    /// Sources and destinations that were seen.
    pub seen: [usize; 2],
}

/// Rules for flows, and what is to be expected of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// In the order in which they are to stand: most flows first, in each chain.
    pub rules: Vec<AcceptRule>,
    /// All flows.
    pub flows: u64,
    /// Kinds of flows (interfaces, addresses or subnets, protocol, service), and those that were seen once.
    pub kinds: u64,
    /// See `kinds`.
    pub once: u64,
}

impl Suggestion {
    /// The share of future flows that these rules are expected not to accept: that of the flows that were the only one of
    /// their kind (I. J. Good, 1953, after Turing). `None` without flows.
    #[must_use]
    pub fn outside(&self) -> Option<f64> {
        (self.flows > 0).then(|| self.once as f64 / self.flows as f64)
    }
}

/// What flows of one rule have in common.
type Group = (Hook, [Option<String>; 2], bool, u8);

/// Sources, destinations and services, each with each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Product {
    addresses: [BTreeSet<Subnet>; 2],
    services: BTreeSet<u16>,
}

/// Rules for flows, each with how often it was seen. `aggregate`: addresses of one subnet stand for all of it.
#[must_use]
pub fn suggest(flows: &BTreeMap<PassedFlow, u64>, aggregate: bool) -> Suggestion {
    let subnets =
        [0, 1].map(|side| subnets(flows.keys().filter_map(|of| of.addresses[side]), aggregate));
    let subnet = |side: usize, address: IpAddr| {
        subnets[side].get(&address).copied().unwrap_or(single(address))
    };
    let mut kinds: BTreeMap<(Group, [Option<Subnet>; 2], Option<u16>), u64> = BTreeMap::new();
    for (flow, count) in flows {
        let PassedFlow { hook, interfaces, addresses, v6, protocol, service } = flow.clone();
        let group = (hook, interfaces, v6, protocol);
        let addresses = [0, 1].map(|side| addresses[side].map(|of| subnet(side, of)));
        *kinds.entry((group, addresses, service)).or_default() += count;
    }
    let mut groups: BTreeMap<Group, Vec<Product>> = BTreeMap::new();
    for (group, addresses, service) in kinds.keys() {
        let addresses = addresses.map(|of| of.into_iter().collect());
        let services = service.iter().copied().collect();
        groups.entry(group.clone()).or_default().push(Product { addresses, services });
    }
    let mut rules = Vec::new();
    for ((hook, interfaces, v6, protocol), products) in groups {
        for Product { addresses, services } in joined(products) {
            let mut rule = AcceptRule {
                hook,
                interfaces: interfaces.clone(),
                v6,
                protocol,
                addresses,
                services,
                flows: 0,
                seen: [0; 2],
            };
            let mut seen = [BTreeSet::new(), BTreeSet::new()];
            for (flow, count) in flows {
                if accepts(&rule, flow, &subnet) {
                    rule.flows += count;
                    for (seen, address) in seen.iter_mut().zip(flow.addresses) {
                        seen.extend(address);
                    }
                }
            }
            rule.seen = seen.map(|seen| seen.len());
            rules.push(rule);
        }
    }
    rules.sort_by(|a, b| (a.hook, b.flows, a).cmp(&(b.hook, a.flows, b)));
    Suggestion {
        rules,
        flows: flows.values().sum(),
        kinds: kinds.len() as u64,
        once: kinds.values().filter(|count| **count == 1).count() as u64,
    }
}

fn accepts(rule: &AcceptRule, flow: &PassedFlow, subnet: &dyn Fn(usize, IpAddr) -> Subnet) -> bool {
    let own = (rule.hook, &rule.interfaces, rule.v6, rule.protocol);
    own == (flow.hook, &flow.interfaces, flow.v6, flow.protocol)
        && [0, 1].iter().all(|side| match flow.addresses[*side] {
            Some(address) => rule.addresses[*side].contains(&subnet(*side, address)),
            None => rule.addresses[*side].is_empty(),
        })
        && flow.service.is_none_or(|service| rule.services.contains(&service))
}

fn single(address: IpAddr) -> Subnet {
    Subnet { first: address, bits: if address.is_ipv4() { 32 } else { 128 } }
}

/// The subnet that stands for each address: one of usual size, where several of its addresses were seen.
fn subnets(addresses: impl Iterator<Item = IpAddr>, aggregate: bool) -> BTreeMap<IpAddr, Subnet> {
    let mut wide: BTreeMap<Subnet, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in addresses.filter(|_| aggregate) {
        let bits = if address.is_ipv4() { V4_SUBNET } else { V6_SUBNET };
        wide.entry(prefix(address, bits)).or_default().insert(address);
    }
    let mut found = BTreeMap::new();
    for (subnet, addresses) in wide {
        let enough = addresses.len() >= SUBNET_FROM;
        found.extend(addresses.into_iter().filter(|_| enough).map(|address| (address, subnet)));
    }
    found
}

/// The addresses that share so many bits with one.
fn prefix(address: IpAddr, bits: u8) -> Subnet {
    let first = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or_default();
            IpAddr::from(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or_default();
            IpAddr::from(Ipv6Addr::from(u128::from(address) & mask))
        }
    };
    Subnet { first, bits }
}

/// Products that differ in one part alone are one, until there are none: nothing is accepted that was not before.
fn joined(products: Vec<Product>) -> Vec<Product> {
    let mut all: BTreeSet<Product> = products.into_iter().collect();
    loop {
        let before = all.len();
        // Ports first: people read what a host offers.
        all = join(
            all,
            |of| (of.addresses.clone(), BTreeSet::new()),
            |of, more| of.services.extend(more.services),
        );
        for side in [0, 1] {
            let rest = |of: &Product| {
                let mut addresses = of.addresses.clone();
                addresses[side].clear();
                (addresses, of.services.clone())
            };
            all = join(all, rest, |of, more| {
                let [sources, destinations] = more.addresses;
                of.addresses[side].extend(if side == 0 { sources } else { destinations });
            });
        }
        if all.len() == before {
            return all.into_iter().collect();
        }
    }
}

type Rest = ([BTreeSet<Subnet>; 2], BTreeSet<u16>);

fn join(
    all: BTreeSet<Product>,
    rest: impl Fn(&Product) -> Rest,
    add: impl Fn(&mut Product, Product),
) -> BTreeSet<Product> {
    let mut by_rest: BTreeMap<Rest, Product> = BTreeMap::new();
    for product in all {
        match by_rest.entry(rest(&product)) {
            std::collections::btree_map::Entry::Occupied(mut known) => {
                add(known.get_mut(), product)
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(product);
            }
        }
    }
    by_rest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(source: &str, destination: &str, service: u16) -> PassedFlow {
        PassedFlow {
            hook: Hook::Forward,
            interfaces: [Some("lan".to_owned()), Some("wan".to_owned())],
            addresses: [source, destination].map(|address| Some(address.parse().unwrap())),
            v6: false,
            protocol: 6,
            service: Some(service),
        }
    }

    fn of(flows: &[(PassedFlow, u64)], aggregate: bool) -> Suggestion {
        suggest(&flows.iter().cloned().collect(), aggregate)
    }

    #[test]
    fn what_differs_in_one_part_is_one_rule() {
        let mut flows = Vec::new();
        for source in ["10.0.0.1", "10.0.0.2"] {
            for service in [80, 443] {
                flows.push((flow(source, "192.0.2.1", service), 5));
            }
        }
        flows.push((flow("10.0.0.9", "192.0.2.1", 22), 1));
        let found = of(&flows, false);
        assert_eq!(found.rules.len(), 2);
        assert_eq!((found.rules[0].flows, found.rules[0].seen), (20, [2, 1]));
        assert_eq!(found.rules[0].services, BTreeSet::from([80, 443]));
        assert_eq!((found.flows, found.kinds, found.once), (21, 5, 1));
        assert!((found.outside().unwrap() - 1.0 / 21.0).abs() < 1e-9);
        assert_eq!(of(&[], false).outside(), None);
    }

    #[test]
    fn subnets_are_taken_only_where_they_are_asked_for() {
        let flows: Vec<_> = ["10.0.0.1", "10.0.0.2", "10.0.0.77", "10.9.9.9"]
            .map(|source| (flow(source, "192.0.2.1", 443), 1))
            .to_vec();
        let found = of(&flows, true);
        let [rule] = &found.rules[..] else { panic!("{found:?}") };
        let sources: Vec<_> =
            rule.addresses[0].iter().map(|of| (of.first.to_string(), of.hosts())).collect();
        assert_eq!(sources, [("10.0.0.0".to_owned(), 254), ("10.9.9.9".to_owned(), 1)]);
        assert_eq!(rule.seen, [4, 1]);
        assert_eq!(found.once, 1);
        assert_eq!(of(&flows, false).rules[0].addresses[0].len(), 4);
    }

    proptest! {
        /// Without subnets exactly the flows that were seen are accepted.
        #[test]
        fn nothing_else_is_accepted(seen in proptest::collection::btree_set((0_u8..4, 0_u8..3, 0_u16..4), 0..30)) {
            let of = |(source, destination, service): (u8, u8, u16)| {
                flow(&format!("10.0.0.{source}"), &format!("192.0.2.{destination}"), service)
            };
            let flows = seen.iter().map(|at| (of(*at), 1)).collect();
            let found = suggest(&flows, false);
            for source in 0..4 {
                for destination in 0..3 {
                    for service in 0..4 {
                        let at = (source, destination, service);
                        let admits = |rule: &AcceptRule| accepts(rule, &of(at), &|_, address| single(address));
                        let accepted = found.rules.iter().filter(|rule| admits(rule)).count();
                        prop_assert_eq!(accepted, usize::from(seen.contains(&at)));
                    }
                }
            }
        }
    }
}
