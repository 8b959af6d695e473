//! Names of entries and expectations, and new ones, from arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntracker_common::record::FAMILY_V6;
use conntracker_common::{IPPROTO_DCCP, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP};

use super::Rejection;
use super::arguments::Arguments;
use super::edit::{edit, has_ends, narrow};
use super::options::Opt;
use super::proto_opt::ProtoOpt;
use super::values::Translated;
use crate::conntrack::{
    Change, EntryKey, EntryZone, ExpectKey, MarkChange, NatRange, NewEntry, NewExpectation,
    ProtoChange,
};
use crate::model::{L4, Mark, Status, Tuple, Zone};

/// The name of an entry.
pub(super) fn key(a: &Arguments) -> Result<EntryKey, Rejection> {
    let (orig, reply) = directions(a)?;
    let by_orig = a.has(Opt::Src);
    Ok(if by_orig { EntryKey::orig(orig) } else { EntryKey::reply(reply) })
}

/// Both directions. Missing parts of one follow from the other.
fn directions(a: &Arguments) -> Result<(Tuple, Tuple), Rejection> {
    let invalid = || Rejection::failure("Operation failed: invalid parameters");
    let proto = a.proto.ok_or_else(invalid)?;
    let [src, dst] = a.orig.map(|masked| masked.map(|masked| masked.address));
    let [reply_src, reply_dst] = a.reply;
    let ends = |opts: [ProtoOpt; 2]| opts.map(|opt| a.of(opt).and_then(narrow::<u16>));
    let [sport, dport] = ends([ProtoOpt::OrigSrc, ProtoOpt::OrigDst]);
    let [reply_sport, reply_dport] = ends([ProtoOpt::ReplySrc, ProtoOpt::ReplyDst]);
    let tuple = |[src, dst]: [Option<IpAddr>; 2], l4| match (src, dst) {
        (Some(src), Some(dst)) => Ok(Tuple { src, dst, proto, l4 }),
        _ => Err(invalid()),
    };
    let l4 = |src: Option<u16>, dst: Option<u16>| {
        let (src, dst) = (src.unwrap_or(0), dst.unwrap_or(0));
        match proto {
            IPPROTO_GRE => L4::Gre { src, dst },
            _ if has_ends(proto) => L4::Ports { src, dst },
            IPPROTO_ICMP | IPPROTO_ICMPV6 => {
                let byte = |opt| a.of(opt).and_then(narrow).unwrap_or(0);
                let id = a.of(ProtoOpt::IcmpId).and_then(narrow).unwrap_or(0);
                L4::Icmp { kind: byte(ProtoOpt::IcmpType), code: byte(ProtoOpt::IcmpCode), id }
            }
            _ => L4::None,
        }
    };
    let orig = tuple(
        [src.or(reply_dst), dst.or(reply_src)],
        l4(sport.or(reply_dport), dport.or(reply_sport)),
    )?;
    let reply = tuple(
        [reply_src.or(dst), reply_dst.or(src)],
        l4(reply_sport.or(dport), reply_dport.or(sport)),
    )?;
    match orig.l4 {
        // The ICMP types of both directions answer each other; the given one belongs to the given direction.
        L4::Icmp { .. } if src.is_some() => {
            let l4 = orig.inverted().ok_or_else(invalid)?.l4;
            Ok((orig, Tuple { l4, ..reply }))
        }
        L4::Icmp { .. } => {
            let l4 = reply.inverted().ok_or_else(invalid)?.l4;
            Ok((Tuple { l4, ..orig }, reply))
        }
        _ => Ok((orig, reply)),
    }
}

