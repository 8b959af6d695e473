//! What a rule of ip_tables compares besides its matches: addresses, devices, protocol (`ip_packet_match` of
//! net/ipv4/netfilter/ip_tables.c, `ip6_packet_match` of net/ipv6/netfilter/ip6_tables.c).

use super::address::number;
use crate::firewall::{
    evaluate::{
        decision::Decision,
        interface::Interface,
        packet::{Packet, Side},
        unknown::Attr,
    },
    legacy::entries::{AddressMatch, DeviceMatch, HeaderMatch},
};

/// Whether a packet of the table's family has such a header.
pub(in crate::firewall::evaluate) fn decide(header: &HeaderMatch, packet: &Packet) -> Decision {
    let HeaderMatch { addresses: [source, destination], devices, protocol, fragment } = header;
    let [input, output] = devices;
    let (only, inverted) = *fragment;
    let fragment = if only {
        Decision::from(packet.fragment_offset().map(|offset| offset != 0))
    } else {
        Decision::Yes
    };
    let protocol = protocol.map_or(Decision::Yes, |(wanted, inverted)| {
        let equal = packet.protocol().map(|is| u16::from(is) == wanted);
        Decision::from(equal).inverted_if(inverted)
    });
    address(source, packet, Side::Source)
        .and(address(destination, packet, Side::Destination))
        .and(device(input, &packet.input))
        .and(device(output, &packet.output))
        .and(protocol)
        .and(fragment.inverted_if(inverted))
}

fn address(of: &AddressMatch, packet: &Packet, side: Side) -> Decision {
    let equal = if of.mask == 0 {
        Ok(of.value == 0)
    } else {
        packet.address(side).map(|address| number(address) & of.mask == of.value)
    };
    Decision::from(equal).inverted_if(of.inverted)
}

/// Without a device its name is empty.
fn device(of: &DeviceMatch, interface: &Attr<Option<Interface>>) -> Decision {
    let equal = if of.mask == [0; 16] {
        Ok(true)
    } else {
        interface.as_ref().map_err(|why| *why).map(|interface| {
            let name = interface.as_ref().map_or([0; 16], |interface| interface.name);
            let bytes = name.iter().zip(&of.name).zip(&of.mask);
            bytes.into_iter().all(|((is, wanted), mask)| (is ^ wanted) & mask == 0)
        })
    };
    Decision::from(equal).inverted_if(of.inverted)
}
