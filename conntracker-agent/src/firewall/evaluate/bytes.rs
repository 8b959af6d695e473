//! A packet from its bytes, as a capture has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Packet, V6_HEADER};

/// Extension headers of IPv6 that lie before the protocol (`ipv6_ext_hdr` of net/ipv6/exthdrs_core.c).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

impl Packet {
    /// The packet whose IP header and payload these are. What is not in them (interfaces, marks, conntrack's entry) is
    /// unknown. `None` if they are no packet of IPv4 or IPv6, or one that is cut off before its protocol.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::of_v4(bytes),
            6 => Self::of_v6(bytes),
            _ => None,
        }
    }

    fn of_v4(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..usize::from(bytes[0] & 0xf) * 4)?;
        let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
        let (source, destination) = (address(12)?, address(16)?);
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        Self::assemble((source.into(), destination.into()), header, (header[9], fragment), bytes)
    }

    fn of_v6(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..V6_HEADER)?;
        let address = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
        let (source, destination) = (address(8)?, address(24)?);
        let (mut protocol, mut at, mut fragment) = (header[6], V6_HEADER, 0);
        let is_extension = |header: u8| {
            matches!(header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
        };
        while fragment == 0 && is_extension(protocol) {
            let [next, length, high, low] = *bytes.get(at..)?.first_chunk()?;
            at += match protocol {
                FRAGMENT => {
                    fragment = u16::from_be_bytes([high, low]) >> 3;
                    8
                }
                AUTHENTICATION => (usize::from(length) + 2) * 4,
                _ => (usize::from(length) + 1) * 8,
            };
            protocol = next;
        }
        // The extension header is in the first fragment.
        if is_extension(protocol) {
            return None;
        }
        let ends = (source.into(), destination.into());
        Self::assemble(ends, bytes.get(..at)?, (protocol, fragment), bytes)
    }

    fn assemble(
        (source, destination): (IpAddr, IpAddr),
        header: &[u8],
        (protocol, fragment): (u8, u16),
        bytes: &[u8],
    ) -> Option<Self> {
        let mut packet = Self::new(source, destination, protocol)?;
        packet.set_fragment_offset(fragment);
        packet.set_length(bytes.len() as u32);
        // Extension headers of IPv6 are not kept: no rule loads them by their offset.
        let kept = if source.is_ipv6() { V6_HEADER } else { header.len() };
        packet.network_mut().set(0, &header[..kept]);
        packet.transport_mut().set(0, bytes.get(header.len()..)?);
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firewall::evaluate::packet::Side;

    #[test]
    fn ports_lie_behind_options_and_extension_headers() {
        // IPv4 with four bytes of options.
        let mut bytes = vec![0x46, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        bytes.extend([192, 0, 2, 1, 192, 0, 2, 2, 1, 1, 1, 0, 0, 7, 0, 9, 0, 8, 0, 0]);
        let packet = Packet::of_bytes(&bytes).unwrap();
        assert_eq!(packet.address(Side::Source).unwrap().to_string(), "192.0.2.1");
        assert_eq!(packet.port(Side::Source), Ok(Some(7)));
        assert_eq!(packet.port(Side::Destination), Ok(Some(9)));
        assert_eq!((packet.ttl(), packet.length()), (Ok(64), Ok(32)));
        // IPv6 with hop-by-hop options, and then a later fragment.
        let mut bytes = vec![0x60, 0, 0, 0, 0, 24, 0, 255];
        bytes.extend([0x20; 32]);
        bytes.extend([44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 16, 0, 0, 0, 1, 0, 7, 0, 9, 0, 8, 0, 0]);
        let packet = Packet::of_bytes(&bytes).unwrap();
        assert_eq!((packet.protocol(), packet.fragment_offset()), (Ok(17), Ok(2)));
        assert_eq!(packet.port(Side::Source), Ok(None));
        bytes[51] = 0;
        let first = Packet::of_bytes(&bytes).unwrap();
        assert_eq!((first.fragment_offset(), first.port(Side::Source)), (Ok(0), Ok(Some(7))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()]) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = first;
            }
            let _ = Packet::of_bytes(&bytes);
        }
    }
}
