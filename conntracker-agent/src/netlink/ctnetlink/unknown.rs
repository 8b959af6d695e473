//! Attributes that the decoders have no field for, searched only on request.
//!
//! A newer kernel may send attributes that this version does not know. An entry keeps the bytes that it was decoded
//! from, so that they can be searched later and cost nothing while entries are decoded.

#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::netlink::wire::{Attribute, Attributes};

/// Attributes inside attributes inside attributes inside attributes: `CTA_EXPECT_NAT_TUPLE` has a tuple.
const DEPTH: usize = 4;

/// What a decoder knows of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A value.
    Value,
    /// Attributes.
    Nest(KnownAttributes),
}

/// The attributes that a decoder knows at one place.
pub(super) type KnownAttributes = &'static [(u16, Shape)];

use Shape::{Nest, Value};

const TUPLE: KnownAttributes = &[
    (
        CTA_TUPLE_IP,
        Nest(&[
            (CTA_IP_V4_SRC, Value),
            (CTA_IP_V4_DST, Value),
            (CTA_IP_V6_SRC, Value),
            (CTA_IP_V6_DST, Value),
        ]),
    ),
    (
        CTA_TUPLE_PROTO,
        Nest(&[
            (CTA_PROTO_NUM, Value),
            (CTA_PROTO_SRC_PORT, Value),
            (CTA_PROTO_DST_PORT, Value),
            (CTA_PROTO_ICMP_ID, Value),
            (CTA_PROTO_ICMP_TYPE, Value),
            (CTA_PROTO_ICMP_CODE, Value),
            (CTA_PROTO_ICMPV6_ID, Value),
            (CTA_PROTO_ICMPV6_TYPE, Value),
            (CTA_PROTO_ICMPV6_CODE, Value),
        ]),
    ),
    (CTA_TUPLE_ZONE, Value),
];

const COUNTERS: KnownAttributes = &[
    (CTA_COUNTERS_PACKETS, Value),
    (CTA_COUNTERS_BYTES, Value),
    (CTA_COUNTERS32_PACKETS, Value),
    (CTA_COUNTERS32_BYTES, Value),
    (CTA_COUNTERS_PAD, Value),
];

const SEQADJ: KnownAttributes = &[
    (CTA_SEQADJ_CORRECTION_POS, Value),
    (CTA_SEQADJ_OFFSET_BEFORE, Value),
    (CTA_SEQADJ_OFFSET_AFTER, Value),
];

const PROTOINFO: KnownAttributes = &[
    (
        CTA_PROTOINFO_TCP,
        Nest(&[
            (CTA_PROTOINFO_TCP_STATE, Value),
            (CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, Value),
            (CTA_PROTOINFO_TCP_WSCALE_REPLY, Value),
            (CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, Value),
            (CTA_PROTOINFO_TCP_FLAGS_REPLY, Value),
        ]),
    ),
    (
        CTA_PROTOINFO_DCCP,
        Nest(&[
            (CTA_PROTOINFO_DCCP_STATE, Value),
            (CTA_PROTOINFO_DCCP_ROLE, Value),
            (CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, Value),
            (CTA_PROTOINFO_DCCP_PAD, Value),
        ]),
    ),
    (
        CTA_PROTOINFO_SCTP,
        Nest(&[
            (CTA_PROTOINFO_SCTP_STATE, Value),
            (CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, Value),
            (CTA_PROTOINFO_SCTP_VTAG_REPLY, Value),
        ]),
    ),
];

/// The attributes that [`super::Entry::decode`] knows. A property test checks that it counts as many unknown
/// attributes as are found here.
pub(super) const ENTRY: KnownAttributes = &[
    (CTA_TUPLE_ORIG, Nest(TUPLE)),
    (CTA_TUPLE_REPLY, Nest(TUPLE)),
    (CTA_TUPLE_MASTER, Nest(TUPLE)),
    (CTA_STATUS, Value),
    (CTA_PROTOINFO, Nest(PROTOINFO)),
    (CTA_HELP, Nest(&[(CTA_HELP_NAME, Value), (CTA_HELP_INFO, Value)])),
    (CTA_TIMEOUT, Value),
    (CTA_MARK, Value),
    (CTA_COUNTERS_ORIG, Nest(COUNTERS)),
    (CTA_COUNTERS_REPLY, Nest(COUNTERS)),
    (CTA_USE, Value),
    (CTA_ID, Value),
    (CTA_SEQ_ADJ_ORIG, Nest(SEQADJ)),
    (CTA_SEQ_ADJ_REPLY, Nest(SEQADJ)),
    (CTA_SECMARK, Value),
    (CTA_ZONE, Value),
    (CTA_SECCTX, Nest(&[(CTA_SECCTX_NAME, Value)])),
    (
        CTA_TIMESTAMP,
        Nest(&[
            (CTA_TIMESTAMP_START, Value),
            (CTA_TIMESTAMP_STOP, Value),
            (CTA_TIMESTAMP_PAD, Value),
        ]),
    ),
    (CTA_LABELS, Value),
    (
        CTA_SYNPROXY,
        Nest(&[(CTA_SYNPROXY_ISN, Value), (CTA_SYNPROXY_ITS, Value), (CTA_SYNPROXY_TSOFF, Value)]),
    ),
    (CTA_TIMESTAMP_EVENT, Value),
];

