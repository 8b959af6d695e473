//! Routes from interfaces, addresses, routes and rules that were read before, as the kernel finds them
//! (net/core/fib_rules.c, net/ipv4/fib_trie.c, net/ipv6/route.c).

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    interface::Interface,
    packet::Layer3,
    routes::{Route, RouteQuery, RouteType, Routes},
    unknown::{Attr, Attribute, Unknown},
};
use crate::netlink::routing::objects::{
    Address, Link, Prefix, RouteEntry, RoutingObjects, RoutingRule, TO_TABLE,
};

/// Tables that have names (RT_TABLE_), in the order of the rules that every host has at first.
const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;

/// What rules do besides (FR_ACT_).
const GOTO: u8 = 2;
const NOTHING: u8 = 3;
const BLACKHOLE: u8 = 6;
const UNREACHABLE: u8 = 7;
const PROHIBIT: u8 = 8;

/// RTN_THROW: the table has no route, though a wider prefix may have one.
const THROW: u8 = 9;

/// RT_SCOPE_LINK: addresses from here on are no source of packets that leave the link.
const SCOPE_LINK: u8 = 253;

/// The routing of a host.
#[derive(Debug, Default)]
pub struct RoutingTables {
    links: HashMap<u32, Interface>,
    by_name: HashMap<[u8; 16], u32>,
    addresses: Vec<Address>,
    rules: [Vec<RoutingRule>; 2],
    tables: HashMap<(bool, u32), Table>,
    /// Interfaces belong to others, so that a VRF may choose the table.
    may_have_vrf: bool,
    /// A rule or a route is for some sources alone.
    depends_on_source: bool,
}

/// Routes by the length of their prefix, longest last, and by the prefix.
type Table = BTreeMap<u8, HashMap<u128, Vec<RouteEntry>>>;

impl RoutingTables {
    /// From what a dump has.
    #[must_use]
    pub fn new(objects: RoutingObjects) -> Self {
        let RoutingObjects { links, addresses, routes, rules } = objects;
        let mut all = Self { addresses, ..Self::default() };
        all.may_have_vrf = links.iter().any(|link| link.has_master);
        for Link { index, name, hardware, group, .. } in links {
            let interface = Interface {
                hardware: Ok(hardware),
                group: Ok(group),
                ..Interface::named(&name).with_index(index)
            };
            all.by_name.insert(interface.name, index);
            all.links.insert(index, interface);
        }
        let some = |prefix: Option<Prefix>| prefix.is_some_and(|prefix| prefix.length > 0);
        all.depends_on_source =
            rules.iter().any(|rule| some(rule.from)) || routes.iter().any(|route| some(route.from));
        for route in routes {
            let key = bits(route.to.address, route.to.length);
            let table = all.tables.entry((route.to.address.is_ipv6(), route.table)).or_default();
            table.entry(route.to.length).or_default().entry(key).or_default().push(route);
        }
        for table in all.tables.values_mut().flat_map(BTreeMap::values_mut) {
            for routes in table.values_mut() {
                // Those of one type of service before others, then by metric.
                routes.sort_by_key(|route| (u8::MAX - route.tos, route.metric));
            }
        }
        for rule in rules {
            all.rules[usize::from(rule.v6)].push(rule);
        }
        for (v6, rules) in all.rules.iter_mut().enumerate() {
            if rules.is_empty() {
                let first = [(0, LOCAL), (32_766, MAIN), (32_767, DEFAULT)];
                rules.extend(
                    first.map(|(priority, table)| RoutingRule::lookup(v6 == 1, priority, table)),
                );
            }
            rules.sort_by_key(|rule| rule.priority);
        }
        all
    }

