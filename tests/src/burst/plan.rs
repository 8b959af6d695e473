//! Which flows a burst has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::lab::Lab;
use crate::tracer::{L4, Tuple};

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sender {
    /// The client: forwarded by the router, or for the router itself.
    Client,
    /// The router.
    Router,
    /// The server: forwarded the other way.
    Server,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A connection is tried.
    Tcp,
    /// So many datagrams.
    Udp(u8),
    /// An ICMP echo request; its identifier is the port of the sender.
    Echo,
    /// An ICMP echo reply that nobody asked for: to conntrack it is invalid.
    StrayReply,
}

/// A flow.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Who begins.
    pub sender: Sender,
    /// What is sent.
    pub kind: Kind,
    /// From where.
    pub from: SocketAddr,
    /// To where, before any translation.
    pub to: SocketAddr,
    /// In the payload, the same for no two flows.
    pub(super) number: u32,
    /// Bytes behind the number, the same for no two flows of a burst.
    pub(super) payload: usize,
}

impl Planned {
    /// A flow besides those of bursts. The number is one that no burst has: from 1 to 1000.
    #[must_use]
    pub fn new(sender: Sender, kind: Kind, from: SocketAddr, to: SocketAddr, number: u32) -> Self {
        let payload = FLOWS as usize + number as usize;
        Self { sender, kind, from, to, number: u32::MAX - number, payload }
    }

    /// The flow's first packet on the wire.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        let Self { kind, from, to, .. } = *self;
        let v4 = from.is_ipv4();
        let icmp = |v4_type, v6_type| Tuple {
            proto: if v4 { 1 } else { 58 },
            src: from.ip(),
            dst: to.ip(),
            l4: L4::Icmp(if v4 { v4_type } else { v6_type }, 0, from.port()),
        };
        match kind {
            Kind::Tcp => Tuple::ports(6, from, to),
            Kind::Udp(_) => Tuple::ports(17, from, to),
            Kind::Echo => icmp(8, 128),
            Kind::StrayReply => icmp(0, 129),
        }
    }
}

/// Flows of a burst.
const FLOWS: u32 = 64;

/// First of the router's own ports, above those that anybody listens at.
const ROUTER_PORTS: u32 = 10_000;

/// First of the ports of the others, above those of the router.
const CLIENT_PORTS: u32 = 20_000;

/// The most bursts with different flows.
const BURSTS: u32 = 5_000;

/// The flows of the burst of this number: no two bursts of the first 5000 share one.
#[must_use]
pub fn flows(lab: &Lab, burst: u32) -> Vec<Planned> {
    use Kind::{Echo, StrayReply, Tcp, Udp};
    use Sender::{Client, Router, Server};
    let burst = burst % BURSTS;
    let mut flows = Vec::new();
    for v4 in [true, false] {
        let at = |host: &crate::lab::Host, port| if v4 { host.at(port) } else { host.at6(port) };
        let (router, server) = (|port| at(&lab.router, port), |port| at(&lab.server, port));
        let own = |port| {
            let link = &lab.router.links[1];
            SocketAddr::new(if v4 { link.v4.into() } else { link.v6.into() }, port)
        };
        let [one, other] = client(burst, v4);
        let mut add = |sender, kind, from: SocketAddr, to| {
            let number = burst * FLOWS + flows.len() as u32;
            let icmp = matches!(kind, Echo | StrayReply);
            // What tells the flows of a host apart where addresses do not.
            let port = match (sender, icmp) {
                (_, true) => number % 0x1_0000,
                (Router, false) => ROUTER_PORTS + burst * 10 + flows.len() as u32 % 10,
                // Not even translated to one address are two flows the same.
                _ => CLIENT_PORTS + number % (0x1_0000 - CLIENT_PORTS),
            };
            let from = SocketAddr::new(from.ip(), port as u16);
            flows.push(Planned { sender, kind, from, to, number, payload: flows.len() });
        };
        for (kind, port) in [(Tcp, 80), (Tcp, 81), (Udp(2), 7), (Udp(2), 9), (Echo, 0)] {
            add(Client, kind, one, server(port));
        }
        for (kind, port) in [(Tcp, 443), (Udp(1), 53), (Udp(1), 99), (StrayReply, 0)] {
            add(Client, kind, other, server(port));
        }
        for (kind, port) in [(Tcp, 8080), (Udp(1), 7), (Udp(2), 53)] {
            add(Client, kind, one, router(port));
        }
        for (kind, port) in [(Tcp, 22), (Udp(1), 9), (Echo, 0)] {
            add(Client, kind, other, router(port));
        }
        for (kind, port) in [(Tcp, 80), (Tcp, 81), (Udp(1), 7), (Udp(2), 9), (Echo, 0)] {
            add(Router, kind, own(0), server(port));
        }
        add(Router, Udp(1), own(0), SocketAddr::new(other.ip(), 53));
        add(Server, Udp(1), server(0), SocketAddr::new(one.ip(), 7));
        add(Server, Tcp, server(0), SocketAddr::new(other.ip(), 80));
    }
    flows
}

/// Two addresses of the client that only one burst has: of 10.78.0.0/17 and of 10.78.128.0/17, or
/// of fd78::1:0/112 and of fd78::2:0/112.
fn client(burst: u32, v4: bool) -> [SocketAddr; 2] {
    let (high, low) = ((burst / 250) as u8, (burst % 250) as u8 + 1);
    let address = |half: u8| -> IpAddr {
        if v4 {
            Ipv4Addr::new(10, 78, high + half * 128, low).into()
        } else {
            let [net, host] = [u16::from(half) + 1, burst as u16 + 1];
            Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, net, host).into()
        }
    };
    [0, 1].map(|half| SocketAddr::new(address(half), 0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_flows_are_alike() {
        let lab = Lab::new().unwrap();
        let all: Vec<Planned> = (0..500).flat_map(|burst| flows(&lab, burst)).collect();
        let tuples: BTreeSet<Tuple> = all.iter().map(Planned::tuple).collect();
        let numbers: BTreeSet<u32> = all.iter().map(|flow| flow.number).collect();
        assert_eq!((tuples.len(), numbers.len()), (all.len(), all.len()));
        assert!(all.len() < 500 * FLOWS as usize);
    }
}
