//! Attributes of requests: the counterpart of [`super::decode`].

use std::net::IpAddr;

use conntracker_common::IPPROTO_ICMPV6;
use conntracker_common::record::{FAMILY_V4, FAMILY_V6};

use super::change::{Change, EntryKey, EntryZone, LabelChange, NatRange, NewEntry, ProtoChange};
use super::decode::{SeqAdj, SynProxy};
#[allow(clippy::wildcard_imports, reason = "the names of a C header, all prefixed")]
use super::uapi::*;
use crate::model::{L4, Status, Tuple, Zone};
use crate::netlink::request::Request;

/// AF_INET or AF_INET6.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }
}

/// An attribute with an address, under the number of its family.
pub(super) fn address(request: Request, v4: u16, v6: u16, address: IpAddr) -> Request {
    match address {
        IpAddr::V4(address) => request.attribute(v4, &address.octets()),
        IpAddr::V6(address) => request.attribute(v6, &address.octets()),
    }
}

/// A tuple as attribute `kind`, and its zone.
pub(super) fn tuple(request: Request, kind: u16, tuple: &Tuple, zone: Option<Zone>) -> Request {
    request.nested(kind, |r| {
        let Tuple { src, dst, proto, l4 } = *tuple;
        let r = r.nested(CTA_TUPLE_IP, |r| {
            let r = address(r, CTA_IP_V4_SRC, CTA_IP_V6_SRC, src);
            address(r, CTA_IP_V4_DST, CTA_IP_V6_DST, dst)
        });
        r.nested(CTA_TUPLE_PROTO, |r| protocol(r.attribute(CTA_PROTO_NUM, &[proto]), proto, l4))
            .optional(CTA_TUPLE_ZONE, zone.map(Zone::to_be_bytes))
    })
}

/// Ports or their like.
fn protocol(request: Request, proto: u8, l4: L4) -> Request {
    match l4 {
        L4::Ports { src, dst } | L4::Gre { src, dst } => request
            .attribute(CTA_PROTO_SRC_PORT, &src.to_be_bytes())
            .attribute(CTA_PROTO_DST_PORT, &dst.to_be_bytes()),
        L4::Icmp { kind, code, id } => {
            let [id_of, kind_of, code_of] = icmp(proto);
            request
                .attribute(id_of, &id.to_be_bytes())
                .attribute(kind_of, &[kind])
                .attribute(code_of, &[code])
        }
        L4::None => request,
    }
}

