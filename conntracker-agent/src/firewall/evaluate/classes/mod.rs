//! Classes of packets: those that no rule and no route tells apart have the same addresses and ports here, so that
//! they need to be evaluated once.
//!
//! Rules compare addresses and ports with constants, ranges and sets. Where one of these begins or ends, a class does;
//! the lowest value of a class stands for all of it. Where a rule reads a value otherwise (as part of a hash, by an
//! arbitrary mask), each value is a class.

mod fields;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::fields::Field;
use super::{
    packet::{Packet, Side},
    routing_tables::RoutingTables,
    ruleset::Firewall,
};
use crate::model::{L4, Tuple};

/// Where classes of a field's values begin.
#[derive(Clone, Debug, Default)]
struct Cuts {
    begins: Vec<u128>,
    /// Each value is a class.
    whole: bool,
}

impl Cuts {
    /// Classes begin with the first value of a range, and behind its last one.
    fn range(&mut self, first: u128, last: u128) {
        self.begins.push(first);
        self.begins.extend(last.checked_add(1));
    }

    /// The value that stands for a class.
    fn lowest(&self, value: u128) -> u128 {
        if self.whole {
            return value;
        }
        let behind = self.begins.partition_point(|begin| *begin <= value);
        behind.checked_sub(1).and_then(|at| self.begins.get(at)).copied().unwrap_or_default()
    }
}

/// Which packets rulesets and routes tell apart.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    v4: Cuts,
    v6: Cuts,
    ports: Cuts,
}

impl Classes {
    /// Those of these rulesets, with these routes.
    #[must_use]
    pub fn of(firewalls: &[&Firewall], routes: &RoutingTables) -> Self {
        let mut classes = Self::default();
        // Addresses that the kernel knows by themselves: of this network, of this host, of groups, of all.
        for (address, length) in [
            (Ipv4Addr::UNSPECIFIED.into(), 8),
            (Ipv4Addr::LOCALHOST.into(), 8),
            (IpAddr::from([169, 254, 0, 0]), 16),
            (IpAddr::from([224, 0, 0, 0]), 4),
            (Ipv4Addr::BROADCAST.into(), 32),
            (Ipv6Addr::UNSPECIFIED.into(), 128),
            (Ipv6Addr::LOCALHOST.into(), 128),
            (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
            (IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
        ] {
            classes.prefix(address, length);
        }
        for (address, length) in routes.prefixes() {
            classes.prefix(address, length);
        }
        for firewall in firewalls {
            rules::read(firewall, &mut classes);
        }
        for cuts in [&mut classes.v4, &mut classes.v6, &mut classes.ports] {
            cuts.begins.sort_unstable();
            cuts.begins.dedup();
        }
        classes
    }

    fn cuts(&mut self, field: Field) -> &mut Cuts {
        match field {
            Field::V4 => &mut self.v4,
            Field::V6 => &mut self.v6,
            Field::Port => &mut self.ports,
        }
    }

    /// Values that have the first bits of this one.
    fn bits(&mut self, field: Field, value: u128, length: u32) {
        let free = field.bits().saturating_sub(length);
        let free = u128::MAX.checked_shr(128 - free).unwrap_or_default();
        self.cuts(field).range(value & !free, value | free);
    }

    fn prefix(&mut self, address: IpAddr, length: u8) {
        match address {
            IpAddr::V4(v4) => self.bits(Field::V4, v4.to_bits().into(), length.into()),
            IpAddr::V6(v6) => self.bits(Field::V6, v6.to_bits(), length.into()),
        }
    }

    fn every_value(&mut self, fields: &[Field]) {
        for field in fields {
            self.cuts(*field).whole = true;
        }
    }

    fn address(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let lowest = self.v4.lowest(v4.to_bits().into());
                Ipv4Addr::from_bits(u32::try_from(lowest).unwrap_or_default()).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from_bits(self.v6.lowest(v6.to_bits())).into(),
        }
    }

    fn port(&self, port: u16) -> u16 {
        u16::try_from(self.ports.lowest(port.into())).unwrap_or_default()
    }

    fn tuple(&self, tuple: Tuple) -> Tuple {
        let Tuple { src, dst, l4, .. } = tuple;
        let l4 = match l4 {
            L4::Ports { src, dst } => L4::Ports { src: self.port(src), dst: self.port(dst) },
            L4::Icmp { kind, code, .. } => L4::Icmp { kind, code, id: 0 },
            other => other,
        };
        Tuple { src: self.address(src), dst: self.address(dst), l4, ..tuple }
    }

    /// Makes a packet, with its entry, the one that stands for its class.
    pub fn stand_in(&self, packet: &mut Packet) {
        for side in [Side::Source, Side::Destination] {
            if let Ok(address) = packet.address(side) {
                packet.set_address(side, self.address(address));
            }
            if let Ok(Some(port)) = packet.port(side) {
                packet.set_port(side, self.port(port));
            }
        }
        let tracking = &mut packet.tracking;
        tracking.original = tracking.original.map(|tuple| self.tuple(tuple));
        tracking.reply = tracking.reply.map(|tuple| self.tuple(tuple));
    }
}

#[cfg(test)]
mod tests;
