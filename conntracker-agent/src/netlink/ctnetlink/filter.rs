//! Filters of dumps: the part that the kernel applies, and the rest.
//!
//! The kernel got its filters (`ctnetlink_filter_match` of net/netfilter/nf_conntrack_netlink.c) one by one, and
//! ignores those it does not know. So they only save work: every decoded entry is compared with the whole request
//! again, and a filter has the same result on each kernel.

use std::net::IpAddr;

use conntracker_common::record::{FAMILY_V4, FAMILY_V6};
use conntracker_common::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

use super::decode::Entry;
use super::encode;
#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::model::{L4, Mark, Tuple, Zone};
use crate::netlink::request::Request;

/// Fields of one direction; `None` means any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TupleFilter {
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// IP protocol number.
    pub proto: Option<u8>,
    /// Source port, or source key of GRE.
    pub sport: Option<u16>,
    /// Destination port, or destination key of GRE.
    pub dport: Option<u16>,
    /// ICMP or ICMPv6 type.
    pub icmp_type: Option<u8>,
    /// ICMP or ICMPv6 code.
    pub icmp_code: Option<u8>,
    /// ICMP or ICMPv6 identifier.
    pub icmp_id: Option<u16>,
}

impl TupleFilter {
    /// With this source address.
    #[must_use]
    pub fn src(self, src: impl Into<Option<IpAddr>>) -> Self {
        Self { src: src.into(), ..self }
    }

    /// With this destination address.
    #[must_use]
    pub fn dst(self, dst: impl Into<Option<IpAddr>>) -> Self {
        Self { dst: dst.into(), ..self }
    }

    /// Of this IP protocol.
    #[must_use]
    pub fn proto(self, proto: impl Into<Option<u8>>) -> Self {
        Self { proto: proto.into(), ..self }
    }

    /// With this source port, or source key of GRE.
    #[must_use]
    pub fn sport(self, sport: impl Into<Option<u16>>) -> Self {
        Self { sport: sport.into(), ..self }
    }

    /// With this destination port, or destination key of GRE.
    #[must_use]
    pub fn dport(self, dport: impl Into<Option<u16>>) -> Self {
        Self { dport: dport.into(), ..self }
    }

    /// With this type of ICMP or ICMPv6.
    #[must_use]
    pub fn icmp_type(self, icmp_type: impl Into<Option<u8>>) -> Self {
        Self { icmp_type: icmp_type.into(), ..self }
    }

    /// With this code of ICMP or ICMPv6.
    #[must_use]
    pub fn icmp_code(self, icmp_code: impl Into<Option<u8>>) -> Self {
        Self { icmp_code: icmp_code.into(), ..self }
    }

    /// With this identifier of ICMP or ICMPv6.
    #[must_use]
    pub fn icmp_id(self, icmp_id: impl Into<Option<u16>>) -> Self {
        Self { icmp_id: icmp_id.into(), ..self }
    }
}

/// Conditions that all must hold; `None` allows any value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DumpRequest {
    /// AF_INET (2) or AF_INET6 (10).
    pub family: Option<u8>,
    /// Value and mask: entries whose `mark & mask` is the value. A kernel without
    /// CONFIG_NF_CONNTRACK_MARK refuses it with EOPNOTSUPP.
    pub mark: Option<(Mark, u32)>,
    /// Value and mask: entries whose `status & mask` is the value (IPS_ bits; by the kernel since
    /// Linux 5.15).
    pub status: Option<(u32, u32)>,
    /// Entries of this zone, whichever of their directions it applies to (by the kernel since Linux
    /// 6.8).
    pub zone: Option<Zone>,
    /// Original direction (by the kernel since Linux 5.8, see [`FilterSupport::tuple`]).
    pub orig: TupleFilter,
    /// Reply direction.
    pub reply: TupleFilter,
}

impl DumpRequest {
    /// Of AF_INET (2) or AF_INET6 (10) alone.
    #[must_use]
    pub fn family(self, family: impl Into<Option<u8>>) -> Self {
        Self { family: family.into(), ..self }
    }

