//! What the evaluator asks about routing. The caller answers: from the kernel (RTM_GETROUTE), or from a recording.

use std::net::IpAddr;

use super::{interface::Interface, unknown::Attr};

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
    /// The route to an address.
    fn route(&self, query: &RouteQuery<'_>) -> Attr<Route>;
}
