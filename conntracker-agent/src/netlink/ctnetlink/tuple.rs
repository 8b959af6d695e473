//! One direction of an entry: `CTA_TUPLE_`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6};

#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::model::{L4, Tuple, Zone};
use crate::netlink::wire::{Attribute, DecodeError};

/// A direction and the zone that applies to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Direction {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// `CTA_TUPLE_ZONE`.
    pub zone: Option<Zone>,
}

/// Reads a tuple of a message whose header says `family`. Attributes without a meaning here add
/// to `unknown`.
pub fn decode(
    family: u8,
    tuple: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<Direction, DecodeError> {
    let (mut addresses, mut protocol, mut zone) = (None, None, None);
    for attribute in tuple.nested() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_IP => addresses = Some(decode_addresses(family, &attribute, unknown)?),
            CTA_TUPLE_PROTO => protocol = Some(decode_protocol(&attribute, unknown)?),
            CTA_TUPLE_ZONE => zone = Some(Zone(attribute.be16("CTA_TUPLE_ZONE")?)),
            _ => *unknown += 1,
        }
    }
    let (src, dst) = addresses.ok_or(DecodeError::Missing("CTA_TUPLE_IP"))?;
    let (proto, l4) = protocol.ok_or(DecodeError::Missing("CTA_TUPLE_PROTO"))?;
    Ok(Direction { tuple: Tuple { src, dst, proto, l4 }, zone })
}

/// Source and destination, both of `family`.
fn decode_addresses(
    family: u8,
    ip: &Attribute<'_>,
    unknown: &mut u32,
) -> Result<(IpAddr, IpAddr), DecodeError> {
    let (mut src, mut dst) = (None, None);
    for attribute in ip.nested() {
        let attribute = attribute?;
        let v4 = |name| attribute.array(name).map(|a| Some(Ipv4Addr::from_octets(a).into()));
        let v6 = |name| attribute.array(name).map(|a| Some(Ipv6Addr::from_octets(a).into()));
        match attribute.kind {
            CTA_IP_V4_SRC => src = v4("CTA_IP_V4_SRC")?,
            CTA_IP_V4_DST => dst = v4("CTA_IP_V4_DST")?,
            CTA_IP_V6_SRC => src = v6("CTA_IP_V6_SRC")?,
            CTA_IP_V6_DST => dst = v6("CTA_IP_V6_DST")?,
            _ => *unknown += 1,
        }
    }
    let src: IpAddr = src.ok_or(DecodeError::Missing("CTA_IP_V4_SRC or CTA_IP_V6_SRC"))?;
    let dst: IpAddr = dst.ok_or(DecodeError::Missing("CTA_IP_V4_DST or CTA_IP_V6_DST"))?;
    let of_family = match family {
        FAMILY_V4 => src.is_ipv4() && dst.is_ipv4(),
        FAMILY_V6 => src.is_ipv6() && dst.is_ipv6(),
        _ => return Err(DecodeError::UnknownFamily(family)),
    };
    if of_family { Ok((src, dst)) } else { Err(DecodeError::MixedFamilies(family)) }
}

/// Protocol number and what it has for ports.
fn decode_protocol(attribute: &Attribute<'_>, unknown: &mut u32) -> Result<(u8, L4), DecodeError> {
    let (mut proto, mut ports) = (None, [None; 2]);
    let (mut icmp, mut icmpv6) = ([None; 3], [None; 3]);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        let port = |name| attribute.array::<2>(name).map(Some);
        let byte = |name| attribute.u8(name).map(|b| Some([b, 0]));
        match attribute.kind {
            CTA_PROTO_NUM => proto = Some(attribute.u8("CTA_PROTO_NUM")?),
            CTA_PROTO_SRC_PORT => ports[0] = port("CTA_PROTO_SRC_PORT")?,
            CTA_PROTO_DST_PORT => ports[1] = port("CTA_PROTO_DST_PORT")?,
            CTA_PROTO_ICMP_ID => icmp[0] = port("CTA_PROTO_ICMP_ID")?,
            CTA_PROTO_ICMP_TYPE => icmp[1] = byte("CTA_PROTO_ICMP_TYPE")?,
            CTA_PROTO_ICMP_CODE => icmp[2] = byte("CTA_PROTO_ICMP_CODE")?,
            CTA_PROTO_ICMPV6_ID => icmpv6[0] = port("CTA_PROTO_ICMPV6_ID")?,
            CTA_PROTO_ICMPV6_TYPE => icmpv6[1] = byte("CTA_PROTO_ICMPV6_TYPE")?,
            CTA_PROTO_ICMPV6_CODE => icmpv6[2] = byte("CTA_PROTO_ICMPV6_CODE")?,
            _ => *unknown += 1,
        }
    }
    let proto = proto.ok_or(DecodeError::Missing("CTA_PROTO_NUM"))?;
    let echo = |fields: [Option<[u8; 2]>; 3]| match fields {
        [Some(id), Some([kind, _]), Some([code, _])] => Ok((id, [kind, code])),
        _ => Err(DecodeError::Missing("ICMP identifier, type or code")),
    };
    let (src, dst) = match (proto, ports) {
        (IPPROTO_ICMP, _) => echo(icmp)?,
        (IPPROTO_ICMPV6, _) => echo(icmpv6)?,
        (_, [Some(src), Some(dst)]) => (src, dst),
        // The kernel has no tracker for the protocol (DCCP since Linux 6.17, GRE or SCTP where they are configured
        // out), and its tuple has zeros.
        (_, [None, None]) => ([0; 2], [0; 2]),
        _ => return Err(DecodeError::Missing("CTA_PROTO_SRC_PORT or CTA_PROTO_DST_PORT")),
    };
    Ok((proto, L4::from_kernel(proto, src, dst)))
}