    /// Whose `mark & mask` is the value: value and mask.
    #[must_use]
    pub fn mark(self, mark: impl Into<Option<(Mark, u32)>>) -> Self {
        Self { mark: mark.into(), ..self }
    }

    /// Whose `status & mask` is the value: value and mask.
    #[must_use]
    pub fn status(self, status: impl Into<Option<(u32, u32)>>) -> Self {
        Self { status: status.into(), ..self }
    }

    /// Of this zone, whichever of their directions it applies to.
    #[must_use]
    pub fn zone(self, zone: impl Into<Option<Zone>>) -> Self {
        Self { zone: zone.into(), ..self }
    }

    /// Whose original direction matches.
    #[must_use]
    pub fn orig(self, orig: TupleFilter) -> Self {
        Self { orig, ..self }
    }

    /// Whose reply direction matches.
    #[must_use]
    pub fn reply(self, reply: TupleFilter) -> Self {
        Self { reply, ..self }
    }
}

/// The conditions of a [`DumpRequest`] that the kernel can check; [`super::support::probe`] finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterSupport {
    /// Marks (all kernels with CONFIG_NF_CONNTRACK_MARK).
    pub mark: bool,
    /// Status bits (Linux 5.15+).
    pub status: bool,
    /// Zones (Linux 6.8+). `None` is unknown: only messages of a dump show it, and the table was empty.
    pub zone: Option<bool>,
    /// Tuples (Linux 5.8+): IPv4 addresses, the protocol, ports of TCP and UDP, identifier, type and code of ICMP;
    /// all of one family. Not IPv6 addresses: the kernel inverts the comparison and sends all entries but the
    /// matching ones (still so in Linux 6.18). Not ports of other protocols, which it does not compare. Not the zone
    /// of one direction, which it parses and ignores.
    pub tuple: bool,
}

impl TupleFilter {
    /// Whether every entry matches.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a direction matches.
    #[must_use]
    pub fn matches(&self, tuple: &Tuple) -> bool {
        let Self { src, dst, proto, sport, dport, icmp_type, icmp_code, icmp_id } = *self;
        let (ports, icmp) = match tuple.l4 {
            L4::Ports { src, dst } | L4::Gre { src, dst } => (Some((src, dst)), None),
            L4::Icmp { kind, code, id } => (None, Some((kind, code, id))),
            L4::None => (None, None),
        };
        is(src, Some(tuple.src))
            && is(dst, Some(tuple.dst))
            && is(proto, Some(tuple.proto))
            && is(sport, ports.map(|p| p.0))
            && is(dport, ports.map(|p| p.1))
            && is(icmp_type, icmp.map(|i| i.0))
            && is(icmp_code, icmp.map(|i| i.1))
            && is(icmp_id, icmp.map(|i| i.2))
    }

    /// The family that it implies.
    fn family(&self) -> Option<u8> {
        match (self.src.or(self.dst), self.proto) {
            (Some(address), _) => Some(encode::family(address)),
            (None, Some(IPPROTO_ICMP)) => Some(FAMILY_V4),
            (None, Some(IPPROTO_ICMPV6)) => Some(FAMILY_V6),
            _ => None,
        }
    }

    /// The conditions that the kernel checks correctly for entries of `family`.
    fn in_kernel(&self, family: u8) -> Self {
        let v4 = |a: Option<IpAddr>| a.filter(|a| a.is_ipv4() && family == FAMILY_V4);
        let Self { src, dst, proto, sport, dport, icmp_type, icmp_code, icmp_id } = *self;
        let (src, dst) = (v4(src), v4(dst));
        let addresses = Self { src, dst, proto, ..Self::default() };
        match proto {
            Some(IPPROTO_TCP | IPPROTO_UDP) => Self { sport, dport, ..addresses },
            Some(proto @ (IPPROTO_ICMP | IPPROTO_ICMPV6)) => {
                // The kernel refuses ICMP types without a reply type, which no entry has.
                let icmp_type =
                    icmp_type.filter(|&kind| Tuple::has_inverse(proto == IPPROTO_ICMP, kind));
                Self { icmp_type, icmp_code, icmp_id, ..addresses }
            }
            _ => addresses,
        }
    }

