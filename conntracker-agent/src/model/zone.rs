//! Zones of conntrack.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A conntrack zone: entries of two zones have nothing to do with each other, though their tuples be the same.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Zone(pub u16);

impl Zone {
    /// That of packets for which no rule sets another one (NF_CT_DEFAULT_ZONE_ID).
    pub const DEFAULT: Self = Self(0);

    /// As it goes over the network, and over netlink.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Zone> for u64 {
    fn from(Zone(zone): Zone) -> Self {
        zone.into()
    }
}