    /// The interface of a name, with all that is known of it; `None` if there is none.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.links.get(self.by_name.get(&Interface::named(name).name)?)
    }

    /// All interfaces, in the order of their indexes.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&Interface> {
        let mut links: Vec<_> = self.links.iter().collect();
        links.sort_by_key(|(index, _)| **index);
        links.into_iter().map(|(_, interface)| interface).collect()
    }

    /// The prefixes by which routes, their rules and addresses of interfaces tell addresses apart.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let routes = self.tables.values().flat_map(BTreeMap::values);
        let routes = routes.flat_map(|by_prefix| by_prefix.values()).flatten();
        let of_routes = routes.flat_map(|route| [Some(route.to), route.from]);
        let of_rules = self.rules.iter().flatten().flat_map(|rule| [rule.to, rule.from]);
        let networks = self.addresses.iter().map(|address| Some(address.network));
        let hosts = self.addresses.iter().map(|address| (address.local, u8::MAX));
        let prefixes = of_routes.chain(of_rules).chain(networks).flatten();
        prefixes.map(|prefix| (prefix.address, prefix.length)).chain(hosts)
    }

    fn lookup(&self, query: &RouteQuery<'_>) -> Attr<Option<&RouteEntry>> {
        let v6 = query.to.is_ipv6();
        let rules = &self.rules[usize::from(v6)];
        let mut at = 0;
        while let Some(rule) = rules.get(at) {
            at += 1;
            if !self.matches(rule, query)? {
                continue;
            }
            match rule.action {
                TO_TABLE => {
                    let Some(table) = self.tables.get(&(v6, rule.table)) else { continue };
                    let found = self.in_table(table, query)?;
                    // Routes that refuse count, however short their prefix is (`fib6_rule_suppress`).
                    let counts = |route: &&RouteEntry| {
                        let long = |most| u32::from(route.to.length) > most;
                        route.kind != THROW
                            && (is_refusal(route.kind) || rule.suppress_length.is_none_or(long))
                    };
                    if let Some(route) = found.filter(counts) {
                        return Ok(Some(route));
                    }
                }
                GOTO => at = rules.partition_point(|rule_| rule_.priority < rule.table),
                NOTHING => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The action of a rule that refuses packets, if one does so before a route is found.
    fn refusal(&self, query: &RouteQuery<'_>) -> RouteType {
        let rules = &self.rules[usize::from(query.to.is_ipv6())];
        let matches = |rule: &&RoutingRule| self.matches(rule, query) == Ok(true);
        match rules.iter().filter(matches).find(|rule| rule.action > NOTHING).map(|of| of.action) {
            Some(BLACKHOLE) => RouteType::Blackhole,
            Some(UNREACHABLE) => RouteType::Unreachable,
            Some(PROHIBIT) => RouteType::Prohibit,
            _ => RouteType::Unspec,
        }
    }

    fn matches(&self, rule: &RoutingRule, query: &RouteQuery<'_>) -> Attr<bool> {
        let unknown = Err(Unknown::from(Attribute::Routes));
        if rule.compares_more && self.may_have_vrf || rule.tos != 0 {
            return unknown;
        }
        // Packets of this host come in by `lo`, as far as rules are concerned.
        let input = query.input.map_or(Interface::named("lo").name, |input| input.name);
        let output = query.output.map(|output| output.name);
        let name = |of: &Option<String>| of.as_deref().map(|of| Interface::named(of).name);
        let to = rule.to.is_none_or(|to| contains(to, query.to));
        let from = rule.from.is_none_or(|from| {
            // A packet of this host without a source yet matches no prefix but that of all.
            query.from.map_or(from.length == 0, |address| contains(from, address))
        });
        let iif = name(&rule.iif).is_none_or(|iif| iif == input);
        let oif = name(&rule.oif).is_none_or(|oif| Some(oif) == output);
        let mark = rule.mark.is_none_or(|(mark, mask)| query.mark & mask == mark);
        let all = to && from && iif && oif && mark;
        if rule.compares_more && (all || rule.invert) && !is_l3mdev(rule) {
            return unknown;
        }
        // Without a VRF the rule for VRFs finds none.
        Ok((all && !rule.compares_more) != rule.invert)
    }

    fn in_table<'a>(
        &'a self,
        table: &'a Table,
        query: &RouteQuery<'_>,
    ) -> Attr<Option<&'a RouteEntry>> {
        for (length, routes) in table.iter().rev() {
            let Some(routes) = routes.get(&bits(query.to, *length)) else { continue };
            for route in routes {
                if let Some(from) = route.from
                    && !query.from.is_some_and(|address| contains(from, address))
                {
                    continue;
                }
                if route.tos != 0 {
                    return Err(Attribute::Routes.into());
                }
                let through = query.output.and_then(|output| self.by_name.get(&output.name));
                if query.output.is_some() && !route.several && route.link != through.copied() {
                    continue;
                }
                return Ok(Some(route));
            }
        }
        Ok(None)
    }

    /// Addresses of an interface, in the kernel's order.
    fn addresses_of(&self, index: Option<u32>, v6: bool) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .filter(move |address| Some(address.link) == index && address.local.is_ipv6() == v6)
    }

    /// The source that packets to an address take (`inet_select_addr`; RFC 6724 where only one address may be taken).
    fn source(&self, index: Option<u32>, to: IpAddr) -> Attr<Option<IpAddr>> {
        if to.is_ipv6() {
            let usable = |of: &&Address| of.preferred && of.scope < SCOPE_LINK;
            let mut usable = self.addresses_of(index, true).filter(usable);
            return match (usable.next(), usable.next()) {
                (Some(only), None) => Ok(Some(only.local)),
                _ => Err(Unknown::TranslationChoice),
            };
        }
        let usable = |of: &&Address| !of.secondary && of.scope < SCOPE_LINK;
        let primary = || self.addresses_of(index, false).filter(usable);
        let near = primary().find(|of| contains(of.network, to));
        // An interface without one takes that of another interface: `lo` has none that leaves the host.
        let others = || self.addresses.iter().filter(|of| of.local.is_ipv4()).find(usable);
        Ok(near.or_else(|| primary().next()).or_else(others).map(|address| address.local))
    }
}

/// Whether all that a rule compares besides is whether a VRF has the packet.
fn is_l3mdev(rule: &RoutingRule) -> bool {
    // Its table is the VRF's.
    rule.table == 0
}

