//! Flows that a report does not list: there was no room for them, or an earlier report has their lines.

use std::{collections::BTreeMap, ops::AddAssign};

use serde::Serialize;

/// Sums of flows; in JSON in this order, by these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowSums {
    /// Lines that a report would have. A flow that came back counts again.
    pub flows: u64,
    /// Conntrack flows in these lines.
    pub conntrack_flows: u64,
    /// Packets of both directions, where accounting is on.
    pub packets: u64,
    /// Bytes of both directions, likewise.
    pub bytes: u64,
    /// Packets that netfilter dropped.
    pub dropped_packets: u64,
    /// Packets that got lost elsewhere in the kernel.
    pub lost_packets: u64,
}

impl AddAssign for FlowSums {
    fn add_assign(&mut self, other: Self) {
        let Self { flows, conntrack_flows, packets, bytes, dropped_packets, lost_packets } = other;
        self.flows += flows;
        self.conntrack_flows += conntrack_flows;
        self.packets += packets;
        self.bytes += bytes;
        self.dropped_packets += dropped_packets;
        self.lost_packets += lost_packets;
    }
}

/// The sums, by IP protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherFlows(BTreeMap<u8, FlowSums>);

impl OtherFlows {
    /// Those of a protocol, to be added to.
    pub fn of(&mut self, proto: u8) -> &mut FlowSums {
        self.0.entry(proto).or_default()
    }

    /// Those of each protocol, in the order of their numbers.
    pub fn by_protocol(&self) -> impl Iterator<Item = (u8, FlowSums)> {
        self.0.iter().map(|(&proto, &sums)| (proto, sums))
    }

    /// Those of all protocols.
    #[must_use]
    pub fn total(&self) -> FlowSums {
        let mut total = FlowSums::default();
        for &sums in self.0.values() {
            total += sums;
        }
        total
    }

    /// Whether each flow is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