/// What [`super::Expectation::decode`] knows.
pub(super) const EXPECTATION: KnownAttributes = &[
    (CTA_EXPECT_MASTER, Nest(TUPLE)),
    (CTA_EXPECT_TUPLE, Nest(TUPLE)),
    (CTA_EXPECT_MASK, Nest(TUPLE)),
    (CTA_EXPECT_TIMEOUT, Value),
    (CTA_EXPECT_ID, Value),
    (CTA_EXPECT_HELP_NAME, Value),
    (CTA_EXPECT_ZONE, Value),
    (CTA_EXPECT_FLAGS, Value),
    (CTA_EXPECT_CLASS, Value),
    (CTA_EXPECT_NAT, Nest(&[(CTA_EXPECT_NAT_DIR, Value), (CTA_EXPECT_NAT_TUPLE, Nest(TUPLE))])),
    (CTA_EXPECT_FN, Value),
];

/// An attribute without a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownAttribute<'a> {
    /// Types of the attributes that it lies in, outermost first.
    pub within: [Option<u16>; DEPTH - 1],
    /// Its own type, without flag bits. Its name depends on the attributes around it
    /// (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
    pub kind: u16,
    /// What it holds, as the kernel sent it: numbers of netfilter are in network byte order.
    pub payload: &'a [u8],
}

/// An attribute without a field, of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedAttribute {
    /// Types of the attributes that it lies in, outermost first.
    pub within: [Option<u16>; DEPTH - 1],
    /// Its own type.
    pub kind: u16,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl From<UnknownAttribute<'_>> for OwnedAttribute {
    fn from(attribute: UnknownAttribute<'_>) -> Self {
        let UnknownAttribute { within, kind, payload } = attribute;
        Self { within, kind, payload: payload.to_vec() }
    }
}

/// The attributes without a field in a message that was decoded before.
#[derive(Clone, Debug)]
pub struct UnknownAttributes<'a> {
    /// The attributes that are being read, outermost first, and those that the decoder knows at each level.
    levels: [(Attributes<'a>, KnownAttributes); DEPTH],
    within: [Option<u16>; DEPTH - 1],
    level: usize,
}

impl<'a> UnknownAttributes<'a> {
    /// Those among `attributes` that are not `known`.
    pub(super) fn new(attributes: &'a [u8], known: KnownAttributes) -> Self {
        let nothing = || (Attributes::new(&[]), &[] as KnownAttributes);
        let levels = [(Attributes::new(attributes), known), nothing(), nothing(), nothing()];
        Self { levels, within: [None; DEPTH - 1], level: 0 }
    }

    /// The next attribute at the level that is being read, and the decoder's knowledge of it.
    fn step(&mut self) -> Option<(Attribute<'a>, Option<Shape>)> {
        let (attributes, known) = self.levels.get_mut(self.level)?;
        // The decoder has read the bytes to their end, so they are well-formed.
        let attribute = attributes.next()?.ok()?;
        let shape = known.iter().find(|(kind, _)| *kind == attribute.kind).map(|(_, shape)| *shape);
        Some((attribute, shape))
    }
}

impl<'a> Iterator for UnknownAttributes<'a> {
    type Item = UnknownAttribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Some((_, Some(Value))) => {}
                Some((attribute, Some(Nest(known)))) => {
                    if let Some(within) = self.within.get_mut(self.level) {
                        *within = Some(attribute.kind);
                    }
                    self.level += 1;
                    if let Some(level) = self.levels.get_mut(self.level) {
                        *level = (attribute.nested(), known);
                    }
                }
                Some((Attribute { kind, payload }, None)) => {
                    return Some(UnknownAttribute { within: self.within, kind, payload });
                }
                None => {
                    self.level = self.level.checked_sub(1)?;
                    if let Some(within) = self.within.get_mut(self.level) {
                        *within = None;
                    }
                }
            }
        }
    }
}