/// A new entry.
pub(super) fn new_entry(a: &Arguments) -> Result<NewEntry, Rejection> {
    let invalid = || Rejection::failure("Operation failed: invalid parameters");
    let (orig, reply) = directions(a)?;
    let zone = match a.zones {
        [None, None, None] => EntryZone::default(),
        [Some(zone), None, None] => EntryZone::Both(zone),
        [None, Some(zone), None] => EntryZone::Orig(zone),
        [None, None, Some(zone)] => EntryZone::Reply(zone),
        _ => return Err(invalid()),
    };
    let [nat_src, nat_dst, _] = a.nat.map(|nat| nat.flatten().map(range));
    let status = a.status.map(|status| Status(status.value));
    let edit = edit(a)?;
    let mut state = None;
    if let Some((proto, number)) = edit.state {
        state = Some(match proto {
            IPPROTO_SCTP => {
                ProtoChange::Sctp { state: number, vtag: edit.vtags.map(Option::unwrap_or_default) }
            }
            IPPROTO_DCCP => ProtoChange::Dccp {
                state: number,
                role: edit.role.unwrap_or_default(),
                handshake_seq: None,
            },
            _ => liberal_tcp(number),
        });
    }
    Ok(NewEntry {
        orig,
        reply,
        zone,
        timeout: a.timeout.unwrap_or_default(),
        nat_src,
        nat_dst,
        master: None,
        with: Change {
            status,
            mark: a.mark.map(|mark| MarkChange::to(Mark(mark.value))),
            labels: edit.labels,
            helper: a.helper.clone(),
            state,
            ..Change::default()
        },
    })
}

/// A state of TCP that was set and not reached by packets: the tracker has no window to check packets against, so it
/// must be liberal (IP_CT_TCP_FLAG_ bits of nf_conntrack_tcp.h).
pub(super) fn liberal_tcp(state: u8) -> ProtoChange {
    const SACK_PERM: u8 = 0x02;
    const CLOSE_INIT: u8 = 0x04;
    const BE_LIBERAL: u8 = 0x08;
    const TIME_WAIT: u8 = 7;
    let closed = if state >= TIME_WAIT { CLOSE_INIT } else { 0 };
    let flags = SACK_PERM | BE_LIBERAL | closed;
    ProtoChange::Tcp { state: Some(state), wscale: None, flags: [Some((flags, flags)); 2] }
}

fn range(to: Translated) -> NatRange {
    NatRange { addresses: Some((to.address, to.address)), ports: to.port.map(|port| (port, port)) }
}

/// The name of an expectation.
pub(super) fn expect_key(a: &Arguments) -> Result<ExpectKey, Rejection> {
    let (tuple, _) = directions(a)?;
    Ok(ExpectKey { tuple, zone: Zone::DEFAULT, id: None })
}

/// A new expectation.
pub(super) fn new_expectation(a: &Arguments) -> Result<NewExpectation, Rejection> {
    let invalid = || Rejection::failure("Operation failed: invalid parameters");
    let (master, _) = directions(a)?;
    let none: IpAddr = match a.family {
        Some(FAMILY_V6) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let [src, dst] = a.tuple.map(|masked| masked.map(|masked| masked.address));
    let ends = |opts: [ProtoOpt; 2]| {
        let [src, dst] = opts.map(|opt| a.of(opt).and_then(narrow).unwrap_or(0));
        match master.l4 {
            L4::Gre { .. } => L4::Gre { src, dst },
            L4::Ports { .. } => L4::Ports { src, dst },
            other => other,
        }
    };
    let proto = master.proto;
    Ok(NewExpectation {
        master,
        zone: Zone::DEFAULT,
        tuple: Tuple {
            src: src.ok_or_else(invalid)?,
            dst: dst.ok_or_else(invalid)?,
            proto,
            l4: ends([ProtoOpt::TupleSrc, ProtoOpt::TupleDst]),
        },
        mask: Tuple {
            src: a.masks[0].unwrap_or(none),
            dst: a.masks[1].unwrap_or(none),
            proto,
            l4: ends([ProtoOpt::MaskSrc, ProtoOpt::MaskDst]),
        },
        timeout: a.timeout,
        flags: 0,
        class: None,
        helper: None,
        function: None,
        nat: None,
    })
}
