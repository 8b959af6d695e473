//! `nf_conn.status`, also CTA_STATUS: `enum ip_conntrack_status` of
//! include/uapi/linux/netfilter/nf_conntrack_common.h.

use conntracker_common::conntrack;
use serde::{Deserialize, Serialize};

/// IPS_ bits of a conntrack entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status(pub u32);

impl Status {
    /// An expectation announced it (an FTP data connection, say).
    pub const EXPECTED: Self = Self(conntrack::IPS_EXPECTED);
    /// Packets were seen in both directions.
    pub const SEEN_REPLY: Self = Self(conntrack::IPS_SEEN_REPLY);
    /// Conntrack does not evict it early when the table is full, because packets were seen in both directions.
    pub const ASSURED: Self = Self(conntrack::IPS_ASSURED);
    /// In the hash table: the first packet has left the machine or reached its socket.
    pub const CONFIRMED: Self = Self(conntrack::IPS_CONFIRMED);
    /// The source address or port is translated.
    pub const SRC_NAT: Self = Self(conntrack::IPS_SRC_NAT);
    /// The destination address or port is translated.
    pub const DST_NAT: Self = Self(conntrack::IPS_DST_NAT);
    /// Sequence numbers are adjusted.
    pub const SEQ_ADJUST: Self = Self(conntrack::IPS_SEQ_ADJUST);
    /// Being deleted.
    pub const DYING: Self = Self(conntrack::IPS_DYING);
    /// Packets do not prolong its timeout.
    pub const FIXED_TIMEOUT: Self = Self(conntrack::IPS_FIXED_TIMEOUT);
    /// Handled by a flowtable.
    pub const OFFLOAD: Self = Self(conntrack::IPS_OFFLOAD);
    /// Handled by hardware.
    pub const HW_OFFLOAD: Self = Self(conntrack::IPS_HW_OFFLOAD);

    /// Names of all bits, lowest first, as conntrack(8) and the kernel's source have them.
    pub const NAMES: [&'static str; 16] = [
        "expected",
        "seen_reply",
        "assured",
        "confirmed",
        "src_nat",
        "dst_nat",
        "seq_adjust",
        "src_nat_done",
        "dst_nat_done",
        "dying",
        "fixed_timeout",
        "template",
        "nat_clash",
        "helper",
        "offload",
        "hw_offload",
    ];

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Bits of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the bits that are set; bits without a name are left out.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, n)| *n)
    }
}
