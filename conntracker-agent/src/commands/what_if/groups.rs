//! Flows for which the same would differ, together.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::Serialize;

use super::compare::{Change, Open, Prediction};
use crate::{
    commands::diff::flow_name::FlowName,
    firewall::evaluate::unknown::UnknownSet,
    model::{Flow, L4},
};

/// Flows that are named one by one in JSON.
const NAMED: usize = 20_000;

/// The addresses of several flows: the longest prefix that all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    length: u32,
}

impl Network {
    fn of(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The same with another address of its family.
    fn add(&mut self, other: IpAddr) {
        let (same, cut): (u32, fn(IpAddr, u32) -> IpAddr) = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(two)) => {
                ((one.to_bits() ^ two.to_bits()).leading_zeros(), |address, length| {
                    let IpAddr::V4(v4) = address else { return address };
                    let mask = u32::MAX.checked_shl(32 - length).unwrap_or_default();
                    Ipv4Addr::from_bits(v4.to_bits() & mask).into()
                })
            }
            (IpAddr::V6(one), IpAddr::V6(two)) => {
                ((one.to_bits() ^ two.to_bits()).leading_zeros(), |address, length| {
                    let IpAddr::V6(v6) = address else { return address };
                    let mask = u128::MAX.checked_shl(128 - length).unwrap_or_default();
                    Ipv6Addr::from_bits(v6.to_bits() & mask).into()
                })
            }
            _ => return,
        };
        self.length = self.length.min(same);
        self.address = cut(self.address, self.length);
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, length } = self;
        match (address, length) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => write!(f, "{address}"),
            _ => write!(f, "{address}/{length}"),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Flows of one protocol to one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Service {
    netns: String,
    protocol: String,
    v4: bool,
    /// Destination port, or type of ICMP.
    to: Option<u16>,
}

/// Flows of a service.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Members {
    pub netns: String,
    pub protocol: String,
    pub source: Network,
    pub destination: Network,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Flows of conntrack, or at least one for each line of a report.
    pub flows: u64,
    /// Lines of a report.
    pub lines: u64,
    /// The first of them.
    pub named: Vec<FlowName>,
}

impl Members {
    fn new(name: &FlowName) -> Self {
        Self {
            netns: name.netns.clone(),
            protocol: name.protocol.clone(),
            source: Network::of(name.src),
            destination: Network::of(name.dst),
            port: name.dport,
            flows: 0,
            lines: 0,
            named: Vec::new(),
        }
    }

    fn add(&mut self, flow: &Flow, name: FlowName, room: &mut usize) {
        self.source.add(name.src);
        self.destination.add(name.dst);
        self.flows += flow.merged().max(1);
        self.lines += 1;
        if *room > 0 {
            *room -= 1;
            self.named.push(name);
        }
    }
}

/// What becomes of all flows.
#[derive(Debug)]
pub(super) struct Groups {
    /// Flows for which nothing differs, and those of them whose packets hang on something unknown.
    pub same: u64,
    pub same_anyhow: u64,
    /// Flows that keep their fate, on a path that is undecided; for which reasons how many.
    pub path_open: u64,
    path_reasons: HashMap<UnknownSet, u64>,
    /// Flows that differ, and those of which that is not known.
    pub changed: u64,
    pub open: u64,
    changes: HashMap<(Service, Change), Members>,
    opens: HashMap<(Service, Open), Members>,
    room: usize,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            same: 0,
            same_anyhow: 0,
            path_open: 0,
            path_reasons: HashMap::new(),
            changed: 0,
            open: 0,
            changes: HashMap::new(),
            opens: HashMap::new(),
            room: NAMED,
        }
    }
}

impl Groups {
    /// Adds a flow.
    pub fn add(&mut self, flow: &Flow, name: impl Fn() -> FlowName, prediction: &Prediction) {
        let flows = flow.merged().max(1);
        let service = |name: &FlowName| Service {
            netns: name.netns.clone(),
            protocol: name.protocol.clone(),
            v4: name.src.is_ipv4(),
            to: match flow.key.orig.l4 {
                L4::Icmp { kind, .. } => Some(kind.into()),
                _ => name.dport,
            },
        };
        match prediction {
            Prediction::Same => self.same += flows,
            Prediction::SameAnyhow => {
                self.same += flows;
                self.same_anyhow += flows;
            }
            Prediction::PathOpen(why) => {
                self.path_open += flows;
                *self.path_reasons.entry(*why).or_default() += flows;
            }
            Prediction::Changed(changes) => {
                self.changed += flows;
                for change in changes {
                    let name = name();
                    let key = (service(&name), change.clone());
                    let members = self.changes.entry(key).or_insert_with(|| Members::new(&name));
                    members.add(flow, name, &mut self.room);
                }
            }
            Prediction::Open(open) => {
                self.open += flows;
                let name = name();
                let key = (service(&name), open.clone());
                let members = self.opens.entry(key).or_insert_with(|| Members::new(&name));
                members.add(flow, name, &mut self.room);
            }
        }
    }

    /// What differs: first fates, most flows first.
    pub fn changes(&self) -> Vec<(&Change, &Members)> {
        let mut all: Vec<_> = self.changes.iter().map(|((_, of), members)| (of, members)).collect();
        all.sort_by_key(|(change, members)| {
            (change.what, std::cmp::Reverse(members.flows), *change)
        });
        all
    }

    /// Why paths are undecided, most flows first.
    pub fn path_reasons(&self) -> Vec<(UnknownSet, u64)> {
        let mut all: Vec<_> = self.path_reasons.iter().map(|(why, flows)| (*why, *flows)).collect();
        all.sort_by_cached_key(|(why, flows)| (std::cmp::Reverse(*flows), why.to_string()));
        all
    }

    /// What is open, most flows first.
    pub fn opens(&self) -> Vec<(&Open, &Members)> {
        let mut all: Vec<_> = self.opens.iter().map(|((_, of), members)| (of, members)).collect();
        let key = |(open, members): &(&Open, &Members)| {
            (std::cmp::Reverse(members.flows), open.why.to_string(), members.port)
        };
        all.sort_by_cached_key(key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_the_longest_prefix_of_all_addresses() {
        let network = |addresses: &[&str]| {
            let mut addresses = addresses.iter().map(|address| address.parse().unwrap());
            let mut network = Network::of(addresses.next().unwrap());
            addresses.for_each(|address| network.add(address));
            network.to_string()
        };
        assert_eq!(network(&["10.77.1.2"]), "10.77.1.2");
        assert_eq!(network(&["10.77.1.2", "10.77.1.3"]), "10.77.1.2/31");
        assert_eq!(network(&["10.77.1.2", "10.77.1.3", "10.77.1.9"]), "10.77.1.0/28");
        assert_eq!(network(&["10.77.1.2", "192.0.2.1"]), "0.0.0.0/0");
        assert_eq!(network(&["fd77::2", "fd77::1:1"]), "fd77::/111");
    }
}