    /// The conditions that remain when the kernel has checked `done`.
    fn without(self, done: Self) -> Self {
        fn rest<T: PartialEq + Copy>(all: Option<T>, done: Option<T>) -> Option<T> {
            if all == done { None } else { all }
        }
        Self {
            src: rest(self.src, done.src),
            dst: rest(self.dst, done.dst),
            proto: rest(self.proto, done.proto),
            sport: rest(self.sport, done.sport),
            dport: rest(self.dport, done.dport),
            icmp_type: rest(self.icmp_type, done.icmp_type),
            icmp_code: rest(self.icmp_code, done.icmp_code),
            icmp_id: rest(self.icmp_id, done.icmp_id),
        }
    }

    /// CTA_FILTER_F_ bits of what is given.
    fn flags(&self) -> u32 {
        let v6 = self.proto == Some(IPPROTO_ICMPV6);
        let icmp = |v4_flag, v6_flag| if v6 { v6_flag } else { v4_flag };
        [
            (self.src.is_some(), CTA_FILTER_F_CTA_IP_SRC),
            (self.dst.is_some(), CTA_FILTER_F_CTA_IP_DST),
            (self.proto.is_some(), CTA_FILTER_F_CTA_PROTO_NUM),
            (self.sport.is_some(), CTA_FILTER_F_CTA_PROTO_SRC_PORT),
            (self.dport.is_some(), CTA_FILTER_F_CTA_PROTO_DST_PORT),
            (
                self.icmp_type.is_some(),
                icmp(CTA_FILTER_F_CTA_PROTO_ICMP_TYPE, CTA_FILTER_F_CTA_PROTO_ICMPV6_TYPE),
            ),
            (
                self.icmp_code.is_some(),
                icmp(CTA_FILTER_F_CTA_PROTO_ICMP_CODE, CTA_FILTER_F_CTA_PROTO_ICMPV6_CODE),
            ),
            (
                self.icmp_id.is_some(),
                icmp(CTA_FILTER_F_CTA_PROTO_ICMP_ID, CTA_FILTER_F_CTA_PROTO_ICMPV6_ID),
            ),
        ]
        .into_iter()
        .filter(|&(given, _)| given)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    fn encode(&self, request: Request, kind: u16) -> Request {
        if self.is_any() {
            return request;
        }
        let [id, type_, code] = encode::icmp(self.proto.unwrap_or_default());
        request.nested(kind, |r| {
            let r = r.nested(CTA_TUPLE_IP, |mut r| {
                if let Some(src) = self.src {
                    r = encode::address(r, CTA_IP_V4_SRC, CTA_IP_V6_SRC, src);
                }
                match self.dst {
                    Some(dst) => encode::address(r, CTA_IP_V4_DST, CTA_IP_V6_DST, dst),
                    None => r,
                }
            });
            r.nested(CTA_TUPLE_PROTO, |r| {
                r.optional(CTA_PROTO_NUM, self.proto.map(u8::to_be_bytes))
                    .optional(CTA_PROTO_SRC_PORT, self.sport.map(u16::to_be_bytes))
                    .optional(CTA_PROTO_DST_PORT, self.dport.map(u16::to_be_bytes))
                    .optional(id, self.icmp_id.map(u16::to_be_bytes))
                    .optional(type_, self.icmp_type.map(u8::to_be_bytes))
                    .optional(code, self.icmp_code.map(u8::to_be_bytes))
            })
        })
    }
}

/// Whether a field is what is wanted.
fn is<T: PartialEq + Copy>(wanted: Option<T>, have: Option<T>) -> bool {
    wanted.is_none() || wanted == have
}

impl DumpRequest {
    /// Whether every entry is meant.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let Self { family, mark, status, zone, orig, reply } = self;
        family.is_none()
            && !mark.is_some_and(|filter| filter != (Mark(0), 0))
            && !status.is_some_and(|filter| filter != (0, 0))
            && zone.is_none()
            && orig.is_any()
            && reply.is_any()
    }

