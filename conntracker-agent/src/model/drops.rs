//! Dropped and lost packets of a flow, by drop point.

use conntracker_common::hook::{FORWARD, LOCAL_IN, POST_ROUTING, PRE_ROUTING};
use serde::{Deserialize, Serialize};

use super::{Tuple, path::Step};

/// Drop points that a flow keeps apart, at most; packets dropped at others share one count.
const MOST: usize = 32;

/// What dropped packets, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// A function at a hook of netfilter: a rule, a policy.
    #[default]
    Netfilter,
    /// Conntrack itself.
    Conntrack(ConntrackCause),
    /// Another part of the kernel, for this reason (`enum skb_drop_reason`, without the prefix `SKB_DROP_REASON_`).
    Reason(&'static str),
    /// Another part of the kernel, without a reason, in this function.
    Function(&'static str),
}

/// Why conntrack dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ConntrackCause {
    /// The table was full (nf_conntrack_max), and no old entry could be evicted early.
    Full,
    /// Another entry has the original or the reply tuple of the new one.
    InsertFailed,
    /// Too many entries have the hash of the new one.
    ChainTooLong,
    /// Another cause.
    Other,
}

impl ConntrackCause {
    /// The name of the counter in `conntrack -S`, or a few words where it has none.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "table full",
            Self::InsertFailed => "insert_failed",
            Self::ChainTooLong => "chain_toolong",
            Self::Other => "not confirmed",
        }
    }
}

impl Cause {
    /// Whether another part of the kernel than netfilter dropped them.
    #[must_use]
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Self::Reason(_) | Self::Function(_))
    }

    /// The last netfilter hook that the packets have passed, where another part of the kernel dropped them and their
    /// route puts them at `hook` (`enum nf_inet_hooks`). Forwarding checks TTL, MTU and policies before FORWARD, and
    /// IPv6 has chosen the output device by then; a queue to user space drops packets at the hook itself.
    #[must_use]
    pub fn last_hook(self, hook: Option<u8>) -> Option<u8> {
        match (hook, self) {
            (Some(FORWARD), Self::Function("nf_queue" | "__nf_queue" | "nf_reinject")) => hook,
            (Some(FORWARD), Self::Reason(_) | Self::Function(_))
            | (
                Some(POST_ROUTING),
                Self::Reason("IP_INHDR" | "PKT_TOO_BIG") | Self::Function("ip6_forward"),
            ) => Some(PRE_ROUTING),
            // A socket drops a packet after the kernel has released the packet's route.
            (None, cause) if cause.is_sockets() => Some(LOCAL_IN),
            _ => hook,
        }
    }

    /// Whether a socket of this machine dropped them, or no socket took them.
    fn is_sockets(self) -> bool {
        match self {
            Self::Reason(name) => {
                let begins = ["SOCKET_", "NO_SOCKET", "PROTO_MEM", "UDP_", "TCP_"];
                begins.iter().any(|begin| name.starts_with(begin))
            }
            Self::Function(name) => {
                ["udp", "__udp", "tcp", "raw"].iter().any(|begin| name.starts_with(begin))
            }
            Self::Netfilter | Self::Conntrack(_) => false,
        }
    }

    /// The kernel's reason or the function of packets that got lost elsewhere.
    #[must_use]
    pub fn elsewhere(self) -> Option<&'static str> {
        match self {
            Self::Reason(name) | Self::Function(name) => Some(name),
            Self::Netfilter | Self::Conntrack(_) => None,
        }
    }
}

/// Where packets of a flow were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct DropPoint {
    /// What dropped them.
    pub cause: Cause,
    /// Netfilter hook number (`enum nf_inet_hooks`); for packets that another part of the kernel dropped, the last
    /// hook that they have passed. `None` if it is unknown.
    pub hook: Option<u8>,
    /// Input interface index, 0 for none.
    pub iif: u32,
    /// Output interface index, 0 for none.
    pub oif: u32,
}

/// Packets that were dropped at one drop point by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedAt {
    /// Where.
    pub place: DropPoint,
    /// The rule, policy or chain; `None` if the packets were not traced, or if their path leaves it open.
    pub by: Option<Step>,
    /// How many.
    pub packets: u64,
}

/// Packets that were dropped at drop points beyond those that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Elsewhere {
    dropped: u64,
    lost: u64,
}

/// Why an entry could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Clash {
    /// The reply tuple of the entry that was refused, after NAT.
    pub reply: Tuple,
    /// Original tuple of the entry that already has this tuple in one of its directions; `None` if no source had it.
    pub holder: Option<Tuple>,
}

/// Dropped and lost packets of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// The clash of the first packet whose entry was refused because another entry had its tuple.
    pub(crate) clash: Option<Clash>,
    at: Vec<DroppedAt>,
    elsewhere: Elsewhere,
}

