//! `multiport` (net/netfilter/xt_multiport.c).

use super::compare::{be16, has_transport};
use crate::firewall::{
    evaluate::{
        decision::Decision,
        packet::{Packet, Side},
    },
    fields::Fields,
};

/// XT_MULTI_PORTS.
const MOST: usize = 15;

/// `struct xt_multiport_v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiport {
    /// Which port is looked at; `None`: either.
    pub side: Option<Side>,
    /// Ranges of ports.
    pub ports: Vec<(u16, u16)>,
    /// The port must be another one.
    pub inverted: bool,
}

impl Multiport {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let side = match info.u8(0)? {
            0 => Some(Side::Source),
            1 => Some(Side::Destination),
            2 => None,
            _ => return None,
        };
        let count = usize::from(info.u8(1)?);
        let mut ports = Vec::new();
        let mut index = 0;
        while index < count {
            let first = info.u16(2 + 2 * index).filter(|_| index < MOST)?;
            // A flag says that the next number is the end of a range.
            let ranged = info.u8(32 + index)? != 0;
            index += usize::from(ranged);
            let last = info.u16(2 + 2 * index).filter(|_| index < MOST)?;
            ports.push((first, last));
            index += 1;
        }
        Some(Self { side, ports, inverted: info.u8(47)? != 0 })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let has = |side: Side| {
            let port = be16(packet.transport(), 2 * side as usize, side.port());
            let found = port.map(|port| {
                self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
            });
            Decision::from(found)
        };
        let found = match self.side {
            Some(side) => has(side),
            None => has(Side::Source).or(has(Side::Destination)),
        };
        has_transport(packet).and(found.inverted_if(self.inverted))
    }
}
