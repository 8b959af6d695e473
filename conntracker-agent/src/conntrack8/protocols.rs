//! The options of protocols, which exist after `-p`.

use conntracker_common::{
    IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP,
    IPPROTO_UDP, IPPROTO_UDPLITE,
};

use super::getopt::{Definition, Takes};
use super::options::{Id, Rule, Table, Verb};
use super::proto_opt::ProtoOpt;

use ProtoOpt::{
    IcmpCode, IcmpId, IcmpType, MaskDst, MaskSrc, OrigDst, OrigSrc, OrigVtag, ReplyDst, ReplySrc,
    ReplyVtag, Role, State, TupleDst, TupleSrc,
};

const fn option(long: &'static [&'static str], opt: ProtoOpt) -> Definition<Id> {
    Definition { short: None, long, takes: Takes::Value, id: Id::Proto(opt) }
}

const PORTS: &[Definition<Id>] = &[
    option(&["sport", "orig-port-src"], OrigSrc),
    option(&["dport", "orig-port-dst"], OrigDst),
    option(&["reply-port-src"], ReplySrc),
    option(&["reply-port-dst"], ReplyDst),
    option(&["mask-port-src"], MaskSrc),
    option(&["mask-port-dst"], MaskDst),
    option(&["tuple-port-src"], TupleSrc),
    option(&["tuple-port-dst"], TupleDst),
];

const STATE: &[Definition<Id>] = &[option(&["state"], State)];

const VTAGS: &[Definition<Id>] =
    &[option(&["orig-vtag"], OrigVtag), option(&["reply-vtag"], ReplyVtag)];

const ROLE: &[Definition<Id>] = &[option(&["role"], Role)];

const KEYS: &[Definition<Id>] = &[
    option(&["srckey", "orig-key-src"], OrigSrc),
    option(&["dstkey", "orig-key-dst"], OrigDst),
    option(&["reply-key-src"], ReplySrc),
    option(&["reply-key-dst"], ReplyDst),
    option(&["mask-key-src"], MaskSrc),
    option(&["mask-key-dst"], MaskDst),
    option(&["tuple-key-src"], TupleSrc),
    option(&["tuple-key-dst"], TupleDst),
];

const ICMP: &[Definition<Id>] = &[
    option(&["icmp-type"], IcmpType),
    option(&["icmp-code"], IcmpCode),
    option(&["icmp-id"], IcmpId),
];

const ICMPV6: &[Definition<Id>] = &[
    option(&["icmpv6-type"], IcmpType),
    option(&["icmpv6-code"], IcmpCode),
    option(&["icmpv6-id"], IcmpId),
];

/// The options of a protocol; errors use the first name of each.
#[must_use]
pub fn definitions(proto: u8) -> &'static [&'static [Definition<Id>]] {
    match proto {
        IPPROTO_TCP => &[PORTS, STATE],
        IPPROTO_UDP | IPPROTO_UDPLITE => &[PORTS],
        IPPROTO_SCTP => &[PORTS, STATE, VTAGS],
        IPPROTO_DCCP => &[PORTS, STATE, ROLE],
        IPPROTO_GRE => &[KEYS],
        IPPROTO_ICMP => &[ICMP],
        IPPROTO_ICMPV6 => &[ICMPV6],
        _ => &[],
    }
}

/// The name of a protocol's option in errors.
#[must_use]
pub fn long(proto: u8, opt: ProtoOpt) -> &'static str {
    definitions(proto)
        .iter()
        .flat_map(|some| some.iter())
        .find(|definition| definition.id == Id::Proto(opt))
        .and_then(|definition| definition.long.first())
        .copied()
        .unwrap_or("port")
}

/// The options of a protocol that a command takes.
#[must_use]
pub fn rule(proto: u8, verb: Verb, table: Table) -> Rule<ProtoOpt> {
    let expect = table == Table::Expect;
    let (needs, takes): (&'static [ProtoOpt], &'static [ProtoOpt]) = match verb {
        Verb::Create | Verb::Add if !expect => match proto {
            IPPROTO_TCP => (&[State], &[OrigSrc, OrigDst, ReplySrc, ReplyDst, TupleSrc, TupleDst]),
            IPPROTO_SCTP => (
                &[State, OrigVtag, ReplyVtag],
                &[OrigSrc, OrigDst, ReplySrc, ReplyDst, TupleSrc, TupleDst],
            ),
            IPPROTO_DCCP => {
                (&[State, Role], &[OrigSrc, OrigDst, ReplySrc, ReplyDst, TupleSrc, TupleDst])
            }
            IPPROTO_ICMP | IPPROTO_ICMPV6 => (&[IcmpType, IcmpCode], &[IcmpId]),
            _ => (&[], &[OrigSrc, OrigDst, ReplySrc, ReplyDst]),
        },
        Verb::Get if !expect => match proto {
            IPPROTO_ICMP | IPPROTO_ICMPV6 => (&[IcmpType, IcmpCode], &[IcmpId]),
            _ => (&[], &[OrigSrc, OrigDst, ReplySrc, ReplyDst, State, OrigVtag, ReplyVtag, Role]),
        },
        Verb::Update if !expect => (
            &[],
            &[
                OrigSrc, OrigDst, ReplySrc, ReplyDst, State, OrigVtag, ReplyVtag, Role, IcmpType,
                IcmpCode, IcmpId,
            ],
        ),
        Verb::List | Verb::Delete | Verb::Events if !expect => {
            (&[], &[OrigSrc, OrigDst, ReplySrc, ReplyDst, State, Role, IcmpType, IcmpCode, IcmpId])
        }
        // Commands on expectations take the same options for all protocols with ports.
        Verb::Get | Verb::Delete if !definitions(proto).is_empty() && !is_icmp(proto) => {
            (&[OrigSrc, OrigDst, ReplySrc, ReplyDst], &[])
        }
        Verb::Create if !definitions(proto).is_empty() && !is_icmp(proto) => {
            (&[OrigSrc, OrigDst, MaskSrc, MaskDst, TupleSrc, TupleDst], &[])
        }
        _ => (&[], &[]),
    };
    Rule { needs, takes }
}

fn is_icmp(proto: u8) -> bool {
    matches!(proto, IPPROTO_ICMP | IPPROTO_ICMPV6)
}
