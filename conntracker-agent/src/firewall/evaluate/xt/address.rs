//! `iprange` and `addrtype` (net/netfilter/xt_iprange.c, net/netfilter/xt_addrtype.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::compare::Range;
use crate::firewall::{
    evaluate::{
        context::Context,
        decision::Decision,
        interface::Interface,
        packet::{Layer3, Packet, Side},
        routes::{RouteQuery, RouteType},
        unknown::Attr,
    },
    fields::Fields,
};

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// `union nf_inet_addr` as a number: IPv4 is in its first four bytes.
pub(super) fn number_of(union: &[u8; 16], v6: bool) -> u128 {
    match union.first_chunk() {
        Some(first) if !v6 => u32::from_be_bytes(*first).into(),
        _ => u128::from_be_bytes(*union),
    }
}

/// `struct xt_iprange_mtinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    /// Of the source, as `union nf_inet_addr`.
    pub source: Option<Range<[u8; 16]>>,
    /// Of the destination.
    pub destination: Option<Range<[u8; 16]>>,
}

impl IpRange {
    pub(super) fn decode(info: Fields<'_>) -> Option<Self> {
        let flags = info.u8(64)?;
        let range = |at, bit: u8| {
            let (first, last) = (info.array(at)?, info.array(at + 16)?);
            let inverted = flags & bit << 4 != 0;
            Some((flags & bit != 0).then_some(Range { first, last, inverted }))
        };
        Some(Self { source: range(0, 1)?, destination: range(32, 2)? })
    }

    pub(super) fn decide(&self, packet: &Packet) -> Decision {
        let v6 = packet.layer3() == Layer3::Ip6;
        let has = |range: &Option<Range<[u8; 16]>>, side| {
            range.as_ref().map_or(Decision::Yes, |Range { first, last, inverted }| {
                let (first, last) = (number_of(first, v6), number_of(last, v6));
                Range { first, last, inverted: *inverted }.has(packet.address(side).map(number))
            })
        };
        has(&self.source, Side::Source).and(has(&self.destination, Side::Destination))
    }
}

/// XT_ADDRTYPE_ bits of a type of route are `1 << RTN_…`; IPv6 has only these.
const UNSPEC: u16 = 1;
const UNICAST: u16 = 1 << 1;
const LOCAL: u16 = 1 << 2;
const ANYCAST: u16 = 1 << 4;
const MULTICAST: u16 = 1 << 5;
const UNREACHABLE: u16 = 1 << 7;

/// `struct xt_addrtype_info_v1`, and `struct xt_addrtype_info` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrType {
    /// Types of the source, 0: any; and whether it must have another one.
    pub source: (u16, bool),
    /// Types of the destination.
    pub destination: (u16, bool),
    /// Only addresses of the interface of input, or of output, count.
    pub limit: Option<Limit>,
}

/// An interface to which [`AddrType`] is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of input.
    Input,
    /// Of output.
    Output,
}

impl AddrType {
    pub(super) fn decode(revision: u32, info: Fields<'_>) -> Option<Self> {
        let (source, destination) = (info.u16(0)?, info.u16(2)?);
        let flags = info.u32(4)?;
        Some(match revision {
            0 => Self {
                source: (source, flags != 0),
                destination: (destination, info.u32(8)? != 0),
                limit: None,
            },
            1 => Self {
                source: (source, flags & 1 != 0),
                destination: (destination, flags & 2 != 0),
                limit: match flags & 0xc {
                    0 => None,
                    4 => Some(Limit::Input),
                    _ => Some(Limit::Output),
                },
            },
            _ => return None,
        })
    }

    pub(super) fn decide(&self, packet: &Packet, context: &Context<'_>) -> Decision {
        let interface = match self.limit {
            None => Ok(None),
            Some(Limit::Input) => packet.input.as_ref().map(Option::as_ref).map_err(|why| *why),
            Some(Limit::Output) => packet.output.as_ref().map(Option::as_ref).map_err(|why| *why),
        };
        let has = |(types, inverted): (u16, bool), side| {
            if types == 0 {
                return Decision::Yes;
            }
            let found = packet.address(side).and_then(|address| match address {
                IpAddr::V4(address) => has_type(address, types, interface?, context),
                IpAddr::V6(address) => has_type6(address, types, interface?, context),
            });
            Decision::from(found).inverted_if(inverted)
        };
        has(self.source, Side::Source).and(has(self.destination, Side::Destination))
    }
}

/// `inet_dev_addr_type`: what the table of local addresses says.
fn has_type(
    address: Ipv4Addr,
    types: u16,
    interface: Option<&Interface>,
    context: &Context<'_>,
) -> Attr<bool> {
    let kind = if address.octets()[0] == 0 || address.is_broadcast() {
        RouteType::Broadcast
    } else if address.is_multicast() {
        RouteType::Multicast
    } else {
        context
            .routes
            .address_type(&RouteQuery { output: interface, ..RouteQuery::to(address.into()) })?
    };
    Ok(types & 1 << kind as u16 != 0)
}

/// `match_type6`.
fn has_type6(
    address: Ipv6Addr,
    types: u16,
    interface: Option<&Interface>,
    context: &Context<'_>,
) -> Attr<bool> {
    let (multicast, unspecified) = (address.is_multicast(), address.is_unspecified());
    if types & MULTICAST != 0 && !multicast
        || types & UNICAST != 0 && (multicast || unspecified)
        || types & UNSPEC != 0 && !unspecified
    {
        return Ok(false);
    }
    let query = RouteQuery { output: interface, ..RouteQuery::to(address.into()) };
    let is_local = || context.routes.address_type(&query).map(|kind| kind == RouteType::Local);
    match types & (LOCAL | ANYCAST | UNREACHABLE) {
        0 => Ok(true),
        LOCAL => is_local(),
        _ if types & LOCAL != 0 && is_local()? => Ok(true),
        _ => Ok(match context.routes.route(&query)?.kind {
            RouteType::Anycast => types & ANYCAST != 0,
            RouteType::Unspec
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Blackhole => types & UNREACHABLE != 0,
            _ => false,
        }),
    }
}