    /// Whether an entry matches. A value that its message lacks counts as 0 (events leave out a mark of 0); a
    /// direction that it lacks does not match.
    #[must_use]
    pub fn matches(&self, entry: &Entry<'_>) -> bool {
        let Self { family, mark, status, zone, orig, reply } = self;
        let bits = |wanted: &Option<(u32, u32)>, have| {
            wanted.is_none_or(|(value, mask)| have & mask == value)
        };
        is(*family, Some(entry.family))
            && bits(
                &mark.map(|(Mark(value), mask)| (value, mask)),
                entry.mark.unwrap_or_default().0,
            )
            && bits(status, entry.status.0)
            && is(*zone, Some(entry.zone))
            && orig.matches(&entry.orig)
            && (reply.is_any() || entry.reply.is_some_and(|tuple| reply.matches(&tuple)))
    }

    /// The conditions that a kernel with `support` does not check; [`Self::is_any`] if there are none. Dumps of this
    /// library check them.
    #[must_use]
    pub fn left_to_user_space(&self, support: FilterSupport) -> Self {
        let FilterSupport { mark, status, zone, tuple } = support;
        let [orig, reply] = if tuple { self.tuples_in_kernel() } else { Default::default() };
        Self {
            family: None,
            mark: self.mark.filter(|_| !mark),
            status: self.status.filter(|&(_, mask)| !status || mask == 0),
            zone: self.zone.filter(|_| zone != Some(true)),
            orig: self.orig.without(orig),
            reply: self.reply.without(reply),
        }
    }

    /// The family that is asked for or implied.
    fn implied_family(&self) -> Option<u8> {
        self.family.or_else(|| self.orig.family()).or_else(|| self.reply.family())
    }

    /// The conditions on tuples that the kernel can check, which it does for one family only.
    fn tuples_in_kernel(&self) -> [TupleFilter; 2] {
        match self.implied_family() {
            Some(family @ (FAMILY_V4 | FAMILY_V6)) => {
                [self.orig.in_kernel(family), self.reply.in_kernel(family)]
            }
            _ => [TupleFilter::default(); 2],
        }
    }

    /// Appends what the kernel can compare.
    pub(super) fn encode(&self, mut request: Request) -> Request {
        if let Some((Mark(value), mask)) = self.mark {
            request = request
                .attribute(CTA_MARK, &value.to_be_bytes())
                .attribute(CTA_MARK_MASK, &mask.to_be_bytes());
        }
        // The kernel answers EINVAL to a mask without bits, which compares nothing.
        if let Some((value, mask)) = self.status.filter(|&(_, mask)| mask != 0) {
            request = request
                .attribute(CTA_STATUS, &value.to_be_bytes())
                .attribute(CTA_STATUS_MASK, &mask.to_be_bytes());
        }
        request = request.optional(CTA_ZONE, self.zone.map(Zone::to_be_bytes));
        let [orig, reply] = self.tuples_in_kernel();
        if orig.is_any() && reply.is_any() {
            return request;
        }
        let given = |filter: TupleFilter| Some(filter.flags()).filter(|&flags| flags != 0);
        request = request.nested(CTA_FILTER, |r| {
            r.optional(CTA_FILTER_ORIG_FLAGS, given(orig).map(u32::to_ne_bytes))
                .optional(CTA_FILTER_REPLY_FLAGS, given(reply).map(u32::to_ne_bytes))
        });
        reply.encode(orig.encode(request, CTA_TUPLE_ORIG), CTA_TUPLE_REPLY)
    }

