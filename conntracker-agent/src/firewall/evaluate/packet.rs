//! A packet at a hook. Whatever rules read of it may be unknown, with the reason.
//!
//! Headers are kept as bytes of which some bits may be unknown, because rules load them by offset and length, and
//! change them in the same manner. The methods read and write the fields of these bytes by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker_common::{IPPROTO_TCP, IPPROTO_UDP, has_ports, is_icmp};

use super::{
    header::Header,
    interface::Interface,
    tracking::Tracking,
    unknown::{Attr, Attribute, Unknown},
    word::Word,
};
use crate::model::{L4, Tuple};

/// Offsets in the headers of IPv4 and IPv6.
const V4_LENGTH: usize = 2;
const V4_FRAGMENT: usize = 6;
const V4_TTL: usize = 8;
const V4_PROTOCOL: usize = 9;
const V4_ADDRESSES: [usize; 2] = [12, 16];
const V6_LENGTH: usize = 4;
const V6_NEXT_HEADER: usize = 6;
const V6_HOP_LIMIT: usize = 7;
const V6_ADDRESSES: [usize; 2] = [8, 24];
/// Bytes of the header of IPv6.
pub const V6_HEADER: usize = 40;

/// Offset of the flags in the header of TCP.
const TCP_FLAGS: usize = 13;

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Source.
    Source,
    /// Destination.
    Destination,
}

impl Side {
    /// The attribute that its address is.
    #[must_use]
    pub const fn address(self) -> Attribute {
        match self {
            Self::Source => Attribute::Source,
            Self::Destination => Attribute::Destination,
        }
    }

    /// The attribute that its port is.
    #[must_use]
    pub const fn port(self) -> Attribute {
        match self {
            Self::Source => Attribute::SourcePort,
            Self::Destination => Attribute::DestinationPort,
        }
    }
}

/// What follows the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer3 {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// Whom the frame was for (`PACKET_` of include/uapi/linux/if_packet.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// This host. Packets that this host makes have this type too.
    Host = 0,
    /// All hosts.
    Broadcast = 1,
    /// A group of hosts.
    Multicast = 2,
    /// Another host.
    OtherHost = 3,
    /// Looped back by the device `lo`.
    Loopback = 5,
}

/// User and group of the socket that sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketOwner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    layer3: Layer3,
    network: Header,
    protocol: Attr<u8>,
    fragment_offset: Attr<u16>,
    transport: Header,
    length: Attr<u32>,
    /// The header of Ethernet, without VLAN tag. `None`: it has none, because this host made it.
    pub link: Option<Header>,
    /// Control information of the outer VLAN tag; `None` inside: it has none.
    pub vlan: Attr<Option<u16>>,
    /// Interface of input; `None` inside: it has none, because this host made it.
    pub input: Attr<Option<Interface>>,
    /// Interface of output; `None` inside: not routed yet, or for this host.
    pub output: Attr<Option<Interface>>,
    /// Whom the frame was for.
    pub packet_type: Attr<PacketType>,
    /// Packet mark.
    pub mark: Word,
    /// `skb->priority`.
    pub priority: Word,
    /// Owner of the sending socket; `None` inside: it has none, because it came from elsewhere.
    pub owner: Attr<Option<SocketOwner>>,
    /// What conntrack says about it.
    pub tracking: Tracking,
}