impl Drops {
    /// Packets that netfilter dropped.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.dropped().map(|at| at.packets).sum::<u64>() + self.elsewhere.dropped
    }

    /// Packets that got lost elsewhere in the kernel.
    #[must_use]
    pub fn lost_packets(&self) -> u64 {
        self.lost().map(|at| at.packets).sum::<u64>() + self.elsewhere.lost
    }

    /// The drop points, in the order in which they were first seen; at most 32 are kept.
    #[must_use]
    pub fn at(&self) -> &[DroppedAt] {
        &self.at
    }

    /// Those that netfilter dropped.
    pub fn dropped(&self) -> impl Iterator<Item = &DroppedAt> + Clone {
        self.at.iter().filter(|at| !at.place.cause.is_elsewhere())
    }

    /// Those that got lost elsewhere.
    pub fn lost(&self) -> impl Iterator<Item = &DroppedAt> + Clone {
        self.at.iter().filter(|at| at.place.cause.is_elsewhere())
    }

    /// The clash of the first packet whose entry was refused because another entry had its tuple.
    #[must_use]
    pub fn clash(&self) -> Option<Clash> {
        self.clash
    }

    /// Packets that would have begun a flow, but whose entry conntrack did not insert.
    #[must_use]
    pub fn not_inserted(&self) -> u64 {
        let inserts = |at: &&DroppedAt| matches!(at.place.cause, Cause::Conntrack(cause) if cause != ConntrackCause::Full);
        self.at.iter().filter(inserts).map(|at| at.packets).sum()
    }

    /// Why conntrack itself dropped packets: each cause once.
    #[must_use]
    pub fn by_conntrack(&self) -> Vec<ConntrackCause> {
        let mut causes = Vec::new();
        for at in &self.at {
            if let Cause::Conntrack(cause) = at.place.cause
                && !causes.contains(&cause)
            {
                causes.push(cause);
            }
        }
        causes
    }

    /// Packets that netfilter dropped at drop points that [`Self::at`] does not have.
    #[must_use]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere.dropped
    }

    /// Packets that the kernel lost at drop points that [`Self::at`] does not have.
    #[must_use]
    pub fn lost_elsewhere(&self) -> u64 {
        self.elsewhere.lost
    }

    pub(crate) fn add(&mut self, place: DropPoint, by: Option<&Step>, packets: u64) {
        let same = |at: &&mut DroppedAt| at.place == place && at.by.as_ref() == by;
        if let Some(known) = self.at.iter_mut().find(same) {
            known.packets += packets;
        } else if self.at.len() < MOST {
            self.at.push(DroppedAt { place, by: by.cloned(), packets });
        } else if place.cause.is_elsewhere() {
            self.elsewhere.lost += packets;
        } else {
            self.elsewhere.dropped += packets;
        }
    }

    /// Changes the clash, if there is one.
    #[cfg(feature = "cli")]
    pub(crate) fn change_clash(&mut self, change: impl FnOnce(&mut Clash)) {
        if let Some(clash) = &mut self.clash {
            change(clash);
        }
    }

    /// Changes the rules that dropped packets.
    #[cfg(feature = "cli")]
    pub(crate) fn change_steps(&mut self, change: impl FnMut(&mut Step)) {
        self.at.iter_mut().filter_map(|at| at.by.as_mut()).for_each(change);
    }

    /// Changes the numbers by which drop points refer to interfaces.
    #[cfg(feature = "cli")]
    pub(crate) fn renumber(&mut self, number: impl Fn(u32) -> u32) {
        for DroppedAt { place, .. } in &mut self.at {
            (place.iif, place.oif) = (number(place.iif), number(place.oif));
        }
    }

    /// Those of a flow that was written away: all drop points that were kept, and the packets at others (dropped, and
    /// lost).
    #[cfg(feature = "cli")]
    pub(crate) fn of_parts(clash: Option<Clash>, at: Vec<DroppedAt>, others: (u64, u64)) -> Self {
        Self { clash, at, elsewhere: Elsewhere { dropped: others.0, lost: others.1 } }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.clash = self.clash.or(other.clash);
        for DroppedAt { place, by, packets } in &other.at {
            self.add(*place, by.as_ref(), *packets);
        }
        self.elsewhere.dropped += other.elsewhere.dropped;
        self.elsewhere.lost += other.elsewhere.lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_packet_is_lost_where_there_are_more_places_than_are_kept() {
        let mut drops = Drops::default();
        for iif in 0..100 {
            let cause = if iif % 2 == 0 { Cause::Netfilter } else { Cause::Reason("NO_SOCKET") };
            drops.add(DropPoint { cause, hook: Some(1), iif, oif: 0 }, None, 2);
        }
        let mut all = Drops::default();
        all.merge(&drops);
        all.merge(&drops);
        assert_eq!((all.packets(), all.lost_packets(), all.at().len()), (200, 200, MOST));
        let kept = 2 * MOST as u64;
        assert_eq!((all.elsewhere(), all.lost_elsewhere()), (200 - kept, 200 - kept));
    }
}
