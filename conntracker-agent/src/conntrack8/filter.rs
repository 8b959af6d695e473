//! Which entries a command is about.

use std::net::IpAddr;

use super::values::Translated;
use crate::conntrack::{DumpRequest, Entry, ProtoState};
use crate::model::{L4, Status, Tuple, Zone};

/// The end of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// Address.
    pub address: IpAddr,
    /// Bits of it that count.
    pub mask: IpAddr,
}

impl Net {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, self.mask, address) {
            (IpAddr::V4(of), IpAddr::V4(mask), IpAddr::V4(address)) => of & mask == address & mask,
            (IpAddr::V6(of), IpAddr::V6(mask), IpAddr::V6(address)) => of & mask == address & mask,
            _ => false,
        }
    }
}

/// The filter of a command: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The conditions that the library checks, or the kernel where it can.
    pub request: DumpRequest,
    /// Source and destination of the original direction, under masks.
    pub nets: [Option<Net>; 2],
    /// Zone of both directions, 0 for none; of the original and of the reply direction alone.
    pub zones: [Option<Zone>; 3],
    /// The number of the state of the protocol's tracker.
    pub state: Option<u8>,
    /// The role of the original direction of DCCP.
    pub role: Option<u8>,
    /// NAT of the source, of the destination, of either: any translation, or one to an address.
    pub nat: [Option<Option<Translated>>; 3],
    /// Labels that must be set.
    pub labels: u128,
    /// Security mark, where the kernel says it.
    pub secmark: Option<u32>,
    /// Identifier.
    pub id: Option<u32>,
    /// Seconds that are left.
    pub timeout: Option<u32>,
}

impl Filter {
    /// Whether the filter allows every entry, or every one of a family.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let any = Self {
            request: DumpRequest { family: self.request.family, ..DumpRequest::default() },
            ..Self::default()
        };
        *self == any
    }

    /// Whether an entry that `request` matches passes the other conditions.
    #[must_use]
    pub fn matches(&self, entry: &Entry<'_>) -> bool {
        let Self { request: _, nets, zones, state, role, nat, labels, secmark, id, timeout } = self;
        let [src, dst] = nets;
        let inside = |net: &Option<Net>, address| net.is_none_or(|net| net.contains(address));
        let [both, orig, reply] = *zones;
        let in_zone = |wanted: Option<Zone>, zone: Option<Zone>| {
            wanted.is_none_or(|wanted| wanted == zone.unwrap_or_default())
        };
        let of_both = entry.zone_orig.or(entry.zone_reply).map_or(entry.zone, |_| Zone::DEFAULT);
        let [src_nat, dst_nat, any_nat] = *nat;
        inside(src, entry.orig.src)
            && inside(dst, entry.orig.dst)
            && in_zone(both, Some(of_both))
            && in_zone(orig, entry.zone_orig)
            && in_zone(reply, entry.zone_reply)
            && state.is_none_or(|state| entry.state.is_some_and(|of| of.number() == state))
            && role.is_none_or(|role| {
                matches!(entry.state, Some(ProtoState::Dccp { role: Some(of), .. }) if of == role)
            })
            && src_nat.is_none_or(|to| src_translated(entry, to))
            && dst_nat.is_none_or(|to| dst_translated(entry, to))
            && any_nat.is_none_or(|to| src_translated(entry, to) || dst_translated(entry, to))
            && has_labels(entry, *labels)
            && secmark.is_none_or(|wanted| entry.secmark.is_none_or(|mark| mark == wanted))
            && id.is_none_or(|id| entry.id == Some(id))
            && timeout.is_none_or(|timeout| entry.timeout == Some(timeout))
    }
}

/// Labels of an entry, as bits.
#[must_use]
pub fn labels(entry: &Entry<'_>) -> u128 {
    entry.label_numbers().fold(0, |labels, number| {
        1_u128.checked_shl(number.into()).map_or(labels, |label| labels | label)
    })
}

fn has_labels(entry: &Entry<'_>, wanted: u128) -> bool {
    wanted == 0 || labels(entry) & wanted == wanted
}

/// Whether the source is translated, to this address if one is given.
fn src_translated(entry: &Entry<'_>, to: Option<Translated>) -> bool {
    let Some(reply) = entry.reply.filter(|_| entry.status.contains(Status::SRC_NAT)) else {
        return false;
    };
    let from = (entry.orig.src, ports(&entry.orig).map(|(src, _)| src));
    translated(from, (reply.dst, ports(&reply).map(|(_, dst)| dst)), to)
}

/// Whether the destination is translated, to this address if one is given.
fn dst_translated(entry: &Entry<'_>, to: Option<Translated>) -> bool {
    let Some(reply) = entry.reply.filter(|_| entry.status.contains(Status::DST_NAT)) else {
        return false;
    };
    let from = (entry.orig.dst, ports(&entry.orig).map(|(_, dst)| dst));
    translated(from, (reply.src, ports(&reply).map(|(src, _)| src)), to)
}

fn ports(tuple: &Tuple) -> Option<(u16, u16)> {
    match tuple.l4 {
        L4::Ports { src, dst } => Some((src, dst)),
        _ => None,
    }
}

/// An end of a direction.
type End = (IpAddr, Option<u16>);

/// Whether NAT changed an end to the given one.
fn translated(from: End, became: End, to: Option<Translated>) -> bool {
    let Some(Translated { address, port }) = to else { return true };
    let address_is = from.0 != became.0 && became.0 == address;
    address_is && port.is_none_or(|port| from.1 != became.1 && became.1 == Some(port))
}