    /// The family for the header of a dump, 0 for all.
    pub(super) fn header_family(&self) -> u8 {
        self.implied_family().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::{Messages, netfilter};

    const ALL: FilterSupport =
        FilterSupport { mark: true, status: true, zone: Some(true), tuple: true };

    /// Types of the attributes, and flags of CTA_FILTER.
    fn encoded(request: &DumpRequest) -> (u8, Vec<u16>, Vec<u32>) {
        let message = Request::netfilter(1, 1, 0, request.header_family());
        let bytes = request.encode(message).finish(1, 1).unwrap();
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        let (family, attributes) = netfilter(message.payload).unwrap();
        let attributes: Vec<_> = attributes.map(Result::unwrap).collect();
        let flags = attributes.iter().filter(|a| a.kind == CTA_FILTER).flat_map(|filter| {
            filter.nested().map(|flags| u32::from_ne_bytes(flags.unwrap().array("flags").unwrap()))
        });
        (family, attributes.iter().map(|a| a.kind).collect(), flags.collect())
    }

    #[test]
    fn everything_is_asked_for_without_attributes() {
        let request = DumpRequest::default();
        assert!(request.is_any() && request.left_to_user_space(FilterSupport::default()).is_any());
        assert_eq!(encoded(&request), (0, vec![], vec![]));
        // The kernel refuses an empty mask of status bits, which means any.
        let request = DumpRequest { status: Some((0, 0)), mark: Some((Mark(0), 0)), ..request };
        assert!(request.is_any());
        assert_eq!(encoded(&request).1, [CTA_MARK, CTA_MARK_MASK]);
    }

    #[test]
    fn a_tuple_says_its_family_and_the_fields_to_compare() {
        let orig = TupleFilter {
            src: Some("192.0.2.1".parse().unwrap()),
            proto: Some(IPPROTO_TCP),
            dport: Some(443),
            ..TupleFilter::default()
        };
        let request = DumpRequest { orig, ..DumpRequest::default() };
        assert_eq!(encoded(&request), (2, vec![CTA_FILTER, CTA_TUPLE_ORIG], vec![0b10_1001]));
        assert!(request.left_to_user_space(ALL).is_any());
        let old = FilterSupport { tuple: false, ..ALL };
        assert_eq!(request.left_to_user_space(old), request);
    }

    #[test]
    fn what_the_kernel_compares_wrongly_is_left_to_us() {
        let v6 =
            TupleFilter { src: Some("2001:db8::1".parse().unwrap()), ..TupleFilter::default() };
        let v6 = DumpRequest { orig: v6, ..DumpRequest::default() };
        assert_eq!(encoded(&v6), (10, vec![], vec![]));
        assert_eq!(v6.left_to_user_space(ALL), v6);
        // The kernel does not compare ports of UDP-Lite, and without a family no tuple at all.
        let lite = TupleFilter { proto: Some(136), sport: Some(1), ..TupleFilter::default() };
        let both = DumpRequest { reply: lite, ..DumpRequest::default() };
        assert!(encoded(&both).1.is_empty());
        let v4 = DumpRequest { family: Some(2), ..both };
        assert_eq!(encoded(&v4), (2, vec![CTA_FILTER, CTA_TUPLE_REPLY], vec![0b1000]));
        let left = v4.left_to_user_space(ALL);
        assert_eq!(left.reply, TupleFilter { sport: Some(1), ..TupleFilter::default() });
        // The kernel would answer EINVAL to an IPv4 address among IPv6 entries.
        let v4_in_v6 = TupleFilter { src: "192.0.2.1".parse().ok(), ..TupleFilter::default() };
        let none = DumpRequest { family: Some(10), orig: v4_in_v6, ..DumpRequest::default() };
        assert!(encoded(&none).1.is_empty());
        // So would it to a type that no ICMP entry has.
        let icmp = TupleFilter { proto: Some(1), icmp_type: Some(3), ..TupleFilter::default() };
        let icmp = DumpRequest { orig: icmp, ..DumpRequest::default() };
        assert_eq!(encoded(&icmp), (2, vec![CTA_FILTER, CTA_TUPLE_ORIG], vec![0b1000]));
    }
}