impl Packet {
    /// A packet between two addresses of one family, of a protocol; `None` if they are not of one family. It is no
    /// fragment; all else is unknown.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Option<Self> {
        let layer3 = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => Layer3::Ip,
            (IpAddr::V6(_), IpAddr::V6(_)) => Layer3::Ip6,
            _ => return None,
        };
        let unknown = |attribute: Attribute| Unknown::Attribute(attribute);
        let mut packet = Self {
            layer3,
            network: Header::UNKNOWN,
            protocol: Ok(protocol),
            fragment_offset: Ok(0),
            transport: Header::UNKNOWN,
            length: Err(unknown(Attribute::Length)),
            link: Some(Header::UNKNOWN),
            vlan: Err(unknown(Attribute::EtherType)),
            input: Err(unknown(Attribute::InputInterface)),
            output: Err(unknown(Attribute::OutputInterface)),
            packet_type: Err(unknown(Attribute::PacketType)),
            mark: Word::unknown(unknown(Attribute::Mark)),
            priority: Word::unknown(unknown(Attribute::Priority)),
            owner: Err(unknown(Attribute::Owner)),
            tracking: Tracking::unknown(),
        };
        match layer3 {
            Layer3::Ip => {
                packet.network.set_bits(0, 0x40, 0xf0);
                packet.network.set(V4_PROTOCOL, &[protocol]);
            }
            Layer3::Ip6 => {
                packet.network.set_bits(0, 0x60, 0xf0);
                packet.network.set(V6_NEXT_HEADER, &[protocol]);
            }
        }
        packet.set_fragment_offset(0);
        packet.set_address(Side::Source, source);
        packet.set_address(Side::Destination, destination);
        Some(packet)
    }

    /// The packet of a tuple: its addresses, protocol, and ports or type and code of ICMP. `None` if the addresses
    /// are not of one family.
    #[must_use]
    pub fn of(tuple: &Tuple) -> Option<Self> {
        let mut packet = Self::new(tuple.src, tuple.dst, tuple.proto)?;
        match tuple.l4 {
            L4::Ports { src, dst } => {
                packet.set_port(Side::Source, src);
                packet.set_port(Side::Destination, dst);
            }
            L4::Icmp { kind, code, id } => {
                packet.set_icmp(kind, code);
                packet.transport.set(4, &id.to_be_bytes());
            }
            L4::Gre { .. } | L4::None => {}
        }
        Some(packet)
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn layer3(&self) -> Layer3 {
        self.layer3
    }

    /// Header of IP.
    #[must_use]
    pub fn network(&self) -> &Header {
        &self.network
    }

    /// Header above IP, of the protocol that [`Self::protocol`] is.
    #[must_use]
    pub fn transport(&self) -> &Header {
        &self.transport
    }

    /// Header of IP, to be changed.
    pub(in crate::firewall) fn network_mut(&mut self) -> &mut Header {
        &mut self.network
    }

    /// Header above IP, to be changed.
    pub(in crate::firewall) fn transport_mut(&mut self) -> &mut Header {
        &mut self.transport
    }

    /// Sets the bytes of both headers, as far as they are given: those of a packet that was seen.
    pub fn set_headers(&mut self, network: &[u8], transport: &[u8]) {
        self.network.set(0, network);
        self.transport.set(0, transport);
    }

    /// Source or destination address.
    pub fn address(&self, side: Side) -> Attr<IpAddr> {
        let unknown = side.address().into();
        match self.layer3 {
            Layer3::Ip => {
                let bytes: Option<[u8; 4]> = self.network.array(V4_ADDRESSES[side as usize]);
                bytes.map(|bytes| Ipv4Addr::from(bytes).into()).ok_or(unknown)
            }
            Layer3::Ip6 => {
                let bytes: Option<[u8; 16]> = self.network.array(V6_ADDRESSES[side as usize]);
                bytes.map(|bytes| Ipv6Addr::from(bytes).into()).ok_or(unknown)
            }
        }
    }

    /// Sets an address. One of the other family is ignored.
    pub fn set_address(&mut self, side: Side, address: IpAddr) {
        match (self.layer3, address) {
            (Layer3::Ip, IpAddr::V4(address)) => {
                self.network.set(V4_ADDRESSES[side as usize], &address.octets());
            }
            (Layer3::Ip6, IpAddr::V6(address)) => {
                self.network.set(V6_ADDRESSES[side as usize], &address.octets());
            }
            _ => {}
        }
    }

    /// Makes an address unknown.
    pub fn forget_address(&mut self, side: Side) {
        match self.layer3 {
            Layer3::Ip => self.network.forget(V4_ADDRESSES[side as usize], 4),
            Layer3::Ip6 => self.network.forget(V6_ADDRESSES[side as usize], 16),
        }
    }

    /// Makes the bits of an address unknown that are behind a prefix.
    pub fn forget_host(&mut self, side: Side, prefix: u8) {
        let (offset, bytes) = match self.layer3 {
            Layer3::Ip => (V4_ADDRESSES[side as usize], 4),
            Layer3::Ip6 => (V6_ADDRESSES[side as usize], 16),
        };
        for (index, before) in (0..bytes).zip((0..=u8::MAX).step_by(8)) {
            let known = prefix.saturating_sub(before).min(8);
            let mask = 0xff_u8.checked_shr(known.into()).unwrap_or_default();
            self.network.forget_bits(offset + index, mask);
        }
    }

    /// The protocol above IP and above the extension headers of IPv6.
    pub fn protocol(&self) -> Attr<u8> {
        self.protocol
    }

    /// Whether it is a packet of TCP, UDP or another protocol with ports, and not a later fragment: one that has
    /// ports.
    pub fn has_ports(&self) -> Attr<bool> {
        Ok(has_ports(self.protocol?) && self.fragment_offset? == 0)
    }

    /// Source or destination port; `None` if it has no ports.
    pub fn port(&self, side: Side) -> Attr<Option<u16>> {
        if !self.has_ports()? {
            return Ok(None);
        }
        let bytes = self.transport.array(2 * side as usize).ok_or(side.port())?;
        Ok(Some(u16::from_be_bytes(bytes)))
    }

    /// Sets a port, if the protocol has ports.
    pub fn set_port(&mut self, side: Side, port: u16) {
        if self.protocol.is_ok_and(has_ports) {
            self.transport.set(2 * side as usize, &port.to_be_bytes());
        }
    }

    /// Sets the bits of a port that `mask` has, if the protocol has ports.
    pub fn set_port_bits(&mut self, side: Side, value: u16, mask: u16) {
        if self.protocol.is_ok_and(has_ports) {
            for (index, (value, mask)) in
                value.to_be_bytes().into_iter().zip(mask.to_be_bytes()).enumerate()
            {
                self.transport.set_bits(2 * side as usize + index, value, mask);
            }
        }
    }

    /// Makes a port unknown, if the protocol has ports.
    pub fn forget_port(&mut self, side: Side) {
        if self.protocol.is_ok_and(has_ports) {
            self.transport.forget(2 * side as usize, 2);
        }
    }

    /// Type and code of ICMP or ICMPv6; `None` of other protocols and of later fragments.
    pub fn icmp(&self) -> Attr<Option<(u8, u8)>> {
        if !is_icmp(self.protocol?) || self.fragment_offset? != 0 {
            return Ok(None);
        }
        let [kind, code] = self.transport.array(0).ok_or(Attribute::IcmpType)?;
        Ok(Some((kind, code)))
    }

    /// Sets type and code of ICMP.
    pub fn set_icmp(&mut self, kind: u8, code: u8) {
        self.transport.set(0, &[kind, code]);
    }

    /// Flags of TCP: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; `None` of other protocols and of
    /// later fragments.
    pub fn tcp_flags(&self) -> Attr<Option<u8>> {
        if self.protocol? != IPPROTO_TCP || self.fragment_offset? != 0 {
            return Ok(None);
        }
        let [flags] = self.transport.array(TCP_FLAGS).ok_or(Attribute::TcpFlags)?;
        Ok(Some(flags))
    }

    /// Sets the flags of TCP that `mask` has.
    pub fn set_tcp_flags(&mut self, flags: u8, mask: u8) {
        self.transport.set_bits(TCP_FLAGS, flags, mask);
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> Attr<u8> {
        let at = if self.layer3 == Layer3::Ip { V4_TTL } else { V6_HOP_LIMIT };
        self.network.array(at).map(|[ttl]| ttl).ok_or(Attribute::Ttl.into())
    }

    /// Sets TTL or hop limit.
    pub fn set_ttl(&mut self, ttl: u8) {
        let at = if self.layer3 == Layer3::Ip { V4_TTL } else { V6_HOP_LIMIT };
        self.network.set(at, &[ttl]);
    }

    /// The byte that DSCP (6 bits) and ECN (2 bits) share: TOS, traffic class.
    pub fn dscp_and_ecn(&self) -> Attr<u8> {
        let ((high, high_known), (low, low_known)) = match self.layer3 {
            Layer3::Ip => (self.network.byte(1), self.network.byte(1)),
            Layer3::Ip6 => {
                let ((high, of_high), (low, of_low)) = (self.network.byte(0), self.network.byte(1));
                ((high << 4, of_high << 4), (low >> 4, of_low >> 4))
            }
        };
        let known = high_known & 0xf0 | low_known & 0x0f;
        if known == 0xff { Ok(high & 0xf0 | low & 0x0f) } else { Err(Attribute::Dscp.into()) }
    }

    /// Sets DSCP and ECN.
    pub fn set_dscp_and_ecn(&mut self, byte: u8) {
        match self.layer3 {
            Layer3::Ip => self.network.set(1, &[byte]),
            Layer3::Ip6 => {
                self.network.set_bits(0, byte >> 4, 0x0f);
                self.network.set_bits(1, byte << 4, 0xf0);
            }
        }
    }

    /// Bytes from the IP header on: `meta length`.
    pub fn length(&self) -> Attr<u32> {
        self.length
    }

    /// Sets the length.
    pub fn set_length(&mut self, length: u32) {
        self.length = Ok(length);
        let total = u16::try_from(length).unwrap_or_default();
        match self.layer3 {
            Layer3::Ip => self.network.set(V4_LENGTH, &total.to_be_bytes()),
            Layer3::Ip6 => {
                let payload = total.saturating_sub(V6_HEADER as u16);
                self.network.set(V6_LENGTH, &payload.to_be_bytes());
            }
        }
        if self.protocol == Ok(IPPROTO_UDP) && self.fragment_offset == Ok(0) {
            self.transport.forget(4, 2);
        }
    }

    /// Offset of a fragment in units of 8 bytes; 0 of the first one and of whole packets.
    pub fn fragment_offset(&self) -> Attr<u16> {
        self.fragment_offset
    }

    /// Whether extension headers of IPv6 stand between its header and that above; those of IPv4 have none.
    pub fn has_extension_headers(&self) -> Attr<bool> {
        if self.layer3 == Layer3::Ip {
            return Ok(false);
        }
        let unknown = Attribute::IpOptions;
        let [next] = self.network.array(V6_NEXT_HEADER).ok_or(unknown)?;
        Ok(next != self.protocol.map_err(|_| unknown)?)
    }

    /// Makes unknown whether it is a fragment, and whether headers of IPv6 stand between that of IP and that above.
    pub fn forget_layout(&mut self) {
        self.fragment_offset = Err(Attribute::Fragment.into());
        match self.layer3 {
            Layer3::Ip => self.network.forget(V4_FRAGMENT, 2),
            Layer3::Ip6 => self.network.forget(V6_NEXT_HEADER, 1),
        }
    }

    /// Makes it a fragment with this offset, or with 0 a whole packet. Conntrack puts fragments together, so that
    /// rules behind it see whole packets.
    pub fn set_fragment_offset(&mut self, offset: u16) {
        self.fragment_offset = Ok(offset);
        if self.layer3 == Layer3::Ip {
            let [high, low] = offset.to_be_bytes();
            // Without DF, and MF only of fragments that are not the last one.
            self.network.set_bits(V4_FRAGMENT, high, 0x1f);
            self.network.set_bits(V4_FRAGMENT + 1, low, 0xff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: &str, destination: &str, proto: u8, l4: L4) -> Tuple {
        Tuple { src: source.parse().unwrap(), dst: destination.parse().unwrap(), proto, l4 }
    }

    #[test]
    fn fields_are_the_bytes_of_the_headers() {
        let ports = L4::Ports { src: 40_000, dst: 443 };
        for (source, destination, at) in
            [("192.0.2.1", "198.51.100.2", 12), ("2001:db8::1", "2001:db8::2", 8)]
        {
            let mut packet = Packet::of(&tuple(source, destination, 6, ports)).unwrap();
            assert_eq!(packet.address(Side::Source).unwrap().to_string(), source);
            assert_eq!(packet.address(Side::Destination).unwrap().to_string(), destination);
            assert_eq!(packet.port(Side::Destination), Ok(Some(443)));
            assert_eq!(packet.transport().array(0), Some(40_000_u16.to_be_bytes()));
            assert!(packet.network().array::<4>(at).is_some());
            assert_eq!(packet.tcp_flags(), Err(Attribute::TcpFlags.into()));
            packet.set_tcp_flags(2, 0xff);
            packet.set_ttl(63);
            packet.set_dscp_and_ecn(0xb8);
            packet.set_length(60);
            let read = (packet.tcp_flags(), packet.ttl(), packet.dscp_and_ecn(), packet.length());
            assert_eq!(read, (Ok(Some(2)), Ok(63), Ok(0xb8), Ok(60)));
            packet.forget_address(Side::Source);
            assert_eq!(packet.address(Side::Source), Err(Attribute::Source.into()));
        }
    }

    #[test]
    fn later_fragments_have_neither_ports_nor_flags() {
        let ports = L4::Ports { src: 1, dst: 2 };
        let mut packet = Packet::of(&tuple("192.0.2.1", "192.0.2.2", 6, ports)).unwrap();
        packet.set_fragment_offset(185);
        assert_eq!((packet.port(Side::Source), packet.tcp_flags()), (Ok(None), Ok(None)));
        assert_eq!(packet.network().byte(7), (185, 0xff));
    }

    #[test]
    fn addresses_of_two_families_are_no_packet() {
        assert!(Packet::of(&tuple("192.0.2.1", "2001:db8::2", 6, L4::None)).is_none());
    }
}
