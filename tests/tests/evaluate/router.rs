//! What the router of the lab would answer about its routes and addresses.

use std::net::{IpAddr, Ipv6Addr};

use conntracker::firewall::evaluate::{
    Attr,
    interface::Interface,
    packet::Layer3,
    routes::{Route, RouteQuery, RouteType, Routes},
};
use conntracker_tests::lab::{Host, Link};

/// The routes of the lab's router.
pub(crate) struct Router {
    /// Interfaces, each with its addresses of IPv4 and IPv6.
    links: Vec<(Interface, [IpAddr; 2])>,
    /// The addresses that IPv6 makes of their MAC addresses.
    link_local: Vec<IpAddr>,
    lo: Interface,
}

/// ARPHRD_ETHER and ARPHRD_LOOPBACK.
const ETHER: u16 = 1;
const LOOPBACK: u16 = 772;

impl Router {
    pub(crate) fn new(host: &Host) -> Self {
        let index = |name: &str| -> u32 {
            let path = format!("/sys/class/net/{name}/ifindex");
            let text = host.run(["cat", &path]).unwrap();
            text.trim().parse().unwrap()
        };
        let interface = |name: &str, hardware| Interface {
            hardware: Ok(hardware),
            group: Ok(0),
            ..Interface::named(name).with_index(index(name))
        };
        let links = host.links.iter();
        Self {
            links: links
                .map(|link| (interface(link.name, ETHER), [link.v4.into(), link.v6.into()]))
                .collect(),
            link_local: host.links.iter().map(link_local).collect(),
            lo: interface("lo", LOOPBACK),
        }
    }

    /// An interface by its index.
    pub(crate) fn interface(&self, index: u32) -> Option<Interface> {
        let mut all = self.links.iter().map(|(interface, _)| interface).chain([&self.lo]);
        all.find(|interface| interface.index == Ok(index)).cloned()
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.link_local.contains(&address)
            || self.links.iter().any(|(_, own)| own.contains(&address))
    }

    /// The interface towards an address.
    fn towards(&self, address: IpAddr) -> Option<&Interface> {
        let number = match address {
            IpAddr::V4(address) => match address.octets() {
                [10, 77, 1, _] | [10, 78, ..] => 0,
                [10, 77, 2, _] => 1,
                _ => return None,
            },
            IpAddr::V6(address) => match address.segments() {
                [0xfd77, 1, 0, 0, ..] | [0xfd78, 0, 0, 0, ..] => 0,
                [0xfd77, 2, 0, 0, ..] => 1,
                _ => return None,
            },
        };
        self.links.get(number).map(|(interface, _)| interface)
    }
}

/// fe80::/64 with the MAC address, which is 02:00:00:00 and the last two bytes of the IPv4 address.
fn link_local(link: &Link) -> IpAddr {
    let [.., net, host] = link.v4.octets();
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, u16::from_be_bytes([net, host])).into()
}

impl Routes for Router {
    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route> {
        let (kind, interface) = if self.is_local(query.to) {
            (RouteType::Local, Some(self.lo.clone()))
        } else {
            // Groups, too, lead nowhere: the router is in none that hosts send to.
            match self.towards(query.to) {
                Some(interface) => (RouteType::Unicast, Some(interface.clone())),
                None => (RouteType::Unspec, None),
            }
        };
        Ok(Route { kind, interface, source: None })
    }

    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType> {
        Ok(if self.is_local(query.to) {
            RouteType::Local
        } else if query.to.is_multicast() {
            RouteType::Multicast
        } else {
            RouteType::Unicast
        })
    }

    fn address_of(
        &self,
        interface: &Interface,
        layer3: Layer3,
        _to: Option<IpAddr>,
    ) -> Attr<Option<IpAddr>> {
        if interface.name == self.lo.name {
            return Ok(Some(match layer3 {
                Layer3::Ip => IpAddr::from([127, 0, 0, 1]),
                Layer3::Ip6 => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            }));
        }
        let own = self.links.iter().find(|(own, _)| own.name == interface.name);
        Ok(own.map(|(_, addresses)| addresses[usize::from(layer3 == Layer3::Ip6)]))
    }
}