/// The first bits of an address.
fn bits(address: IpAddr, length: u8) -> u128 {
    let (all, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    match length.min(width) {
        0 => 0,
        length => all >> (128 - u32::from(length)),
    }
}

fn contains(prefix: Prefix, address: IpAddr) -> bool {
    prefix.address.is_ipv6() == address.is_ipv6()
        && bits(prefix.address, prefix.length) == bits(address, prefix.length)
}

/// Whether routes of a kind refuse packets.
fn is_refusal(kind: u8) -> bool {
    use RouteType::{Blackhole, Prohibit, Unreachable};
    matches!(route_type(kind), Blackhole | Unreachable | Prohibit)
}

fn route_type(kind: u8) -> RouteType {
    match kind {
        1 => RouteType::Unicast,
        2 => RouteType::Local,
        3 => RouteType::Broadcast,
        4 => RouteType::Anycast,
        5 => RouteType::Multicast,
        6 => RouteType::Blackhole,
        7 => RouteType::Unreachable,
        8 => RouteType::Prohibit,
        _ => RouteType::Unspec,
    }
}

impl Routes for RoutingTables {
    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        let none = |kind| Route { kind, interface: None, source: None };
        let to = query.to;
        if to == Ipv4Addr::BROADCAST && query.output.is_none() {
            return Ok(none(RouteType::Broadcast));
        }
        let Some(found) = self.lookup(query)? else { return Ok(none(self.refusal(query))) };
        let kind = route_type(found.kind);
        let interface = found.link.and_then(|index| self.links.get(&index)).cloned();
        let source = match found.source {
            Some(source) => Some(source),
            None => self.source(found.link, found.gateway.unwrap_or(to)).unwrap_or_default(),
        };
        Ok(Route { kind, interface, source })
    }

    fn depends_on_source(&self) -> bool {
        let by_rule =
            self.rules.iter().flatten().any(|rule| rule.from.is_some_and(|of| of.length > 0));
        let mut routes = self.tables.values().flat_map(BTreeMap::values).flat_map(HashMap::values);
        by_rule || routes.any(|of| of.iter().any(|route| route.from.is_some()))
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        let (to, output) = (query.to, query.output);
        match to {
            IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.is_broadcast() => {
                return Ok(RouteType::Broadcast);
            }
            to if to.is_multicast() => return Ok(RouteType::Multicast),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => return Ok(RouteType::Unspec),
            _ => {}
        }
        if to.is_ipv6() {
            return self.kind_of_v6(query);
        }
        let Some(table) = self.tables.get(&(false, LOCAL)) else { return Ok(RouteType::Unicast) };
        let found = self.in_table(table, &RouteQuery::to(to))?;
        let through = output.and_then(|output| self.by_name.get(&output.name));
        let counts = |route: &&RouteEntry| output.is_none() || route.link == through.copied();
        Ok(found.filter(counts).map_or(RouteType::Unicast, |route| route_type(route.kind)))
    }

    fn address_of(
        &self,
        interface: &Interface,
        layer3: Layer3,
        to: Option<IpAddr>,
    ) -> Attr<Option<IpAddr>> {
        let index = self.by_name.get(&interface.name).copied();
        let v6 = layer3 == Layer3::Ip6;
        match to {
            Some(to) => {
                // Towards the next router, if there is one (`nf_nat_masquerade_ipv4`).
                let query = RouteQuery { output: Some(interface), ..RouteQuery::to(to) };
                let gateway = self.lookup(&query)?.and_then(|route| route.gateway);
                self.source(index, gateway.filter(|of| of.is_ipv6() == v6).unwrap_or(to))
            }
            None if v6 => {
                let mut all = self.addresses_of(index, true);
                match (all.next(), all.next()) {
                    (first, None) => Ok(first.map(|address| address.local)),
                    _ => Err(Unknown::TranslationChoice),
                }
            }
            // The first one (`nf_nat_redirect_ipv4`).
            None => Ok(self
                .addresses_of(index, false)
                .find(|address| !address.secondary)
                .map(|address| address.local)),
        }
    }
}

impl RoutingTables {
    /// `nft_fib6_eval_type`: local addresses, anycast, what cannot be reached, and anything else.
    fn kind_of_v6(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        let (to, output) = (query.to, query.output);
        let index = output.and_then(|output| self.by_name.get(&output.name)).copied();
        if let Some(index) = index {
            // Of this interface, or of another one?
            let own = |of: &Address| of.link == index && of.local == to;
            if self.addresses.iter().any(own) {
                return Ok(RouteType::Local);
            }
        }
        Ok(match self.lookup(&RouteQuery::to(to))?.map(|route| route_type(route.kind)) {
            Some(RouteType::Local) if output.is_some() => RouteType::Unicast,
            Some(kind @ (RouteType::Local | RouteType::Anycast | RouteType::Unicast)) => kind,
            _ => RouteType::Unreachable,
        })
    }
}
