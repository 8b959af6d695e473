//! Names for the numbers in a report: namespaces, interfaces, hooks, states, times.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    time::{Duration, SystemTime},
};

use conntracker_common::hook::{FORWARD, POST_ROUTING};
use serde::Serialize;

pub use crate::model::harmless::OneLine;
use crate::{
    model::{Cause, DropPoint, DroppedAt, Drops, NetnsId, hook::Hook, state::ProtoState},
    report::{Header, Namespace},
};

/// A name, or a number that has no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Name<'a> {
    /// A name.
    Known(Cow<'a, str>),
    /// A number.
    Number(u32),
}

impl<'a> Name<'a> {
    fn new(name: Option<&'a str>, number: impl Into<u32>) -> Self {
        name.map_or_else(|| Self::Number(number.into()), |name| Self::Known(Cow::Borrowed(name)))
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(name) => OneLine(name).fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Names of the namespaces and interfaces that flows refer to by number.
#[derive(Debug)]
pub struct Names<'a> {
    namespaces: HashMap<NetnsId, &'a str>,
    interfaces: HashMap<(NetnsId, u32), &'a str>,
    untraced: HashMap<NetnsId, &'a [String]>,
}

impl<'a> Names<'a> {
    /// From the header of the report.
    #[must_use]
    pub fn new(header: &'a Header) -> Self {
        let mut names = Self {
            namespaces: HashMap::new(),
            interfaces: HashMap::new(),
            untraced: HashMap::new(),
        };
        for Namespace { id, name, interfaces, untraced } in &header.namespaces {
            names.namespaces.insert(*id, name);
            names.untraced.insert(*id, untraced);
            for interface in interfaces {
                names.interfaces.insert((*id, interface.number), &interface.name);
            }
        }
        names
    }

    /// A namespace.
    #[must_use]
    pub fn netns(&self, id: NetnsId) -> Name<'a> {
        Name::new(self.namespaces.get(&id).copied(), id.0)
    }

    /// Base chains that may have dropped the packets of a drop point although packets are not traced there; none if
    /// the dropper is known. If there are any, the hook is unknown: the route of a packet does not show chains of
    /// devices behind POSTROUTING, nor bridges, which give packets a route of their own.
    #[must_use]
    pub fn suspects(&self, netns: NetnsId, at: &DroppedAt) -> &'a [String] {
        let unknown = at.by.is_none() && at.place.cause == Cause::Netfilter;
        let Some(&untraced) = self.untraced.get(&netns).filter(|_| unknown) else {
            return &[];
        };
        let open = match at.place.hook {
            None | Some(POST_ROUTING) => true,
            Some(FORWARD) => untraced.iter().any(|chain| chain.starts_with("bridge ")),
            Some(_) => false,
        };
        if open { untraced } else { &[] }
    }

    /// The drop points of netfilter, as far as they are known.
    #[must_use]
    pub fn drop_places(&self, netns: NetnsId, drops: &Drops) -> Vec<DropPoint> {
        let mut places = Vec::new();
        for at in drops.dropped() {
            let hook = at.place.hook.filter(|_| self.suspects(netns, at).is_empty());
            let place = DropPoint { hook, ..at.place };
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// An interface of a namespace; `None` for index 0, which stands for no interface.
    #[must_use]
    pub fn interface(&self, netns: NetnsId, index: u32) -> Option<Name<'a>> {
        (index != 0).then(|| Name::new(self.interfaces.get(&(netns, index)).copied(), index))
    }
}

/// A netfilter hook.
#[must_use]
pub fn hook(number: u8) -> Name<'static> {
    Name::new(Hook::BY_NUMBER.get(usize::from(number)).map(|hook| hook.name()), number)
}

/// The meaning of a drop reason, or of a function that drops packets; `None` if the name says it, or if it is unknown
/// (include/net/dropreason-core.h).
#[must_use]
pub fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "IP_RPFILTER" => {
            "reverse path filter: the route to the source is not by the interface it came from"
        }
        "IP_INNOROUTES" => "no route to the destination for a packet that came in",
        "IP_OUTNOROUTES" => "no route to the destination for a packet of this machine",
        "IP_INHDR" => "an error in the IP header, or TTL or hop limit used up",
        "IP_CSUM" => "a wrong checksum of the IP header",
        "PKT_TOO_BIG" => "longer than the MTU of the way out, and not to be fragmented",
        "NEIGH_FAILED" | "neigh_invalidate" => {
            "the neighbour does not answer ARP or neighbour solicitations"
        }
        "NEIGH_QUEUEFULL" => "too many packets wait for the neighbour to answer",
        "NO_SOCKET" => "no socket listens there",
        "SOCKET_RCVBUFF" | "PROTO_MEM" => {
            "the socket's receive buffer is full: the program reads too slowly"
        }
        "SOCKET_FILTER" => "a filter of the socket",
        "UDP_CSUM" | "TCP_CSUM" | "ICMP_CSUM" | "SKB_CSUM" => "a wrong checksum",
        "XFRM_POLICY" => "an IPsec policy",
        "QDISC_DROP" => "the queue of the way out is full, or its discipline drops",
        "TC_INGRESS" | "TC_EGRESS" => "a filter of tc",
        "XDP" => "an XDP program",
        "CPU_BACKLOG" => {
            "the CPU's queue of packets to receive is full (net.core.netdev_max_backlog)"
        }
        "nf_queue" | "nf_reinject" => "queued, and no program takes it or its queue is full",
        "dst_discard" | "dst_discard_out" => "a blackhole route",
        "ip_error" => "no route, or a route that prohibits",
        _ => return None,
    })
}

/// The state of a flow, as conntrack(8) writes it.
#[must_use]
pub fn state(state: ProtoState) -> Name<'static> {
    Name::new(state.name(), state.number())
}

/// Nanoseconds since the epoch as RFC 3339, UTC.
#[must_use]
pub fn time(ns: u64) -> impl fmt::Display {
    humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_keeps_its_number() {
        assert_eq!(hook(2).to_string(), "forward");
        assert_eq!(hook(9), Name::Number(9));
        let tcp = |state| ProtoState::Tcp { state, wscale: [None; 2], flags: [None; 2] };
        assert_eq!(state(tcp(3)).to_string(), "ESTABLISHED");
        assert_eq!(state(tcp(200)), Name::Number(200));
    }

    #[test]
    fn times_have_nanoseconds_and_are_utc() {
        assert_eq!(time(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(1_767_225_600_000_000_001).to_string(), "2026-01-01T00:00:00.000000001Z");
        assert_eq!(time(u64::MAX).to_string(), "2554-07-21T23:34:33.709551615Z");
    }
}
