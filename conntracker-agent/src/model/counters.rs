//! Packets and bytes of a flow.

use serde::{Deserialize, Serialize};

/// Accounting of one direction (net.netfilter.nf_conntrack_acct).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes, network headers included.
    pub bytes: u64,
}
