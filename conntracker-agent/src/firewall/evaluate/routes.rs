//! What the evaluator asks about routing. The caller answers: from the kernel (RTM_GETROUTE), or from a recording.

use std::net::IpAddr;

use super::{
    interface::Interface,
    packet::Layer3,
    unknown::{Attr, Attribute},
};

/// Kind of a route (RTN_ of include/uapi/linux/rtnetlink.h), as `fib … type` and the match `addrtype` compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RouteType {
    /// None.
    Unspec = 0,
    /// To another host.
    Unicast = 1,
    /// To this host.
    Local = 2,
    /// To all hosts of a network.
    Broadcast = 3,
    /// To one of several hosts.
    Anycast = 4,
    /// To a group.
    Multicast = 5,
    /// Dropped in silence.
    Blackhole = 6,
    /// Refused as unreachable.
    Unreachable = 7,
    /// Refused by policy.
    Prohibit = 8,
}

/// A question about the route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery<'a> {
    /// The address.
    pub to: IpAddr,
    /// The source, where it matters.
    pub from: Option<IpAddr>,
    /// The interface of input of a packet that is forwarded.
    pub input: Option<&'a Interface>,
    /// The interface that the route must lead through.
    pub output: Option<&'a Interface>,
    /// Packet mark.
    pub mark: u32,
}

impl RouteQuery<'_> {
    /// About an address alone.
    #[must_use]
    pub fn to(to: IpAddr) -> Self {
        Self { to, from: None, input: None, output: None, mark: 0 }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Kind.
    pub kind: RouteType,
    /// The interface that it leads through, of routes that have one.
    pub interface: Option<Interface>,
    /// The source address that this host would take.
    pub source: Option<IpAddr>,
}

/// Answers questions about routes.
pub trait Routes {
    /// The route to an address. [`RouteType::Unspec`]: there is none.
    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route>;

    /// The route to all addresses but those of the packet's source, where they have one alone.
    fn route_of_all(&self) -> Attr<Route> {
        Err(Attribute::Routes.into())
    }

    /// Whether routes of packets that an interface received depend on their source.
    fn depends_on_source(&self) -> bool;

    /// The kind of an address (`inet_dev_addr_type`): local to this host, or with `output` to this interface;
    /// broadcast or multicast; else unicast. Only `to` and `output` of the question matter.
    fn address_type(&self, query: &RouteQuery<'_>) -> Attr<RouteType>;

    /// The address that an interface gives to NAT: `masquerade` for packets towards `to`, `redirect` where that is
    /// `None`. `None`: it has none.
    fn address_of(
        &self,
        interface: &Interface,
        layer3: Layer3,
        to: Option<IpAddr>,
    ) -> Attr<Option<IpAddr>>;
}
