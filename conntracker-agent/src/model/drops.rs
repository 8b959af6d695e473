//! What is known of a flow's dropped packets.

use conntracker_common::hook::{FORWARD, LOCAL_IN, POST_ROUTING, PRE_ROUTING};

use super::{Tuple, path::Step};

/// Distinct places and rules kept per flow; what is dropped elsewhere is counted together.
const MOST: usize = 32;

/// Who dropped packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// A function at a hook of netfilter: a rule, a policy.
    #[default]
    Netfilter,
    /// Conntrack itself.
    Conntrack(ConntrackCause),
    /// Another part of the kernel, for this reason (`enum skb_drop_reason`, without what all names begin with).
    Reason(&'static str),
    /// Another part of the kernel, without a reason, in this function.
    Function(&'static str),
}

/// What conntrack dropped packets for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConntrackCause {
    /// There was no room for a new entry (nf_conntrack_max), nor an old one to be dropped early.
    Full,
    /// Another entry has the original or the reply tuple of the new one.
    InsertFailed,
    /// Too many entries have the hash of the new one.
    ChainTooLong,
    /// Something else.
    Other,
}

impl ConntrackCause {
    /// In a few words, or as conntrack(8) names the counter (`conntrack -S`).
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
    /// Netfilter did not drop them: they got lost elsewhere in the kernel.
    #[must_use]
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Self::Reason(_) | Self::Function(_))
    }

    /// The last netfilter hook that packets have passed which got lost elsewhere, and whose routing places them at
    /// `hook` (`enum nf_inet_hooks`). Forwarding checks TTL, MTU and policies before FORWARD, and IPv6 has chosen
    /// the device by then; what gives packets to user space is at the hook itself.
    #[must_use]
    pub fn last_hook(self, hook: Option<u8>) -> Option<u8> {
        match (hook, self) {
            (Some(FORWARD), Self::Function("nf_queue" | "__nf_queue" | "nf_reinject")) => hook,
            (Some(FORWARD), Self::Reason(_) | Self::Function(_))
            | (
                Some(POST_ROUTING),
                Self::Reason("IP_INHDR" | "PKT_TOO_BIG") | Self::Function("ip6_forward"),
            ) => Some(PRE_ROUTING),
            // Sockets have let go of the route by then.
            (None, cause) if cause.is_sockets() => Some(LOCAL_IN),
            _ => hook,
        }
    }

    /// A socket of this machine, or the lack of one, lost them.
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
    /// Who dropped them.
    pub cause: Cause,
    /// Netfilter hook number (`enum nf_inet_hooks`); of packets that got lost elsewhere, the last hook that they
    /// have passed. `None` if it could not be told.
    pub hook: Option<u8>,
    /// Input interface index, 0 for none.
    pub iif: u32,
    /// Output interface index, 0 for none.
    pub oif: u32,
}

/// Packets that were dropped at one place by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedAt {
    /// Where.
    pub place: DropPoint,
    /// The rule, policy or chain; `None` if the packets were not traced, or if their path does not tell.
    pub by: Option<Step>,
    /// How many.
    pub packets: u64,
}

/// Packets that were dropped at more places than are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Elsewhere {
    dropped: u64,
    lost: u64,
}

/// Why an entry could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clash {
    /// The reply tuple that it was to have, address translation included.
    pub reply: Tuple,
    /// Original tuple of the entry that has this tuple in one of its directions, if it is known.
    pub holder: Option<Tuple>,
}

/// Dropped and lost packets of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Of the first packet for which there could be no entry because of another one.
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

    /// Where and by what, in the order in which that was seen first; at most 32 are kept.
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

    /// Of the first packet for which there could be no entry because of another one, the tuple that was taken.
    #[must_use]
    pub fn clash(&self) -> Option<Clash> {
        self.clash
    }

    /// Packets that were to be a flow of their own, of which conntrack did not insert the entry.
    #[must_use]
    pub fn not_inserted(&self) -> u64 {
        let inserts = |at: &&DroppedAt| matches!(at.place.cause, Cause::Conntrack(cause) if cause != ConntrackCause::Full);
        self.at.iter().filter(inserts).map(|at| at.packets).sum()
    }

    /// What conntrack itself dropped packets for, each once.
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

    /// Packets that netfilter dropped at other places, or by other rules, than [`Self::at`] tells.
    #[must_use]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere.dropped
    }

    /// Packets that got lost at other places than [`Self::at`] tells.
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