/// Numbers of the attributes for identifier, type and code.
pub(super) fn icmp(proto: u8) -> [u16; 3] {
    if proto == IPPROTO_ICMPV6 {
        [CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE]
    } else {
        [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
    }
}

/// The key of an entry. The kernel compares the identifier in DELETE requests only.
pub(super) fn key(request: Request, key: &EntryKey) -> Request {
    let EntryKey { tuple: of, reply, zone, id } = key;
    let kind = if *reply { CTA_TUPLE_REPLY } else { CTA_TUPLE_ORIG };
    tuple(request, kind, of, None)
        .optional(
            CTA_ZONE,
            Some(*zone).filter(|&zone| zone != Zone::DEFAULT).map(Zone::to_be_bytes),
        )
        .optional(CTA_ID, id.map(u32::to_be_bytes))
}

/// A new entry.
pub(super) fn new_entry(request: Request, entry: &NewEntry) -> Request {
    let NewEntry { orig, reply, zone, timeout, nat_src, nat_dst, master, with } = entry;
    let (both, of_orig, of_reply) = match *zone {
        EntryZone::Both(Zone::DEFAULT) => (None, None, None),
        EntryZone::Both(zone) => (Some(zone), None, None),
        EntryZone::Orig(zone) => (None, Some(zone), None),
        EntryZone::Reply(zone) => (None, None, Some(zone)),
    };
    let mut request = tuple(request, CTA_TUPLE_ORIG, orig, of_orig);
    request = tuple(request, CTA_TUPLE_REPLY, reply, of_reply)
        .optional(CTA_ZONE, both.map(Zone::to_be_bytes));
    if with.timeout.is_none() {
        request = request.attribute(CTA_TIMEOUT, &timeout.to_be_bytes());
    }
    for (kind, range) in [(CTA_NAT_SRC, nat_src), (CTA_NAT_DST, nat_dst)] {
        if let Some(range) = range {
            request = nat(request, kind, range);
        }
    }
    if let Some(master) = master {
        request = tuple(request, CTA_TUPLE_MASTER, master, None);
    }
    change(request, with)
}

fn nat(request: Request, kind: u16, range: &NatRange) -> Request {
    request.nested(kind, |mut r| {
        if let Some((lowest, highest)) = range.addresses {
            r = address(r, CTA_NAT_V4_MINIP, CTA_NAT_V6_MINIP, lowest);
            r = address(r, CTA_NAT_V4_MAXIP, CTA_NAT_V6_MAXIP, highest);
        }
        match range.ports {
            Some((lowest, highest)) => r.nested(CTA_NAT_PROTO, |r| {
                r.attribute(CTA_PROTONAT_PORT_MIN, &lowest.to_be_bytes())
                    .attribute(CTA_PROTONAT_PORT_MAX, &highest.to_be_bytes())
            }),
            None => r,
        }
    })
}

/// What changes of an entry.
pub(super) fn change(mut request: Request, change: &Change) -> Request {
    let Change { timeout, status, mark, labels, helper, helper_info, state, seqadj, synproxy } =
        change;
    request = request
        .optional(CTA_TIMEOUT, timeout.map(u32::to_be_bytes))
        // Every entry of the table is confirmed, and the kernel refuses to clear that bit.
        .optional(CTA_STATUS, status.map(|s| s.union(Status::CONFIRMED).0.to_be_bytes()))
        .optional(CTA_MARK, mark.map(|mark| mark.value.to_be_bytes()));
    if let Some(mask) = mark.map(|mark| mark.mask).filter(|&mask| mask != u32::MAX) {
        request = request.attribute(CTA_MARK_MASK, &mask.to_be_bytes());
    }
    if let Some(LabelChange { value, mask }) = *labels {
        // The kernel would flip bits outside the mask.
        request = request
            .attribute(CTA_LABELS, &label_bitmap(value & mask))
            .attribute(CTA_LABELS_MASK, &label_bitmap(mask));
    }
    if let Some(helper) = helper {
        request = request.nested(CTA_HELP, |r| match helper_info {
            Some(info) => r.text(CTA_HELP_NAME, helper).attribute(CTA_HELP_INFO, info),
            None => r.text(CTA_HELP_NAME, helper),
        });
    }
    if let Some(state) = state {
        request = request.nested(CTA_PROTOINFO, |r| protoinfo(r, state));
    }
    for (kind, seqadj) in [CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY].into_iter().zip(seqadj) {
        if let Some(SeqAdj { correction_pos, offset_before, offset_after }) = seqadj {
            request = request.nested(kind, |r| {
                r.attribute(CTA_SEQADJ_CORRECTION_POS, &correction_pos.to_be_bytes())
                    .attribute(CTA_SEQADJ_OFFSET_BEFORE, &offset_before.to_be_bytes())
                    .attribute(CTA_SEQADJ_OFFSET_AFTER, &offset_after.to_be_bytes())
            });
        }
    }
    if let Some(SynProxy { isn, its, tsoff }) = synproxy {
        request = request.nested(CTA_SYNPROXY, |r| {
            r.attribute(CTA_SYNPROXY_ISN, &isn.to_be_bytes())
                .attribute(CTA_SYNPROXY_ITS, &its.to_be_bytes())
                .attribute(CTA_SYNPROXY_TSOFF, &tsoff.to_be_bytes())
        });
    }
    request
}

/// Labels as kernel memory has them: machine words, the lowest label in the first one.
fn label_bitmap(labels: u128) -> [u8; 16] {
    let mut bitmap = labels.to_le_bytes();
    if cfg!(target_endian = "big") {
        for word in bitmap.chunks_mut(size_of::<usize>()) {
            word.reverse();
        }
    }
    bitmap
}

fn protoinfo(request: Request, state: &ProtoChange) -> Request {
    match *state {
        ProtoChange::Tcp { state, wscale, flags } => request.nested(CTA_PROTOINFO_TCP, |r| {
            let [orig, reply] = flags.map(|flags| flags.map(|(flags, mask)| [flags, mask]));
            r.optional(CTA_PROTOINFO_TCP_STATE, state.map(u8::to_be_bytes))
                .optional(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, wscale.map(|[orig, _]| [orig]))
                .optional(CTA_PROTOINFO_TCP_WSCALE_REPLY, wscale.map(|[_, reply]| [reply]))
                .optional(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, orig)
                .optional(CTA_PROTOINFO_TCP_FLAGS_REPLY, reply)
        }),
        ProtoChange::Sctp { state, vtag: [orig, reply] } => {
            request.nested(CTA_PROTOINFO_SCTP, |r| {
                r.attribute(CTA_PROTOINFO_SCTP_STATE, &[state])
                    .attribute(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, &orig.to_be_bytes())
                    .attribute(CTA_PROTOINFO_SCTP_VTAG_REPLY, &reply.to_be_bytes())
            })
        }
        ProtoChange::Dccp { state, role, handshake_seq } => {
            request.nested(CTA_PROTOINFO_DCCP, |r| {
                r.attribute(CTA_PROTOINFO_DCCP_STATE, &[state])
                    .attribute(CTA_PROTOINFO_DCCP_ROLE, &[role])
                    .optional(CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, handshake_seq.map(u64::to_be_bytes))
            })
        }
    }
}
